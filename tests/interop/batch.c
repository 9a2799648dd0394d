/*
 * batch.c - up to 32 requests in flight together, then a barrier; see sequence.h.
 *
 * The model takes a write when it is started: writes of one batch are disjoint, so
 * each byte is either as before the batch or as after it, and that is what a read
 * in flight may return.  In a race (MODE_RACE) writes overlap within a window;
 * there a byte may have any of its writers' values.
 *
 * SPDX-License-Identifier: MIT
 */
#include "batch.h"

#include <errno.h>
#include <string.h>

#include <glib.h>

static const char *const kind_names[] = {
        "read", "write", "zeroes", "discard", "compressed", "flush",
};

const char *batch_kind_name(enum batch_kind kind)
{
        return kind_names[kind];
}

bool batch_writes(enum batch_kind kind)
{
        return kind != BATCH_READ && kind != BATCH_FLUSH;
}

void batch_pattern(uint8_t *bytes, uint64_t offset, size_t length_bytes, uint64_t salt,
                   bool compressible)
{
        for (size_t i = 0; i < length_bytes; i++) {
                uint64_t at = offset + i;
                uint64_t word = (at >> 3) * 0x9e3779b97f4a7c15u ^ salt;

                word ^= word >> 29;
                word *= 0xbf58476d1ce4e5b9u;
                bytes[i] = compressible ? salt >> at % 4 * 8 : word >> (at & 7) * 8;
        }
}

static enum batch_kind draw_kind(struct batch *batch)
{
        unsigned draw = rng_below(&batch->seq->rng, 100);

        if (draw < 22)
                return BATCH_READ;
        if (draw < 66)
                return BATCH_WRITE;
        if (draw < 79)
                return BATCH_ZEROES;
        if (draw < 88)
                return batch->window_bytes ? BATCH_WRITE : BATCH_DISCARD;
        if (draw < 94)
                return batch->window_bytes ? BATCH_ZEROES : BATCH_COMPRESSED;
        return BATCH_FLUSH;
}

static size_t draw_length(struct rng *rng, uint64_t cluster)
{
        unsigned draw = rng_below(rng, 100);

        if (draw < 40)
                return 512 * rng_between(rng, 1, 16);
        if (draw < 55)
                return rng_between(rng, 1, 5000);
        if (draw < 80)
                return rng_between(rng, 1, cluster / 512) * 512;
        if (draw < 95)
                return rng_between(rng, 1, 3) * cluster;
        return rng_between(rng, cluster, 3 * cluster);
}

/* A range for a request of this kind; may overlap others. */
static void draw_range(struct batch *batch, struct batch_request *request, uint64_t hot)
{
        struct rng *rng = &batch->seq->rng;
        uint64_t disk = batch->seq->model.disk->size_bytes;
        uint64_t cluster = 1ull << batch->seq->plan.cluster_bits;
        uint64_t low = 0, high = disk;
        uint64_t offset, length = draw_length(rng, cluster);
        bool whole = request->kind == BATCH_COMPRESSED ||
                     (request->kind != BATCH_READ && request->kind != BATCH_WRITE &&
                      !batch->window_bytes && rng_chance(rng, 60));

        if (batch->window_bytes) {
                low = batch->window_offset;
                high = low + batch->window_bytes;
                length = rng_between(rng, 1, batch->window_bytes / 2);
        } else if (rng_chance(rng, 50)) {
                low = hot;
                high = MIN(hot + 4 * cluster, disk);
        }
        offset = rng_between(rng, low, high - 1);
        if (rng_chance(rng, 85))
                offset = offset / 512 * 512;
        if (whole) {
                offset = offset / cluster * cluster;
                length = request->kind == BATCH_COMPRESSED ? cluster
                                                           : rng_between(rng, 1, 4) * cluster;
        }
        request->offset = offset;
        request->length_bytes = MIN(length, (batch->window_bytes ? high : disk) - offset);
}

static bool collides(const struct batch *batch, const struct batch_request *request)
{
        for (unsigned i = 0; i < batch->count; i++) {
                const struct batch_request *other = &batch->requests[i];

                if (batch_writes(other->kind) &&
                    request->offset < other->offset + other->length_bytes &&
                    other->offset < request->offset + request->length_bytes)
                        return true;
        }
        return false;
}

/* Cuts the buffer into pieces of odd sizes. */
static void cut_vector(struct rng *rng, struct batch_request *request)
{
        unsigned pieces = rng_chance(rng, 60) ? 1 : rng_between(rng, 2, BATCH_IOV_MAX);
        size_t at = 0;

        for (unsigned i = 0; i < pieces; i++) {
                size_t left = request->length_bytes - at;
                size_t take = i + 1 == pieces ? left : rng_below(rng, left + 1);

                request->iov[i].iov_base = request->bytes + at;
                request->iov[i].iov_len = take;
                at += take;
        }
        request->iov_count = pieces;
}

static void draw_content(struct batch *batch, struct batch_request *request)
{
        struct rng *rng = &batch->seq->rng;

        if (request->kind == BATCH_ZEROES && rng_chance(rng, 50))
                request->flags |= HVB_REQ_MAY_UNMAP;
        if (batch_writes(request->kind) && request->kind != BATCH_DISCARD && rng_chance(rng, 10))
                request->flags |= HVB_REQ_FUA;
        if (request->kind == BATCH_COMPRESSED)
                request->flags |= HVB_REQ_COMPRESS;
        if (request->kind == BATCH_ZEROES || request->kind == BATCH_DISCARD)
                return;
        request->bytes = g_malloc(request->length_bytes + 1);
        if (batch->window_bytes)
                memset(request->bytes, request->fill, request->length_bytes);
        else if (request->kind != BATCH_READ)
                batch_pattern(request->bytes, request->offset, request->length_bytes,
                              rng_next(rng), rng_chance(rng, request->flags ? 80 : 20));
        cut_vector(rng, request);
}

/* Adds a request if a place for it can be found. */
static void draw_request(struct batch *batch, uint64_t hot)
{
        struct batch_request *request = &batch->requests[batch->count];

        *request = (struct batch_request) { .batch = batch };
        request->kind = draw_kind(batch);
        request->fill = batch->count + 1;
        for (unsigned attempt = 0; request->kind != BATCH_FLUSH; attempt++) {
                if (attempt == 8)
                        return;
                draw_range(batch, request, hot);
                if (batch->total_bytes + request->length_bytes > BATCH_BYTES_MAX)
                        continue;
                if (request->kind == BATCH_READ || batch->window_bytes ||
                    !collides(batch, request))
                        break;
        }
        if (request->kind != BATCH_FLUSH)
                draw_content(batch, request);
        batch->total_bytes += request->length_bytes;
        batch->count++;
}

static void draw_batch(struct batch *batch)
{
        struct rng *rng = &batch->seq->rng;
        uint64_t disk = batch->seq->model.disk->size_bytes;
        uint64_t cluster = 1ull << batch->seq->plan.cluster_bits;
        uint64_t hot = rng_below(rng, disk) / cluster * cluster;
        unsigned wanted = 1u << rng_below(rng, 6);

        if (batch->seq->plan.mode == MODE_RACE && rng_chance(rng, 50)) {
                batch->window_bytes = MIN(MIN(4 * cluster, 128u << 10), disk);
                batch->window_offset = MIN(hot, disk - batch->window_bytes);
        }
        for (unsigned i = 0; i < wanted; i++)
                draw_request(batch, hot);
}

static void request_done(struct drive_op *op)
{
        struct batch_request *request = op->opaque;

        request->done = true;
}

/* What the disk is to hold once the request is done. */
static void apply(struct model_disk *disk, const struct batch_request *request)
{
        if (request->batch->window_bytes)
                return;
        if (request->kind == BATCH_WRITE || request->kind == BATCH_COMPRESSED)
                disk_write(disk, request->offset, request->bytes, request->length_bytes);
        else if (request->kind == BATCH_ZEROES || request->kind == BATCH_DISCARD)
                disk_fill(disk, request->offset, 0, request->length_bytes);
}

static void start_request(struct batch *batch, unsigned index)
{
        struct batch_request *request = &batch->requests[index];
        struct drive_op *op = drive_op_new(batch->seq->drive);

        sequence_log(batch->seq, "  %s 0x%llx +%zu flags %#x pieces %u",
                     batch_kind_name(request->kind), (unsigned long long)request->offset,
                     request->length_bytes, request->flags, request->iov_count);
        request->op = op;
        op->done = request_done;
        op->opaque = request;
        apply(batch->seq->model.disk, request);
        switch (request->kind) {
        case BATCH_READ:
                drive_op_preadv(op, request->offset, request->iov, request->iov_count, 0);
                break;
        case BATCH_WRITE:
        case BATCH_COMPRESSED:
                batch->seq->compressed |= request->kind == BATCH_COMPRESSED;
                drive_op_pwritev(op, request->offset, request->iov, request->iov_count,
                                 request->flags);
                break;
        case BATCH_ZEROES:
                drive_op_pwrite_zeroes(op, request->offset, request->length_bytes, request->flags);
                break;
        case BATCH_DISCARD:
                drive_op_pdiscard(op, request->offset, request->length_bytes);
                break;
        default:
                drive_op_flush(op);
        }
}

static void snapshot_done(struct drive_op *op)
{
        struct batch *batch = op->opaque;

        batch->ceiling = disk_clone(batch->seq->model.disk);
        batch->snapshot_done = true;
}

/* What is done now must be in the snapshot; what is started after its end may not. */
static void start_snapshot(struct batch *batch)
{
        struct sequence *seq = batch->seq;
        struct drive_op *op = drive_op_new(seq->drive);
        g_autofree char *name = control_new_name(seq);

        batch->floor = disk_clone(batch->before);
        for (unsigned i = 0; i < batch->snapshot_at; i++) {
                const struct batch_request *request = &batch->requests[i];

                if (request->done && request->op->result == 0 && request->kind != BATCH_DISCARD)
                        apply(batch->floor, request);
        }
        sequence_log(seq, "  snapshot create '%s'", name);
        batch->info.struct_bytes = sizeof(batch->info);
        batch->info.icount = UINT64_MAX;
        g_strlcpy(batch->info.name, name, sizeof(batch->info.name));
        batch->snapshot_error = (struct hvb_error) ERROR_INIT;
        batch->snapshot_op = op;
        op->done = snapshot_done;
        op->opaque = batch;
        drive_driver(seq->drive)->snapshot_create(drive_image(seq->drive), drive_op_begin(op),
                                                  &batch->info, 0, &batch->snapshot_error);
}

static bool all_done(const struct batch *batch)
{
        for (unsigned i = 0; i < batch->count; i++)
                if (!batch->requests[i].done)
                        return false;
        return !batch->snapshot_op || batch->snapshot_done;
}

static int run_batch(struct batch *batch)
{
        struct sequence *seq = batch->seq;
        bool live = seq->plan.mode == MODE_LIVE && rng_chance(&seq->rng, 40) &&
                    seq->model.snapshot_count < 6;
        int ret = 0;

        batch->snapshot_at = live ? rng_below(&seq->rng, batch->count + 1) : UINT32_MAX;
        for (unsigned i = 0; i < batch->count; i++) {
                if (i == batch->snapshot_at)
                        start_snapshot(batch);
                start_request(batch, i);
                if (ret >= 0 && rng_chance(&seq->rng, 30))
                        ret = drive_poll(seq->drive, 0);
        }
        while (ret >= 0 && !all_done(batch))
                ret = drive_poll(seq->drive, -1);
        return ret < 0 ? sequence_fail(seq, "poll: %s", g_strerror(-ret)) : 0;
}

int batch_run(struct sequence *seq)
{
        g_autofree struct batch *batch = g_new0(struct batch, 1);
        int ret;

        batch->seq = seq;
        batch->before = disk_clone(seq->model.disk);
        draw_batch(batch);
        sequence_log(seq, "%s of %u:", batch->window_bytes ? "race" : "batch", batch->count);
        ret = run_batch(batch);
        if (ret == 0)
                ret = batch_check(batch);
        seq->op_count += batch->count;
        tally_add(requests, batch->count);
        if (ret < 0)
                return ret;             /* requests may still be in flight: leak them */
        for (unsigned i = 0; i < batch->count; i++) {
                drive_op_free(batch->requests[i].op);
                g_free(batch->requests[i].bytes);
        }
        drive_op_free(batch->snapshot_op);
        disk_free(batch->before);
        disk_free(batch->floor);
        disk_free(batch->ceiling);
        return 0;
}
