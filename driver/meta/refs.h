/*
 * refs.h - refcounts and the allocation of host clusters.
 *
 * Counts in memory err high (image.h, invariant 1).  Allocation is next-free by
 * refs.free_hint; runs are contiguous.  Coroutines that change counts may load
 * slices and may add refcount blocks or grow the table on the way.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef META_REFS_H
#define META_REFS_H

#include "meta/image.h"

struct refs_io {
        struct co co;
        struct io io;
        uint8_t *buffer;
        uint64_t byte_count;
};

/* Coroutine: reads and validates the refcount table; prepares the cache. */
int refs_open(struct refs_io *s, struct image *img, struct hvb_error *err);
void refs_clear(struct refs *refs);

/* Where free clusters are is found out anew. */
void refs_forget_free(struct image *img);
/* Best effort: a block's counts were seen, and none of them is 0. */
void refs_note_full(struct image *img, uint64_t block);
bool refs_is_full(const struct image *img, uint64_t block);

/* Counts in a slice of a refcount block. */
uint64_t refs_slice_counts(const struct image *img);
/* Host offset of the slice with a cluster's count; 0 if no refcount block covers it.
 * -EIO (corruption reported) if the table's entry is none. */
int refs_slice_offset(struct image *img, uint64_t cluster_index, uint64_t *ret_offset);

struct refs_bring {
        struct co co;
        struct slice_load load;
        struct slice *slice;
        uint64_t offset;
};

/* Coroutine: makes the slice with a cluster's count resident (not pinned: use it at once). */
int refs_bring(struct refs_bring *s, struct image *img, uint64_t cluster_index);

struct refs_get {
        struct co co;
        struct refs_bring bring;
        int ret;
};

/* Coroutine: the count of one host cluster; 0 beyond the table. */
int refs_get(struct refs_get *s, struct image *img, uint64_t cluster_index, uint64_t *ret_count);

/* The same from memory alone: -EAGAIN if the slice is not resident. */
int refs_get_cached(struct image *img, uint64_t cluster_index, uint64_t *ret_count);

struct refs_add {
        struct co co;
        struct refs_bring bring;
        uint64_t done;
        int why;
        int first_error;
};

/*
 * Coroutine: adds delta (+1, -1) to counts of [cluster_index, + cluster_count), which must have
 * refcount blocks.  -EINVAL: a count would exceed the width.  -EIO (corruption reported): a
 * count was 0, or no refcount block covers it.  +1 is all or nothing; -1 does what it can and
 * then fails.  Clusters that reach 0 are free at once.
 */
int refs_add(struct refs_add *s, struct image *img, uint64_t cluster_index,
             uint64_t cluster_count, int delta);

/*
 * The same from memory alone, as far as it goes: changes counts in order and
 * returns how many clusters were changed; fewer than asked when a slice is not resident (*ret_why
 * -EAGAIN) or a count refuses (-EINVAL, -EIO as above).  For walks.
 */
uint64_t refs_add_cached(struct image *img, uint64_t cluster_index, uint64_t cluster_count,
                         int delta, int *ret_why);

struct refs_bring_more {
        struct co co;
        struct refs_bring bring;
        struct io io;
        struct slices_watch watch;
        uint8_t *buffer;
        uint64_t offset;
        uint64_t byte_count;
};

/* Coroutine: refs_bring, and with it what a walk or a search is going to ask for next. */
int refs_bring_more(struct refs_bring_more *s, struct image *img, uint64_t cluster_index);

struct refs_prefetch {
        struct co co;
        struct io io[8];
        uint8_t *buffers[8];
        struct slices_watch watches[8];
        uint64_t blocks[8];
        uint64_t next_block;
        uint64_t most;                  /* blocks that are read */
        unsigned begun;
        unsigned ended;
};

/* Coroutine: reads all refcount blocks in file order, many in flight.  They stay as far as the
 * cache's limit allows without evicting; of the others it is noted which have no free cluster, so
 * that nobody has to search them.  Best effort: only -ENOMEM, -EIO, -ECANCELED. */
int refs_prefetch(struct refs_prefetch *s, struct image *img);

/* Adding one refcount block, or a larger table. */
struct refs_grow_step {
        struct co co;
        struct io io;
        struct root_switch root;
        struct root_change change;
        uint8_t *buffer;
        uint64_t *new_table;
        uint64_t *new_dirty;
        uint64_t new_entries;
        uint64_t first_cluster;
        uint64_t block_count;
        uint64_t total_clusters;        /* blocks, and the table if that grows */
        uint64_t old_offset;
        uint64_t old_bytes;
        uint64_t i;
};

struct refs_grow {
        struct co co;
        struct waiter waiter;
        struct refs_grow_step step;
};

/*
 * Coroutine: afterwards a refcount block counts cluster_index.  If there was none, as many are
 * added in a row as a free run of run_count clusters needs (fewer if others lie in the way).
 */
int refs_grow(struct refs_grow *s, struct image *img, uint64_t cluster_index,
              uint64_t run_count);

struct clusters_alloc {
        struct co co;
        struct { struct co co; } run;
        struct refs_bring_more bring;
        struct refs_grow grow;
        struct waiter waiter;
        uint64_t scan;                  /* cluster index being looked at */
        uint64_t run_count;             /* free clusters just below it */
        uint64_t found_count;
        unsigned searches;              /* loads of counts that this one has waited for */
        bool at_end;                    /* scan is where the file ends */
        bool end_is_used;
        bool growing;
        int why;
};

/*
 * Coroutine: allocates exactly cluster_count contiguous clusters, *ret_host_offset, with weight
 * counts each, in memory: as many references as they are going to have, see map_weight.
 * -ENOSPC: host offsets exhausted.  Give back with clusters_free.
 */
int clusters_alloc(struct clusters_alloc *s, struct image *img, uint64_t cluster_count,
                   unsigned weight, uint64_t *ret_host_offset);

/*
 * Coroutine: allocates 1..max_count contiguous clusters, as many as lie free in a row; prefers to
 * begin at want_host_offset (0: anywhere) so that neighbours stay neighbours.  Where a free one has
 * to be searched for long, in counts that are not in memory, the file grows instead.
 */
int clusters_alloc_run(struct clusters_alloc *s, struct image *img, uint64_t max_count,
                       unsigned weight, uint64_t want_host_offset, uint64_t *ret_host_offset,
                       uint64_t *ret_count);

/* clusters_alloc_run from memory alone; -EAGAIN: use the coroutine. */
int clusters_alloc_cached(struct image *img, uint64_t max_count, unsigned weight,
                          uint64_t want_host_offset, uint64_t *ret_host_offset,
                          uint64_t *ret_count);

/*
 * Was the run that the last allocation returned never written, so that it reads as
 * zeros?  Only valid in the step in which the allocating call returned 0.
 */
bool clusters_take_fresh(struct image *img, uint64_t host_offset, uint64_t byte_count);

struct clusters_free {
        struct co co;
        struct refs_add add;
        unsigned left;
};

/* Coroutine: counts down now, by weight.  For clusters never referenced from disk, or whose
 * references are durably gone.  byte_count is rounded up to clusters. */
int clusters_free(struct clusters_free *s, struct image *img, uint64_t host_offset,
                  uint64_t byte_count, unsigned weight);

/* Counts down by weight after the next commit: the references were just removed in memory. */
void clusters_free_later(struct image *img, uint64_t host_offset, uint64_t byte_count,
                         unsigned weight);

/* End of the last cluster in use, as far as counts say; bytes.  Coroutine. */
struct refs_end {
        struct co co;
        struct slice_load load;
        struct slice *slice;
        uint64_t cluster;
        uint64_t offset;
};
int refs_end(struct refs_end *s, struct image *img, uint64_t *ret_end_bytes);

#endif
