/*
 * fake-machine.h - a machine without KVM: real RAM, real drives, and a guest whose every
 * byte can be told.
 *
 * It implements what snapshot/ calls of vm/machine.h.  The guest is a thread that takes
 * steps 1, 2, 3...: step n overwrites one page of RAM and one block of a disk, both chosen
 * and filled by n alone, several disk writes in flight.  n is the state of the first
 * vcpu.  So fake_verify can tell from n what all of RAM and of the disks must hold.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_FAKE_MACHINE_H
#define TESTS_FAKE_MACHINE_H

#include "vm/machine.h"

enum { FAKE_BLOCK_BYTES = 4096, FAKE_MAX_DISKS = 3, FAKE_VCPUS = 2 };

struct fake_disk_options {
        const char *path;
        const char *format;             /* NULL: qcow2 */
        bool read_only;
};

/* PRELAUNCH, n is 0.  Disks are called virtio0, virtio1, ... */
struct machine *fake_new(uint64_t ram_bytes, const struct fake_disk_options *disks,
                         unsigned disk_count);
void fake_free(struct machine *m);
/* Of machines made afterwards. */
void fake_use_small_pages(void);

/* The guest writes to so many pages, not to half of RAM; before its first step. */
void fake_limit_pages(struct machine *m, uint64_t page_count);

void fake_cont(struct machine *m);
void fake_stop(struct machine *m);              /* and flushes the disks */
uint64_t fake_step(struct machine *m);          /* n now */
/* Runs until the guest is past so many more steps, then goes on. */
void fake_run_steps(struct machine *m, uint64_t steps);
/* Runs exactly so many and stops. */
void fake_advance(struct machine *m, uint64_t steps);

/* The longest time from a step to the next, pauses included, since it was asked last. */
gint64 fake_take_longest_usec(struct machine *m);

/* The guest must not run.  Every page and block against n; false and the first difference. */
bool fake_verify(struct machine *m);
/* Reads the disks and says which step a disk is at if its last writes are of steps up to
 * that: true if disk i holds exactly what step n leaves. */
bool fake_disk_is_at(struct machine *m, unsigned i, uint64_t step);

const char *fake_failure(struct machine *m);    /* text of machine_fail, or NULL */
const char *fake_told(struct machine *m);       /* last text of machine_tell, or NULL */

/* The next load of vcpu 1 fails so when applied; 0: does not. */
void fake_fail_apply(struct machine *m, int error);

/* Calls that from now on before RAM is swapped; NULL: nothing. */
void fake_on_swap(struct machine *m, void (*call)(struct machine *m));

/* A hash over RAM and the devices, to see that nothing changed.  The guest must not run. */
uint32_t fake_sum(struct machine *m);

#endif
