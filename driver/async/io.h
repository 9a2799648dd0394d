/*
 * io.h - one I/O on one file, and the engines that carry it out.
 *
 * An engine queues I/Os, submits them in batches, and completes them on the
 * loop's thread.  Three exist: io_uring (engine-uring.c), threads
 * (engine-threads.c), and the tests' simulated disk.  What they share - short
 * transfers, EINTR, EAGAIN - is in io.c, so that all behave alike.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef ASYNC_IO_H
#define ASYNC_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "async/co.h"
#include "async/loop.h"

enum io_op {
        IO_READ,
        IO_WRITE,
        IO_FSYNC,               /* data, length and what is needed to find them: fdatasync(2) */
        IO_ALLOCATE,            /* fallocate(2), mode 0: space for [offset, offset + length) */
        IO_ZERO,                /* FALLOC_FL_ZERO_RANGE | KEEP_SIZE; -EOPNOTSUPP is usual */
        IO_PUNCH,               /* FALLOC_FL_PUNCH_HOLE | KEEP_SIZE; -EOPNOTSUPP is usual */
        IO_TRUNCATE,            /* length of the file becomes offset */
};

/* A file as an engine knows it.  In the owner's memory; do not move while open. */
struct io_file {
        struct engine *engine;
        int fd;                 /* borrowed; -1 in simulations */
        int slot;               /* engine's own: registered index, simulated disk number, -1 */
        bool is_block_device;
        uint32_t alignment;     /* offsets, lengths, memory: 1, or the block size with O_DIRECT */
};

struct io {
        enum io_op op;
        struct io_file *file;
        uint64_t offset;
        uint64_t length;                /* bytes; for READ and WRITE the sum of iov */
        const struct iovec *iov;        /* must live until done; never written to */
        unsigned iov_count;
        struct iovec one;               /* for single-buffer I/O: point iov here */
        void (*done)(struct io *io);    /* on the loop's thread, in loop_poll; NULL: wake waiter */
        struct task *waiter;            /* set by io_await */
        enum { IO_IDLE, IO_QUEUED, IO_DONE } state;
        /*
         * 0 or -errno.  A READ that met the end of file gives 0 with the rest of the
         * buffers zeroed and eof_bytes saying how many.
         */
        int result;
        uint64_t eof_bytes;

        /* Engines' own: progress through short transfers, queue membership. */
        uint64_t done_bytes;
        const struct iovec *next_iov;
        unsigned next_count;
        struct iovec part;
        void *bounce;                   /* aligned stand-in for buffers that O_DIRECT refuses */
        unsigned retries;
        int64_t raw_result;             /* for who learns it elsewhere than he reports it */
        GList link;
        struct deferred later;
};

struct engine_ops {
        const char *name;               /* "io_uring", "threads", "simulated" */
        int (*file_add)(struct engine *engine, struct io_file *file);
        void (*file_remove)(struct engine *engine, struct io_file *file);
        int64_t (*file_length)(struct engine *engine, struct io_file *file);   /* or -errno */
        /* Start the part of io described by op, file, offset + done_bytes, next_iov,
         * next_count.  Ends in io_complete, never from inside this call. */
        void (*start)(struct engine *engine, struct io *io);
        /* Submit what was started, complete what is done, wait as loop_poll does.
         * Returns how many events it dealt with, or -errno. */
        int (*run)(struct engine *engine, int timeout_ms);
        int (*fd)(struct engine *engine);
        void (*notify)(struct engine *engine);  /* any thread: make run return, fd readable */
        /* 0 even when the kernel refuses; unmap: -EINVAL when that was not mapped. */
        int (*map)(struct engine *engine, void *address, size_t length);
        int (*unmap)(struct engine *engine, void *address, size_t length);
        int (*detach)(struct engine *engine);           /* the thread lets go */
        int (*attach)(struct engine *engine);           /* the calling thread takes over */
        void (*destroy)(struct engine *engine);
};

struct engine {
        const struct engine_ops *ops;
        struct loop *loop;              /* set by loop_init */
};

/*
 * Makes the best engine there is.  wanted: "auto", "io_uring" or "threads".
 * restricted: the ring can only do what the engine needs, on registered files.
 * On success *ret_why (static or g_malloc'd text is never needed: a buffer of
 * why_bytes) says why io_uring is not used, "" when it is.
 */
int engine_new(const char *wanted, unsigned entries, bool restricted, struct engine **ret_engine,
               char *why, size_t why_bytes);
int engine_uring_new(unsigned entries, bool restricted, struct engine **ret_engine);
int engine_threads_new(unsigned thread_count, struct engine **ret_engine);

/* fd is borrowed.  Finds out type and alignment. */
int io_file_open(struct io_file *file, struct engine *engine, int fd);
void io_file_close(struct io_file *file);
int64_t io_file_length(struct io_file *file);   /* bytes, block devices too; or -errno */

/* Queues io; it is sent with the next loop_poll.  Completion calls io->done. */
void io_start(struct io *io);

/* For engines: the raw result of what start began (bytes or -errno).  Goes on
 * with the rest of a short transfer or finishes. */
void io_complete(struct io *io, int64_t raw_result);

/* The same from the next round of loop_poll: what start may call when it knows already. */
void io_complete_later(struct io *io, int64_t raw_result);

/* For engines' file_add and file_length, when the file is a real fd. */
int io_file_probe(struct io_file *file);
int64_t io_file_probe_length(const struct io_file *file);

/* Leaf: first call starts io, later ones poll.  0, -errno or CO_PENDING.  Never
 * cancelled half way: buffers are free to go when it has returned. */
int io_await(struct io *io);

/* Leaf: for ios begun with io_start and done == NULL.  The same, without starting. */
int io_wait(struct io *io);

/* Fill in io for a single buffer, or for an operation without one. */
void io_prepare(struct io *io, enum io_op op, struct io_file *file, uint64_t offset,
                void *buffer, uint64_t length);
void io_prepare_vec(struct io *io, enum io_op op, struct io_file *file, uint64_t offset,
                    const struct iovec *iov, unsigned iov_count);

/* Leaves: prepare and await in one.  A read past the end of file is -EIO here
 * when less than length bytes exist and exact is true, zeros otherwise. */
int io_read(struct io *io, struct io_file *file, uint64_t offset, void *buffer,
            uint64_t length, bool exact);
int io_write(struct io *io, struct io_file *file, uint64_t offset, const void *buffer,
             uint64_t length);
int io_fsync(struct io *io, struct io_file *file);

/* Memory for I/O buffers, aligned to 4096; much of it is in huge pages, where the kernel has them.
 * NULL when there is none.  free(3) it. */
void *io_buffer_try_new(size_t length);

#endif
