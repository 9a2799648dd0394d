/*
 * snapshot-goto.h - going back to a snapshot.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_GOTO_H
#define OPS_SNAPSHOT_GOTO_H

#include "meta/snapshots.h"
#include "ops/background.h"
#include "ops/vmstate.h"

struct snapshot_goto {
        struct co co;
        struct { struct co co; } prepare;
        struct { struct co co; } switch_over;
        struct { struct co co; } give_up;
        struct waiter control;
        struct waiter gate;
        struct motion motion;
        struct l1_io io;
        struct clusters_alloc alloc;
        struct clusters_free free;
        struct tree_count count;
        struct commit_wait commit;
        struct commit_settle settle;
        struct root_switch root;
        struct root_change root_change;
        struct l1_table snapshot_l1;
        struct l1_table fresh;          /* becomes the active one */
        struct background *background;  /* owned; takes what was it */
        uint64_t fresh_offset;
        int index;
};

/*
 * Coroutine: the disk is as it was in the snapshot, its size included (-ENOTSUP in version 2 if
 * that differs), and its VM state is the one that load_vmstate reads.  -ENOENT, -EINVAL
 * (the snapshot's L1 makes no sense).  On failure the image is as before, or poisoned.  Ends with
 * the switch: what the disk was is counted down beside the guest, holding img->control.
 */
int snapshot_goto(struct snapshot_goto *s, struct image *img, const char *id, const char *name,
                  struct hvb_error *err);

#endif
