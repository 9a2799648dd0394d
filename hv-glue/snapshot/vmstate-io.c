/*
 * vmstate-io.c - many requests in flight to the VM state of one drive.
 *
 * A slot:  IDLE -start-> FLYING -(drive's thread) done-> LANDED -reaped-> IDLE.
 * Only FLYING -> LANDED happens on the drive's thread.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/vmstate-io.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>

enum slot_state { SLOT_IDLE, SLOT_FLYING, SLOT_LANDED };

struct slot {
        struct vmstate_io *io;
        struct drive_op *op;
        enum slot_state state;          /* under the lock */
        bool is_load;
        struct vmstate_span span;
        struct iovec iov;
};

struct vmstate_io {
        struct drive_thread *thread;
        struct vmstate_landing landing;
        int error;                      /* the first; the starting thread's */
        pthread_mutex_t lock;
        pthread_cond_t landed;
        struct slot slots[VMSTATE_IO_DEPTH];
};

/* On the drive's thread. */
static void slot_done(struct drive_op *op)
{
        struct slot *slot = op->opaque;
        struct vmstate_io *io = slot->io;

        pthread_mutex_lock(&io->lock);
        slot->state = SLOT_LANDED;
        pthread_cond_signal(&io->landed);
        pthread_mutex_unlock(&io->lock);
}

static int call_make_ops(struct drive *drive, void *opaque)
{
        struct vmstate_io *io = opaque;

        for (unsigned i = 0; i < VMSTATE_IO_DEPTH; i++) {
                io->slots[i].io = io;
                io->slots[i].op = drive_op_new(drive);
                io->slots[i].op->opaque = &io->slots[i];
                io->slots[i].op->done = slot_done;
        }
        return 0;
}

struct vmstate_io *vmstate_io_new(struct drive_thread *thread,
                                  const struct vmstate_landing *landing)
{
        struct vmstate_io *io = g_new0(struct vmstate_io, 1);

        io->thread = thread;
        if (landing != NULL)
                io->landing = *landing;
        pthread_mutex_init(&io->lock, NULL);
        pthread_cond_init(&io->landed, NULL);
        drive_thread_call(thread, call_make_ops, io);
        return io;
}

void vmstate_io_free(struct vmstate_io *io)
{
        if (io == NULL)
                return;
        vmstate_io_wait(io);
        for (unsigned i = 0; i < VMSTATE_IO_DEPTH; i++)
                drive_op_free(io->slots[i].op);
        pthread_cond_destroy(&io->landed);
        pthread_mutex_destroy(&io->lock);
        g_free(io);
}

static struct slot *find_slot(struct vmstate_io *io, enum slot_state state)
{
        for (unsigned i = 0; i < VMSTATE_IO_DEPTH; i++)
                if (io->slots[i].state == state)
                        return &io->slots[i];
        return NULL;
}

static void keep_error(struct vmstate_io *io, int ret)
{
        if (io->error == 0 && ret < 0)
                io->error = ret;
}

/* A slot that has landed: called without the lock, the slot is still ours alone. */
static void reap(struct vmstate_io *io, struct slot *slot)
{
        keep_error(io, slot->op->result);
        if (io->error == 0 && io->landing.landed != NULL)
                keep_error(io, io->landing.landed(io->landing.opaque, &slot->span));
}

/* Reaps what has landed.  Returns an idle slot, waiting for one; with all set, returns NULL
 * when all are idle. */
static struct slot *settle(struct vmstate_io *io, bool all)
{
        struct slot *slot;

        pthread_mutex_lock(&io->lock);
        for (;;) {
                slot = find_slot(io, SLOT_LANDED);
                if (slot != NULL) {
                        pthread_mutex_unlock(&io->lock);
                        reap(io, slot);
                        pthread_mutex_lock(&io->lock);
                        slot->state = SLOT_IDLE;
                        continue;
                }
                if (!all)
                        slot = find_slot(io, SLOT_IDLE);
                if (slot != NULL || (all && find_slot(io, SLOT_FLYING) == NULL))
                        break;
                pthread_cond_wait(&io->landed, &io->lock);
        }
        pthread_mutex_unlock(&io->lock);
        return slot;
}

static int call_start(struct drive *drive, void *opaque)
{
        const struct hvb_driver *driver = drive_driver(drive);
        struct slot *slot = opaque;

        (slot->is_load ? driver->load_vmstate : driver->save_vmstate)
                (drive_image(drive), drive_op_begin(slot->op), slot->span.offset, &slot->iov, 1);
        return 0;
}

static int start(struct vmstate_io *io, const struct vmstate_span *span, bool is_load)
{
        struct slot *slot = settle(io, false);

        g_assert(span->count > 0 && span->count <= VMSTATE_IO_MAX_BYTES);
        g_assert(span->offset % VMSTATE_IO_ALIGNMENT == 0);
        g_assert(span->count % VMSTATE_IO_ALIGNMENT == 0);
        g_assert((uintptr_t) span->bytes % VMSTATE_IO_ALIGNMENT == 0);
        if (io->error < 0)
                return io->error;
        slot->span = *span;
        slot->iov = (struct iovec) { span->bytes, span->count };
        slot->is_load = is_load;
        pthread_mutex_lock(&io->lock);
        slot->state = SLOT_FLYING;
        pthread_mutex_unlock(&io->lock);
        return drive_thread_call(io->thread, call_start, slot);
}

int vmstate_io_save(struct vmstate_io *io, const struct vmstate_span *span)
{
        return start(io, span, false);
}

int vmstate_io_load(struct vmstate_io *io, const struct vmstate_span *span)
{
        return start(io, span, true);
}

int vmstate_io_wait(struct vmstate_io *io)
{
        settle(io, true);
        return io->error;
}

static int transfer_all(struct vmstate_io *io, uint64_t offset, void *bytes, size_t count,
                        bool is_load)
{
        size_t done;

        for (done = 0; done < count; done += VMSTATE_IO_MAX_BYTES) {
                struct vmstate_span span = {
                        .offset = offset + done,
                        .bytes = (uint8_t *) bytes + done,
                        .count = MIN(count - done, VMSTATE_IO_MAX_BYTES),
                };
                int ret = start(io, &span, is_load);

                if (ret < 0)
                        break;
        }
        return vmstate_io_wait(io);
}

int vmstate_io_save_all(struct vmstate_io *io, uint64_t offset, void *bytes, size_t count)
{
        return transfer_all(io, offset, bytes, count, false);
}

int vmstate_io_load_all(struct vmstate_io *io, uint64_t offset, void *bytes, size_t count)
{
        return transfer_all(io, offset, bytes, count, true);
}
