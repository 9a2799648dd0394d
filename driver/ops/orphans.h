/*
 * orphans.h - trees of snapshots that were deleted while somebody read them.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_ORPHANS_H
#define OPS_ORPHANS_H

#include "meta/pins.h"
#include "ops/tree.h"

struct orphans_drop {
        struct co co;
        struct tree_drop drop;
        struct commit_wait commit;
        struct tree_count refresh;
        struct dirty_change dirty;
        struct pin *pin;
};

/*
 * Coroutine: what deleted snapshots hold that nobody reads any more is counted down; held_too: or
 * is read, but must be no longer.  The caller holds img->control and is not cancelled.  What
 * fails leaks, and the image stays marked dirty.
 */
int orphans_drop(struct orphans_drop *s, struct image *img, bool held_too);

struct snapshot_unlink {
        struct co co;
        union {
                struct tree_drop drop;
                struct orphans_drop orphans;
        };
};

/*
 * Coroutine: the snapshot that has just left the list goes.  pin is held for that and put here;
 * NULL: nobody reads the snapshot, its tree is l1.  The caller as above; he has the image marked
 * (motion.h), too, and refreshes COPIED.
 */
int snapshot_unlink(struct snapshot_unlink *s, struct image *img, struct pin *pin,
                    struct l1_table *l1);

#endif
