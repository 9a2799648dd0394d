/*
 * simdisk-op.c - one I/O that the simulated disk has taken in.
 *
 * An I/O is planned when the disk takes it in: what it will transfer, whether it
 * fails, in which step it is ready.  It happens when it completes: a write changes
 * the file then, a read reads then.  Until that moment a power cut may find any
 * part of a write on the disk.
 *
 * SPDX-License-Identifier: MIT
 */
#include "lib/simdisk-op.h"

#include <errno.h>
#include <string.h>

/* An I/O that asks to be retried for ever is a fault to be planned, not chance. */
enum { CHANCE_RETRIES_MAX = 8 };

static struct sim_file *file_of(struct simdisk *disk, const struct io *io)
{
        return &disk->files[io->file->slot];
}

static bool chance(struct simdisk *disk, unsigned percent)
{
        return percent > 0 && sim_random_below(&disk->random, 100) < percent;
}

static uint64_t window_bytes(const struct io *io)
{
        uint64_t length = 0;
        unsigned i;

        for (i = 0; i < io->next_count; i++)
                length += io->next_iov[i].iov_len;
        return length;
}

static void gather(const struct io *io, uint8_t *data, uint64_t length)
{
        unsigned i;

        for (i = 0; length > 0; i++) {
                size_t n = MIN(io->next_iov[i].iov_len, length);

                memcpy(data, io->next_iov[i].iov_base, n);
                data += n;
                length -= n;
        }
}

static bool fault_matches(const struct sim_fault *fault, const struct sim_entry *entry)
{
        return (fault->ops == 0 || (fault->ops & 1u << entry->op) != 0) &&
               (fault->file < 0 || (unsigned)fault->file == entry->file);
}

/* The fault that this I/O meets, or NULL.  All that match count it. */
static const struct sim_fault *fault_find(struct simdisk *disk, const struct sim_entry *entry)
{
        const struct sim_fault *found = NULL;
        unsigned i;

        for (i = 0; i < disk->faults->len; i++) {
                struct sim_fault *fault = simdisk_fault(disk, i);

                if (!fault_matches(fault, entry))
                        continue;
                fault->seen++;
                if (fault->seen < fault->nth || (fault->seen > fault->nth && !fault->sticky))
                        continue;
                fault->hits++;
                if (found == NULL)
                        found = fault;
        }
        return found;
}

/* What the file itself has against it: 0 or -errno. */
static int refuse(const struct sim_file *file, const struct sim_entry *entry)
{
        uint64_t end = entry->offset + entry->length;
        uint64_t limit = file->is_block_device ? file->image.length_bytes
                       : file->length_max > 0  ? file->length_max
                                               : UINT64_MAX;

        switch (entry->op) {
        case IO_WRITE:
                return entry->offset >= limit ? -ENOSPC : 0;
        case IO_ALLOCATE:
                return file->is_block_device ? -EOPNOTSUPP : end > limit ? -ENOSPC : 0;
        case IO_ZERO:
                return file->no_zero ? -EOPNOTSUPP : 0;
        case IO_PUNCH:
                return file->no_punch ? -EOPNOTSUPP : 0;
        case IO_TRUNCATE:
                return file->is_block_device ? -EINVAL : entry->offset > limit ? -ENOSPC : 0;
        case IO_READ:
        case IO_FSYNC:
                break;
        }
        return 0;
}

/* How much of length a transfer moves. */
static uint64_t plan_length(struct simdisk *disk, const struct sim_file *file,
                            const struct sim_entry *entry)
{
        uint64_t alignment = MAX(MAX(file->alignment, disk->options.short_bytes), 1);
        uint64_t length = entry->length;

        if (entry->op == IO_WRITE && file->is_block_device)
                length = MIN(length, file->image.length_bytes - entry->offset);
        else if (entry->op == IO_WRITE && file->length_max > 0)
                length = MIN(length, file->length_max - entry->offset);
        if (length > alignment && chance(disk, disk->options.short_percent))
                length = (1 + sim_random_below(&disk->random, length / alignment)) * alignment;
        return MIN(length, entry->length);
}

static void plan_result(struct simdisk *disk, struct sim_op *op)
{
        const struct sim_file *file = file_of(disk, op->io);
        const struct sim_fault *fault = fault_find(disk, &op->entry);
        bool transfer = op->io->op == IO_READ || op->io->op == IO_WRITE;
        uint64_t written = 0;

        op->entry.result = refuse(file, &op->entry);
        if (fault != NULL) {
                op->entry.result = fault->error;
                if (fault->torn)
                        written = SIM_SECTOR_BYTES *
                                  sim_random_below(&disk->random,
                                                   op->entry.length / SIM_SECTOR_BYTES + 1);
        } else if (op->entry.result == 0 && op->io->retries < CHANCE_RETRIES_MAX &&
                   chance(disk, disk->options.retry_percent)) {
                op->entry.result = chance(disk, 50) ? -EINTR : -EAGAIN;
        } else if (op->entry.result == 0 && transfer) {
                written = plan_length(disk, file, &op->entry);
        }
        if (transfer)
                op->entry.length = written;
        op->raw_result = op->entry.result < 0 ? op->entry.result : (int64_t)written;
}

static void trace(struct simdisk *disk, const struct sim_entry *entry, int64_t what)
{
        uint64_t words[] = { entry->op, entry->file, entry->offset, entry->length, what };
        unsigned i;

        for (i = 0; i < G_N_ELEMENTS(words); i++) {
                disk->trace_hash = (disk->trace_hash ^ words[i]) * 0x9e3779b97f4a7c15u;
                disk->trace_hash ^= disk->trace_hash >> 31;
        }
}

static void moment_add(struct simdisk *disk, unsigned entry, bool completes)
{
        struct sim_moment moment = { .entry = entry, .completes = completes };

        g_array_append_val(disk->moments, moment);
}

static void record(struct simdisk *disk, struct sim_op *op)
{
        op->entry.submitted = disk->moments->len;
        op->entry.completed = UINT64_MAX;
        op->entry_index = disk->entries->len;
        g_array_append_val(disk->entries, op->entry);
        moment_add(disk, op->entry_index, false);
}

static bool recorded(const struct simdisk *disk, const struct sim_op *op)
{
        return disk->options.record && op->io->op != IO_READ;
}

void sim_op_plan(struct simdisk *disk, struct io *io, struct sim_op *op)
{
        *op = (struct sim_op) { .io = io };
        op->entry.op = io->op;
        op->entry.file = io->file->slot;
        op->entry.offset = io->offset + io->done_bytes;
        op->entry.length = io->op == IO_READ || io->op == IO_WRITE ? window_bytes(io) : io->length;
        op->ready_step = disk->step + 1 + sim_random_below(&disk->random,
                                                           disk->options.delay_max + 1);
        plan_result(disk, op);
        if (io->op == IO_WRITE) {
                op->entry.data = g_malloc(op->entry.length);
                gather(io, op->entry.data, op->entry.length);
        }
        if (recorded(disk, op))
                record(disk, op);
        disk->io_count++;
        if (io->op == IO_READ)
                disk->read_bytes += op->entry.length;
        trace(disk, &op->entry, op->raw_result);
}

static int64_t read_into(const struct sim_image *image, const struct sim_op *op)
{
        const struct io *io = op->io;
        uint64_t end = MAX(image->length_bytes, op->entry.offset);
        uint64_t length = MIN(op->entry.length, end - op->entry.offset);
        uint64_t done = 0;
        unsigned i;

        for (i = 0; done < length; i++) {
                size_t n = MIN(io->next_iov[i].iov_len, length - done);

                sim_image_read(image, op->entry.offset + done, io->next_iov[i].iov_base, n);
                done += n;
        }
        return length;
}

static void check_buffers(struct simdisk *disk, const struct sim_op *op)
{
        uint8_t *now = g_malloc(op->entry.length);

        gather(op->io, now, op->entry.length);
        if (op->entry.length > 0 && memcmp(now, op->entry.data, op->entry.length) != 0)
                disk->changed_buffers++;
        g_free(now);
}

void sim_op_happen(struct simdisk *disk, struct sim_op *op)
{
        struct sim_image *image = &file_of(disk, op->io)->image;

        if (op->io->op == IO_READ && op->raw_result > 0)
                op->raw_result = read_into(image, op);
        if (op->io->op == IO_WRITE)
                check_buffers(disk, op);
        sim_entry_apply(&op->entry, image);

        if (recorded(disk, op)) {
                g_array_index(disk->entries, struct sim_entry, op->entry_index).completed =
                        disk->moments->len;
                moment_add(disk, op->entry_index, true);
        } else {
                g_free(op->entry.data);
        }
        trace(disk, &op->entry, ~op->raw_result);
        io_complete(op->io, op->raw_result);
}
