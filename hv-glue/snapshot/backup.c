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
#include "snapshot/disk-snapshot.h"
#include "snapshot/job.h"
#include "snapshot/ram-save.h"
#include "snapshot/vm-disks.h"

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
        struct machine *machine;
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

/* ---- The snapshot --------------------------------------------------------------------- */

/* Of several of that tag the one of the complete set, as loadvm has it.  g_free; NULL: the first,
 * if there is any. */
static char *find_id(const struct backup *b)
{
        struct hvb_error why = ERROR_INIT;
        struct vm_disks disks;
        char *id = NULL;

        vm_disks_all(b->machine, &disks);
        if (vm_disks_list(&disks, b->options->tag, &why) == 0)
                for (unsigned i = 0; i < disks.count; i++)
                        if (disks.disks[i].disk == b->disk && disks.disks[i].found != NULL)
                                id = g_strdup(disks.disks[i].found->id_str);
        vm_disks_clear(&disks);
        return id;
}

static int open_snapshot(struct backup *b)
{
        struct hvb_error why = ERROR_INIT;
        g_autofree char *id = find_id(b);
        int ret = disk_snapshot_open(b->disk->thread, id, b->options->tag, &b->info,
                                     &b->snapshot, &why);

        if (ret == -ENOTSUP)
                return error_set(b->err, ret, "Device '%s' does not support snapshots",
                                 b->disk->id);
        if (ret == -ENOENT)
                return error_set(b->err, ret, "Snapshot '%s' does not exist on device '%s'",
                                 b->options->tag, b->disk->id);
        return ret < 0 ? fail(b, "open the snapshot", ret, &why) : 0;
}

/* ---- Copying -------------------------------------------------------------------------- */

/* How long what begins at offset is of one kind, and whether it must be copied. */
static int look(struct backup *b, uint64_t offset, uint64_t *ret_bytes, bool *ret_data)
{
        struct hvb_block_status status;
        int ret = disk_snapshot_status(b->disk->thread, b->snapshot, offset,
                                       MIN(b->info.disk_bytes - offset, STATUS_BYTES), &status);

        if (ret < 0)
                return fail(b, "look at the disk", ret, NULL);
        *ret_bytes = status.length_bytes;
        *ret_data = (status.flags & HVB_STATUS_DATA) && !(status.flags & HVB_STATUS_ZERO);
        return 0;
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
        ret = disk_snapshot_read(b->disk->thread, b->snapshot, offset, slot->buffer, bytes, 0);
        if (ret < 0)
                return fail(b, "read", ret, NULL);
        if (memory_is_zero(slot->buffer, bytes))
                return 0;
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

static bool is_format(const char *format)
{
        return format == NULL || strcmp(format, "qcow2") == 0 || strcmp(format, "raw") == 0;
}

int vm_backup(struct machine *m, const struct vm_backup_options *options, struct vm_job *job,
              struct hvb_error *err)
{
        struct hvb_error own = ERROR_INIT;
        struct backup b = {
                .machine = m, .options = options, .job = job,
                .disk = machine_find_disk(m, options->disk),
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
        disk_snapshot_close(b.disk->thread, b.snapshot);
        return ret;
}
