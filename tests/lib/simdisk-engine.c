/*
 * simdisk-engine.c - the engine that does I/O on a simdisk.
 *
 * Each run is one step of simulated time; a run that may wait goes on to the first
 * step in which something is ready.
 *
 * Invariants:
 *  1. At most outstanding_max I/Os are planned and not completed; others wait.
 *  2. All chance comes from disk->random, in an order that only calls decide.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "async/regions.h"
#include "lib/simdisk-op.h"

struct sim_engine {
        struct engine engine;
        struct simdisk *disk;
        GQueue backlog;                 /* of struct io */
        GArray *outstanding;            /* of struct sim_op, in order of submission */
        GArray *regions;
        int event_fd;
        gint notified;                  /* atomic; another thread made event_fd readable */
        bool fd_wanted;                 /* somebody may poll event_fd */
        bool signalled;                 /* we made event_fd readable: there is more to do */
};

static struct sim_op *op_at(struct sim_engine *s, unsigned index)
{
        return &g_array_index(s->outstanding, struct sim_op, index);
}

/* Of several fsyncs of a file that are under way the kernel tells one that a write was lost. */
static void expect_one_fsync(struct sim_engine *s, const struct io *io)
{
        unsigned i;

        for (i = 0; io->op == IO_FSYNC && i < s->outstanding->len; i++)
                g_assert(op_at(s, i)->io->op != IO_FSYNC || op_at(s, i)->io->file != io->file);
}

static void admit(struct sim_engine *s)
{
        struct sim_op op;

        while (!g_queue_is_empty(&s->backlog) &&
               s->outstanding->len < s->disk->options.outstanding_max) {
                struct io *io = g_queue_pop_head_link(&s->backlog)->data;

                expect_one_fsync(s, io);
                sim_op_plan(s->disk, io, &op);
                g_array_append_val(s->outstanding, op);
        }
}

/* The index of the nth ready one, counting from 0. */
static unsigned ready_at(struct sim_engine *s, unsigned nth)
{
        unsigned i;

        for (i = 0; i < s->outstanding->len; i++)
                if (op_at(s, i)->ready_step <= s->disk->step && nth-- == 0)
                        return i;
        g_assert_not_reached();
}

/* Which of the outstanding is next, -1: none is ready. */
static int pick(struct sim_engine *s)
{
        unsigned count = 0;
        unsigned i;

        if (!s->disk->options.reorder)
                return s->outstanding->len > 0 && op_at(s, 0)->ready_step <= s->disk->step ? 0 : -1;
        for (i = 0; i < s->outstanding->len; i++)
                count += op_at(s, i)->ready_step <= s->disk->step;
        return count == 0 ? -1 : (int)ready_at(s, sim_random_below(&s->disk->random, count));
}

/* Completes what is ready; with reorder, sometimes leaves some for later. */
static int complete_ready(struct sim_engine *s)
{
        unsigned limit = s->outstanding->len;
        int count = 0;
        int index;

        if (s->disk->options.reorder)
                limit = 1 + sim_random_below(&s->disk->random, limit);
        while (limit-- > 0 && (index = pick(s)) >= 0) {
                struct sim_op op = *op_at(s, index);

                g_array_remove_index(s->outstanding, index);
                sim_op_happen(s->disk, &op);
                count++;
        }
        return count;
}

static void skip_to_ready(struct sim_engine *s)
{
        uint64_t first = UINT64_MAX;
        unsigned i;

        for (i = 0; i < s->outstanding->len; i++)
                if (s->disk->options.reorder || i == 0)
                        first = MIN(first, op_at(s, i)->ready_step);
        s->disk->step = MAX(s->disk->step, first);
}

static void sim_notify(struct engine *engine)
{
        struct sim_engine *s = (struct sim_engine *)engine;

        if (g_atomic_int_compare_and_exchange(&s->notified, 0, 1))
                eventfd_write(s->event_fd, 1);
}

static bool take_notice(struct sim_engine *s)
{
        eventfd_t value;

        if (g_atomic_int_get(&s->notified) == 0)
                return false;
        eventfd_read(s->event_fd, &value);
        g_atomic_int_set(&s->notified, 0);
        return true;
}

/* Nothing is in flight.  Only another thread can end this wait. */
static int wait_for_notify(struct sim_engine *s, int timeout_ms)
{
        struct pollfd pollfd = { .fd = s->event_fd, .events = POLLIN };
        bool others = s->disk->options.wait_for_notify || s->engine.loop->work_count > 0;

        if (!others)
                return timeout_ms < 0 ? -EDEADLK : 0;
        poll(&pollfd, 1, timeout_ms);
        take_notice(s);
        return 0;
}

static void signal_more(struct sim_engine *s)
{
        if (!s->fd_wanted || s->signalled)
                return;
        s->signalled = true;
        eventfd_write(s->event_fd, 1);
}

static void signal_clear(struct sim_engine *s)
{
        eventfd_t value;

        if (s->signalled)
                eventfd_read(s->event_fd, &value);
        s->signalled = false;
}

static int sim_run(struct engine *engine, int timeout_ms)
{
        struct sim_engine *s = (struct sim_engine *)engine;
        int count;

        signal_clear(s);
        if (take_notice(s))
                timeout_ms = 0;
        admit(s);
        if (s->outstanding->len == 0)
                return timeout_ms == 0 ? 0 : wait_for_notify(s, timeout_ms);

        s->disk->step++;
        if (timeout_ms != 0)
                skip_to_ready(s);
        count = complete_ready(s);
        if (count == 0)
                signal_more(s);
        return count;
}

static int sim_fd(struct engine *engine)
{
        struct sim_engine *s = (struct sim_engine *)engine;

        s->fd_wanted = true;
        if (s->outstanding->len > 0)
                signal_more(s);
        return s->event_fd;
}

static int sim_file_add(struct engine *engine, struct io_file *file)
{
        struct simdisk *disk = ((struct sim_engine *)engine)->disk;

        if (file->fd < 0 || (unsigned)file->fd >= disk->file_count)
                return -EBADF;
        file->slot = file->fd;
        file->fd = -1;
        file->is_block_device = disk->files[file->slot].is_block_device;
        file->alignment = MAX(disk->files[file->slot].alignment, 1);
        return 0;
}

static void sim_file_remove(struct engine *engine, struct io_file *file)
{
        (void)engine;
        file->slot = -1;
}

static int64_t sim_file_length(struct engine *engine, struct io_file *file)
{
        return ((struct sim_engine *)engine)->disk->files[file->slot].image.length_bytes;
}

static void sim_start(struct engine *engine, struct io *io)
{
        io->link = (GList) { .data = io };
        g_queue_push_tail_link(&((struct sim_engine *)engine)->backlog, &io->link);
}

static int sim_map(struct engine *engine, void *address, size_t length)
{
        struct region region = { .address = address, .length = length };

        g_array_append_val(((struct sim_engine *)engine)->regions, region);
        return 0;
}

static int sim_unmap(struct engine *engine, void *address, size_t length)
{
        GArray *regions = ((struct sim_engine *)engine)->regions;
        int index = regions_find(regions, address, length);

        if (index < 0)
                return -EINVAL;
        g_array_remove_index_fast(regions, index);
        return 0;
}

static int sim_attach(struct engine *engine)
{
        (void)engine;
        return 0;
}

static void sim_destroy(struct engine *engine)
{
        struct sim_engine *s = (struct sim_engine *)engine;

        g_assert(s->outstanding->len == 0 && g_queue_is_empty(&s->backlog));
        g_array_free(s->outstanding, TRUE);
        g_array_free(s->regions, TRUE);
        close(s->event_fd);
        g_free(s);
}

static const struct engine_ops sim_ops = {
        .name           = "simulated",
        .file_add       = sim_file_add,
        .file_remove    = sim_file_remove,
        .file_length    = sim_file_length,
        .start          = sim_start,
        .run            = sim_run,
        .fd             = sim_fd,
        .notify         = sim_notify,
        .map            = sim_map,
        .unmap          = sim_unmap,
        .detach         = sim_attach,
        .attach         = sim_attach,
        .destroy        = sim_destroy,
};

struct engine *simdisk_engine_new(struct simdisk *disk)
{
        struct sim_engine *s = g_new0(struct sim_engine, 1);

        s->engine.ops = &sim_ops;
        s->disk = disk;
        s->outstanding = g_array_new(FALSE, TRUE, sizeof(struct sim_op));
        s->regions = regions_new();
        s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        g_assert(s->event_fd >= 0);
        return &s->engine;
}
