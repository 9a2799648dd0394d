/*
 * ram-live.h - RAM on its way into a VM state while the guest runs, behind a cut
 * (ram-guard.h).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_RAM_LIVE_H
#define SNAPSHOT_RAM_LIVE_H

#include "snapshot/ram-guard.h"
#include "snapshot/ram-save.h"

struct ram_live {
        struct ram_guard *guard;
        struct ram_save save;           /* its io made with ram_live_landed and this */
};

/* Saves all that is due, and waits for it.  0, -ECANCELED, or the error. */
int ram_live_save(struct ram_live *s);

/* For struct vmstate_landing, with a struct ram_live. */
int ram_live_landed(void *opaque, const struct vmstate_span *span);

#endif
