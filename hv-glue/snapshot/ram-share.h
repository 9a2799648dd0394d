/*
 * ram-share.h - RAM that has not changed, on its way into a VM state: by reference.
 *
 * Pages have the same place in each VM state of a machine, so whole clusters of the base's
 * (ram-guard.h) can be the new one's, too, with a count more.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_RAM_SHARE_H
#define SNAPSHOT_RAM_SHARE_H

#include "snapshot/ram-guard.h"
#include "snapshot/ram-save.h"

struct ram_share {
        struct drive_thread *thread;
        struct hvb_snapshot *source;    /* NULL: nothing can be shared */
        const struct ram_base *base;
        uint64_t cluster_bytes;
};

/* Opens the guard's base, if it is there still, on this disk, and can be shared with. */
void ram_share_open(struct ram_share *share, const struct machine_disk *disk,
                    const struct ram_guard *guard);
void ram_share_close(struct ram_share *share);

/* Behind the cut: all that is not due.  0, -ECANCELED, or the error; err is filled where that
 * alone says too little. */
int ram_share_save(struct ram_share *share, const struct ram_guard *guard, struct ram_save *save,
                   struct hvb_error *err);

#endif
