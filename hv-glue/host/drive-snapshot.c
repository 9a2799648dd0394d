/*
 * drive-snapshot.c - reading a snapshot beside its drive.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include <glib.h>

#include "host/drive-op.h"

int drive_snapshot_open(struct drive *drive, const char *id, const char *name,
                        struct hvb_snapshot_info *ret_info, struct hvb_snapshot **ret_snapshot,
                        struct hvb_error *err)
{
        struct drive_op *op;

        error_clear(err);
        if (!HVB_HAS(drive_driver(drive), snapshot_open))
                return error_set(err, -ENOTSUP, "driver '%s' reads no snapshot beside its disk",
                                 drive_format(drive));
        if (ret_info)
                *ret_info = (struct hvb_snapshot_info) { .struct_bytes = sizeof(*ret_info) };
        op = drive_op_take(drive);
        drive_driver(drive)->snapshot_open(drive_image(drive), drive_op_begin(op), id, name,
                                           ret_info, ret_snapshot, err);
        return drive_op_finish(op, err);
}

int drive_snapshot_close(struct drive *drive, struct hvb_snapshot *snapshot,
                         struct hvb_error *err)
{
        struct drive_op *op;

        error_clear(err);
        if (snapshot == NULL)
                return 0;
        op = drive_op_take(drive);
        drive_driver(drive)->snapshot_close(snapshot, drive_op_begin(op), err);
        return drive_op_finish(op, err);
}

void drive_op_snapshot_preadv(struct drive_op *op, struct hvb_snapshot *snapshot, uint64_t offset,
                              const struct iovec *iov, unsigned iov_count, uint32_t flags)
{
        drive_driver(op->drive)->snapshot_preadv(drive_queue(op->drive), drive_op_begin(op),
                                                 snapshot, offset, iov, iov_count, flags);
}

void drive_op_snapshot_block_status(struct drive_op *op, struct hvb_snapshot *snapshot,
                                    uint64_t offset, uint64_t length_bytes, uint32_t flags,
                                    struct hvb_block_status *ret_status)
{
        *ret_status = (struct hvb_block_status) { .struct_bytes = sizeof(*ret_status) };
        drive_driver(op->drive)->snapshot_block_status(drive_queue(op->drive), drive_op_begin(op),
                                                       snapshot, offset, length_bytes, flags,
                                                       ret_status);
}

int drive_snapshot_preadv(struct drive *drive, struct hvb_snapshot *snapshot, uint64_t offset,
                          const struct iovec *iov, unsigned iov_count, uint32_t flags)
{
        struct drive_op *op = drive_op_take(drive);

        drive_op_snapshot_preadv(op, snapshot, offset, iov, iov_count, flags);
        return drive_op_finish(op, NULL);
}

int drive_snapshot_block_status(struct drive *drive, struct hvb_snapshot *snapshot,
                                uint64_t offset, uint64_t length_bytes, uint32_t flags,
                                struct hvb_block_status *ret_status)
{
        struct drive_op *op = drive_op_take(drive);

        drive_op_snapshot_block_status(op, snapshot, offset, length_bytes, flags, ret_status);
        return drive_op_finish(op, NULL);
}

int drive_share_vmstate(struct drive *drive, struct hvb_snapshot *source, uint64_t source_offset,
                        uint64_t offset, uint64_t length_bytes)
{
        struct drive_op *op;

        if (!HVB_HAS(drive_driver(drive), share_vmstate))
                return -ENOTSUP;
        op = drive_op_take(drive);
        drive_driver(drive)->share_vmstate(drive_image(drive), drive_op_begin(op), source,
                                           source_offset, offset, length_bytes);
        return drive_op_finish(op, NULL);
}
