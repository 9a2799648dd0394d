/*
 * virtio-mmio.c - the registers of a virtio device.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/virtio-mmio.h"

#include <errno.h>
#include <glib.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "host/error.h"

enum {
        MAGIC = 0x74726976,             /* "virt" */
        MMIO_VERSION = 2,
        VENDOR = 0x4b4c4248,            /* "HBLK" */
        STATUS_BITS = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER
                      | VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK
                      | VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED,
};

/* ---- Life ---------------------------------------------------------------------------- */

int virtio_mmio_init(struct virtio_mmio *mmio, const struct virtio_ops *ops,
                     const struct guest_memory *mem, uint32_t queue_size_max)
{
        *mmio = (struct virtio_mmio) {
                .ops = ops,
                .mem = mem,
                .bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                .irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                .queue_size_max = queue_size_max,
        };
        pthread_mutex_init(&mmio->lock, NULL);
        return mmio->bell_fd < 0 || mmio->irq_fd < 0 ? -errno : 0;
}

void virtio_mmio_clear(struct virtio_mmio *mmio)
{
        if (mmio->bell_fd >= 0)
                close(mmio->bell_fd);
        if (mmio->irq_fd >= 0)
                close(mmio->irq_fd);
        pthread_mutex_destroy(&mmio->lock);
}

/* ---- Interrupts ---------------------------------------------------------------------- */

/* Never fails: an eventfd that is full is rung. */
static void ring(int fd)
{
        const uint64_t one = 1;
        ssize_t written = write(fd, &one, sizeof(one));

        g_assert(written == sizeof(one) || errno == EAGAIN);
}

static void raise_interrupt(struct virtio_mmio *mmio, uint32_t why)
{
        mmio->regs.interrupt_status |= why;
        ring(mmio->irq_fd);
}

void virtio_mmio_used(struct virtio_mmio *mmio)
{
        raise_interrupt(mmio, VIRTIO_MMIO_INT_VRING);
}

void virtio_mmio_needs_reset(struct virtio_mmio *mmio)
{
        if (mmio->regs.status & VIRTIO_CONFIG_S_NEEDS_RESET)
                return;
        mmio->regs.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        if (mmio->regs.status & VIRTIO_CONFIG_S_DRIVER_OK)
                raise_interrupt(mmio, VIRTIO_MMIO_INT_CONFIG);
}

void virtio_mmio_raise_again(struct virtio_mmio *mmio)
{
        if (mmio->regs.interrupt_status != 0)
                ring(mmio->irq_fd);
}

void virtio_mmio_ring_bell(struct virtio_mmio *mmio)
{
        ring(mmio->bell_fd);
}

bool virtio_mmio_live(const struct virtio_mmio *mmio)
{
        const struct virtio_registers *regs = &mmio->regs;

        return regs->status & VIRTIO_CONFIG_S_DRIVER_OK
               && !(regs->status & VIRTIO_CONFIG_S_NEEDS_RESET) && regs->vq.enabled
               && !regs->vq.broken;
}

void virtio_mmio_reset(struct virtio_mmio *mmio)
{
        mmio->regs = (struct virtio_registers) { 0 };
        mmio->ops->reset(mmio);
}

/* ---- Reading ------------------------------------------------------------------------- */

static uint32_t read_register(const struct virtio_mmio *mmio, uint64_t features, uint64_t offset)
{
        const struct virtio_registers *regs = &mmio->regs;

        switch (offset) {
        case VIRTIO_MMIO_MAGIC_VALUE:
                return MAGIC;
        case VIRTIO_MMIO_VERSION:
                return MMIO_VERSION;
        case VIRTIO_MMIO_DEVICE_ID:
                return mmio->ops->device_id;
        case VIRTIO_MMIO_VENDOR_ID:
                return VENDOR;
        case VIRTIO_MMIO_DEVICE_FEATURES:
                return regs->device_features_sel > 1 ? 0
                        : features >> (32 * regs->device_features_sel);
        case VIRTIO_MMIO_QUEUE_NUM_MAX:
                return regs->queue_sel == 0 ? mmio->queue_size_max : 0;
        case VIRTIO_MMIO_QUEUE_READY:
                return regs->queue_sel == 0 && regs->vq.enabled;
        case VIRTIO_MMIO_INTERRUPT_STATUS:
                return regs->interrupt_status;
        case VIRTIO_MMIO_STATUS:
                return regs->status;
        case VIRTIO_MMIO_CONFIG_GENERATION:
                return regs->config_generation;
        case VIRTIO_MMIO_SHM_LEN_LOW:           /* no shared memory: length -1 */
        case VIRTIO_MMIO_SHM_LEN_HIGH:
                return UINT32_MAX;
        default:
                return 0;
        }
}

void virtio_mmio_read(void *opaque, uint64_t offset, void *bytes, unsigned count)
{
        struct virtio_mmio *mmio = opaque;

        memset(bytes, 0, count);
        pthread_mutex_lock(&mmio->lock);
        if (offset >= VIRTIO_MMIO_CONFIG) {
                mmio->ops->read_config(mmio, offset - VIRTIO_MMIO_CONFIG, bytes, count);
        } else if (count == 4 && offset % 4 == 0) {
                uint32_t value = read_register(mmio, mmio->ops->features(mmio), offset);

                value = GUINT32_TO_LE(value);
                memcpy(bytes, &value, sizeof(value));
        }
        pthread_mutex_unlock(&mmio->lock);
}

/* ---- Writing ------------------------------------------------------------------------- */

static void write_status(struct virtio_mmio *mmio, uint32_t value)
{
        struct virtio_registers *regs = &mmio->regs;
        uint32_t added = value & ~regs->status & STATUS_BITS & ~VIRTIO_CONFIG_S_NEEDS_RESET;

        if (value == 0) {
                mmio->ops->stop(mmio);
                virtio_mmio_reset(mmio);
                return;
        }
        if (added & VIRTIO_CONFIG_S_FEATURES_OK) {
                uint64_t offered = mmio->ops->features(mmio);

                if (regs->driver_features & ~offered
                    || !(regs->driver_features & (1ull << VIRTIO_F_VERSION_1)))
                        added &= ~VIRTIO_CONFIG_S_FEATURES_OK;
                else
                        mmio->ops->features_ok(mmio);
        }
        /* A driver that goes on without FEATURES_OK has not read it back. */
        if (!((regs->status | added) & VIRTIO_CONFIG_S_FEATURES_OK))
                added &= ~VIRTIO_CONFIG_S_DRIVER_OK;
        regs->status |= added;
        if (added & VIRTIO_CONFIG_S_DRIVER_OK)
                ring(mmio->bell_fd);
}

static void write_queue_ready(struct virtio_mmio *mmio, uint32_t value)
{
        struct virtqueue *vq = &mmio->regs.vq;

        if (value == 0) {
                mmio->ops->stop(mmio);
                virtqueue_reset(vq);
        } else if (!vq->enabled) {
                vq->event_idx = mmio->regs.driver_features & (1ull << VIRTIO_RING_F_EVENT_IDX);
                if (vq->size > mmio->queue_size_max || virtqueue_enable(vq, mmio->mem) < 0)
                        virtio_mmio_needs_reset(mmio);
        }
}

static void set_low(uint64_t *field, uint32_t value)
{
        *field = (*field & ~0xffffffffull) | value;
}

static void set_high(uint64_t *field, uint32_t value)
{
        *field = (*field & 0xffffffffull) | (uint64_t) value << 32;
}

/* Settings of the queue, as long as it is not enabled. */
static void write_queue(struct virtqueue *vq, uint64_t offset, uint32_t value)
{
        if (vq->enabled)
                return;
        switch (offset) {
        case VIRTIO_MMIO_QUEUE_NUM:
                vq->size = value;
                break;
        case VIRTIO_MMIO_QUEUE_DESC_LOW:
                set_low(&vq->desc_address, value);
                break;
        case VIRTIO_MMIO_QUEUE_DESC_HIGH:
                set_high(&vq->desc_address, value);
                break;
        case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
                set_low(&vq->avail_address, value);
                break;
        case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
                set_high(&vq->avail_address, value);
                break;
        case VIRTIO_MMIO_QUEUE_USED_LOW:
                set_low(&vq->used_address, value);
                break;
        case VIRTIO_MMIO_QUEUE_USED_HIGH:
                set_high(&vq->used_address, value);
                break;
        default:
                break;
        }
}

static void write_driver_features(struct virtio_registers *regs, uint32_t value)
{
        if (regs->status & VIRTIO_CONFIG_S_FEATURES_OK)
                return;
        if (regs->driver_features_sel == 0)
                set_low(&regs->driver_features, value);
        else if (regs->driver_features_sel == 1)
                set_high(&regs->driver_features, value);
        else if (value != 0)
                regs->driver_features = UINT64_MAX;     /* none that we offer: refused */
}

static void write_register(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
        struct virtio_registers *regs = &mmio->regs;

        switch (offset) {
        case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
                regs->device_features_sel = value;
                break;
        case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
                regs->driver_features_sel = value;
                break;
        case VIRTIO_MMIO_DRIVER_FEATURES:
                write_driver_features(regs, value);
                break;
        case VIRTIO_MMIO_QUEUE_SEL:
                regs->queue_sel = value;
                break;
        case VIRTIO_MMIO_QUEUE_READY:
                if (regs->queue_sel == 0)
                        write_queue_ready(mmio, value);
                break;
        case VIRTIO_MMIO_QUEUE_NOTIFY:
                if (value == 0)
                        ring(mmio->bell_fd);
                break;
        case VIRTIO_MMIO_INTERRUPT_ACK:
                regs->interrupt_status &= ~value;
                break;
        case VIRTIO_MMIO_STATUS:
                write_status(mmio, value);
                break;
        default:
                if (regs->queue_sel == 0)
                        write_queue(&regs->vq, offset, value);
                break;
        }
}

void virtio_mmio_write(void *opaque, uint64_t offset, const void *bytes, unsigned count)
{
        struct virtio_mmio *mmio = opaque;

        pthread_mutex_lock(&mmio->lock);
        if (offset >= VIRTIO_MMIO_CONFIG) {
                mmio->ops->write_config(mmio, offset - VIRTIO_MMIO_CONFIG, bytes, count);
        } else if (count == 4 && offset % 4 == 0) {
                uint32_t value;

                memcpy(&value, bytes, sizeof(value));
                write_register(mmio, offset, GUINT32_FROM_LE(value));
        }
        pthread_mutex_unlock(&mmio->lock);
}

/* ---- State --------------------------------------------------------------------------- */

void virtio_mmio_save(const struct virtio_mmio *mmio, struct state_writer *w)
{
        const struct virtio_registers *regs = &mmio->regs;

        state_put_u32(w, regs->status);
        state_put_u32(w, regs->device_features_sel);
        state_put_u32(w, regs->driver_features_sel);
        state_put_u32(w, regs->queue_sel);
        state_put_u64(w, regs->driver_features);
        state_put_u32(w, regs->interrupt_status);
        state_put_u32(w, regs->config_generation);
        state_put_u32(w, regs->vq.size);
        state_put_u64(w, regs->vq.desc_address);
        state_put_u64(w, regs->vq.avail_address);
        state_put_u64(w, regs->vq.used_address);
        state_put_u8(w, regs->vq.enabled);
        state_put_u8(w, regs->vq.broken);
        state_put_u16(w, regs->vq.avail_taken);
        state_put_u16(w, regs->vq.used_given);
        state_put_u16(w, regs->vq.used_judged);
}

static void read_state(struct state_reader *r, struct virtio_registers *ret_regs)
{
        *ret_regs = (struct virtio_registers) { 0 };
        ret_regs->status = state_get_u32(r);
        ret_regs->device_features_sel = state_get_u32(r);
        ret_regs->driver_features_sel = state_get_u32(r);
        ret_regs->queue_sel = state_get_u32(r);
        ret_regs->driver_features = state_get_u64(r);
        ret_regs->interrupt_status = state_get_u32(r);
        ret_regs->config_generation = state_get_u32(r);
        ret_regs->vq.size = state_get_u32(r);
        ret_regs->vq.desc_address = state_get_u64(r);
        ret_regs->vq.avail_address = state_get_u64(r);
        ret_regs->vq.used_address = state_get_u64(r);
        ret_regs->vq.enabled = state_get_u8(r);
        ret_regs->vq.broken = state_get_u8(r);
        ret_regs->vq.avail_taken = state_get_u16(r);
        ret_regs->vq.used_given = state_get_u16(r);
        ret_regs->vq.used_judged = state_get_u16(r);
}

int virtio_mmio_load(struct virtio_mmio *mmio, struct state_reader *r,
                     struct virtio_registers *ret_regs, struct hvb_error *err)
{
        struct virtio_registers regs;
        bool settled;
        bool enabled;

        read_state(r, &regs);
        settled = regs.status & VIRTIO_CONFIG_S_FEATURES_OK;
        if (regs.status & ~STATUS_BITS
            || (regs.status & VIRTIO_CONFIG_S_DRIVER_OK && !settled))
                return error_set(err, -EINVAL, "device status 0x%x is none", regs.status);
        if (settled && regs.driver_features & ~mmio->ops->features(mmio))
                return error_set(err, -ENOTSUP, "the guest uses features 0x%" G_GINT64_MODIFIER "x "
                                 "of the disk, 0x%" G_GINT64_MODIFIER "x are offered here",
                                 regs.driver_features, mmio->ops->features(mmio));
        enabled = regs.vq.enabled;
        regs.vq.enabled = false;
        regs.vq.event_idx = regs.driver_features & (1ull << VIRTIO_RING_F_EVENT_IDX);
        if (enabled && regs.vq.size > mmio->queue_size_max)
                return error_set(err, -ENOTSUP, "the guest's queue has %u descriptors, at most %u "
                                 "are allowed here", regs.vq.size, mmio->queue_size_max);
        if (enabled && virtqueue_enable(&regs.vq, mmio->mem) < 0)
                return error_set(err, -EINVAL, "the queue of %u descriptors at 0x%"
                                 G_GINT64_MODIFIER "x does not lie in RAM", regs.vq.size,
                                 regs.vq.desc_address);
        *ret_regs = regs;
        return 0;
}
