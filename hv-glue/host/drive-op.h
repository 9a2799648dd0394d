/*
 * drive-op.h - what drive.c and drive-op.c share about requests.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_DRIVE_OP_H
#define HOST_DRIVE_OP_H

#include "host/drive.h"

/* An idle request for a synchronous call, made once and kept by the drive. */
struct drive_op *drive_op_take(struct drive *drive);
void drive_op_give_back(struct drive_op *op);

struct drive_cache drive_cache(const struct drive *drive);

#endif
