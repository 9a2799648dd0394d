/*
 * io-window.c - which buffers the next transfer of an I/O uses.
 *
 * A transfer takes a run of the caller's iovecs as they are, the rest of one that
 * was cut by a short transfer (part), or, where O_DIRECT would refuse the caller's
 * memory, a piece of the bounce buffer.  The caller's array is never changed.
 *
 * Invariants:
 *  1. A window is never empty and never longer than one system call may carry.
 *  2. An I/O bounces whole or not at all.
 *
 * SPDX-License-Identifier: MIT
 */
#include "async/io-window.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
        WINDOW_MAX_BYTES = 1 << 30,     /* Linux transfers 2 GiB less a page at most */
        BOUNCE_MAX_BYTES = 1 << 20,
};

typedef void (*piece_fn)(void *piece, void *other, size_t length);

static void piece_load(void *piece, void *other, size_t length)
{
        memcpy(other, piece, length);
}

static void piece_store(void *piece, void *other, size_t length)
{
        memcpy(piece, other, length);
}

static void piece_zero(void *piece, void *other, size_t length)
{
        (void)other;
        memset(piece, 0, length);
}

/* Calls fn on the caller's memory for length bytes from done_bytes on, beside
 * other, which advances with it. */
static void each_piece(struct io *io, uint64_t length, void *other, piece_fn fn)
{
        uint64_t skip = io->done_bytes;
        unsigned i;

        for (i = 0; i < io->iov_count && length > 0; i++) {
                const struct iovec *iov = &io->iov[i];
                size_t n;

                if (skip >= iov->iov_len) {
                        skip -= iov->iov_len;
                        continue;
                }
                n = MIN(iov->iov_len - skip, length);
                fn((char *)iov->iov_base + skip, other, n);
                if (other != NULL)
                        other = (char *)other + n;
                length -= n;
                skip = 0;
        }
        g_assert(length == 0);
}

static bool buffers_aligned(const struct io *io)
{
        uintptr_t mask = io->file->alignment - 1;
        unsigned i;

        for (i = 0; i < io->iov_count; i++)
                if ((((uintptr_t)io->iov[i].iov_base | io->iov[i].iov_len) & mask) != 0)
                        return false;
        return true;
}

static void set_bounced(struct io *io)
{
        uint64_t length = MIN(io->length - io->done_bytes, BOUNCE_MAX_BYTES);

        io->part = (struct iovec) { io->bounce, length };
        io->next_iov = &io->part;
        io->next_count = 1;
        if (io->op == IO_WRITE)
                each_piece(io, length, io->bounce, piece_load);
}

void io_window_set(struct io *io)
{
        uint64_t skip = io->done_bytes;
        unsigned i = 0;

        g_assert(io->done_bytes < io->length);

        if (io->bounce != NULL) {
                set_bounced(io);
                return;
        }
        while (skip >= io->iov[i].iov_len) {
                skip -= io->iov[i].iov_len;
                i++;
                g_assert(i < io->iov_count);
        }
        if (skip == 0 && io->iov[i].iov_len <= WINDOW_MAX_BYTES) {
                io->next_iov = &io->iov[i];
                io->next_count = MIN(io->iov_count - i, IOV_MAX);
                return;
        }
        io->part.iov_base = (char *)io->iov[i].iov_base + skip;
        io->part.iov_len = MIN(io->iov[i].iov_len - skip, WINDOW_MAX_BYTES);
        io->next_iov = &io->part;
        io->next_count = 1;
}

int io_window_open(struct io *io)
{
        if (io->file->alignment > 1 && !buffers_aligned(io)) {
                io->bounce = io_buffer_try_new(MIN(io->length, BOUNCE_MAX_BYTES));
                if (io->bounce == NULL)
                        return -ENOMEM;
        }
        io_window_set(io);
        return 0;
}

void io_window_read(struct io *io, uint64_t byte_count)
{
        if (io->bounce != NULL)
                each_piece(io, byte_count, io->bounce, piece_store);
}

void io_zero_rest(struct io *io)
{
        each_piece(io, io->length - io->done_bytes, NULL, piece_zero);
}
