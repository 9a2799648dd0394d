/*
 * engine-threads.c - plain system calls on a few threads.
 *
 * For kernels and containers where io_uring is forbidden.  Each I/O is one job;
 * what is done comes back through a queue that the loop's thread empties.
 *
 * Invariants:
 *  1. From start until run takes it off the finished queue, an io is a worker's.
 *  2. Who makes the finished queue non-empty signals event_fd; run clears
 *     event_fd before it takes all.  So nothing lies there unannounced.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "async/crew.h"
#include "async/io.h"
#include "async/regions.h"

enum { THREADS_DEFAULT = 16, RETRY_PAUSE_USEC = 1000 };

struct threads {
        struct engine engine;
        struct crew *crew;
        int event_fd;
        GArray *regions;
        pthread_mutex_t lock;   /* of finished */
        GQueue finished;        /* of struct io, with raw_result */
};

static int allocate(const struct io *io, int mode)
{
        return fallocate(io->file->fd, mode, io->offset, io->length);
}

/* One system call: bytes, or -errno. */
static int64_t perform(const struct io *io)
{
        uint64_t offset = io->offset + io->done_bytes;
        int fd = io->file->fd;
        ssize_t ret = -1;

        switch (io->op) {
        case IO_READ:
                ret = preadv(fd, io->next_iov, io->next_count, offset);
                break;
        case IO_WRITE:
                ret = pwritev(fd, io->next_iov, io->next_count, offset);
                break;
        case IO_FSYNC:
                ret = fdatasync(fd);
                break;
        case IO_ALLOCATE:
                ret = allocate(io, 0);
                break;
        case IO_ZERO:
                ret = allocate(io, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
                break;
        case IO_PUNCH:
                ret = allocate(io, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
                break;
        case IO_TRUNCATE:
                ret = ftruncate(fd, offset);
                break;
        }
        return ret < 0 ? -errno : ret;
}

static void threads_notify(struct engine *engine)
{
        struct threads *t = (struct threads *)engine;

        eventfd_write(t->event_fd, 1);
}

/* On a worker. */
static void worker_run(void *item, void *opaque)
{
        struct threads *t = opaque;
        struct io *io = item;
        bool first;

        if (io->retries > 0)
                g_usleep(RETRY_PAUSE_USEC * io->retries);
        io->raw_result = perform(io);

        pthread_mutex_lock(&t->lock);
        first = g_queue_is_empty(&t->finished);
        g_queue_push_tail_link(&t->finished, &io->link);
        pthread_mutex_unlock(&t->lock);
        if (first)
                threads_notify(&t->engine);
}

static void threads_start(struct engine *engine, struct io *io)
{
        struct threads *t = (struct threads *)engine;

        io->link = (GList) { .data = io };
        crew_push(t->crew, &io->link);
}

static int complete_finished(struct threads *t)
{
        GQueue taken;
        GList *link;
        int count = 0;

        pthread_mutex_lock(&t->lock);
        taken = t->finished;
        g_queue_init(&t->finished);
        pthread_mutex_unlock(&t->lock);

        while ((link = g_queue_pop_head_link(&taken)) != NULL) {
                struct io *io = link->data;

                io_complete(io, io->raw_result);
                count++;
        }
        return count;
}

static int threads_run(struct engine *engine, int timeout_ms)
{
        struct threads *t = (struct threads *)engine;
        struct pollfd pollfd = { .fd = t->event_fd, .events = POLLIN };
        eventfd_t value;

        if (timeout_ms != 0 && poll(&pollfd, 1, timeout_ms) < 0 && errno != EINTR)
                return -errno;
        eventfd_read(t->event_fd, &value);      /* -EAGAIN when there was nothing */
        return complete_finished(t);
}

static int threads_fd(struct engine *engine)
{
        return ((struct threads *)engine)->event_fd;
}

static int threads_file_add(struct engine *engine, struct io_file *file)
{
        (void)engine;
        return io_file_probe(file);
}

static void threads_file_remove(struct engine *engine, struct io_file *file)
{
        (void)engine;
        (void)file;
}

static int64_t threads_file_length(struct engine *engine, struct io_file *file)
{
        (void)engine;
        return io_file_probe_length(file);
}

static int threads_map(struct engine *engine, void *address, size_t length)
{
        struct threads *t = (struct threads *)engine;
        struct region region = { .address = address, .length = length };

        g_array_append_val(t->regions, region);
        return 0;
}

static int threads_unmap(struct engine *engine, void *address, size_t length)
{
        struct threads *t = (struct threads *)engine;
        int index = regions_find(t->regions, address, length);

        if (index < 0)
                return -EINVAL;
        g_array_remove_index_fast(t->regions, index);
        return 0;
}

/* Nothing here belongs to one thread. */
static int threads_detach(struct engine *engine)
{
        (void)engine;
        return 0;
}

static void threads_destroy(struct engine *engine)
{
        struct threads *t = (struct threads *)engine;

        if (t->crew != NULL)
                crew_free(t->crew);
        g_assert(g_queue_is_empty(&t->finished));
        if (t->event_fd >= 0)
                close(t->event_fd);
        g_array_free(t->regions, TRUE);
        pthread_mutex_destroy(&t->lock);
        g_free(t);
}

static const struct engine_ops threads_ops = {
        .name           = "threads",
        .file_add       = threads_file_add,
        .file_remove    = threads_file_remove,
        .file_length    = threads_file_length,
        .start          = threads_start,
        .run            = threads_run,
        .fd             = threads_fd,
        .notify         = threads_notify,
        .map            = threads_map,
        .unmap          = threads_unmap,
        .detach         = threads_detach,
        .attach         = threads_detach,
        .destroy        = threads_destroy,
};

/* thread_count 0: as many as are usually good. */
int engine_threads_new(unsigned thread_count, struct engine **ret_engine)
{
        struct threads *t = g_new0(struct threads, 1);
        int ret;

        t->engine.ops = &threads_ops;
        t->regions = regions_new();
        pthread_mutex_init(&t->lock, NULL);
        t->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (t->event_fd < 0) {
                ret = -errno;
                threads_destroy(&t->engine);
                return ret;
        }
        t->crew = crew_new(thread_count == 0 ? THREADS_DEFAULT : thread_count, "hvb-io",
                           worker_run, t);
        if (t->crew == NULL) {
                threads_destroy(&t->engine);
                return -EAGAIN;
        }
        *ret_engine = &t->engine;
        return 0;
}
