/*
 * faulty-driver.h - the driver's snapshot and VM-state members, one call of which fails or
 * ends the process.
 *
 * A program that links this gets it between hv-glue and the plugin: the linker wraps
 * drive_driver().
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_FAULTY_DRIVER_H
#define TESTS_FAULTY_DRIVER_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fault {
        FAULT_NONE,                     /* only counts */
        FAULT_ERROR,                    /* the call is not made, -EIO comes back */
        FAULT_KILL,                     /* the process is killed instead of the call */
};

/* Counts from now on; call number nth (from 1) meets the fault. */
void faulty_set(enum fault fault, unsigned nth);
/* Calls since faulty_set, all drives together. */
unsigned faulty_calls(void);

/* From now on share_vmstate is refused (-EINVAL), or not. */
void faulty_refuse_sharing(bool refuse);

/* A piece of a VM state. */
struct fed_piece {
        uint64_t offset;
        const uint8_t *bytes;
        size_t count;
};

/* From now on load_vmstate, and snapshot_preadv of a VM state, read these pieces with zeros around
 * them, not the disk.  count 0: the disk again.  Borrowed; while nothing is in flight. */
void faulty_feed(const struct fed_piece *pieces, unsigned count);

/*
 * From now on load_vmstate of offsets in [begin, end) waits, on the thread that calls it, until
 * that is called again; begin == end: of none.
 */
void faulty_hold_loads(uint64_t begin, uint64_t end);
/* Offsets that load_vmstate is called for from now on, uint64_t, in order of calls; NULL: noted
 * no more.  Borrowed. */
void faulty_trace_loads(GArray *offsets);

#endif
