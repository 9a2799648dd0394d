/*
 * tree.h - walking a whole L1 tree: counting it up or down, and its COPIED flags.
 *
 * Walks go on while the guest reads and writes.  Two kinds of trees are walked: those
 * that nobody changes (a snapshot's, one that was unlinked), and the active one, an L2
 * table at a time, whose whole guest range is locked meanwhile.  Tables are seen as
 * memory has them.  Flags that change go straight to the file where memory has nothing newer
 * of the table, else to memory and with a commit to the file.  Whoever sets flags has made the
 * counts stable that they rely on.  The caller holds img->control.  Each L1 entry is a step of
 * the running task's progress; what is to be expected the caller says.
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
        uint32_t counted;               /* slots, to be taken back */
};

/*
 * Coroutine: adds 1 to all counts of what l1's first `slots` entries reference, and clears COPIED
 * in their L2 tables.  Nobody changes the tree.  -EINVAL: a count would exceed the
 * width.  On failure all counts are as before; COPIED may stay cleared.
 */
int tree_count_up(struct tree_count *s, struct image *img, struct l1_table *l1, uint32_t slots);

/*
 * Coroutine: the active tree's counts go up for a snapshot to come, while the guest changes it.
 * img->walked_slots says how far this has come; flags stay.  On failure it is 0 again,
 * and all counts are as before.
 */
int tree_prepare(struct tree_count *s, struct image *img, uint32_t slots);

/* Coroutine: takes that back.  An error says that something leaks. */
int tree_unprepare(struct tree_count *s, struct image *img);

/*
 * Coroutine: takes 1 from all counts of a tree that nobody changes.  Goes on past what cannot be
 * counted down.  An error says that something leaks.
 */
int tree_count_down(struct tree_count *s, struct image *img, struct l1_table *l1,
                    uint32_t slots);

/* Coroutine: clears COPIED in the tables of a tree that nobody else changes. */
int tree_clear_copied(struct tree_count *s, struct image *img, struct l1_table *l1);

/*
 * Coroutine: COPIED in the active L1 and its tables becomes set exactly where the count is 1.  A
 * table that is shared is not looked into: nothing below it is private, and nothing of
 * it was marked so.
 */
int tree_refresh_copied(struct tree_count *s, struct image *img);

struct tree_drop {
        struct co co;
        struct commit_drain drain;
        struct tree_count count;
};

/*
 * Coroutine: a tree that neither the file nor memory refers to any more goes: once no read is in
 * it, its L1's clusters (if l1 has a home) and all it references are counted down.
 */
int tree_drop(struct tree_drop *s, struct image *img, struct l1_table *l1);

#endif
