/*
 * snapshot-goto.h - going back to a snapshot.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_GOTO_H
#define OPS_SNAPSHOT_GOTO_H

#include "ops/snapshot-phases.h"

struct snapshot_goto {
        struct co co;
        struct waiter control;
        struct prepared_goto prepared;
        struct going going;
};

/*
 * Coroutine: the disk is as it was in the snapshot, its size included (-ENOTSUP in version 2 if
 * that differs), and its VM state is the one that load_vmstate reads.  -ENOENT, -EINVAL
 * (the snapshot's L1 makes no sense).  On failure the image is as before, or poisoned.  Ends with
 * the switch: what the disk was is counted down beside the guest, holding img->control.  If this is
 * prepared only the switch is left; after a failure it is not prepared any more.
 */
int snapshot_goto(struct snapshot_goto *s, struct image *img, const char *id, const char *name,
                  struct hvb_error *err);

#endif
