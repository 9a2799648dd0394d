/*
 * image.h - one file of a chain, in memory.
 *
 * What may be trusted when:
 *
 *   state      header  tables  writes           how it is left
 *   OPENING    being read              none             -> LIVE, or release
 *   LIVE       yes     yes     if writable      image_poison -> POISONED, close -> CLOSED
 *   POISONED   yes     yes     refused (-EIO)   close -> CLOSED (nothing more is written)
 *   INACTIVE   no      no      refused          activate -> LIVE
 *   CLOSED     no      no      refused          release
 *
 * Invariants (shared/"What must hold on disk" gives the reasons):
 *  1. A count in memory is never below the number of references on disk: counts go
 *     up when a cluster is allocated, and down only after the reference is gone from
 *     the file and that is durable.  So a refcount slice may be written at any time.
 *  2. An L2 or L1 entry reaches the file only after the counts it relies on, and the
 *     data it points to, are durable (commit.h).
 *  3. header fields change on disk only through root_switch.
 *  4. Guest writes and everything that changes the mapping happen inside the gate
 *     `writes`; who closes the gate sees no change and no write in flight.
 *  5. A cluster given back is reused only after every I/O that could still touch it
 *     has completed (grace).
 *  6. Two operations that change the mapping of one guest cluster exclude each other
 *     (range locks).  Who walks the active tree holds an L2 table's whole range.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef META_IMAGE_H
#define META_IMAGE_H

#include "async/buffers.h"
#include "async/io.h"
#include "disk/header.h"
#include "disk/snapshot-table.h"
#include "hv-block.h"
#include "meta/slices.h"

enum image_state { IMAGE_OPENING, IMAGE_LIVE, IMAGE_POISONED, IMAGE_INACTIVE, IMAGE_CLOSED };

/* An L1 table in memory, entries in host order.  offset 0: it has no home on disk. */
struct l1_table {
        uint64_t *entries;              /* owned; NULL when count is 0 */
        uint32_t count;
        uint64_t offset;
        bool is_snapshot_disk;          /* what it does not map shows the backing file */
        /* One bit a 512-byte sector of the table: to be written by the next commit. */
        uint64_t *dirty_sectors;        /* owned; NULL without a home */
        bool any_dirty;
};

/* Clusters whose reference is gone in memory: counted down after the next commit. */
struct pending_free {
        uint64_t cluster_index;
        uint64_t cluster_count;
        unsigned weight;                /* references that each of them loses */
};

struct refs {
        uint64_t *table;                /* host order; offset of each refcount block or 0 */
        uint64_t table_entries;
        uint64_t *dirty_sectors;        /* as in l1_table */
        bool any_dirty;
        struct slice_cache cache;
        uint64_t free_hint;             /* no cluster below is free */
        bool is_searched;               /* the counts there are being loaded */
        struct waitq searched;
        uint64_t *full_blocks;          /* owned; a bit a refcount block known to have no 0 */
        uint64_t full_words;            /* of it: what lies behind is not known */
        uint64_t fresh_offset;          /* from here on the file was never written: reads as zeros;
                                         * UINT64_MAX where that cannot be known */
        uint64_t fresh_before;          /* fresh_offset before the last allocation */
        struct co_lock grow_lock;       /* refcount blocks and table are being added */
        GArray *frees;                  /* of struct pending_free, for the next commit */
};

/* Two generations of I/O in flight on guest data. */
struct grace {
        unsigned generation;
        unsigned in_flight[2];
        bool late_writes;               /* some may land in a cluster zeroed in place meanwhile */
        struct waitq drained;
        struct waitq left;              /* wait for any I/O to end */
};

/* A guest range being remapped; in the frame of whoever does it. */
struct range_lock {
        GList link;
        uint64_t first;                 /* guest offset, bytes */
        uint64_t end;
        bool is_vmstate;                /* ranges of the disk and of VM state do not meet */
        bool is_queued;                 /* in img->ranges, held or not */
        struct waitq released;
        struct waiter waiter;
        struct range_lock *waiting_on;  /* only compared by its queue while waiter is queued */
};

struct image;
struct background;
struct commit;
struct pin;
struct prepared;

struct image {
        struct loop *loop;
        const struct hvb_host *host;    /* may be NULL */
        char *name;
        uint32_t open_flags;            /* HVB_OPEN_* */
        enum image_state state;
        bool writable;
        bool is_raw;                    /* a raw file that ends a chain: only file, size_bytes */
        bool has_child_fd;              /* child.fd is the host's, to be closed by close_child */
        struct hvb_child child;         /* for backing images */
        unsigned depth;
        struct image *backing;          /* owned; NULL: none */
        bool backing_missing;           /* named, but not opened (HVB_OPEN_NO_BACKING) */

        struct io_file file;
        struct header header;           /* header.geometry is the image's geometry */
        uint8_t *root_sector;           /* aligned; the file's first root_bytes, as last written */
        uint32_t root_bytes;            /* 512, or the file's alignment if larger */
        struct co_lock root_lock;
        struct co_lock fsync_lock;      /* of image_fsync */

        struct l1_table active;
        struct l1_table vmstate;        /* VM state being saved; index 0 maps its first byte */
        struct pin *loaded;             /* held: whose VM state load_vmstate reads; or NULL */
        bool loaded_is_gone;            /* ... because it was deleted */
        bool vmstate_pending;           /* vmstate holds a state for the next snapshot_create */
        bool vmstate_taken;             /* ... which has taken it, but is not published yet */
        unsigned vmstate_generation;    /* changes when vmstate is emptied */
        struct gate saves;              /* inside: who writes to vmstate */
        bool shows_snapshot;            /* snapshot_load_tmp: active is a snapshot's L1 */

        struct slice_cache l2;
        struct buffers copies;          /* of clusters and tables being copied */
        struct refs refs;
        struct snapshot *snapshots;     /* header.snapshot_count of them, owned */
        uint64_t snapshots_bytes;       /* length of the table on disk */
        GQueue pins;                    /* of struct pin: snapshots that somebody reads */

        struct gate writes;
        struct co_lock control;         /* one operation that moves counts or the root */
        struct prepared *prepared;      /* owned; holds control between two requests, see
                                         * ops/snapshot-phases.h.  NULL: nothing does */
        struct co_lock phase_lock;      /* one request that goes on with it */
        struct co_lock list_lock;       /* who is in the list of snapshots stays there */
        struct background *background;  /* counts down, holding control; NULL: nothing does */
        struct waitq background_ended;
        uint32_t walked_slots;          /* of the active L1: what these reference has the counts of
                                         * a snapshot being prepared already; see map_weight */
        GQueue ranges;                  /* of struct range_lock, in order of arrival */
        struct grace grace;
        struct commit *commit;          /* owned */
        int64_t commit_usec;            /* of the thread's time that commits took, ever */
        bool data_written;              /* since the last fsync began */
        unsigned dirty_holders;         /* who needs the dirty bit; see dirty_hold */
        bool lazy;                      /* lazy refcounts in use: counts are written late */

        uint64_t compressed_next;       /* host offset of the next compressed bytes, or 0 */
        struct co_lock compressed_lock;
        GQueue new_tables;              /* of struct new_table: L2 tables being added or copied */
        uint64_t l2_cache_limit;        /* bytes, from options */
        uint64_t refs_cache_limit;
        unsigned max_depth;
        unsigned walk_share;            /* percent of the thread's time, see ops/tree.c */
        bool discard_to_file;           /* punch holes for discarded clusters (discard=unmap) */
        uint64_t poison_count;
        char *last_corruption;          /* owned; what the host was told last */
};

/* Host's log / event callbacks; texts are printf-like. */
void image_log(struct image *img, enum hvb_log_level level, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
void image_event(struct image *img, enum hvb_event_type type, int code, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

/* Monotonic; always 0 where work runs inline, so that tests do not depend on time. */
int64_t image_now_usec(const struct image *img);

/* Aborts unless what must hold between any two steps holds. */
void image_assert(const struct image *img);

struct image_fsync {
        struct co co;
        struct waiter waiter;
        struct io io;
};

/*
 * Coroutine: an fsync of the file, one at a time: of several that are under way the kernel tells
 * only one that a write was lost.  -EIO on a poisoned image; who gets another error poisons it, in
 * the same step.
 */
int image_fsync(struct image_fsync *s, struct image *img);

/* The disk's state is unknown: no more writes until reopened.  Tells the host once. */
void image_poison(struct image *img, int code, const char *what);

/* Metadata makes no sense: tells the host once per text.  Returns -EIO for the caller. */
int image_corrupt(struct image *img, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/* 0 if the image may be written now, else -EROFS, -EIO (poisoned), -EINPROGRESS (inactive). */
int image_check_writable(const struct image *img);

/* The same for a change of a guest range by somebody who waited at the gate: -EIO when the disk
 * has become shorter meanwhile. */
int image_check_change(const struct image *img, const struct l1_table *l1, uint64_t offset,
                       uint64_t length_bytes);

/* Where the last of those below ends. */
uint64_t image_metadata_end(const struct image *img);

/* Does the host range meet the header, active L1, refcount table or snapshot table?  Guest
 * data never goes there, whatever counts and entries say. */
bool image_is_metadata(const struct image *img, uint64_t host_offset, uint64_t byte_count);

/* -EIO: two of those lie on each other, so that to write the one, or to repair it, would destroy
 * the other.  Such an image may be read. */
int image_judge_metadata(const struct image *img, struct hvb_error *err);

static inline const struct geometry *image_geometry(const struct image *img)
{
        return &img->header.geometry;
}

static inline uint64_t image_size(const struct image *img)
{
        return img->header.size_bytes;
}

/* Guest offset where VM states begin: the disk size rounded up to one L2's span. */
static inline uint64_t image_vmstate_offset(const struct image *img)
{
        return round_up(img->header.size_bytes, img->header.geometry.l2_span_bytes);
}

/* ---- L1 tables in memory ---- */

int l1_init(struct l1_table *l1, uint32_t count, uint64_t offset);      /* zeroed; -ENOMEM */
void l1_clear(struct l1_table *l1);
/* Makes it at least count entries; new ones are 0.  Only for tables without a home. */
int l1_grow(struct l1_table *l1, uint32_t count);
void l1_set(struct l1_table *l1, uint32_t index, uint64_t entry);       /* marks the sector */
/* Marks the 512-byte sector of a table of 8-byte entries that holds entry_index. */
void sectors_mark(uint64_t *dirty_sectors, uint64_t entry_index);

struct l1_io {
        struct co co;
        struct io io;
        uint8_t *buffer;
        uint64_t at;                    /* of the table, being written: so many bytes on ... */
        uint64_t length;                /* ... so many bytes */
};

/* Coroutine: reads count entries at offset into *ret_l1 (initialised here; cleared on failure).
 * offset and count must have been validated. */
int l1_read(struct l1_io *s, struct image *img, uint64_t offset, uint32_t count,
            struct l1_table *ret_l1);
/* Coroutine: writes all entries & mask at offset, whole clusters (padded with zeros). */
int l1_write(struct l1_io *s, struct image *img, const struct l1_table *l1, uint64_t offset,
             uint64_t mask);

/* ---- grace: clusters are reused only when nobody still reads or writes them ---- */

/* Returns the generation to hand to grace_leave.  Enter before looking up the
 * mapping's host offset is acted upon; no wait between lookup and entering. */
unsigned grace_enter(struct image *img);
void grace_leave(struct image *img, unsigned generation);
/* A cluster was marked as zeros and kept.  Until everything in flight now has completed, no such
 * cluster may be written again: what is late would turn up in it. */
void grace_zeroed(struct image *img);

/* ---- range locks ---- */

/* Leaf: waits for those that came before and overlap [first, end), then holds it: a wide range
 * gets its turn however many narrow ones keep coming.  Cancellable. */
int range_lock(struct range_lock *r, struct image *img, bool is_vmstate, uint64_t first,
               uint64_t end);
void range_unlock(struct range_lock *r, struct image *img);

/* ---- the root: header bytes 24..103 ---- */

enum {
        ROOT_SIZE       = 1 << 0,
        ROOT_L1         = 1 << 1,
        ROOT_REFTABLE   = 1 << 2,
        ROOT_SNAPSHOTS  = 1 << 3,
        ROOT_INCOMPAT_SET       = 1 << 4,       /* set the bits in incompatible */
        ROOT_INCOMPAT_CLEAR     = 1 << 5,       /* clear them */
        ROOT_AUTOCLEAR  = 1 << 6,
};

struct root_change {
        unsigned what;                  /* ROOT_* */
        uint64_t size_bytes;
        uint64_t l1_offset;
        uint32_t l1_entries;
        uint64_t reftable_offset;
        uint32_t reftable_clusters;
        uint64_t snapshots_offset;
        uint32_t snapshot_count;
        uint64_t incompatible_set;
        uint64_t incompatible_clear;
        uint64_t autoclear;
};

struct root_switch {
        struct co co;
        struct waiter waiter;
        struct io io;
        struct image_fsync fsync;
        uint8_t *buffer;
        struct header next;             /* shallow copy, fixed fields only */
};

/*
 * Coroutine: fsync, one write of the root sector, fsync; then img->header has the
 * new fields.  -errno before the write: nothing happened.  A failed write or second
 * fsync poisons the image (rule 5), the header in memory stays as it was.
 */
int root_switch(struct root_switch *s, struct image *img, const struct root_change *change);

struct dirty_change {
        struct co co;
        struct root_switch root;
        struct root_change change;
};

/*
 * Coroutines: hold marks a v3 image dirty (durably) while anyone holds; the last
 * release clears it - the holder must have made its counts durable.  v2: no-ops.
 * Release on a poisoned image leaves the bit.  Call under img->control.
 */
int dirty_hold(struct dirty_change *s, struct image *img);
int dirty_release(struct dirty_change *s, struct image *img);

#endif
