/*
 * tree.h - walking a whole L1 tree: counting it up or down, and its COPIED flags.
 *
 * The write gate is closed and metadata settled (commit.h), so that L2 tables in
 * the file are what is in memory; guest reads go on.  Tables are read straight from
 * the file, many at once, and worked on in L1 order.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_TREE_H
#define OPS_TREE_H

#include "meta/commit.h"

/* Clusters that an L1 table of so many entries takes in the file. */
static inline uint64_t tree_l1_clusters(const struct image *img, uint32_t entry_count)
{
        return div_up(entry_count * UINT64_C(8), image_geometry(img)->cluster_bytes);
}

struct tree_walk;

struct tree_count {
        struct co co;
        struct tree_walk *walk;         /* owned, while it runs */
        uint64_t counted;
};

/*
 * Coroutine: adds 1 to all counts of what l1's first `slots` entries reference, and clears COPIED:
 * in the L2 tables in the file, and in l1.  Not durable yet.  -EINVAL: a count would
 * exceed the width.  On failure all counts are as before; COPIED may stay cleared.
 */
int tree_count_up(struct tree_count *s, struct image *img, struct l1_table *l1, uint32_t slots);

/*
 * Coroutine: takes 1 from the same counts.  Goes on past what cannot be counted down.  An error
 * says that something leaks.
 */
int tree_count_down(struct tree_count *s, struct image *img, struct l1_table *l1,
                    uint32_t slots);

/* Coroutine: clears COPIED in l1 and its tables. */
int tree_clear_copied(struct tree_count *s, struct image *img, struct l1_table *l1);

struct tree_refresh {
        struct co co;
        struct commit_settle settle;
        struct tree_walk *walk;         /* owned, while it runs */
};

/*
 * Coroutine: COPIED in l1 and its tables becomes set exactly where the count is 1.  The counts are
 * made stable before, the flags after.  A table that is shared is not looked
 * into: nothing below it is private, and nothing of it was marked so.
 */
int tree_refresh_copied(struct tree_refresh *s, struct image *img, struct l1_table *l1);

struct tree_drop {
        struct co co;
        struct commit_settle settle;
        struct tree_count count;
};

/*
 * Coroutine: a tree that neither the file nor memory refers to any more goes: once no read is in
 * it, its L1's clusters (if l1 has a home) and all it references are counted down.
 */
int tree_drop(struct tree_drop *s, struct image *img, struct l1_table *l1);

#endif
