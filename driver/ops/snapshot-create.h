/*
 * snapshot-create.h - taking an internal snapshot.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_CREATE_H
#define OPS_SNAPSHOT_CREATE_H

#include "meta/snapshots.h"
#include "ops/motion.h"
#include "ops/orphans.h"
#include "ops/tree.h"
#include "ops/vmstate.h"

struct snapshot_create {
        struct co co;
        struct { struct co co; } take;
        struct { struct co co; } prepare;
        struct { struct co co; } switch_over;
        struct { struct co co; } publish;
        struct { struct co co; } give_up;
        struct waiter control;
        struct waiter gate;
        struct motion motion;
        struct l1_io io;
        struct clusters_alloc alloc;
        struct commit_wait commit;
        struct tree_count count;
        struct tree_drop drop;
        struct snapshot_unlink unlink;
        struct vmstate_trim trim;
        struct snapshots_publish publication;
        struct l1_table l1;             /* the snapshot's, in memory */
        struct l1_table old_l1;         /* of the snapshot that is replaced */
        struct pin *old_pin;            /* held: that snapshot, if somebody reads it */
        struct l1_table state;          /* a VM state that is given up */
        struct snapshot *list;          /* the new one */
        uint32_t list_count;
        uint32_t disk_slots;            /* active L1 entries that the snapshot takes */
        int replaced;                   /* index in the list, or -1 */
        bool gate_held;
};

/*
 * Coroutine: the disk and the VM state saved since the last snapshot become a snapshot.
 * info: name and what else the host knows; id_str and disk_bytes are filled in.
 * flags: HVB_SNAPSHOT_*.  -EEXIST, -EFBIG (a limit), -EINVAL (name; a refcount
 * would overflow).  On failure the image is as before, or poisoned; the saved VM state is dropped,
 * unless the arguments were refused.  The guest reads and writes meanwhile: the snapshot is the
 * disk at one moment.
 */
int snapshot_create(struct snapshot_create *s, struct image *img, struct hvb_snapshot_info *info,
                    uint32_t flags, struct hvb_error *err);

#endif
