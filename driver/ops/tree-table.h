/*
 * tree-table.h - one L2 table of a tree being walked: what it references, and its
 * COPIED flags.  No I/O: what is missing in memory is named, and the call made again.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_TREE_TABLE_H
#define OPS_TREE_TABLE_H

#include "meta/map.h"

enum tree_mode {
        TREE_COUNT_UP,                  /* counts + 1, COPIED cleared */
        TREE_COUNT_UP_ONLY,             /* counts + 1, entries untouched */
        TREE_COUNT_DOWN,                /* counts - 1, entries untouched */
        TREE_CLEAR_COPIED,
        TREE_REFRESH_COPIED,            /* COPIED exactly where the count is 1 */
};

/* What a walk has come to, over all its tables. */
struct tree_tally {
        enum tree_mode mode;
        uint64_t counted;               /* references, in the order of the walk */
        uint64_t limit;                 /* end there */
        uint64_t missing;               /* after -EAGAIN: the cluster whose count is not resident */
        uint64_t refused;               /* references that could not be counted down */
        int first_refusal;
};

/* The table at hand, across waits. */
struct tree_table {
        uint8_t *bytes;                 /* cluster_bytes, as in the file */
        uint64_t host_offset;
        uint64_t entry;                 /* the next to look at */
        struct cluster_run run;         /* seen, not yet counted */
        bool own_seen;                  /* the table's own cluster is in the run */
        bool changed;                   /* bytes must be written back */
        bool is_private;                /* refreshing: the table's own count is 1 */
};

void tree_table_begin(struct tree_table *t, uint8_t *bytes, uint64_t host_offset);

/*
 * Does the tally's work on the table; its own cluster is counted last.  0: done, or the limit is
 * reached.  -EAGAIN: make the count of tally->missing resident and call again.
 * Counting up: -EINVAL a count would exceed its width, -EIO corruption (reported).
 * Counting down goes on past what is refused, and says so in the tally.
 */
int tree_table_step(struct tree_table *t, struct tree_tally *tally, struct image *img);

#endif
