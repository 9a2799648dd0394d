/*
 * pieces.c - the window of I/Os of one request.
 *
 *      IDLE --begin--> IO --landed, nothing to unpack--> IDLE
 *                       \--landed, to be inflated--> WORK --done--> IDLE
 *
 * Invariants:
 *  1. The grace of a piece ends when its I/O lands, not when the owner looks: the
 *     owner may be waiting for a commit that waits for the grace.
 *  2. A write that landed is noted (data_written) before anybody can know of it.
 *  3. Memory of a piece goes when it becomes IDLE, in the owner's step.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/pieces.h"

#include <errno.h>
#include <stdlib.h>

#include "ops/unpack.h"

enum { UNALIGNED_MAX_BYTES = 1 << 20 };

static void landed(struct io *io)
{
        struct piece *p = (struct piece *)((char *)io - offsetof(struct piece, io));

        if (io->op == IO_WRITE)
                p->img->data_written = true;
        grace_leave(p->img, p->generation);
        task_wake(p->task);
}

static struct piece *idle_piece(struct pieces *w)
{
        unsigned i;

        for (i = 0; i < PIECES_MAX; i++)
                if (w->piece[i].state == PIECE_IDLE)
                        return &w->piece[i];
        g_assert_not_reached();
}

/* p->io is prepared. */
static void start(struct piece *p, struct image *img)
{
        g_assert(p->state == PIECE_IDLE);
        p->io.done = landed;
        p->img = img;
        p->task = task_current();
        p->generation = grace_enter(img);
        p->state = PIECE_IO;
        io_start(&p->io);
}

static int end(struct piece *p, int result)
{
        if (p->unpack)
                unpack_free(p->unpack);
        g_free(p->many);
        p->unpack = NULL;
        p->many = NULL;
        p->state = PIECE_IDLE;
        return result;
}

/* 0, -errno or CO_PENDING.  A piece that ended is IDLE. */
static int piece_poll(struct piece *p)
{
        int ret;

        if (p->state == PIECE_IDLE)
                return 0;
        if (p->state == PIECE_IO) {
                if (p->io.state != IO_DONE)
                        return CO_PENDING;
                if (p->io.result < 0 || !p->unpack)
                        return end(p, p->io.result);
                unpack_received(p->unpack, p->io.length - p->io.eof_bytes);
                p->state = PIECE_WORK;
        }
        ret = unpack_work(p->unpack, p->img->loop);
        if (ret == CO_PENDING)
                return CO_PENDING;
        if (ret == 0)
                unpack_deliver(p->unpack);
        return end(p, ret);
}

/* Returns how many are still on their way. */
static unsigned poll_all(struct pieces *w)
{
        unsigned busy = 0;
        unsigned i;

        for (i = 0; i < PIECES_MAX; i++) {
                int ret = piece_poll(&w->piece[i]);

                if (ret == CO_PENDING)
                        busy++;
                else if (ret < 0 && w->err == 0)
                        w->err = ret;
        }
        return busy;
}

int pieces_room(struct pieces *w)
{
        unsigned busy = poll_all(w);

        if (w->err < 0)
                return w->err;
        return busy < PIECES_MAX ? 0 : CO_PENDING;
}

int pieces_drain(struct pieces *w)
{
        int err;

        if (poll_all(w) > 0)
                return CO_PENDING;
        err = w->err;
        w->err = 0;
        return err;
}

/* A scatter list of whole blocks: more elements than room has, if it takes them. */
static int slice(struct piece *p, uint32_t alignment, uint64_t max_bytes,
                 const struct iov_cursor *at, const struct iovec **ret_iov, unsigned *ret_count,
                 uint64_t *ret_bytes)
{
        uint64_t bytes = iov_slice(at, max_bytes, p->room, PIECE_IOVECS, ret_iov, ret_count);

        if (bytes < alignment) {
                p->many = g_try_new(struct iovec, alignment);
                if (!p->many)
                        return -ENOMEM;
                bytes = iov_slice(at, alignment, p->many, alignment, ret_iov, ret_count);
        } else if (bytes % alignment != 0) {
                bytes = iov_slice(at, round_down(bytes, alignment), p->room, PIECE_IOVECS,
                                  ret_iov, ret_count);
        }
        g_assert(bytes > 0 && bytes % alignment == 0);
        *ret_bytes = bytes;
        return 0;
}

int pieces_transfer(struct pieces *w, enum io_op op, struct image *img, uint64_t host_offset,
                    uint64_t max_bytes, struct iov_cursor *at, uint64_t *ret_bytes)
{
        struct piece *p = idle_piece(w);
        const struct iovec *iov;
        unsigned count;
        int ret;

        g_assert(file_takes(img, host_offset, max_bytes));
        ret = slice(p, img->file.alignment, max_bytes, at, &iov, &count, ret_bytes);
        if (ret < 0)
                return ret;
        io_prepare_vec(&p->io, op, &img->file, host_offset, iov, count);
        iov_advance(at, *ret_bytes);
        start(p, img);
        return 0;
}

static int start_unpack(struct piece *p, struct image *img, uint64_t host_offset)
{
        uint64_t length;
        uint8_t *buffer;

        if (!p->unpack)
                return -ENOMEM;
        buffer = unpack_buffer(p->unpack, &length);
        io_prepare(&p->io, IO_READ, &img->file,
                   round_down(host_offset, img->file.alignment), buffer, length);
        start(p, img);
        return 0;
}

int pieces_read_unaligned(struct pieces *w, struct image *img, uint64_t host_offset,
                          uint64_t max_bytes, struct iov_cursor *at, uint64_t *ret_bytes)
{
        struct piece *p = idle_piece(w);
        uint64_t bytes = u64_min(max_bytes, UNALIGNED_MAX_BYTES);
        int ret;

        p->unpack = unpack_new_plain(img, host_offset, bytes, at);
        ret = start_unpack(p, img, host_offset);
        if (ret < 0)
                return ret;
        iov_advance(at, bytes);
        *ret_bytes = bytes;
        return 0;
}

int pieces_read_compressed(struct pieces *w, struct image *img,
                           const struct compressed_place *place, uint64_t skip_bytes,
                           uint64_t byte_count, struct iov_cursor *at)
{
        struct piece *p = idle_piece(w);
        int ret;

        p->unpack = unpack_new_compressed(img, place, skip_bytes, byte_count, at);
        ret = start_unpack(p, img, place->host_offset);
        if (ret < 0)
                return ret;
        iov_advance(at, byte_count);
        return 0;
}
