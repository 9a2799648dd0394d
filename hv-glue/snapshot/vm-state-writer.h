/*
 * vm-state-writer.h - a whole VM state, written to a disk's VM-state area.
 *
 * Written in this order: RAM, then page map, section table and sections in one piece
 * behind it, the header last.  Nothing refers to any of it until the disk's snapshot is
 * published; the driver makes it durable then.
 *
 *   new -> cut (the machine is paused) -> ram or ram_live -> finish
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_VM_STATE_WRITER_H
#define SNAPSHOT_VM_STATE_WRITER_H

#include "snapshot/device-states.h"
#include "snapshot/ram-live.h"
#include "snapshot/ram-share.h"
#include "snapshot/vm-snapshot.h"

struct vm_state_writer {
        struct machine *machine;
        struct machine_disk *disk;
        struct vm_job *job;
        struct vm_state_header header;
        struct device_states devices;
        struct page_map map;
        struct ram_live live;           /* without a guard: RAM is saved stopped */
        struct ram_share share;         /* with one */
        struct vmstate_io *io;
};

/* For the state that the disk's next snapshot takes.  guard: NULL, or RAM is saved with it. */
int vm_state_writer_init(struct vm_state_writer *w, struct machine *m, struct machine_disk *disk,
                         struct ram_guard *guard, struct vm_job *job, struct hvb_error *err);
void vm_state_writer_clear(struct vm_state_writer *w);

/* The machine is paused, at this guest time: takes the devices' states, and cuts RAM for the
 * guard, whose ram_guard_end must follow if *ret_is_cut says so. */
int vm_state_writer_cut(struct vm_state_writer *w, uint64_t clock_nsec, bool *ret_is_cut,
                        struct hvb_error *err);
/* The guard cannot do it after all. */
void vm_state_writer_give_up_guard(struct vm_state_writer *w);

/*
 * Writes all of it; *ret_bytes is the state's length.  Without a guard the machine is paused until
 * then, else the guard's cut was made.  On failure some of it may have been written: it is to be
 * given up.
 */
int vm_state_writer_run(struct vm_state_writer *w, uint64_t *ret_bytes, struct hvb_error *err);

#endif
