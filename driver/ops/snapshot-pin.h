/*
 * snapshot-pin.h - beginning and ending to read a snapshot beside the disk.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_PIN_H
#define OPS_SNAPSHOT_PIN_H

#include "meta/pins.h"
#include "meta/snapshots.h"
#include "ops/motion.h"
#include "ops/orphans.h"

struct snapshot_pin {
        struct co co;
        struct waiter waiter;
        struct l1_io io;
        struct l1_table l1;
        int index;
};

/*
 * Coroutine: the snapshot, held, in *ret_pin; info (or NULL) describes it.  Nothing is written.
 * -ENOENT; -EINVAL, -EFBIG: its L1 or disk size makes no sense.
 */
int snapshot_pin(struct snapshot_pin *s, struct image *img, const char *id, const char *name,
                 struct hvb_snapshot_info *info, struct pin **ret_pin, struct hvb_error *err);

struct snapshot_unpin {
        struct co co;
        struct waiter waiter;
        struct motion motion;
        struct orphans_drop orphans;
};

/*
 * Coroutine: ends a hold, in any case.  If it was the last of a snapshot that was deleted
 * meanwhile, that is counted down; an error says that this did not work, and that something leaks.
 */
int snapshot_unpin(struct snapshot_unpin *s, struct image *img, struct pin *pin,
                   struct hvb_error *err);

#endif
