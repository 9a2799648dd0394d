/*
 * hv-img-copy.c - convert's pipeline of reads and writes.
 *
 * The disk is cut into pieces, each all data or all zeros; what the target has
 * anyway is skipped.  A piece goes through a slot:
 *
 *   IDLE --take--> READING --all read--> READY --its turn--> WRITING --> IDLE
 *
 * The turn passes in the order of the pieces when a piece's last write has
 * started, so that the target allocates in the order of the disk, while
 * reads and writes of several pieces overlap.  Out of order every turn is now.
 *
 * SPDX-License-Identifier: MIT
 */
#include "hv-img-copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hv-img.h"

enum {
        PIECE_BYTES = 2 << 20,          /* of data; larger than any cluster or as large */
        ZERO_BYTES = 1 << 30,           /* of zeros */
        BUFFER_ALIGNMENT = 4096,
};

enum piece_kind { PIECE_SKIP, PIECE_ZERO, PIECE_DATA, PIECE_ZERO_AS_DATA };
enum slot_state { SLOT_IDLE, SLOT_READING, SLOT_READY, SLOT_WRITING };

struct pipeline;

struct slot {
        struct pipeline *pipeline;
        enum slot_state state;
        enum piece_kind kind;
        uint64_t sequence;
        uint64_t offset;
        uint64_t length;
        uint64_t read_done;
        uint64_t write_done;
        uint64_t write_length;          /* of the write under way */
        char *buffer;
        struct iovec read_iov;
        struct iovec write_iov;
        struct drive_op **read_ops;     /* one a source */
        struct drive_op *write_op;
};

struct pipeline {
        const struct copy *copy;
        struct drive **drives;          /* sources and target, for polling */
        uint64_t *source_ends;          /* where each ends on the target */
        uint64_t total_bytes;
        uint64_t next_offset;           /* what is before is in slots or done */
        uint64_t done_bytes;
        uint64_t next_sequence;
        uint64_t turn;                  /* sequence of the piece that may write */
        struct slot slots[COPY_PARALLEL_MAX];
        int error;                      /* the first; nothing new is begun then */
};

static void fail(struct pipeline *p, const char *verb, uint64_t offset, int error)
{
        if (p->error == 0)
                img_error("error while %s at byte %" PRIu64 ": %s", verb, offset,
                          g_strerror(-error));
        p->error = p->error == 0 ? error : p->error;
}

static unsigned source_at(const struct pipeline *p, uint64_t offset)
{
        unsigned i = 0;

        while (offset >= p->source_ends[i])
                i++;
        return i;
}

static uint64_t source_start(const struct pipeline *p, unsigned source)
{
        return source == 0 ? 0 : p->source_ends[source - 1];
}

/* ---- Writing -------------------------------------------------------------------------- */

static bool is_zero(const char *bytes, size_t length)
{
        return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* How long what begins at write_done is all zeros, or has none worth sparing. */
static uint64_t find_run(const struct slot *slot, bool *ret_zero)
{
        uint64_t sparse_bytes = slot->pipeline->copy->sparse_bytes;
        uint64_t at = slot->write_done;
        bool is_first = true;

        while (at < slot->length) {
                uint64_t block = sparse_bytes - (slot->offset + at) % sparse_bytes;
                uint64_t length = MIN(block, slot->length - at);
                bool zero = is_zero(slot->buffer + at, length);

                if (is_first)
                        *ret_zero = zero;
                else if (zero != *ret_zero)
                        break;
                is_first = false;
                at += length;
        }
        return at - slot->write_done;
}

/* The next write of a piece: its length, and whether it is one of zeros. */
static uint64_t next_write(const struct slot *slot, bool *ret_zero)
{
        const struct copy *copy = slot->pipeline->copy;
        uint64_t rest = slot->length - slot->write_done;

        *ret_zero = slot->kind == PIECE_ZERO;
        if (slot->kind != PIECE_DATA || copy->sparse_bytes == 0)
                return rest;
        if (copy->compress) {
                *ret_zero = is_zero(slot->buffer, slot->length);
                return rest;
        }
        return find_run(slot, ret_zero);
}

static void slot_finish(struct slot *slot)
{
        struct pipeline *p = slot->pipeline;

        slot->state = SLOT_IDLE;
        p->done_bytes += slot->length;
        if (p->error == 0)
                progress_update(p->done_bytes, p->total_bytes);
}

/* Starts the piece's next write, or finishes.  True: nothing more will be started. */
static bool write_on(struct slot *slot)
{
        struct pipeline *p = slot->pipeline;
        uint64_t offset;
        bool zero = false;

        slot->state = SLOT_WRITING;
        while (slot->write_done < slot->length && p->error == 0) {
                slot->write_length = next_write(slot, &zero);
                if (!zero || !p->copy->target_is_zero)
                        break;
                slot->write_done += slot->write_length;
        }
        if (slot->write_done == slot->length || p->error != 0) {
                slot_finish(slot);
                return true;
        }
        offset = slot->offset + slot->write_done;
        if (zero) {
                drive_op_pwrite_zeroes(slot->write_op, offset, slot->write_length,
                                       HVB_REQ_MAY_UNMAP);
        } else {
                slot->write_iov.iov_base = slot->buffer + slot->write_done;
                slot->write_iov.iov_len = slot->write_length;
                drive_op_pwritev(slot->write_op, offset, &slot->write_iov, 1,
                                 p->copy->compress ? HVB_REQ_COMPRESS : 0);
        }
        return slot->write_done + slot->write_length == slot->length;
}

static struct slot *find_turn(struct pipeline *p)
{
        for (unsigned i = 0; i < p->copy->parallel; i++) {
                struct slot *slot = &p->slots[i];

                if (slot->state == SLOT_READY
                    && (p->copy->is_out_of_order || slot->sequence == p->turn))
                        return slot;
        }
        return NULL;
}

/* Lets everyone write whose turn it is. */
static void pass_turns(struct pipeline *p)
{
        struct slot *slot;

        while ((slot = find_turn(p)) != NULL)
                if (write_on(slot))
                        p->turn++;
}

static void write_done(struct drive_op *op)
{
        struct slot *slot = op->opaque;
        struct pipeline *p = slot->pipeline;
        bool was_last;

        if (op->result < 0)
                fail(p, "writing", slot->offset + slot->write_done, op->result);
        slot->write_done += slot->write_length;
        was_last = slot->write_done == slot->length;
        /* The turn has gone on already if this write was the last one. */
        if (write_on(slot) && !was_last)
                p->turn++;
        pass_turns(p);
}

/* ---- Reading --------------------------------------------------------------------------- */

/* Starts the piece's next read: a piece may lie on several sources. */
static void read_on(struct slot *slot)
{
        struct pipeline *p = slot->pipeline;
        uint64_t offset = slot->offset + slot->read_done;
        unsigned source;
        uint64_t length;

        if (slot->read_done == slot->length || p->error != 0) {
                slot->state = SLOT_READY;
                pass_turns(p);
                return;
        }
        source = source_at(p, offset);
        length = MIN(slot->length - slot->read_done, p->source_ends[source] - offset);
        slot->state = SLOT_READING;
        slot->read_iov = (struct iovec) { slot->buffer + slot->read_done, length };
        drive_op_preadv(slot->read_ops[source], offset - source_start(p, source), &slot->read_iov,
                        1, 0);
}

static void read_done(struct drive_op *op)
{
        struct slot *slot = op->opaque;

        if (op->result < 0)
                fail(slot->pipeline, "reading", slot->offset + slot->read_done, op->result);
        slot->read_done += slot->read_iov.iov_len;
        read_on(slot);
}

/* ---- Pieces ------------------------------------------------------------------------------ */

static enum piece_kind judge_piece(const struct copy *copy, uint64_t offset,
                                   const struct hvb_block_status *status)
{
        if (copy->target_has_backing && status->depth > 0)
                return PIECE_SKIP;
        if (!(status->flags & HVB_STATUS_ZERO))
                return PIECE_DATA;
        if (copy->target_has_backing && offset >= copy->target_backing_bytes)
                return PIECE_SKIP;
        if (copy->sparse_bytes == 0)
                return PIECE_ZERO_AS_DATA;
        return copy->target_is_zero ? PIECE_SKIP : PIECE_ZERO;
}

/* Compressed clusters are written whole or not at all. */
static void fit_cluster(const struct pipeline *p, enum piece_kind *kind, uint64_t *length)
{
        uint64_t cluster_bytes = p->copy->cluster_bytes;
        uint64_t rest = p->total_bytes - p->next_offset;

        g_assert(p->next_offset % cluster_bytes == 0);
        if (*kind == PIECE_SKIP || *kind == PIECE_ZERO) {
                if (*length < rest)
                        *length -= *length % cluster_bytes;
                if (*length > 0)
                        return;
                *kind = PIECE_DATA;             /* in part: what is read of the rest counts */
        }
        *length = MIN(cluster_bytes, rest);
}

/* Finds out what comes next.  0 or -errno. */
static int next_piece(struct pipeline *p, enum piece_kind *ret_kind, uint64_t *ret_length)
{
        unsigned source = source_at(p, p->next_offset);
        uint64_t start = source_start(p, source);
        uint64_t limit = p->source_ends[source] - p->next_offset;
        struct hvb_block_status status;
        int ret = img_block_status(p->copy->sources[source], p->next_offset - start, limit,
                                   &status);

        if (ret < 0) {
                fail(p, "reading block status", p->next_offset, ret);
                return ret;
        }
        *ret_kind = judge_piece(p->copy, p->next_offset, &status);
        *ret_length = status.length_bytes;
        if (p->copy->compress)
                fit_cluster(p, ret_kind, ret_length);
        else if (*ret_kind == PIECE_ZERO)
                *ret_length = MIN(*ret_length, (uint64_t) ZERO_BYTES);
        else if (*ret_kind != PIECE_SKIP)
                *ret_length = MIN(*ret_length, PIECE_BYTES - p->next_offset % PIECE_BYTES);
        return 0;
}

static void take_piece(struct pipeline *p, struct slot *slot, enum piece_kind kind,
                       uint64_t length)
{
        slot->kind = kind;
        slot->sequence = p->next_sequence++;
        slot->offset = p->next_offset;
        slot->length = length;
        slot->write_done = 0;
        slot->read_done = kind == PIECE_DATA ? 0 : length;
        if (kind == PIECE_ZERO_AS_DATA)
                memset(slot->buffer, 0, length);
        p->next_offset += length;
        read_on(slot);
}

static struct slot *find_idle(struct pipeline *p)
{
        for (unsigned i = 0; i < p->copy->parallel; i++)
                if (p->slots[i].state == SLOT_IDLE)
                        return &p->slots[i];
        return NULL;
}

static bool is_busy(const struct pipeline *p)
{
        for (unsigned i = 0; i < p->copy->parallel; i++)
                if (p->slots[i].state != SLOT_IDLE)
                        return true;
        return false;
}

static void run(struct pipeline *p)
{
        struct slot *slot;

        while (p->error == 0 || is_busy(p)) {
                while (p->error == 0 && p->next_offset < p->total_bytes
                       && (slot = find_idle(p)) != NULL) {
                        enum piece_kind kind;
                        uint64_t length;

                        if (next_piece(p, &kind, &length) < 0)
                                break;
                        if (kind != PIECE_SKIP) {
                                take_piece(p, slot, kind, length);
                                continue;
                        }
                        p->next_offset += length;
                        p->done_bytes += length;
                        progress_update(p->done_bytes, p->total_bytes);
                }
                if (!is_busy(p) && (p->next_offset >= p->total_bytes || p->error != 0))
                        break;
                drive_poll_many(p->drives, p->copy->source_count + 1, -1);
        }
}

/* ---- Beginning and end --------------------------------------------------------------------- */

static int slot_init(struct pipeline *p, struct slot *slot)
{
        const struct copy *copy = p->copy;
        void *buffer;

        slot->pipeline = p;
        if (posix_memalign(&buffer, BUFFER_ALIGNMENT, PIECE_BYTES) != 0)
                return -ENOMEM;
        slot->buffer = buffer;
        slot->read_ops = g_new0(struct drive_op *, copy->source_count);
        for (unsigned i = 0; i < copy->source_count; i++) {
                slot->read_ops[i] = drive_op_new(copy->sources[i]);
                slot->read_ops[i]->done = read_done;
                slot->read_ops[i]->opaque = slot;
        }
        slot->write_op = drive_op_new(copy->target);
        slot->write_op->done = write_done;
        slot->write_op->opaque = slot;
        return 0;
}

static void slot_clear(const struct copy *copy, struct slot *slot)
{
        if (slot->pipeline == NULL)
                return;
        for (unsigned i = 0; slot->read_ops != NULL && i < copy->source_count; i++)
                drive_op_free(slot->read_ops[i]);
        g_free(slot->read_ops);
        drive_op_free(slot->write_op);
        free(slot->buffer);
}

int copy_run(const struct copy *copy)
{
        struct pipeline p = { .copy = copy };
        int ret = 0;

        p.drives = g_new0(struct drive *, copy->source_count + 1);
        p.source_ends = g_new0(uint64_t, copy->source_count);
        for (unsigned i = 0; i < copy->source_count; i++) {
                p.drives[i] = copy->sources[i];
                p.total_bytes += drive_bytes(copy->sources[i]);
                p.source_ends[i] = p.total_bytes;
        }
        p.drives[copy->source_count] = copy->target;
        for (unsigned i = 0; i < copy->parallel && ret == 0; i++)
                ret = slot_init(&p, &p.slots[i]);
        if (ret < 0)
                img_error("No memory for %u buffers of %u bytes", copy->parallel,
                          (unsigned) PIECE_BYTES);
        else
                run(&p);
        for (unsigned i = 0; i < copy->parallel; i++)
                slot_clear(copy, &p.slots[i]);
        g_free(p.drives);
        g_free(p.source_ends);
        return ret < 0 ? ret : p.error;
}
