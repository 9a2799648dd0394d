/*
 * virtio-blk.c - a disk for the guest: its requests, on the drive's thread, and its life.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "host/error.h"
#include "vm/virtio-blk-parts.h"

/* ---- Requests; on the drive's thread -------------------------------------------------- */

/* Gives r back to the guest and to the stack. */
static void request_end(struct blk_request *r, uint8_t status)
{
        struct virtio_blk *blk = r->blk;

        if (!blk->forgetting)
                *r->status = status;
        if (!blk->forgetting
            && virtqueue_give(&blk->mmio.regs.vq, r->chain.head,
                              blk_request_written_bytes(r, status)))
                virtio_mmio_used(&blk->mmio);
        blk->idle[blk->idle_count++] = r;
        blk->in_flight--;
        if (blk->in_flight <= blk->parked)
                pthread_cond_broadcast(&blk->quiet);
}

static uint8_t status_of(const struct blk_request *r)
{
        if (r->op->result >= 0)
                return VIRTIO_BLK_S_OK;
        return r->op->result == -ENOTSUP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static void request_done(struct drive_op *op)
{
        struct blk_request *r = op->opaque;
        struct virtio_blk *blk = r->blk;

        virtio_blk_lock(blk);
        if (op->result >= 0 && r->range_done < r->range_count)
                blk_request_start(r, &blk->limits);
        else
                request_end(r, status_of(r));
        /* A guest that filled the queue has been waiting for a free request. */
        if (blk->idle_count == 1)
                virtio_mmio_ring_bell(&blk->mmio);
        virtio_blk_unlock(blk);
}

/* Takes one request from the queue and starts it.  False: there is none. */
static bool take_one(struct virtio_blk *blk)
{
        struct virtio_mmio *mmio = &blk->mmio;
        struct blk_request *r = blk->idle[blk->idle_count - 1];
        int ret = virtqueue_take(&mmio->regs.vq, &r->chain);
        uint8_t status;

        if (ret == 1)
                ret = blk_request_parse(r, &blk->limits, blk->serial, &status) < 0 ? -EINVAL : 1;
        if (ret < 0)
                virtio_mmio_needs_reset(mmio);
        if (ret != 1)
                return false;
        blk->idle_count--;
        blk->in_flight++;
        if (status != VIRTIO_BLK_S_OK || blk_request_is_done(r))
                request_end(r, status);
        else
                blk_request_start(r, &blk->limits);
        return true;
}

static bool may_take(const struct virtio_blk *blk)
{
        return virtio_mmio_live(&blk->mmio) && blk->stoppers == 0 && !blk->held
               && blk->idle_count > 0 && !guest_memory_is_tight(blk->mmio.mem);
}

/*
 * The bell rang.  A guest that never stops sending does not keep the thread here: after
 * one queue's worth the bell is rung again for the rest.
 */
static void bell_rang(void *opaque)
{
        struct virtio_blk *blk = opaque;
        struct virtqueue *vq = &blk->mmio.regs.vq;
        unsigned budget = blk->options.queue_size;
        uint64_t rings;

        if (read(blk->mmio.bell_fd, &rings, sizeof(rings)) < 0 && errno != EAGAIN)
                return;
        virtio_blk_lock(blk);
        if (may_take(blk)) {
                virtqueue_touch(vq);
                virtqueue_mute(vq);
                while (budget > 0 && may_take(blk) && take_one(blk))
                        budget--;
                /* Without an idle request the bell is rung when there is one; where RAM is
                 * tight, when it is no more. */
                if (virtqueue_unmute(vq) && may_take(blk))
                        virtio_mmio_ring_bell(&blk->mmio);
        }
        virtio_blk_unlock(blk);
}

/* ---- Errors --------------------------------------------------------------------------- */

static enum hvb_error_action action_of(enum disk_error_policy policy, int code)
{
        switch (policy) {
        case DISK_ERROR_ENOSPC:
                return code == -ENOSPC ? HVB_ACTION_STOP : HVB_ACTION_REPORT;
        case DISK_ERROR_IGNORE:
                return HVB_ACTION_IGNORE;
        case DISK_ERROR_STOP:
                return HVB_ACTION_STOP;
        case DISK_ERROR_REPORT:
        default:
                return HVB_ACTION_REPORT;
        }
}

/* Is it a request of the guest?  Others on the drive's thread are nobody's to park. */
static bool is_guest_request(const struct virtio_blk *blk, const struct hvb_request *request)
{
        for (unsigned i = 0; i < blk->options.queue_size; i++)
                if (blk->requests[i].op->request == request)
                        return true;
        return false;
}

enum hvb_error_action virtio_blk_io_error(struct virtio_blk *blk, const struct hvb_io_error *what)
{
        enum hvb_error_action action = action_of(
                what->is_write ? blk->options.write_error : blk->options.read_error, what->code);

        if (blk->requests == NULL || !is_guest_request(blk, what->request))
                return HVB_ACTION_REPORT;
        if (action == HVB_ACTION_STOP) {
                virtio_blk_lock(blk);
                blk->parked++;
                pthread_cond_broadcast(&blk->quiet);
                virtio_blk_unlock(blk);
                blk->options.stopped(blk->options.opaque);
        }
        return action;
}

unsigned virtio_blk_parked(struct virtio_blk *blk)
{
        unsigned parked;

        virtio_blk_lock(blk);
        parked = blk->parked;
        virtio_blk_unlock(blk);
        return parked;
}

static int call_retry(struct drive *drive, void *opaque)
{
        struct virtio_blk *blk = opaque;

        virtio_blk_lock(blk);
        blk->parked = 0;
        virtio_blk_unlock(blk);
        drive_driver(drive)->retry(drive_image(drive));
        return 0;
}

void virtio_blk_retry(struct virtio_blk *blk)
{
        drive_thread_call(blk->thread, call_retry, blk);
}

/* ---- Stopping ------------------------------------------------------------------------- */

/* Whoever is in flight and not parked completes by itself; cancelling it is harmless. */
static int call_cancel(struct drive *drive, void *opaque)
{
        struct virtio_blk *blk = opaque;

        virtio_blk_lock(blk);
        blk->parked = 0;
        virtio_blk_unlock(blk);
        for (unsigned i = 0; i < blk->options.queue_size; i++)
                if (blk->requests[i].op->busy)
                        drive_driver(drive)->cancel(drive_queue(drive),
                                                    blk->requests[i].op->request);
        return 0;
}

void virtio_blk_wait_quiet(struct virtio_blk *blk)
{
        while (blk->in_flight > blk->parked)
                pthread_cond_wait(&blk->quiet, &blk->mmio.lock);
}

void virtio_blk_empty(struct virtio_blk *blk)
{
        blk->stoppers++;
        virtio_blk_wait_quiet(blk);
        while (blk->in_flight > 0) {
                virtio_blk_unlock(blk);
                drive_thread_call(blk->thread, call_cancel, blk);
                virtio_blk_lock(blk);
                virtio_blk_wait_quiet(blk);
        }
        blk->stoppers--;
        virtio_mmio_ring_bell(&blk->mmio);
}

void virtio_blk_forget(struct virtio_blk *blk)
{
        blk->forgetting = true;
        virtio_blk_empty(blk);
        blk->forgetting = false;
}

/* ---- Life ----------------------------------------------------------------------------- */

int virtio_blk_new(const struct guest_memory *mem, const struct virtio_blk_options *options,
                   struct virtio_blk **ret_blk, struct hvb_error *err)
{
        const char *serial = options->serial == NULL ? "" : options->serial;
        struct virtio_blk *blk;
        int ret;

        if (strlen(serial) > VIRTIO_BLK_ID_BYTES)
                return error_set(err, -EINVAL, "serial '%s' is longer than %d bytes", serial,
                                 VIRTIO_BLK_ID_BYTES);
        if (options->queue_size < 4 || options->queue_size > VIRTQ_SIZE_MAX
            || (options->queue_size & (options->queue_size - 1)) != 0)
                return error_set(err, -EINVAL, "queue-size %u: must be a power of 2 from 4 to %d",
                                 options->queue_size, VIRTQ_SIZE_MAX);
        blk = g_new0(struct virtio_blk, 1);
        blk->device = (struct device) { &virtio_blk_device_ops, options->instance };
        blk->options = *options;
        blk->options.serial = NULL;
        g_strlcpy(blk->serial, serial, sizeof(blk->serial));
        blk->limits.read_only = options->read_only;
        blk->limits.discard = options->discard && !options->read_only;
        blk->limits.writeback = !options->writethrough;
        pthread_cond_init(&blk->quiet, NULL);
        ret = virtio_mmio_init(&blk->mmio, &virtio_blk_virtio_ops, mem, options->queue_size);
        if (ret < 0) {
                virtio_blk_free(blk);
                return error_set(err, ret, "eventfd: %s", g_strerror(-ret));
        }
        *ret_blk = blk;
        return 0;
}

/* What only the drive knows, and requests that are its. */
static int call_attach(struct drive *drive, void *opaque)
{
        struct virtio_blk *blk = opaque;
        unsigned count = blk->options.queue_size;
        struct hvb_image_info info;

        drive_get_info(drive, &info);
        blk->limits.capacity_sectors = info.virtual_bytes / SECTOR_BYTES;
        blk->block_bytes = MAX(SECTOR_BYTES, info.request_alignment);
        blk->requests = g_try_new0(struct blk_request, count);
        blk->idle = g_try_new0(struct blk_request *, count);
        if (blk->requests == NULL || blk->idle == NULL)
                return -ENOMEM;
        for (unsigned i = 0; i < count; i++) {
                struct blk_request *r = &blk->requests[i];

                r->blk = blk;
                r->op = drive_op_new(drive);
                r->op->done = request_done;
                r->op->opaque = r;
                blk->idle[blk->idle_count++] = r;
        }
        return 0;
}

int virtio_blk_attach(struct virtio_blk *blk, struct drive_thread *thread,
                      struct hvb_error *err)
{
        int ret = drive_thread_call(thread, call_attach, blk);

        blk->thread = thread;
        if (ret < 0)
                return error_set(err, ret, "no memory for %u requests", blk->options.queue_size);
        blk->bell = drive_thread_watch(thread, blk->mmio.bell_fd, bell_rang, blk);
        if (blk->bell == NULL)
                return error_set(err, -ENOSPC, "epoll refuses one more descriptor");
        return 0;
}

static int call_detach(struct drive *drive, void *opaque)
{
        struct virtio_blk *blk = opaque;

        (void) drive;
        for (unsigned i = 0; blk->requests != NULL && i < blk->options.queue_size; i++)
                drive_op_free(blk->requests[i].op);
        return 0;
}

void virtio_blk_free(struct virtio_blk *blk)
{
        if (blk == NULL)
                return;
        if (blk->bell != NULL) {
                virtio_blk_lock(blk);
                blk->held = true;
                virtio_blk_forget(blk);
                virtio_blk_unlock(blk);
                drive_thread_unwatch(blk->thread, blk->bell);
        }
        if (blk->thread != NULL)
                drive_thread_call(blk->thread, call_detach, blk);
        g_free(blk->requests);
        g_free(blk->idle);
        pthread_cond_destroy(&blk->quiet);
        virtio_mmio_clear(&blk->mmio);
        g_free(blk);
}

struct device *virtio_blk_device(struct virtio_blk *blk)
{
        return &blk->device;
}

struct virtio_mmio *virtio_blk_mmio(struct virtio_blk *blk)
{
        return &blk->mmio;
}
