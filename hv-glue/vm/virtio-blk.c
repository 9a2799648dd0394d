/*
 * virtio-blk.c - a disk for the guest, over a drive on its thread.
 *
 * Invariants, under the lock:
 *  1. requests = idle + in_flight; parked <= in_flight.
 *  2. Nothing is taken from the queue while `stoppers` or `held` say so.
 *  3. The queue stays enabled as long as something is in flight: whoever disables it has
 *     stopped the device first.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/virtio-blk.h"

#include <errno.h>
#include <glib.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <unistd.h>

#include "vm/virtio-blk-request.h"

enum { STATE_VERSION = 1 };

struct virtio_blk {
        struct device device;
        struct virtio_mmio mmio;
        struct drive_thread *thread;
        struct drive_watch_fd *bell;
        struct virtio_blk_options options;
        char serial[VIRTIO_BLK_ID_BYTES + 1];
        uint32_t block_bytes;           /* logical block of the guest's disk */

        /* Under mmio.lock. */
        struct blk_limits limits;
        struct blk_request *requests;   /* queue_size of them */
        struct blk_request **idle;      /* a stack */
        unsigned idle_count;
        unsigned in_flight;
        unsigned parked;
        unsigned stoppers;              /* threads that stop it */
        bool held;                      /* between quiesce and resume */
        bool forgetting;                /* what ends is given up: the guest hears nothing */
        pthread_cond_t quiet;           /* in_flight has come down to parked */
};

static struct virtio_blk *blk_of_mmio(struct virtio_mmio *mmio)
{
        return (struct virtio_blk *) ((char *) mmio - offsetof(struct virtio_blk, mmio));
}

static struct virtio_blk *blk_of_device(struct device *device)
{
        return (struct virtio_blk *) ((char *) device - offsetof(struct virtio_blk, device));
}

static void lock(struct virtio_blk *blk)
{
        pthread_mutex_lock(&blk->mmio.lock);
}

static void unlock(struct virtio_blk *blk)
{
        pthread_mutex_unlock(&blk->mmio.lock);
}

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

        lock(blk);
        if (op->result >= 0 && r->range_done < r->range_count)
                blk_request_start(r, &blk->limits);
        else
                request_end(r, status_of(r));
        /* A guest that filled the queue has been waiting for a free request. */
        if (blk->idle_count == 1)
                virtio_mmio_ring_bell(&blk->mmio);
        unlock(blk);
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
               && blk->idle_count > 0;
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
        lock(blk);
        if (may_take(blk)) {
                virtqueue_mute(vq);
                while (budget > 0 && may_take(blk) && take_one(blk))
                        budget--;
                /* Without an idle request the bell is rung when there is one. */
                if (virtqueue_unmute(vq) && may_take(blk))
                        virtio_mmio_ring_bell(&blk->mmio);
        }
        unlock(blk);
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
                lock(blk);
                blk->parked++;
                pthread_cond_broadcast(&blk->quiet);
                unlock(blk);
                blk->options.stopped(blk->options.opaque);
        }
        return action;
}

unsigned virtio_blk_parked(struct virtio_blk *blk)
{
        unsigned parked;

        lock(blk);
        parked = blk->parked;
        unlock(blk);
        return parked;
}

static int call_retry(struct drive *drive, void *opaque)
{
        struct virtio_blk *blk = opaque;

        lock(blk);
        blk->parked = 0;
        unlock(blk);
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

        lock(blk);
        blk->parked = 0;
        unlock(blk);
        for (unsigned i = 0; i < blk->options.queue_size; i++)
                if (blk->requests[i].op->busy)
                        drive_driver(drive)->cancel(drive_queue(drive),
                                                    blk->requests[i].op->request);
        return 0;
}

static void wait_quiet(struct virtio_blk *blk)
{
        while (blk->in_flight > blk->parked)
                pthread_cond_wait(&blk->quiet, &blk->mmio.lock);
}

/* Nothing is in flight when it returns; what is parked is cancelled.  With the lock. */
static void empty(struct virtio_blk *blk)
{
        blk->stoppers++;
        wait_quiet(blk);
        while (blk->in_flight > 0) {
                unlock(blk);
                drive_thread_call(blk->thread, call_cancel, blk);
                lock(blk);
                wait_quiet(blk);
        }
        blk->stoppers--;
        virtio_mmio_ring_bell(&blk->mmio);
}

/* The guest stops its device. */
static void stop(struct virtio_mmio *mmio)
{
        struct virtio_blk *blk = blk_of_mmio(mmio);

        lock(blk);
        empty(blk);
        unlock(blk);
}

/* The guest itself is given up: its memory may be another one's by now.  With the lock. */
static void forget(struct virtio_blk *blk)
{
        blk->forgetting = true;
        empty(blk);
        blk->forgetting = false;
}

static void device_quiesce(struct device *device)
{
        struct virtio_blk *blk = blk_of_device(device);

        lock(blk);
        blk->held = true;
        wait_quiet(blk);
        unlock(blk);
}

static int call_capacity(struct drive *drive, void *opaque)
{
        struct virtio_blk *blk = opaque;
        uint64_t sectors = drive_bytes(drive) / SECTOR_BYTES;

        lock(blk);
        if (sectors != blk->limits.capacity_sectors) {
                blk->limits.capacity_sectors = sectors;
                blk->mmio.regs.config_generation++;
        }
        unlock(blk);
        return 0;
}

static void device_resume(struct device *device)
{
        struct virtio_blk *blk = blk_of_device(device);

        drive_thread_call(blk->thread, call_capacity, blk);
        lock(blk);
        blk->held = false;
        virtio_mmio_raise_again(&blk->mmio);
        virtio_mmio_ring_bell(&blk->mmio);
        unlock(blk);
}

/* ---- The transport's side ------------------------------------------------------------- */

static uint64_t features(struct virtio_mmio *mmio)
{
        const struct virtio_blk *blk = blk_of_mmio(mmio);
        uint64_t bits = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC
                | 1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_BLK_F_SEG_MAX
                | 1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_FLUSH
                | 1ull << VIRTIO_BLK_F_CONFIG_WCE;

        if (blk->limits.read_only)
                return bits | 1ull << VIRTIO_BLK_F_RO;
        bits |= 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
        return blk->limits.discard ? bits | 1ull << VIRTIO_BLK_F_DISCARD : bits;
}

static struct virtio_blk_config config_of(const struct virtio_blk *blk)
{
        uint32_t segments = MIN(VIRTQ_CHAIN_MAX, blk->options.queue_size) - 2;

        return (struct virtio_blk_config) {
                .capacity = GUINT64_TO_LE(blk->limits.capacity_sectors),
                .seg_max = GUINT32_TO_LE(segments),
                .blk_size = GUINT32_TO_LE(blk->block_bytes),
                .wce = blk->limits.writeback,
                .max_discard_sectors = GUINT32_TO_LE(BLK_RANGE_SECTORS_MAX),
                .max_discard_seg = GUINT32_TO_LE(BLK_RANGES_MAX),
                .discard_sector_alignment = GUINT32_TO_LE(blk->block_bytes / SECTOR_BYTES),
                .max_write_zeroes_sectors = GUINT32_TO_LE(BLK_RANGE_SECTORS_MAX),
                .max_write_zeroes_seg = GUINT32_TO_LE(BLK_RANGES_MAX),
                .write_zeroes_may_unmap = 1,
        };
}

static void read_config(struct virtio_mmio *mmio, uint64_t offset, void *bytes, size_t count)
{
        const struct virtio_blk_config config = config_of(blk_of_mmio(mmio));

        if (offset >= sizeof(config))
                return;
        memcpy(bytes, (const uint8_t *) &config + offset, MIN(count, sizeof(config) - offset));
}

static void write_config(struct virtio_mmio *mmio, uint64_t offset, const void *bytes,
                         size_t count)
{
        struct virtio_blk *blk = blk_of_mmio(mmio);

        if (offset == offsetof(struct virtio_blk_config, wce) && count == 1
            && mmio->regs.driver_features & (1ull << VIRTIO_BLK_F_CONFIG_WCE))
                blk->limits.writeback = *(const uint8_t *) bytes != 0;
}

static bool initial_writeback(const struct virtio_blk *blk)
{
        return !blk->options.writethrough;
}

/* A driver that cannot flush must not be cached. */
static void features_ok(struct virtio_mmio *mmio)
{
        struct virtio_blk *blk = blk_of_mmio(mmio);

        if (!(mmio->regs.driver_features & (1ull << VIRTIO_BLK_F_FLUSH)))
                blk->limits.writeback = false;
}

static void reset(struct virtio_mmio *mmio)
{
        struct virtio_blk *blk = blk_of_mmio(mmio);

        blk->limits.writeback = initial_writeback(blk);
}

static const struct virtio_ops virtio_ops = {
        .device_id = VIRTIO_ID_BLOCK,
        .features = features,
        .read_config = read_config,
        .write_config = write_config,
        .features_ok = features_ok,
        .stop = stop,
        .reset = reset,
};

/* ---- The machine's side --------------------------------------------------------------- */

static void device_reset(struct device *device)
{
        struct virtio_blk *blk = blk_of_device(device);

        lock(blk);
        forget(blk);
        virtio_mmio_reset(&blk->mmio);
        unlock(blk);
}

static int device_save(struct device *device, struct state_writer *w, struct hvb_error *err)
{
        struct virtio_blk *blk = blk_of_device(device);
        unsigned parked;

        lock(blk);
        parked = blk->parked;
        virtio_mmio_save(&blk->mmio, w);
        state_put_u8(w, blk->limits.writeback);
        unlock(blk);
        if (parked > 0)
                return error_set(err, -EBUSY, "%u requests of disk %u wait after an I/O error: "
                                 "continue the machine first", parked, device->instance);
        return 0;
}

static int device_load(struct device *device, struct state_reader *r, uint32_t version,
                       bool apply, struct hvb_error *err)
{
        struct virtio_blk *blk = blk_of_device(device);
        struct virtio_registers regs;
        uint8_t writeback;
        int ret;

        (void) version;
        ret = virtio_mmio_load(&blk->mmio, r, &regs, err);
        if (ret < 0)
                return ret;
        writeback = state_get_u8(r);
        if (state_reader_end(r) < 0 || writeback > 1)
                return error_set(err, -EINVAL, "not a state of a disk");
        if (!apply)
                return 0;
        lock(blk);
        forget(blk);
        blk->mmio.regs = regs;
        blk->limits.writeback = writeback;
        unlock(blk);
        return 0;
}

static const struct device_ops device_ops = {
        .name = "virtio-blk",
        .state_version = STATE_VERSION,
        .state_oldest = STATE_VERSION,
        .reset = device_reset,
        .quiesce = device_quiesce,
        .resume = device_resume,
        .save = device_save,
        .load = device_load,
};

struct device *virtio_blk_device(struct virtio_blk *blk)
{
        return &blk->device;
}

struct virtio_mmio *virtio_blk_mmio(struct virtio_blk *blk)
{
        return &blk->mmio;
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
        blk->device = (struct device) { &device_ops, options->instance };
        blk->options = *options;
        blk->options.serial = NULL;
        g_strlcpy(blk->serial, serial, sizeof(blk->serial));
        blk->limits.read_only = options->read_only;
        blk->limits.discard = options->discard && !options->read_only;
        blk->limits.writeback = initial_writeback(blk);
        pthread_cond_init(&blk->quiet, NULL);
        ret = virtio_mmio_init(&blk->mmio, &virtio_ops, mem, options->queue_size);
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
                lock(blk);
                blk->held = true;
                forget(blk);
                unlock(blk);
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
