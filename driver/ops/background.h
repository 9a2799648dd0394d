/*
 * background.h - what an operation leaves to be counted down after it has completed.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_BACKGROUND_H
#define OPS_BACKGROUND_H

#include "ops/motion.h"
#include "ops/orphans.h"
#include "ops/tree.h"

struct background {
        struct co co;
        struct task task;
        struct image *img;
        struct motion motion;
        struct tree_drop drop;
        struct orphans_drop orphans;
        struct l1_table tree;           /* owned; nothing refers to it any more */
        struct l1_table state;          /* owned; a VM state that no snapshot took */
};

/*
 * Goes on beside the guest until the trees are counted down and the mark is gone; it holds
 * img->control, which its starter hands over, so that whatever moves counts waits for it.  What
 * deleted snapshots hold that nobody reads any more goes, too: see snapshot-phases.h.  What
 * fails leaks and keeps the mark.  b is allocated with g_new, and freed at the end.
 */
void background_start(struct background *b, struct image *img);

/* Leaf: waits for the end of what runs now. */
int background_wait(struct waiter *w, struct image *img);

#endif
