/*
 * disk-snapshot.c - a snapshot used beside the guest, from another thread than its disk's.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/disk-snapshot.h"

#include <errno.h>

#include "host/error.h"

/* The arguments of one request. */
struct ask {
        struct hvb_snapshot *snapshot;
        const char *id, *name;
        struct hvb_snapshot_info info;
        uint64_t offset;
        uint64_t length_bytes;
        struct iovec iov;
        uint32_t flags;
        struct hvb_block_status *status;
        struct hvb_error *err;
};

static int ask(struct drive_thread *thread, struct ask *a,
               void (*start)(struct drive *drive, struct hvb_request *request, void *opaque))
{
        const struct drive_control control = { .start = start, .opaque = a };

        return drive_thread_run(thread, &control);
}

static int call_can_open(struct drive *drive, void *opaque)
{
        (void) opaque;
        return HVB_HAS(drive_driver(drive), snapshot_block_status) ? 0 : -ENOTSUP;
}

static void start_open(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct ask *a = opaque;

        drive_driver(drive)->snapshot_open(drive_image(drive), request, a->id, a->name, &a->info,
                                           &a->snapshot, a->err);
}

int disk_snapshot_open(struct drive_thread *thread, const char *id, const char *name,
                       struct hvb_snapshot_info *ret_info, struct hvb_snapshot **ret_snapshot,
                       struct hvb_error *err)
{
        struct ask a = {
                .id = id, .name = name, .info = { .struct_bytes = sizeof(a.info) }, .err = err,
        };
        int ret = drive_thread_call(thread, call_can_open, NULL);

        if (ret < 0)
                return error_set(err, ret, "the driver reads no snapshot beside the disk");
        ret = ask(thread, &a, start_open);
        if (ret < 0)
                return ret;
        if (ret_info != NULL)
                *ret_info = a.info;
        *ret_snapshot = a.snapshot;
        return 0;
}

static void start_close(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct ask *a = opaque;

        drive_driver(drive)->snapshot_close(a->snapshot, request, NULL);
}

void disk_snapshot_close(struct drive_thread *thread, struct hvb_snapshot *snapshot)
{
        struct ask a = { .snapshot = snapshot };

        if (snapshot != NULL)
                ask(thread, &a, start_close);
}

static void start_read(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct ask *a = opaque;

        drive_driver(drive)->snapshot_preadv(drive_queue(drive), request, a->snapshot, a->offset,
                                             &a->iov, 1, a->flags);
}

int disk_snapshot_read(struct drive_thread *thread, struct hvb_snapshot *snapshot,
                       uint64_t offset, void *bytes, size_t count, uint32_t flags)
{
        struct ask a = {
                .snapshot = snapshot, .offset = offset, .iov = { bytes, count }, .flags = flags,
        };

        return ask(thread, &a, start_read);
}

static void start_status(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct ask *a = opaque;

        drive_driver(drive)->snapshot_block_status(drive_queue(drive), request, a->snapshot,
                                                   a->offset, a->length_bytes, 0, a->status);
}

int disk_snapshot_status(struct drive_thread *thread, struct hvb_snapshot *snapshot,
                         uint64_t offset, uint64_t length_bytes,
                         struct hvb_block_status *ret_status)
{
        struct ask a = {
                .snapshot = snapshot, .offset = offset, .length_bytes = length_bytes,
                .status = ret_status,
        };

        *ret_status = (struct hvb_block_status) { .struct_bytes = sizeof(*ret_status) };
        return ask(thread, &a, start_status);
}

static int call_can_note(struct drive *drive, void *opaque)
{
        (void) opaque;
        return HVB_HAS(drive_driver(drive), snapshot_note) ? 0 : -ENOTSUP;
}

static void start_note(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct ask *a = opaque;

        drive_driver(drive)->snapshot_note(drive_queue(drive), request, a->snapshot, a->offset,
                                           &a->iov, 1);
}

int disk_snapshot_note(struct drive_thread *thread, struct hvb_snapshot *snapshot,
                       uint64_t offset, const void *bytes, size_t count)
{
        struct ask a = {
                .snapshot = snapshot, .offset = offset, .iov = { (void *) bytes, count },
        };
        int ret = drive_thread_call(thread, call_can_note, NULL);

        return ret < 0 ? ret : ask(thread, &a, start_note);
}
