/*
 * map.h - guest offset to host offset, and changing it.
 *
 * `l1` says which tree: &img->active for the disk (offsets 0..size), &img->vmstate for the VM
 * state being saved (offsets from its own start), or those of a snapshot (pins.h).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef META_MAP_H
#define META_MAP_H

#include "meta/refs.h"

/* A guest range of one kind whose clusters, if any, are contiguous on the host. */
struct mapping {
        enum cluster_kind kind;
        bool copied;                    /* NORMAL, ZERO_ALLOCATED: may be written in place, as
                                         * far as the table itself may */
        uint64_t entry;                 /* of the first cluster */
        uint64_t host_offset;           /* of the first byte asked for (not of its cluster);
                                         * NORMAL and ZERO_ALLOCATED only */
        uint64_t length_bytes;          /* from the byte asked for; at least 1 */
};

/*
 * From memory: 0; -EAGAIN if an L2 slice is not resident; -EIO (corruption
 * reported) for entries that cannot be.  A run ends at max_bytes, at a
 * slice's end, or where kind, copied or contiguity change.  COMPRESSED runs are one
 * cluster.  Offsets beyond the L1 are UNALLOCATED.
 */
int map_lookup_cached(struct image *img, struct l1_table *l1, uint64_t guest_offset,
                      uint64_t max_bytes, struct mapping *ret);

struct map_lookup {
        struct co co;
        struct slice_load load;
        struct slice *slice;
        uint64_t offset;
        int found;
};

/* Coroutine: the same, loading what it needs.  ret is filled at the very end, so
 * no wait lies between it and the caller's next line. */
int map_lookup(struct map_lookup *s, struct image *img, struct l1_table *l1,
               uint64_t guest_offset, uint64_t max_bytes, struct mapping *ret);

/* An L2 table that its maker will link; one at a time for an entry of an L1. */
struct new_table {
        GList link;
        const struct l1_table *l1;
        uint32_t index;
        struct waitq made;
};

struct map_prepare {
        struct co co;
        struct { struct co co; } add;
        struct new_table table;
        struct new_table *other;        /* only compared by its queue while waiter is queued */
        struct waiter waiter;
        struct clusters_alloc alloc;
        struct clusters_free free;
        struct slice_load load;
        struct io io;
        struct slices_read read;
        uint8_t *buffer;
        uint64_t old_offset;
        uint64_t new_offset;
        uint64_t slice_offset;
};

/*
 * Coroutine: makes sure that the L2 table for guest_offset exists and is private to l1 (allocated
 * or copied, written, linked into l1 in memory), loads the slice with the entry
 * and pins it.  The caller holds a range lock on the guest cluster and is inside the gate.
 * Then entries are read and set with map_entry and map_set; slice_unpin when done.
 */
int map_prepare(struct map_prepare *s, struct image *img, struct l1_table *l1,
                uint64_t guest_offset, struct slice **ret_slice);

/* Index of guest_offset's entry in its slice, and how many entries follow it there
 * (itself included). */
uint64_t map_index(const struct image *img, uint64_t guest_offset);
uint64_t map_entries_left(const struct image *img, uint64_t guest_offset);

static inline uint64_t map_entry(const struct slice *slice, uint64_t index)
{
        return be64_load(slice->bytes + index * 8);
}

/* What mapping one entry stands for; length_bytes is one cluster.  host_offset: cluster's. */
int map_decode(struct image *img, uint64_t entry, uint64_t guest_offset, struct mapping *ret);

/*
 * References that a new cluster or table mapped at guest_offset is going to have, and an old one
 * there loses: one, or two where a snapshot being prepared has been counted already.  Stays as it
 * is as long as the caller holds a range lock there, or img->control.
 */
unsigned map_weight(const struct image *img, const struct l1_table *l1, uint64_t guest_offset);

/* -EIO, corruption reported: the table is no longer one, because a damaged image counts its cluster
 * as free.  To be asked after a wait with the slice pinned, before map_set. */
int map_check_slice(struct image *img, const struct slice *slice);

/* Replaces an entry in memory; the old one's clusters are counted down by weight after the
 * next commit, unless keep_cluster (the new entry uses the same host cluster).
 * The slice must be pinned and of a private table. */
void map_set(struct image *img, struct slice *slice, uint64_t index, uint64_t entry,
             unsigned weight, bool keep_cluster);

/* Clusters that an entry references, for counting. */
struct cluster_run {
        uint64_t cluster_index;
        uint64_t cluster_count;         /* 0: none */
};
struct cluster_run map_entry_clusters(const struct image *img, uint64_t entry);

#endif
