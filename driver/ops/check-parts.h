/*
 * check-parts.h - the parts of a check: counting references, comparing them with
 * the counts on disk, comparing COPIED flags, and repairing each.
 *
 * They run one after the other on one context, in the order of this file, while
 * nothing else changes the image.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_CHECK_PARTS_H
#define OPS_CHECK_PARTS_H

#include <errno.h>

#include "meta/commit.h"
#include "meta/pins.h"
#include "meta/refs.h"
#include "meta/snapshots.h"
#include "ops/table-reads.h"
#include "ops/tally.h"

/* An L1 table to walk.  Snapshots that share one make it heavier, not longer. */
struct check_l1 {
        uint64_t offset;
        uint32_t entries;
        uint32_t refs;
        bool is_active;
};

/* An L2 table, and how many L1 entries point to it. */
struct check_l2 {
        uint64_t offset;
        uint32_t refs;
        uint32_t active_refs;           /* those of them in the active L1 */
};

/* A slice of a refcount block in which a count is not what it should be. */
struct check_count_slice {
        uint64_t host_offset;
        uint64_t first_cluster;
};

struct check_context {
        struct image *img;
        uint32_t fix;                   /* HVB_CHECK_FIX_* */
        bool silent;
        struct hvb_check_result *result;
        uint64_t *progress_done;        /* bytes of tables read; NULL: not wanted */
        uint64_t *progress_total;

        uint64_t file_bytes;
        bool uncounted;                 /* references could not be counted: no count is known to be
                                         * too high */
        struct tally tally;             /* references; after the comparison the counts on disk */
        uint32_t count_max;             /* what a count can hold, as far as a counter can tell */
        uint64_t cluster_end;           /* clusters of the file, and beyond it what is referenced */
        uint64_t count_end;             /* counts of clusters below are compared */
        uint64_t *l1;                   /* owned: the active L1 as on disk, host order */
        uint32_t l1_entries;
        GArray *l2s;                    /* of struct check_l2, by offset, each once */

        bool too_many_odd;              /* L2 tables at odd places; not all were walked */
        bool rebuild;                   /* refcount blocks are missing or broken */
        uint64_t block_errors;          /* corruptions that a rebuild removes */
        uint64_t count_errors;          /* counts below the references */
        uint64_t count_leaks;           /* counts above */
        GArray *count_slices;           /* of struct check_count_slice; with fix only */
        GArray *zero_slices;            /* host offsets of L2 slices with entries to be zeroed */
        uint64_t zero_entries;          /* how many corruptions that removes */
        GArray *copied_slices;          /* ... with COPIED flags to be changed */
};

int check_context_init(struct check_context *c, struct image *img, uint32_t fix,
                       struct hvb_check_result *result);
void check_context_clear(struct check_context *c);

/* Tells the host one finding. */
void check_report(struct check_context *c, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/* For loops that walk far: -ECANCELED if the task is to end early. */
static inline int check_cancelled(void)
{
        return task_is_cancelled(task_current()) ? -ECANCELED : 0;
}

void check_progress(struct check_context *c, uint64_t done_bytes);

/* What a finding is called: "Repairing" if it is going to be, "ERROR" if not. */
static inline const char *check_verb(bool repairing)
{
        return repairing ? "Repairing" : "ERROR";
}

/*
 * Counts refs references to each cluster of a host range.  What lies beyond the end of the
 * file by more than a cluster is a corruption and is not counted.  -ENOMEM, -EFBIG.
 */
int check_count(struct check_context *c, uint64_t host_offset, uint64_t byte_count,
                uint32_t refs);

/* ---- 1. references (check-tree.c, check-bitmaps.c) ---- */

struct check_bitmaps {
        struct co co;
        struct { struct co co; } walk;
        struct io io;
        uint8_t *directory;
        uint64_t directory_offset;
        uint64_t directory_bytes;
        uint32_t bitmap_count;
        uint32_t bitmap_index;
        uint64_t at;                    /* in the directory */
        uint8_t *table;
        uint64_t table_offset;
        uint64_t table_entries;
        uint64_t bytes_walked;
};

/* Coroutine: counts the bitmap directory, the tables and their clusters. */
int check_bitmaps(struct check_bitmaps *s, struct check_context *c);

struct check_tree {
        struct co co;
        struct { struct co co; } walk;
        struct io io;
        uint8_t *buffer;
        GArray *l1s;                    /* of struct check_l1 */
        unsigned l1_index;
        uint64_t l1_bytes;              /* of those walked so far */
        uint64_t compact_at;            /* length of l2s at which it is sorted and merged */
        struct table_reads reads;
        uint64_t next;
        uint64_t tag;
        uint8_t *bytes;
        uint64_t odd_bytes;             /* of L2 tables at odd places walked so far */
        struct check_bitmaps bitmaps;
};

/* Coroutine: counts everything that the image references, refcount blocks included. */
int check_tree(struct check_tree *s, struct check_context *c);

/* ---- 2. counts (check-counts.c) ---- */

struct check_counts {
        struct co co;
        struct table_reads reads;
        uint64_t block_end;
        uint64_t next;
        uint64_t done;                  /* blocks below are compared */
        uint64_t used_end;              /* one beyond the last cluster counted or referenced */
        uint64_t tag;
        uint8_t *bytes;
};

/* Counts table and blocks; finds blocks that are broken. */
int check_count_blocks(struct check_context *c);
/* The other way round, for a rebuild. */
void check_uncount_blocks(struct check_context *c);

/* Coroutine: compares counts with references.  Without fix the tally then has the counts. */
int check_counts(struct check_counts *s, struct check_context *c);

/* ---- 3. COPIED (check-copied.c) ---- */

struct check_copied {
        struct co co;
        struct table_reads reads;
        uint64_t next;
        uint64_t tag;
        uint8_t *bytes;
        bool repair;
};

/* Coroutine: compares the active tree's COPIED flags with the counts in the tally; L1 entries
 * are corrected in memory at once, slices to be corrected are noted. */
int check_copied(struct check_copied *s, struct check_context *c);

/* ---- repairs (check-repair.c, check-rebuild.c) ---- */

struct entries_fix {
        struct co co;
        struct slice_load load;
        struct slice *slice;
        struct commit_wait commit;
        struct commit_settle settle;
        unsigned i;
};

/* Coroutines: what was noted is corrected, durably. */
int check_zero_entries(struct entries_fix *s, struct check_context *c);
int check_fix_copied(struct entries_fix *s, struct check_context *c);

struct counts_fix {
        struct co co;
        struct slice_load load;
        struct slice *slice;
        struct commit_wait commit;
        struct commit_settle settle;
        unsigned i;
};

/* Coroutine: sets counts in place, as fix allows; the tally has the counts afterwards. */
int check_fix_counts(struct counts_fix *s, struct check_context *c);

struct check_rebuild {
        struct co co;
        struct { struct co co; } write;
        struct io io;
        struct root_switch root;
        struct root_change change;
        uint8_t *buffer;
        uint64_t *table;                /* offset of each new block, host order */
        uint64_t *dirty_sectors;
        uint64_t block_end;             /* blocks from here on are not needed */
        uint64_t next_cluster;          /* where free clusters are looked for */
        uint64_t cluster_limit;         /* of a block device; UINT64_MAX for files */
        bool wrapped;
        uint64_t table_offset;
        uint64_t table_clusters;
        uint64_t i;
};

/* Coroutine: new refcount blocks and table from the tally, and a root that points there. */
int check_rebuild(struct check_rebuild *s, struct check_context *c);

struct snapshots_fix {
        struct co co;
        struct snapshots_publish publish;
        struct root_change change;
        struct commit_settle settle;
        struct snapshot *list;
        uint32_t count;
};

/* Entries of version 3 without the extra data that the version asks for. */
uint64_t check_snapshot_entries(struct check_context *c);
/* Coroutine: writes the table anew, with it. */
int check_fix_snapshots(struct snapshots_fix *s, struct check_context *c);

#endif
