/*
 * batch-check.c - what must hold after the barrier of a batch; see batch.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "batch.h"

#include <errno.h>
#include <string.h>

#include <glib.h>

typedef unsigned long long ull;         /* for printf only */

static int check_result(struct batch *batch, const struct batch_request *request)
{
        int result = request->op->result;

        if (result == 0)
                return 0;
        /* As in QEMU, compression may refuse to overwrite: then nothing changed. */
        if (request->kind == BATCH_COMPRESSED && result == -EIO) {
                g_autofree uint8_t *bytes = g_malloc(request->length_bytes);

                disk_read(batch->before, request->offset, bytes, request->length_bytes);
                disk_write(batch->seq->model.disk, request->offset, bytes, request->length_bytes);
                tally_add(compressed_refused, 1);
                return 0;
        }
        return sequence_fail(batch->seq, "%s of %zu at %#llx: %s", batch_kind_name(request->kind),
                             request->length_bytes, (ull)request->offset, g_strerror(-result));
}

static int check_read(struct batch *batch, const struct batch_request *request)
{
        uint64_t bad;

        if (disk_allows(batch->before, batch->seq->model.disk, request->offset, request->bytes,
                        request->length_bytes, &bad))
                return 0;
        return sequence_fail(batch->seq, "read of %zu at %#llx, beside %u others: wrong byte at "
                             "%#llx", request->length_bytes, (ull)request->offset,
                             batch->count - 1, (ull)bad);
}

/* May the byte at offset be value, after a race? */
static bool race_allows(const struct batch *batch, uint64_t offset, uint8_t value)
{
        bool written = false;

        for (unsigned i = 0; i < batch->count; i++) {
                const struct batch_request *request = &batch->requests[i];

                if (!batch_writes(request->kind) || offset < request->offset ||
                    offset - request->offset >= request->length_bytes)
                        continue;
                if (value == (request->kind == BATCH_ZEROES ? 0 : request->fill))
                        return true;
                written = true;
        }
        if (!written) {
                uint8_t before;

                disk_read(batch->before, offset, &before, 1);
                return value == before;
        }
        return false;
}

static int settle_race(struct batch *batch)
{
        struct sequence *seq = batch->seq;
        g_autofree uint8_t *bytes = g_malloc(batch->window_bytes);
        int ret = drive_pread(seq->drive, batch->window_offset, bytes, batch->window_bytes);

        if (ret < 0)
                return sequence_fail(seq, "read after a race: %s", g_strerror(-ret));
        for (uint64_t i = 0; i < batch->window_bytes; i++)
                if (!race_allows(batch, batch->window_offset + i, bytes[i]))
                        return sequence_fail(seq, "after a race: nobody wrote byte %#x at %#llx",
                                             bytes[i], (ull)(batch->window_offset + i));
        disk_write(seq->model.disk, batch->window_offset, bytes, batch->window_bytes);
        return 0;
}

int batch_settle_discard(struct sequence *seq, const struct model_disk *before,
                         uint64_t offset, uint64_t length_bytes)
{
        const struct plan *plan = &seq->plan;
        uint64_t cluster = 1ull << plan->cluster_bits;
        uint64_t first = (offset + cluster - 1) / cluster * cluster;
        uint64_t end = (offset + length_bytes) / cluster * cluster;
        bool must_zero = plan->version == 3 || plan->backing == BACKING_NONE;
        g_autofree uint8_t *bytes = g_malloc(length_bytes);
        struct model_disk *zeros = disk_clone(seq->model.disk);
        int ret = drive_pread(seq->drive, offset, bytes, length_bytes);
        uint64_t bad;

        disk_fill(zeros, offset, 0, length_bytes);
        if (ret < 0)
                ret = sequence_fail(seq, "read after discard: %s", g_strerror(-ret));
        else if (!disk_allows(zeros, before, offset, bytes, length_bytes, &bad))
                ret = sequence_fail(seq, "discarded range [%#llx, +%#llx) has a new byte at %#llx",
                                    (ull)offset, (ull)length_bytes, (ull)bad);
        else if (must_zero && first < end &&
                 !disk_allows(zeros, NULL, first, bytes + (first - offset), end - first, &bad))
                ret = sequence_fail(seq, "discarded cluster is not zero at %#llx", (ull)bad);
        if (ret == 0)
                disk_write(seq->model.disk, offset, bytes, length_bytes);
        disk_free(zeros);
        return ret;
}

/* The snapshot taken meanwhile: into the model, as floor or ceiling. */
static int settle_snapshot(struct batch *batch)
{
        struct sequence *seq = batch->seq;
        int result = batch->snapshot_op->result;
        struct model_snapshot *snapshot;

        if (result == -EINVAL && control_may_overflow(seq)) {
                tally_add(snapshots_refused, 1);
                return 0;
        }
        if (result < 0)
                return sequence_fail(seq, "snapshot create, beside writes: %s",
                                     error_text(&batch->snapshot_error, result));
        snapshot = model_snapshot_create(&seq->model, batch->info.name);
        disk_free(snapshot->disk);
        snapshot->disk = batch->floor;
        snapshot->other = batch->ceiling;
        batch->floor = batch->ceiling = NULL;
        tally_add(snapshots_created, 1);
        control_forget_vm_state(seq);
        if (strcmp(snapshot->id, batch->info.id_str))
                return sequence_fail(seq, "snapshot got id '%s', not '%s'", batch->info.id_str,
                                     snapshot->id);
        return 0;
}

int batch_check(struct batch *batch)
{
        struct sequence *seq = batch->seq;
        int ret = 0;

        for (unsigned i = 0; ret == 0 && i < batch->count; i++)
                if (batch->requests[i].kind == BATCH_READ && !batch->window_bytes)
                        ret = check_read(batch, &batch->requests[i]);
        for (unsigned i = 0; ret == 0 && i < batch->count; i++)
                ret = check_result(batch, &batch->requests[i]);
        if (ret == 0 && batch->window_bytes)
                ret = settle_race(batch);
        for (unsigned i = 0; ret == 0 && i < batch->count; i++) {
                const struct batch_request *request = &batch->requests[i];

                if (request->kind == BATCH_DISCARD)
                        ret = batch_settle_discard(seq, batch->before, request->offset,
                                                   request->length_bytes);
        }
        if (ret == 0 && batch->snapshot_op)
                ret = settle_snapshot(batch);
        return ret;
}
