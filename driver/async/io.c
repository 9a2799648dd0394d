/*
 * io.c - the life of one I/O.
 *
 *      io_start -> start -> (the engine) -> io_complete -> done, or waiter woken
 *                    ^                          |
 *                    +------ the rest, again ---+
 *
 * An engine carries out one transfer and reports its raw result.  What the
 * kernel may do beyond yes and no - transfer less, be interrupted, ask to try
 * again, meet the end of file - is dealt with here, so that callers see 0 or an
 * error and all engines behave alike.
 *
 * Invariants:
 *  1. done_bytes counts bytes that were really transferred; on files with an
 *     alignment it is a multiple of that, but for the end of file.
 *  2. Every restart either follows progress or counts against a limit.
 *  3. done is called from loop_poll, never from inside io_start.
 *
 * SPDX-License-Identifier: MIT
 */
#include "async/io.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "async/co.h"
#include "async/io-window.h"

/*
 * A second attempt goes to a thread that may block (engine-uring.c) or pauses
 * there first (engine-threads.c), so these do not spin.
 */
enum { RETRIES_MAX = 16 };

enum { HUGE_PAGE_BYTES = 2 << 20 };

static bool is_transfer(const struct io *io)
{
        return io->op == IO_READ || io->op == IO_WRITE;
}

static void finish(struct io *io, int result)
{
        struct loop *loop = io->file->engine->loop;

        g_assert(io->state == IO_QUEUED);
        g_assert(result <= 0);
        g_assert(loop->io_count > 0);

        free(io->bounce);
        io->bounce = NULL;
        io->result = result;
        io->state = IO_DONE;
        loop->io_count--;
        if (io->done != NULL)
                io->done(io);
        else if (io->waiter != NULL)
                task_wake(io->waiter);
}

static void restart(struct io *io)
{
        if (is_transfer(io))
                io_window_set(io);
        io->file->engine->ops->start(io->file->engine, io);
}

/* False: too often. */
static bool retry(struct io *io)
{
        if (io->retries == RETRIES_MAX)
                return false;
        io->retries++;
        restart(io);
        return true;
}

static void end_of_file(struct io *io)
{
        io->eof_bytes = io->length - io->done_bytes;
        io_zero_rest(io);
        finish(io, 0);
}

/* With O_DIRECT a read that ends inside a block has met the end of the file, and
 * the rest of a write begins at the last whole block. */
static void read_done(struct io *io, uint64_t byte_count)
{
        io_window_read(io, byte_count);
        io->done_bytes += byte_count;
        if (io->done_bytes == io->length)
                finish(io, 0);
        else if (byte_count == 0 || io->done_bytes % io->file->alignment != 0)
                end_of_file(io);
        else
                restart(io);
}

static void write_done(struct io *io, uint64_t byte_count)
{
        byte_count -= byte_count % io->file->alignment;
        io->done_bytes += byte_count;
        if (io->done_bytes == io->length)
                finish(io, 0);
        else if (byte_count > 0)
                restart(io);
        else if (!retry(io))
                finish(io, io->file->is_block_device ? -ENOSPC : -EIO);
}

void io_complete(struct io *io, int64_t raw_result)
{
        g_assert(io->state == IO_QUEUED);

        if (raw_result == -EAGAIN || raw_result == -EINTR) {
                if (!retry(io))
                        finish(io, raw_result);
                return;
        }
        if (raw_result < 0 || !is_transfer(io)) {
                finish(io, MIN(raw_result, 0));
                return;
        }

        g_assert((uint64_t)raw_result <= io->length - io->done_bytes);
        if (raw_result > 0)
                io->retries = 0;
        if (io->op == IO_READ)
                read_done(io, raw_result);
        else
                write_done(io, raw_result);
}

static void complete_call(struct deferred *d)
{
        struct io *io = (struct io *)((char *)d - offsetof(struct io, later));

        io_complete(io, io->raw_result);
}

void io_complete_later(struct io *io, int64_t raw_result)
{
        io->raw_result = raw_result;
        loop_defer(io->file->engine->loop, &io->later, complete_call);
}

static int check_range(const struct io *io)
{
        uint32_t alignment = io->file->alignment;

        if (io->length > INT64_MAX || io->offset > INT64_MAX - io->length)
                return -EFBIG;
        if (is_transfer(io) && (io->offset % alignment != 0 || io->length % alignment != 0))
                return -EINVAL;
        return 0;
}

void io_start(struct io *io)
{
        struct engine *engine = io->file->engine;
        int ret;

        g_assert(io->state != IO_QUEUED);
        g_assert(io->bounce == NULL);

        engine->loop->io_count++;
        io->state = IO_QUEUED;
        io->done_bytes = 0;
        io->eof_bytes = 0;
        io->retries = 0;

        ret = check_range(io);
        if (ret == 0 && is_transfer(io) && io->length > 0)
                ret = io_window_open(io);
        if (ret < 0 || (is_transfer(io) && io->length == 0))
                io_complete_later(io, ret);
        else
                engine->ops->start(engine, io);
}

int io_wait(struct io *io)
{
        g_assert(io->state != IO_IDLE);
        g_assert(io->done == NULL);

        if (io->state == IO_DONE) {
                io->state = IO_IDLE;
                io->waiter = NULL;
                return io->result;
        }
        io->waiter = task_current();
        return CO_PENDING;
}

int io_await(struct io *io)
{
        if (io->state == IO_IDLE)
                io_start(io);
        return io_wait(io);
}

void io_prepare_vec(struct io *io, enum io_op op, struct io_file *file, uint64_t offset,
                    const struct iovec *iov, unsigned iov_count)
{
        unsigned i;

        *io = (struct io) {
                .op = op,
                .file = file,
                .offset = offset,
                .iov = iov,
                .iov_count = iov_count,
        };
        for (i = 0; i < iov_count; i++)
                io->length += iov[i].iov_len;
}

void io_prepare(struct io *io, enum io_op op, struct io_file *file, uint64_t offset,
                void *buffer, uint64_t length)
{
        io_prepare_vec(io, op, file, offset, NULL, 0);
        io->length = length;
        if (!is_transfer(io))
                return;
        io->one = (struct iovec) { buffer, length };
        io->iov = &io->one;
        io->iov_count = 1;
}

int io_read(struct io *io, struct io_file *file, uint64_t offset, void *buffer,
            uint64_t length, bool exact)
{
        int ret;

        if (io->state == IO_IDLE)
                io_prepare(io, IO_READ, file, offset, buffer, length);
        ret = io_await(io);
        if (ret == 0 && exact && io->eof_bytes > 0)
                return -EIO;
        return ret;
}

int io_write(struct io *io, struct io_file *file, uint64_t offset, const void *buffer,
             uint64_t length)
{
        if (io->state == IO_IDLE)
                io_prepare(io, IO_WRITE, file, offset, (void *)buffer, length);
        return io_await(io);
}

int io_fsync(struct io *io, struct io_file *file)
{
        if (io->state == IO_IDLE)
                io_prepare(io, IO_FSYNC, file, 0, NULL, 0);
        return io_await(io);
}

/* New memory costs a page fault each 4096 bytes, of microseconds in a virtual machine. */
void *io_buffer_try_new(size_t length)
{
        bool is_huge = length >= HUGE_PAGE_BYTES;
        void *buffer;

        if (posix_memalign(&buffer, is_huge ? HUGE_PAGE_BYTES : 4096, MAX(length, 1)) != 0)
                return NULL;
        if (is_huge)
                madvise(buffer, length, MADV_HUGEPAGE);         /* a hint */
        return buffer;
}
