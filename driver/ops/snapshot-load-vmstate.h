/*
 * snapshot-load-vmstate.h - choosing the snapshot whose VM state is loaded.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_LOAD_VMSTATE_H
#define OPS_SNAPSHOT_LOAD_VMSTATE_H

#include "ops/snapshot-pin.h"
#include "ops/vmstate.h"

struct snapshot_load_vmstate {
        struct co co;
        struct snapshot_pin take;
        struct pin *pin;
};

/*
 * Coroutine: load_vmstate reads the VM state of this snapshot from now on; the disk stays where it
 * is and nothing is written.  -ENOENT; -EINVAL, -EFBIG: the snapshot's L1 or disk size makes no
 * sense.  On failure what was loaded stays loaded.
 */
int snapshot_load_vmstate(struct snapshot_load_vmstate *s, struct image *img, const char *id,
                          const char *name, struct hvb_error *err);

#endif
