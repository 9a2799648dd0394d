/*
 * virtio-blk-device.c - a disk for the guest: its registers, and what every device can do.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "host/error.h"
#include "vm/virtio-blk-parts.h"

enum { STATE_VERSION = 1 };

static struct virtio_blk *blk_of_mmio(struct virtio_mmio *mmio)
{
        return (struct virtio_blk *) ((char *) mmio - offsetof(struct virtio_blk, mmio));
}

static struct virtio_blk *blk_of_device(struct device *device)
{
        return (struct virtio_blk *) ((char *) device - offsetof(struct virtio_blk, device));
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

/* The guest stops its device. */
static void stop(struct virtio_mmio *mmio)
{
        virtio_blk_empty(blk_of_mmio(mmio));
}

const struct virtio_ops virtio_blk_virtio_ops = {
        .device_id = VIRTIO_ID_BLOCK,
        .features = features,
        .read_config = read_config,
        .write_config = write_config,
        .features_ok = features_ok,
        .stop = stop,
        .reset = reset,
};

/* ---- The machine's side --------------------------------------------------------------- */

static void device_quiesce(struct device *device)
{
        struct virtio_blk *blk = blk_of_device(device);

        virtio_blk_lock(blk);
        blk->held = true;
        virtio_blk_wait_quiet(blk);
        virtio_blk_unlock(blk);
}

static int call_capacity(struct drive *drive, void *opaque)
{
        struct virtio_blk *blk = opaque;
        uint64_t sectors = drive_bytes(drive) / SECTOR_BYTES;

        virtio_blk_lock(blk);
        if (sectors != blk->limits.capacity_sectors) {
                blk->limits.capacity_sectors = sectors;
                blk->mmio.regs.config_generation++;
        }
        virtio_blk_unlock(blk);
        return 0;
}

static void device_resume(struct device *device)
{
        struct virtio_blk *blk = blk_of_device(device);

        drive_thread_call(blk->thread, call_capacity, blk);
        virtio_blk_lock(blk);
        blk->held = false;
        virtio_mmio_raise_again(&blk->mmio);
        virtio_mmio_ring_bell(&blk->mmio);
        virtio_blk_unlock(blk);
}

static void device_reset(struct device *device)
{
        struct virtio_blk *blk = blk_of_device(device);

        virtio_blk_lock(blk);
        virtio_blk_forget(blk);
        virtio_mmio_reset(&blk->mmio);
        virtio_blk_unlock(blk);
}

static int device_save(struct device *device, struct state_writer *w, struct hvb_error *err)
{
        struct virtio_blk *blk = blk_of_device(device);
        unsigned parked;

        virtio_blk_lock(blk);
        parked = blk->parked;
        virtio_mmio_save(&blk->mmio, w);
        state_put_u8(w, blk->limits.writeback);
        virtio_blk_unlock(blk);
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
        virtio_blk_lock(blk);
        virtio_blk_forget(blk);
        blk->mmio.regs = regs;
        blk->limits.writeback = writeback;
        virtio_blk_unlock(blk);
        return 0;
}

const struct device_ops virtio_blk_device_ops = {
        .name = "virtio-blk",
        .state_version = STATE_VERSION,
        .state_oldest = STATE_VERSION,
        .reset = device_reset,
        .quiesce = device_quiesce,
        .resume = device_resume,
        .save = device_save,
        .load = device_load,
};
