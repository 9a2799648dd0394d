/*
 * snapshot-create.h - taking an internal snapshot, at once.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_CREATE_H
#define OPS_SNAPSHOT_CREATE_H

#include "ops/taking.h"

struct snapshot_create {
        struct co co;
        struct waiter control;
        struct taking taking;
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
