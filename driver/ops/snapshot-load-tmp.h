/*
 * snapshot-load-tmp.h - showing a snapshot instead of the disk.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_LOAD_TMP_H
#define OPS_SNAPSHOT_LOAD_TMP_H

#include "meta/snapshots.h"
#include "ops/vmstate.h"

struct snapshot_load_tmp {
        struct co co;
        struct waiter waiter;
        struct l1_io io;
        struct l1_table l1;
        int index;
};

/*
 * Coroutine, read-only images: until closed the disk reads as it was in the snapshot, size
 * included, and load_vmstate reads its VM state.  Nothing is written.  -EINVAL: the image is
 * writable, or the snapshot's L1 makes no sense; -ENOENT.
 */
int snapshot_load_tmp(struct snapshot_load_tmp *s, struct image *img, const char *id,
                      const char *name, struct hvb_error *err);

#endif
