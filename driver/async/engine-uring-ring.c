/*
 * engine-uring-ring.c - making a ring that can do only what the engine does.
 *
 * A restricted ring is made disabled, told what it may do, and enabled; from then on
 * the kernel refuses anything else with -EACCES, whoever asks.  So a process that an image
 * has taken over cannot use this ring to open files or sockets, which no seccomp filter
 * would see: io_uring is not made of system calls.
 *
 * What it may do: the operations of engine-uring.c, each on a registered file; and
 * changing single entries of the tables of files and buffers.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "async/engine-uring.h"

enum {
        CQ_FACTOR = 4,                  /* completions for each submission entry */
        CALL_WAIT_MS = 10,
        CALLS_MAX = 8,
};

/* Did this thread close a ring?  See call_workers(). */
static _Thread_local bool ring_closed;

/* IORING_OP_NOP is call_workers()'s, IORING_OP_POLL_ADD that of notify_fd. */
static const struct io_uring_restriction restrictions[] = {
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_ADD },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ_FIXED },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE_FIXED },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE },
        { .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
          .sqe_flags = IOSQE_FIXED_FILE | IOSQE_ASYNC },
        { .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE },
        { .opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_FILES_UPDATE },
        { .opcode = IORING_RESTRICTION_REGISTER_OP,
          .register_op = IORING_REGISTER_BUFFERS_UPDATE },
};

/* Liburing 2.3 declares these two and does not export them. */
static int ring_register(const struct io_uring *ring, unsigned what, const void *argument,
                         unsigned count)
{
        long ret = syscall(SYS_io_uring_register, ring->ring_fd, what, argument, count);

        return ret < 0 ? -errno : 0;
}

static int ring_restrict(const struct io_uring *ring)
{
        int ret = ring_register(ring, IORING_REGISTER_RESTRICTIONS, restrictions,
                                G_N_ELEMENTS(restrictions));

        return ret == 0 ? ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0) : ret;
}

/* From the fastest way to the one that every kernel knows. */
static int ring_setup(struct io_uring *ring, unsigned entries, unsigned more_flags)
{
        static const unsigned flags[] = {
                IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                        IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,    /* 6.1 */
                IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                        IORING_SETUP_SUBMIT_ALL,                                /* 5.19 */
                0,
        };
        struct io_uring_params params;
        int ret = -EINVAL;
        unsigned i;

        for (i = 0; i < G_N_ELEMENTS(flags) && ret == -EINVAL; i++) {
                params = (struct io_uring_params) {
                        .flags = flags[i] | more_flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
                        .cq_entries = entries * CQ_FACTOR,
                };
                ret = io_uring_queue_init_params(entries, ring, &params);
        }
        if (ret < 0)
                return ret;
        /* Waits with a timeout, and completions that are never dropped: 5.11.  That is after
         * restrictions: 5.10. */
        if ((params.features & IORING_FEAT_EXT_ARG) == 0) {
                io_uring_queue_exit(ring);
                return -EOPNOTSUPP;
        }
        return 0;
}

/*
 * Linux 6.18 lets a thread's workers go when its last ring closes, and what is queued to one
 * that is just leaving waits until more is queued, perhaps for ever.  So in a ring that follows
 * a closed one a no-op goes through a worker first, and another if it does not come back.
 */
static int call_workers(struct uring *u)
{
        struct __kernel_timespec ts = { .tv_nsec = CALL_WAIT_MS * 1000000ll };
        struct io_uring_cqe *cqe;
        struct io_uring_sqe *sqe;
        unsigned called = 0;
        unsigned came;
        int ret;

        do {
                sqe = io_uring_get_sqe(&u->ring);
                io_uring_prep_nop(sqe);
                sqe->flags |= IOSQE_ASYNC;
                if (u->restricted) {
                        sqe->flags |= IOSQE_FIXED_FILE;
                        sqe->fd = URING_NOTIFY_SLOT;
                }
                called++;
                ret = io_uring_submit_and_wait_timeout(&u->ring, &cqe, called, &ts, NULL);
                came = io_uring_cq_ready(&u->ring);
                io_uring_cq_advance(&u->ring, came);
                called -= came;
        } while (called > 0 && called < CALLS_MAX && (ret >= 0 || ret == -ETIME || ret == -EINTR));
        return called == 0 ? 0 : -EIO;
}

int uring_ring_make(struct uring *u)
{
        int ret = ring_setup(&u->ring, u->entries, u->restricted ? IORING_SETUP_R_DISABLED : 0);

        if (ret < 0)
                return ret;
        ret = io_uring_register_eventfd(&u->ring, u->event_fd);
        if (ret == 0)
                ret = uring_tables_register(u);
        if (ret == 0 && u->restricted)
                ret = ring_restrict(&u->ring);
        if (ret == 0 && ring_closed)
                ret = call_workers(u);
        if (ret < 0)
                uring_ring_close(u);
        return ret;
}

void uring_ring_close(struct uring *u)
{
        io_uring_queue_exit(&u->ring);
        ring_closed = true;
        u->files_registered = false;
        u->buffers_registered = false;
}
