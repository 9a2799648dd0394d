/*
 * drive-op.h - what the files of drive.h share about requests.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_DRIVE_OP_H
#define HOST_DRIVE_OP_H

#include "host/drive.h"

/* An idle request for a synchronous call, made once and kept by the drive. */
struct drive_op *drive_op_take(struct drive *drive);
void drive_op_give_back(struct drive_op *op);
/* Waits for it and gives it back; a failure has a text in err (or NULL).  Returns its result. */
int drive_op_finish(struct drive_op *op, struct hvb_error *err);

struct drive_cache drive_cache(const struct drive *drive);

#endif
