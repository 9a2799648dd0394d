/*
 * drive-phases.c - taking a snapshot of a drive, or going to one, phase by phase.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include <glib.h>

#include "host/drive-op.h"

/* All members are of one age. */
static int begin(struct drive *drive, struct drive_op **ret_op, struct hvb_error *err)
{
        error_clear(err);
        if (!HVB_HAS(drive_driver(drive), snapshot_goto_prepare))
                return error_set(err, -ENOTSUP, "driver '%s' has no snapshots in phases",
                                 drive_format(drive));
        *ret_op = drive_op_take(drive);
        return 0;
}

int drive_snapshot_prepare(struct drive *drive, const struct hvb_snapshot_info *info,
                           uint32_t flags, struct hvb_error *err)
{
        struct drive_op *op;
        int ret = begin(drive, &op, err);

        if (ret < 0)
                return ret;
        drive_driver(drive)->snapshot_prepare(drive_image(drive), drive_op_begin(op), info, flags,
                                              err);
        return drive_op_finish(op, err);
}

int drive_snapshot_switch(struct drive *drive, struct hvb_error *err)
{
        struct drive_op *op;
        int ret = begin(drive, &op, err);

        if (ret < 0)
                return ret;
        drive_driver(drive)->snapshot_switch(drive_image(drive), drive_op_begin(op), err);
        return drive_op_finish(op, err);
}

int drive_snapshot_publish(struct drive *drive, struct hvb_snapshot_info *info,
                           struct hvb_error *err)
{
        struct drive_op *op;
        int ret = begin(drive, &op, err);

        if (ret < 0)
                return ret;
        info->struct_bytes = sizeof(*info);
        drive_driver(drive)->snapshot_publish(drive_image(drive), drive_op_begin(op), info, err);
        return drive_op_finish(op, err);
}

int drive_snapshot_abort(struct drive *drive, struct hvb_error *err)
{
        struct drive_op *op;
        int ret = begin(drive, &op, err);

        if (ret < 0)
                return ret;
        drive_driver(drive)->snapshot_abort(drive_image(drive), drive_op_begin(op), err);
        return drive_op_finish(op, err);
}

int drive_snapshot_goto_prepare(struct drive *drive, const char *id, const char *name,
                                struct hvb_error *err)
{
        struct drive_op *op;
        int ret = begin(drive, &op, err);

        if (ret < 0)
                return ret;
        drive_driver(drive)->snapshot_goto_prepare(drive_image(drive), drive_op_begin(op), id, name,
                                                   err);
        return drive_op_finish(op, err);
}
