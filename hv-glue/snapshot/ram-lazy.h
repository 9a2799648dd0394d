/*
 * ram-lazy.h - RAM that is loaded while the guest runs.
 *
 * The guest gets new memory, in which all is absent (ram-guard.h).  A thread reads it from the
 * VM state: first what somebody waits for, else what was wanted first in earlier loads of the
 * snapshot, else one unit after the other.  What is read is checked against its sums before anybody
 * sees it.  At the end it is noted with the snapshot what somebody has waited for.
 *
 * It reads through an image of its own, opened read-only beside the disk's: the disk's thread
 * itself may wait for RAM.  The disk's image has the snapshot open meanwhile, so that nothing
 * of it is freed, whatever becomes of the snapshot.
 *
 * What cannot be read stops the machine (machine_memory_lost): nobody sees memory that is wrong.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_RAM_LAZY_H
#define SNAPSHOT_RAM_LAZY_H

#include "snapshot/ram-guard.h"

struct ram_lazy;

/*
 * The guest may run.  base is the snapshot, with its map; it is moved from there at success.
 * memory: fresh; it has a guard then, whose base this is.  touch_offset: of the state's touch
 * record.  -ENOTSUP and others: it must be loaded the other way.
 */
int ram_lazy_new(struct machine *m, struct guest_memory *memory, struct ram_base *base,
                 uint64_t touch_offset, struct hvb_error *err);

/* Whoever touches memory is served from now on, and the rest follows. */
int ram_lazy_start(struct ram_guard *g, struct hvb_error *err);

/* Nobody needs what is missing any more: nothing more is asked for, and what fails from now on
 * stops no machine.  Units that are missing cannot be touched. */
void ram_lazy_leave(struct ram_guard *g);

/* Waits until all is loaded.  0; -ECANCELED; -EIO: it cannot be, the machine has stopped. */
int ram_lazy_wait(struct ram_guard *g, struct vm_job *job, struct hvb_error *err);

#endif
