/*
 * simdisk-op.h - one I/O that the simulated disk has taken in.  Private to simdisk*.c.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_LIB_SIMDISK_OP_H
#define TESTS_LIB_SIMDISK_OP_H

#include "lib/simdisk.h"

struct sim_op {
        struct io *io;
        struct sim_entry entry;
        unsigned entry_index;           /* in the log, when there is one */
        uint64_t ready_step;
        int64_t raw_result;             /* a read may get less */
};

/* Settles what will become of io, and logs its submission. */
void sim_op_plan(struct simdisk *disk, struct io *io, struct sim_op *op);

/* Does it, logs that, and completes io. */
void sim_op_happen(struct simdisk *disk, struct sim_op *op);

#endif
