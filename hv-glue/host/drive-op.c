/*
 * drive-op.c - requests to a drive, asynchronous and synchronous.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/drive-op.h"

#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

enum { REQUEST_ALIGNMENT = 64, SNAPSHOT_COUNT_MAX = 65536 };

/* ---- Asynchronous ------------------------------------------------------------------ */

struct drive_op *drive_op_new(struct drive *drive)
{
        size_t bytes = drive_driver(drive)->request_bytes;
        struct drive_op *op = g_new0(struct drive_op, 1);
        void *memory;

        bytes = (bytes + REQUEST_ALIGNMENT - 1) & ~(size_t) (REQUEST_ALIGNMENT - 1);
        if (posix_memalign(&memory, REQUEST_ALIGNMENT, bytes) != 0)
                g_error("no memory for a request of %zu bytes", bytes);
        memset(memory, 0, bytes);
        op->drive = drive;
        op->request = memory;
        op->request->struct_bytes = sizeof(*op->request);
        return op;
}

void drive_op_free(struct drive_op *op)
{
        if (op == NULL)
                return;
        g_assert(!op->busy);
        free(op->request);
        g_free(op);
}

static void op_complete(struct hvb_request *request)
{
        struct drive_op *op = request->opaque;

        g_assert(op->busy && op->request == request);
        op->busy = false;
        op->result = request->result;
        if (op->done != NULL)
                op->done(op);
}

struct hvb_request *drive_op_begin(struct drive_op *op)
{
        g_assert(!op->busy);
        op->busy = true;
        op->result = 0;
        op->request->complete = op_complete;
        op->request->opaque = op;
        op->request->progress_done = 0;
        op->request->progress_total = 0;
        return op->request;
}

int drive_op_wait(struct drive_op *op)
{
        while (op->busy) {
                int ret = drive_poll(op->drive, -1);

                /* The kernel may still write to the request's memory: there is no way out. */
                if (ret < 0 && ret != -EINTR)
                        g_error("'%s': polling: %s", drive_path(op->drive), g_strerror(-ret));
        }
        return op->result;
}

/* Write flags that the cache mode adds. */
static uint32_t write_flags(const struct drive_op *op, uint32_t flags)
{
        return flags | (drive_cache(op->drive).writethrough ? HVB_REQ_FUA : 0);
}

void drive_op_preadv(struct drive_op *op, uint64_t offset, const struct iovec *iov,
                     unsigned iov_count, uint32_t flags)
{
        drive_driver(op->drive)->preadv(drive_queue(op->drive), drive_op_begin(op), offset, iov,
                                        iov_count, flags);
}

void drive_op_pwritev(struct drive_op *op, uint64_t offset, const struct iovec *iov,
                      unsigned iov_count, uint32_t flags)
{
        drive_driver(op->drive)->pwritev(drive_queue(op->drive), drive_op_begin(op), offset, iov,
                                         iov_count, write_flags(op, flags));
}

void drive_op_pwrite_zeroes(struct drive_op *op, uint64_t offset, uint64_t length_bytes,
                            uint32_t flags)
{
        drive_driver(op->drive)->pwrite_zeroes(drive_queue(op->drive), drive_op_begin(op), offset,
                                               length_bytes, write_flags(op, flags));
}

void drive_op_pdiscard(struct drive_op *op, uint64_t offset, uint64_t length_bytes)
{
        drive_driver(op->drive)->pdiscard(drive_queue(op->drive), drive_op_begin(op), offset,
                                          length_bytes);
}

void drive_op_flush(struct drive_op *op)
{
        const struct hvb_driver *driver = drive_driver(op->drive);

        /* Nothing read: it completes, and waits for nobody. */
        if (drive_cache(op->drive).no_flush)
                driver->preadv(drive_queue(op->drive), drive_op_begin(op), 0, NULL, 0, 0);
        else
                driver->flush(drive_queue(op->drive), drive_op_begin(op));
}

void drive_op_block_status(struct drive_op *op, uint64_t offset, uint64_t length_bytes,
                           struct hvb_block_status *ret_status)
{
        *ret_status = (struct hvb_block_status) { .struct_bytes = sizeof(*ret_status) };
        drive_driver(op->drive)->block_status(drive_queue(op->drive), drive_op_begin(op), offset,
                                              length_bytes, ret_status);
}

/* ---- Synchronous ------------------------------------------------------------------- */

static int finish(struct drive_op *op)
{
        int ret = drive_op_wait(op);

        drive_op_give_back(op);
        return ret;
}

int drive_op_finish(struct drive_op *op, struct hvb_error *err)
{
        int ret = finish(op);

        if (ret < 0 && err != NULL && err->text[0] == '\0')
                error_set(err, ret, "%s", g_strerror(-ret));
        return ret;
}

int drive_preadv(struct drive *drive, uint64_t offset, const struct iovec *iov,
                 unsigned iov_count)
{
        struct drive_op *op = drive_op_take(drive);

        drive_op_preadv(op, offset, iov, iov_count, 0);
        return finish(op);
}

int drive_pwritev(struct drive *drive, uint64_t offset, const struct iovec *iov,
                  unsigned iov_count, uint32_t flags)
{
        struct drive_op *op = drive_op_take(drive);

        drive_op_pwritev(op, offset, iov, iov_count, flags);
        return finish(op);
}

int drive_pread(struct drive *drive, uint64_t offset, void *buffer, size_t length_bytes)
{
        struct iovec iov = { buffer, length_bytes };

        return drive_preadv(drive, offset, &iov, 1);
}

int drive_pwrite(struct drive *drive, uint64_t offset, const void *buffer, size_t length_bytes,
                 uint32_t flags)
{
        struct iovec iov = { (void *) buffer, length_bytes };

        return drive_pwritev(drive, offset, &iov, 1, flags);
}

int drive_pwrite_zeroes(struct drive *drive, uint64_t offset, uint64_t length_bytes,
                        uint32_t flags)
{
        struct drive_op *op = drive_op_take(drive);

        drive_op_pwrite_zeroes(op, offset, length_bytes, flags);
        return finish(op);
}

int drive_pdiscard(struct drive *drive, uint64_t offset, uint64_t length_bytes)
{
        struct drive_op *op = drive_op_take(drive);

        drive_op_pdiscard(op, offset, length_bytes);
        return finish(op);
}

int drive_flush(struct drive *drive)
{
        struct drive_op *op = drive_op_take(drive);

        drive_op_flush(op);
        return finish(op);
}

int drive_drain(struct drive *drive)
{
        struct drive_op *op = drive_op_take(drive);

        drive_driver(drive)->drain(drive_queue(drive), drive_op_begin(op));
        return finish(op);
}

int drive_block_status(struct drive *drive, uint64_t offset, uint64_t length_bytes,
                       struct hvb_block_status *ret_status)
{
        struct drive_op *op = drive_op_take(drive);

        drive_op_block_status(op, offset, length_bytes, ret_status);
        return finish(op);
}

int drive_truncate(struct drive *drive, uint64_t new_bytes, enum hvb_preallocation preallocation,
                   struct hvb_error *err)
{
        struct drive_op *op = drive_op_take(drive);

        error_clear(err);
        drive_driver(drive)->truncate(drive_image(drive), drive_op_begin(op), new_bytes,
                                      preallocation, err);
        return drive_op_finish(op, err);
}

int drive_check(struct drive *drive, uint32_t flags, struct hvb_check_result *ret_result,
                struct hvb_error *err)
{
        struct drive_op *op = drive_op_take(drive);

        error_clear(err);
        ret_result->struct_bytes = sizeof(*ret_result);
        drive_driver(drive)->check(drive_image(drive), drive_op_begin(op), flags, ret_result, err);
        return drive_op_finish(op, err);
}

int drive_snapshot_create(struct drive *drive, struct hvb_snapshot_info *info, uint32_t flags,
                          struct hvb_error *err)
{
        struct drive_op *op = drive_op_take(drive);

        error_clear(err);
        info->struct_bytes = sizeof(*info);
        drive_driver(drive)->snapshot_create(drive_image(drive), drive_op_begin(op), info, flags,
                                             err);
        return drive_op_finish(op, err);
}

int drive_snapshot_goto(struct drive *drive, const char *id, const char *name,
                        struct hvb_error *err)
{
        struct drive_op *op = drive_op_take(drive);

        error_clear(err);
        drive_driver(drive)->snapshot_goto(drive_image(drive), drive_op_begin(op), id, name, err);
        return drive_op_finish(op, err);
}

int drive_snapshot_delete(struct drive *drive, const char *id, const char *name,
                          struct hvb_error *err)
{
        struct drive_op *op = drive_op_take(drive);

        error_clear(err);
        drive_driver(drive)->snapshot_delete(drive_image(drive), drive_op_begin(op), id, name,
                                             err);
        return drive_op_finish(op, err);
}

int drive_snapshot_load_tmp(struct drive *drive, const char *id, const char *name,
                            struct hvb_error *err)
{
        struct drive_op *op = drive_op_take(drive);

        error_clear(err);
        drive_driver(drive)->snapshot_load_tmp(drive_image(drive), drive_op_begin(op), id, name,
                                               err);
        return drive_op_finish(op, err);
}

int drive_snapshot_load_vmstate(struct drive *drive, const char *id, const char *name,
                                struct hvb_error *err)
{
        struct drive_op *op;

        error_clear(err);
        if (!HVB_HAS(drive_driver(drive), snapshot_load_vmstate))
                return error_set(err, -ENOTSUP, "driver '%s' loads no VM state beside its disk",
                                 drive_format(drive));
        op = drive_op_take(drive);
        drive_driver(drive)->snapshot_load_vmstate(drive_image(drive), drive_op_begin(op), id,
                                                   name, err);
        return drive_op_finish(op, err);
}

int drive_snapshot_list(struct drive *drive, struct hvb_snapshot_info **ret_infos)
{
        const struct hvb_driver *driver = drive_driver(drive);
        unsigned count = driver->snapshot_list(drive_image(drive), 0, NULL, 0);
        struct hvb_snapshot_info *infos;

        g_assert(count <= SNAPSHOT_COUNT_MAX);
        infos = g_try_new0(struct hvb_snapshot_info, MAX(count, 1));
        if (infos == NULL)
                return -ENOMEM;
        for (unsigned i = 0; i < count; i++)
                infos[i].struct_bytes = sizeof(infos[i]);
        driver->snapshot_list(drive_image(drive), 0, infos, count);
        *ret_infos = infos;
        return count;
}

int drive_save_vmstate(struct drive *drive, uint64_t offset, const struct iovec *iov,
                       unsigned iov_count)
{
        struct drive_op *op = drive_op_take(drive);

        drive_driver(drive)->save_vmstate(drive_image(drive), drive_op_begin(op), offset, iov,
                                          iov_count);
        return finish(op);
}

int drive_load_vmstate(struct drive *drive, uint64_t offset, const struct iovec *iov,
                       unsigned iov_count)
{
        struct drive_op *op = drive_op_take(drive);

        drive_driver(drive)->load_vmstate(drive_image(drive), drive_op_begin(op), offset, iov,
                                          iov_count);
        return finish(op);
}

int drive_inactivate(struct drive *drive, struct hvb_error *err)
{
        struct drive_op *op;

        error_clear(err);
        if (drive_driver(drive)->inactivate == NULL)
                return error_set(err, -ENOTSUP, "driver '%s' hands no image over",
                                 drive_format(drive));
        op = drive_op_take(drive);
        drive_driver(drive)->inactivate(drive_image(drive), drive_op_begin(op), err);
        return drive_op_finish(op, err);
}

int drive_activate(struct drive *drive, struct hvb_error *err)
{
        struct drive_op *op;

        error_clear(err);
        if (drive_driver(drive)->activate == NULL)
                return error_set(err, -ENOTSUP, "driver '%s' hands no image over",
                                 drive_format(drive));
        op = drive_op_take(drive);
        drive_driver(drive)->activate(drive_image(drive), drive_op_begin(op), err);
        return drive_op_finish(op, err);
}
