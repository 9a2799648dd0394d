/*
 * snapshot-delete.h - deleting a snapshot.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_DELETE_H
#define OPS_SNAPSHOT_DELETE_H

#include "meta/snapshots.h"
#include "ops/motion.h"
#include "ops/orphans.h"

struct snapshot_delete {
        struct co co;
        struct waiter waiter;
        struct waiter list_lock;
        struct motion motion;
        struct l1_io io;
        struct snapshots_publish publish;
        struct snapshot_unlink unlink;
        struct tree_count refresh;
        struct commit_wait commit;
        struct l1_table l1;
        struct pin *pin;                /* held: the snapshot, if somebody reads it */
        struct snapshot *list;          /* without the snapshot */
        uint32_t list_count;
        int index;
};

/*
 * Coroutine: the first snapshot with this id and/or name goes.  -ENOENT, -EINVAL (its L1 makes no
 * sense).  On failure the list is as before, or the image poisoned.  Does not wait for those who
 * read the snapshot: its tree goes with the last of them.
 */
int snapshot_delete(struct snapshot_delete *s, struct image *img, const char *id,
                    const char *name, struct hvb_error *err);

#endif
