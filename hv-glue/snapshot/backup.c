/*
 * backup.c - a disk's snapshot is written to a file of its own, while the machine runs.
 *
 * Piece by piece: what kind it is and its bytes are asked of the disk's thread, which serves
 * the guest as well; the target is this thread's own.  While a piece is read those before it
 * are being written, so that both files are busy, with little memory and no more than one
 * read of the guest's disk in flight.
 *
 * A crash leaves a target that is not whole.  Until the backup has succeeded it has no use, and
 * whoever asked for it has not been told that it has.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "host/error.h"
#include "snapshot/job.h"
#include "snapshot/ram-save.h"

enum {
        SLOTS = 4,
        PIECE_BYTES = 2 << 20,          /* of data; a multiple of all cluster sizes */
        STATUS_BYTES = 1 << 30,
        BUFFER_ALIGNMENT = 4096,
};

/* A piece on its way into the target. */
struct slot {
        struct drive_op *op;
        struct iovec iov;
        void *buffer;
        bool has_result;                /* of a write that nobody has asked about yet */
};

struct backup {
        const struct vm_backup_options *options;
        const struct machine_disk *disk;
        struct hvb_snapshot *snapshot;
        struct hvb_snapshot_info info;
        struct drive *target;
        struct slot slots[SLOTS];
        unsigned next_slot;
        struct vm_job *job;
        struct hvb_error *err;
};

static int fail(struct backup *b, const char *what, int code, const struct hvb_error *why)
{
        return error_set(b->err, code, "Could not %s for the backup of snapshot '%s' of '%s': %s",
                         what, b->options->tag, b->options->disk, error_text(why, code));
}

/* ---- The snapshot, on the disk's thread ---------------------------------------------- */

/* One request to the driver, and what it is about. */
struct ask {
        struct backup *backup;
        uint64_t offset;
        uint64_t length_bytes;
        struct iovec iov;
        struct hvb_block_status status;
        struct hvb_error err;
};

static int ask(struct ask *a, void (*start)(struct drive *drive, struct hvb_request *request,
                                            void *opaque))
{
        const struct drive_control control = { .start = start, .opaque = a };

        return drive_thread_run(a->backup->disk->thread, &control);
}

static void start_open(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct ask *a = opaque;

        drive_driver(drive)->snapshot_open(drive_image(drive), request, NULL,
                                           a->backup->options->tag, &a->backup->info,
                                           &a->backup->snapshot, &a->err);
}

static void start_close(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct ask *a = opaque;

        drive_driver(drive)->snapshot_close(a->backup->snapshot, request, &a->err);
}

static void start_status(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct ask *a = opaque;

        drive_driver(drive)->snapshot_block_status(drive_queue(drive), request,
                                                   a->backup->snapshot, a->offset,
                                                   a->length_bytes, 0, &a->status);
}

static void start_read(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct ask *a = opaque;

        drive_driver(drive)->snapshot_preadv(drive_queue(drive), request, a->backup->snapshot,
                                             a->offset, &a->iov, 1, 0);
}

static int call_can_open(struct drive *drive, void *opaque)
{
        (void) opaque;
        return HVB_HAS(drive_driver(drive), snapshot_open) ? 0 : -ENOTSUP;
}

static int open_snapshot(struct backup *b)
{
        struct ask a = { .backup = b, .err = ERROR_INIT };
        int ret = drive_thread_call(b->disk->thread, call_can_open, NULL);

        if (ret < 0)
                return error_set(b->err, ret, "Device '%s' does not support snapshots",
                                 b->disk->id);
        b->info = (struct hvb_snapshot_info) { .struct_bytes = sizeof(b->info) };
        ret = ask(&a, start_open);
        if (ret == -ENOENT)
                return error_set(b->err, ret, "Snapshot '%s' does not exist on device '%s'",
                                 b->options->tag, b->disk->id);
        return ret < 0 ? fail(b, "open the snapshot", ret, &a.err) : 0;
}

/* The space of one that was deleted meanwhile is freed here; if it cannot be, close() and
 * repairs try again, and the backup is as good. */
static void close_snapshot(struct backup *b)
{
        struct ask a = { .backup = b, .err = ERROR_INIT };

        ask(&a, start_close);
}

/* ---- Copying -------------------------------------------------------------------------- */

/* How long what begins at offset is of one kind, and whether it must be copied. */
static int look(struct backup *b, uint64_t offset, uint64_t *ret_bytes, bool *ret_data)
{
        struct ask a = {
                .backup = b, .offset = offset,
                .length_bytes = MIN(b->info.disk_bytes - offset, STATUS_BYTES),
                .status = { .struct_bytes = sizeof(a.status) }, .err = ERROR_INIT,
        };
        int ret = ask(&a, start_status);

        if (ret < 0)
                return fail(b, "look at the disk", ret, &a.err);
        *ret_bytes = a.status.length_bytes;
        *ret_data = (a.status.flags & HVB_STATUS_DATA) && !(a.status.flags & HVB_STATUS_ZERO);
        return 0;
}

static int read_piece(struct backup *b, const struct slot *slot, uint64_t offset)
{
        struct ask a = { .backup = b, .offset = offset, .iov = slot->iov, .err = ERROR_INIT };
        int ret = ask(&a, start_read);

        return ret < 0 ? fail(b, "read", ret, &a.err) : 0;
}

/* Until the slot's write has landed, which may have been while another was waited for. */
static int wait_slot(struct backup *b, struct slot *slot)
{
        int ret = slot->op->busy ? drive_op_wait(slot->op) : slot->op->result;

        if (!slot->has_result)
                return 0;
        slot->has_result = false;
        return ret < 0 ? fail(b, "write", ret, NULL) : 0;
}

static int copy_piece(struct backup *b, uint64_t offset, uint64_t bytes)
{
        struct slot *slot = &b->slots[b->next_slot++ % SLOTS];
        int ret = wait_slot(b, slot);

        if (ret < 0)
                return ret;
        slot->iov = (struct iovec) { slot->buffer, bytes };
        ret = read_piece(b, slot, offset);
        if (ret < 0 || memory_is_zero(slot->buffer, bytes))
                return ret;
        drive_op_pwritev(slot->op, offset, &slot->iov, 1, 0);
        slot->has_result = true;
        job_count(&b->job->written_bytes, bytes);
        ret = drive_poll(b->target, 0);
        return ret < 0 ? fail(b, "write", ret, NULL) : 0;
}

static int copy_all(struct backup *b)
{
        uint64_t offset = 0;

        while (offset < b->info.disk_bytes) {
                uint64_t bytes = 0;
                bool is_data = false;
                int ret;

                if (job_is_cancelled(b->job))
                        return error_set(b->err, -ECANCELED, "cancelled");
                ret = look(b, offset, &bytes, &is_data);
                if (ret == 0 && is_data) {
                        bytes = MIN(bytes, PIECE_BYTES - offset % PIECE_BYTES);
                        ret = copy_piece(b, offset, bytes);
                }
                if (ret < 0)
                        return ret;
                offset += bytes;
                job_set(&b->job->done_bytes, offset);
        }
        return 0;
}

static int make_slots(struct backup *b)
{
        for (unsigned i = 0; i < SLOTS; i++) {
                if (posix_memalign(&b->slots[i].buffer, BUFFER_ALIGNMENT, PIECE_BYTES) != 0)
                        return error_set(b->err, -ENOMEM, "no memory for a backup");
                b->slots[i].op = drive_op_new(b->target);
        }
        return 0;
}

/* Writes in flight land first.  Returns the first error of those. */
static int free_slots(struct backup *b)
{
        int first = 0;

        for (unsigned i = 0; i < SLOTS; i++) {
                int ret = b->slots[i].op == NULL ? 0 : wait_slot(b, &b->slots[i]);

                first = first == 0 ? ret : first;
                drive_op_free(b->slots[i].op);
                free(b->slots[i].buffer);
        }
        return first;
}

static int copy(struct backup *b)
{
        int ret = make_slots(b);
        struct hvb_error first;
        int landed;

        if (ret == 0)
                ret = copy_all(b);
        first = *b->err;
        landed = free_slots(b);
        if (ret < 0)
                *b->err = first;
        else
                ret = landed;
        if (ret == 0) {
                ret = drive_flush(b->target);
                if (ret < 0)
                        fail(b, "flush", ret, NULL);
        }
        return ret;
}

/* ---- The target ----------------------------------------------------------------------- */

/* Nobody's file is overwritten, whenever it appeared. */
static int claim(struct backup *b)
{
        int fd = open(b->options->target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

        if (fd < 0)
                return error_set(b->err, -errno, "Could not create '%s': %s", b->options->target,
                                 g_strerror(errno));
        close(fd);
        return 0;
}

static int write_target(struct backup *b)
{
        const char *format = b->options->format == NULL ? "qcow2" : b->options->format;
        const struct hvb_create_args args = { .size_bytes = b->info.disk_bytes };
        const struct drive_options how = { .format = format, .flags = HVB_OPEN_RDWR };
        struct hvb_error why = ERROR_INIT;
        int ret = claim(b);
        int closed;

        if (ret < 0)
                return ret;
        ret = drive_create(b->options->target, &args, &how, &b->target, &why);
        if (ret < 0) {
                fail(b, "create the target", ret, &why);
        } else {
                ret = copy(b);
                closed = drive_close(b->target, &why);
                if (ret == 0 && closed < 0)
                        ret = fail(b, "close the target", closed, &why);
        }
        if (ret < 0)
                unlink(b->options->target);
        return ret;
}

static const struct machine_disk *find_disk(struct machine *m, const char *id)
{
        unsigned count;
        const struct machine_disk *disks = machine_disks(m, &count);

        for (unsigned i = 0; i < count; i++)
                if (strcmp(disks[i].id, id) == 0)
                        return &disks[i];
        return NULL;
}

static bool is_format(const char *format)
{
        return format == NULL || strcmp(format, "qcow2") == 0 || strcmp(format, "raw") == 0;
}

int vm_backup(struct machine *m, const struct vm_backup_options *options, struct vm_job *job,
              struct hvb_error *err)
{
        struct hvb_error own = ERROR_INIT;
        struct backup b = {
                .options = options, .disk = find_disk(m, options->disk), .job = job,
                .err = err == NULL ? &own : err,
        };
        int ret;

        if (b.disk == NULL)
                return error_set(b.err, -ENODEV, "Cannot find device='%s' nor node-name='%s'",
                                 options->disk, options->disk);
        if (!is_format(options->format))
                return error_set(b.err, -EINVAL, "Unknown file format '%s': \"qcow2\" and \"raw\" "
                                 "can be written", options->format);
        ret = open_snapshot(&b);
        if (ret < 0)
                return ret;
        job_set(&job->total_bytes, b.info.disk_bytes);
        ret = write_target(&b);
        close_snapshot(&b);
        return ret;
}
