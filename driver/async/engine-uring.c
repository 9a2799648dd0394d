/*
 * engine-uring.c - I/O through one io_uring.
 *
 * start fills in a submission queue entry, or queues the I/O behind others when
 * the ring has no room.  run submits everything with one system call, waits in it
 * if it should, and completes what has come back.
 *
 * With IORING_SETUP_DEFER_TASKRUN completions are produced when this thread
 * enters the kernel, and the ring's own fd does not wake an epoll that sleeps on
 * it.  A registered eventfd does, on all kernels: that is what the host polls.
 * Other threads write to it, and to a second eventfd, whose poll is kept in the ring,
 * so that they end a wait inside the kernel too.
 *
 * Invariants:
 *  1. No more SQEs are in flight than the completion queue holds, so it does not
 *     overflow.  (Should it all the same, entering the kernel flushes it.)
 *  2. An io is in the ring (counted in inflight) or in the backlog, never both.
 *  3. When run has returned 0, every SQE was handed to the kernel and event_fd was
 *     cleared before the last look at the completion queue; or event_fd is readable.
 *  4. The ring is used by one thread only: the one that made or attached it.
 *
 * SPDX-License-Identifier: MIT
 */
#include "async/engine-uring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "async/regions.h"

enum {
        ENTRIES_DEFAULT = 256,
        ENTRIES_MAX = 4096,
        STALL_PAUSE_MS = 1,
        REAP_BATCH = 64,
};

/* user_data of the poll of notify_fd; that of an io is its address. */
static char notify_mark;

static void prepare_transfer(struct uring *u, struct io *io, struct io_uring_sqe *sqe, int fd)
{
        uint64_t offset = io->offset + io->done_bytes;
        const struct iovec *iov = io->next_iov;
        bool read = io->op == IO_READ;
        int slot;

        if (io->next_count > 1) {
                io_uring_prep_rw(read ? IORING_OP_READV : IORING_OP_WRITEV, sqe, fd, iov,
                                 io->next_count, offset);
                return;
        }
        slot = uring_buffer_slot(u, iov);
        if (slot < 0) {
                io_uring_prep_rw(read ? IORING_OP_READ : IORING_OP_WRITE, sqe, fd, iov->iov_base,
                                 iov->iov_len, offset);
                return;
        }
        io_uring_prep_rw(read ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED, sqe, fd,
                         iov->iov_base, iov->iov_len, offset);
        sqe->buf_index = slot;
}

static void prepare(struct uring *u, struct io *io, struct io_uring_sqe *sqe)
{
        const int keep_size = FALLOC_FL_KEEP_SIZE;
        bool fixed = io->file->slot >= 0;
        int fd = fixed ? io->file->slot : io->file->fd;

        switch (io->op) {
        case IO_READ:
        case IO_WRITE:
                prepare_transfer(u, io, sqe, fd);
                break;
        case IO_FSYNC:
                io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
                break;
        case IO_ALLOCATE:
                io_uring_prep_fallocate(sqe, fd, 0, io->offset, io->length);
                break;
        case IO_ZERO:
                io_uring_prep_fallocate(sqe, fd, FALLOC_FL_ZERO_RANGE | keep_size, io->offset,
                                        io->length);
                break;
        case IO_PUNCH:
                io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | keep_size, io->offset,
                                        io->length);
                break;
        case IO_TRUNCATE:
                g_assert_not_reached();
        }
        if (fixed)
                sqe->flags |= IOSQE_FIXED_FILE;
        /* A second attempt may block: a worker's job. */
        if (io->retries > 0)
                sqe->flags |= IOSQE_ASYNC;
        io_uring_sqe_set_data(sqe, io);
}

/* False: no room. */
static bool queue_io(struct uring *u, struct io *io)
{
        struct io_uring_sqe *sqe;

        if (u->inflight == u->inflight_max)
                return false;
        sqe = io_uring_get_sqe(&u->ring);
        if (sqe == NULL)
                return false;
        prepare(u, io, sqe);
        u->inflight++;
        return true;
}

static void uring_start(struct engine *engine, struct io *io)
{
        struct uring *u = (struct uring *)engine;

        g_assert(u->attached);

        /* Liburing 2.3 and most kernels have no ftruncate; it is rare and short. */
        if (io->op == IO_TRUNCATE) {
                io_complete_later(io, ftruncate(io->file->fd, io->offset) < 0 ? -errno : 0);
                return;
        }
        if (g_queue_is_empty(&u->backlog) && queue_io(u, io))
                return;
        io->link = (GList) { .data = io };
        g_queue_push_tail_link(&u->backlog, &io->link);
}

/* Moves what fits from the backlog to the ring, the notify poll first. */
static void fill(struct uring *u)
{
        struct io_uring_sqe *sqe;

        if (!u->notify_armed && (sqe = io_uring_get_sqe(&u->ring)) != NULL) {
                io_uring_prep_poll_add(sqe, u->files_registered ? URING_NOTIFY_SLOT : u->notify_fd,
                                       POLLIN);
                if (u->files_registered)
                        sqe->flags |= IOSQE_FIXED_FILE;
                io_uring_sqe_set_data(sqe, &notify_mark);
                u->notify_armed = true;
        }
        while (!g_queue_is_empty(&u->backlog) && queue_io(u, g_queue_peek_head(&u->backlog)))
                g_queue_pop_head_link(&u->backlog);
}

/* Is there something that only a full submission queue kept out of the ring? */
static bool more_to_fill(const struct uring *u)
{
        return !u->notify_armed ||
               (u->backlog.length > 0 && u->inflight < u->inflight_max);
}

/* Does the kernel hold back completions until we enter it? */
static bool kernel_wants_us(const struct uring *u)
{
        unsigned flags = __atomic_load_n(u->ring.sq.kflags, __ATOMIC_ACQUIRE);

        return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

static int enter_waiting(struct uring *u, int timeout_ms)
{
        struct __kernel_timespec ts = {
                .tv_sec = timeout_ms / 1000,
                .tv_nsec = timeout_ms % 1000 * 1000000ll,
        };
        struct io_uring_cqe *cqe;

        if (timeout_ms < 0)
                return io_uring_submit_and_wait(&u->ring, 1);
        return io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
}

/* Submits, waits, and has the kernel produce completions.  0 or -errno. */
static int enter(struct uring *u, int timeout_ms)
{
        struct pollfd pause = { .fd = u->event_fd, .events = POLLIN };
        int ret = 0;

        if (timeout_ms != 0)
                ret = enter_waiting(u, timeout_ms);
        else if (io_uring_sq_ready(&u->ring) > 0)
                ret = io_uring_submit_and_get_events(&u->ring);
        else if (kernel_wants_us(u))
                ret = io_uring_get_events(&u->ring);

        /* Out of memory, or completions must be taken first. */
        if (ret == -EAGAIN || ret == -EBUSY) {
                u->stalled = true;
                poll(&pause, 1, STALL_PAUSE_MS);
                return 0;
        }
        return ret == -ETIME || ret == -EINTR ? 0 : MIN(ret, 0);
}

static void complete(struct uring *u, void *data, int result)
{
        eventfd_t value;

        if (data == &notify_mark) {
                u->notify_armed = false;
                eventfd_read(u->notify_fd, &value);
                return;
        }
        g_assert(u->inflight > 0);
        u->inflight--;
        io_complete(data, result);
}

/* Completing may start I/O, so each batch is copied and given back first. */
static int reap(struct uring *u)
{
        struct io_uring_cqe *cqes[REAP_BATCH];
        struct { void *data; int result; } done[REAP_BATCH];
        unsigned left = io_uring_cq_ready(&u->ring);
        int total = 0;
        unsigned count;
        unsigned i;

        while (left > 0) {
                count = io_uring_peek_batch_cqe(&u->ring, cqes, MIN(left, REAP_BATCH));
                for (i = 0; i < count; i++) {
                        done[i].data = io_uring_cqe_get_data(cqes[i]);
                        done[i].result = cqes[i]->res;
                }
                io_uring_cq_advance(&u->ring, count);
                for (i = 0; i < count; i++)
                        complete(u, done[i].data, done[i].result);
                g_assert(count > 0);
                left -= count;
                total += count;
        }
        return total;
}

/*
 * Invariant 3: nothing is left to do unless the descriptor is readable.  It is emptied
 * before the last look.  IORING_SQ_TASKRUN alone does not tell: the kernel sets it after it has
 * queued the work, so that it can stay set with nothing queued.
 */
static int uring_run(struct engine *engine, int timeout_ms)
{
        struct uring *u = (struct uring *)engine;
        eventfd_t value;
        int looks = 0;
        int reaped;
        int ret;

        g_assert(u->attached);

        u->stalled = false;
        do {
                if (looks++ > 0) {
                        eventfd_read(u->event_fd, &value);
                        timeout_ms = 0;
                }
                fill(u);
                ret = enter(u, more_to_fill(u) ? 0 : timeout_ms);
                if (ret < 0)
                        return ret;
                reaped = reap(u);
        } while (reaped == 0 && !u->stalled &&
                 (looks < 2 || more_to_fill(u) || io_uring_sq_ready(&u->ring) > 0));
        if (u->stalled)
                eventfd_write(u->event_fd, 1);
        return reaped;
}

static int uring_fd(struct engine *engine)
{
        return ((struct uring *)engine)->event_fd;
}

/*
 * The first write ends a wait inside the kernel, the second one a poll of event_fd: the kernel
 * does not signal an eventfd from within a write to another one, but defers that, and
 * with DEFER_TASKRUN Linux 6.18 does so once and never again.
 */
static void uring_notify(struct engine *engine)
{
        struct uring *u = (struct uring *)engine;

        eventfd_write(u->notify_fd, 1);
        eventfd_write(u->event_fd, 1);
}

static int64_t uring_file_length(struct engine *engine, struct io_file *file)
{
        (void)engine;
        return io_file_probe_length(file);
}

static int uring_attach(struct engine *engine)
{
        struct uring *u = (struct uring *)engine;
        int ret;

        g_assert(!u->attached);

        ret = uring_ring_make(u);
        if (ret < 0)
                return ret;
        u->attached = true;
        u->notify_armed = false;
        u->inflight_max = *u->ring.cq.kring_entries - 1;        /* one for the notify poll */
        /* Armed by the first run; what was notified before that is found then. */
        eventfd_write(u->event_fd, 1);
        return 0;
}

static int uring_detach(struct engine *engine)
{
        struct uring *u = (struct uring *)engine;

        g_assert(u->attached);
        g_assert(u->inflight == 0 && g_queue_is_empty(&u->backlog));

        uring_ring_close(u);
        u->attached = false;
        return 0;
}

static void uring_destroy(struct engine *engine)
{
        struct uring *u = (struct uring *)engine;

        if (u->attached)
                uring_detach(engine);
        if (u->event_fd >= 0)
                close(u->event_fd);
        if (u->notify_fd >= 0)
                close(u->notify_fd);
        g_array_free(u->regions, TRUE);
        g_free(u);
}

static const struct engine_ops uring_ops = {
        .name           = "io_uring",
        .file_add       = uring_file_add,
        .file_remove    = uring_file_remove,
        .file_length    = uring_file_length,
        .start          = uring_start,
        .run            = uring_run,
        .fd             = uring_fd,
        .notify         = uring_notify,
        .map            = uring_map,
        .unmap          = uring_unmap,
        .detach         = uring_detach,
        .attach         = uring_attach,
        .destroy        = uring_destroy,
};

int engine_uring_new(unsigned entries, bool restricted, struct engine **ret_engine)
{
        struct uring *u = g_new0(struct uring, 1);
        int ret;

        u->engine.ops = &uring_ops;
        u->entries = entries == 0 ? ENTRIES_DEFAULT : MIN(entries, ENTRIES_MAX);
        u->restricted = restricted;
        u->regions = regions_new();
        u->notify_fd = -1;
        u->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (u->event_fd >= 0)
                u->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        ret = u->notify_fd < 0 ? -errno : uring_attach(&u->engine);
        if (ret < 0) {
                uring_destroy(&u->engine);
                return ret;
        }
        *ret_engine = &u->engine;
        return 0;
}
