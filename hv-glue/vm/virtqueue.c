/*
 * virtqueue.c - a split virtqueue, the device's side.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/virtqueue.h"

#include <errno.h>
#include <glib.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <string.h>

enum {
        DESC_BYTES = sizeof(struct vring_desc),
        USED_ELEM_BYTES = sizeof(struct vring_used_elem),
        RING_HEAD_BYTES = 4,            /* flags, idx */
        EVENT_BYTES = 2,                /* used_event, avail_event */
};

/* ---- The rings' fields.  Little-endian; the guest may write to them meanwhile. ------- */

static uint16_t load_u16(const uint8_t *at)
{
        const _Atomic uint16_t *field = (const _Atomic uint16_t *) (const void *) at;

        return GUINT16_FROM_LE(atomic_load_explicit(field, memory_order_acquire));
}

static void store_u16(uint8_t *at, uint16_t value)
{
        _Atomic uint16_t *field = (_Atomic uint16_t *) (void *) at;

        atomic_store_explicit(field, GUINT16_TO_LE(value), memory_order_release);
}

static const uint8_t *used_event(const struct virtqueue *vq)
{
        return vq->avail + RING_HEAD_BYTES + 2 * vq->size;
}

static uint8_t *avail_event(const struct virtqueue *vq)
{
        return vq->used + RING_HEAD_BYTES + USED_ELEM_BYTES * vq->size;
}

static uint16_t avail_index(const struct virtqueue *vq)
{
        return load_u16(vq->avail + 2);
}

/* ---- Life ---------------------------------------------------------------------------- */

int virtqueue_enable(struct virtqueue *vq, const struct guest_memory *mem)
{
        uint64_t size = vq->size;

        if (size == 0 || size > VIRTQ_SIZE_MAX || (size & (size - 1)) != 0
            || vq->desc_address % 16 != 0 || vq->avail_address % 2 != 0
            || vq->used_address % 4 != 0)
                return -EINVAL;
        vq->desc = guest_memory_at(mem, vq->desc_address, DESC_BYTES * size);
        vq->avail = guest_memory_at(mem, vq->avail_address,
                                    RING_HEAD_BYTES + 2 * size + EVENT_BYTES);
        vq->used = guest_memory_at(mem, vq->used_address,
                                   RING_HEAD_BYTES + USED_ELEM_BYTES * size + EVENT_BYTES);
        if (vq->desc == NULL || vq->avail == NULL || vq->used == NULL)
                return -EINVAL;
        vq->mem = mem;
        vq->enabled = true;
        return 0;
}

void virtqueue_reset(struct virtqueue *vq)
{
        *vq = (struct virtqueue) { 0 };
}

/* What cannot be loaded never will: nothing is taken any more. */
void virtqueue_touch(struct virtqueue *vq)
{
        uint64_t size = vq->size;

        if (!vq->enabled)
                return;
        if (!guest_memory_touch(vq->mem, vq->desc, DESC_BYTES * size, false)
            || !guest_memory_touch(vq->mem, vq->avail, RING_HEAD_BYTES + 2 * size + EVENT_BYTES,
                                   false)
            || !guest_memory_touch(vq->mem, vq->used,
                                   RING_HEAD_BYTES + USED_ELEM_BYTES * size + EVENT_BYTES, true))
                vq->broken = true;
}

/* ---- Taking -------------------------------------------------------------------------- */

/* A table of descriptors: the queue's own or an indirect one. */
struct desc_table {
        const uint8_t *bytes;
        uint32_t count;
        bool indirect;
};

static struct vring_desc desc_copy(const struct desc_table *table, uint32_t index)
{
        struct vring_desc desc;

        memcpy(&desc, table->bytes + (size_t) index * DESC_BYTES, sizeof(desc));
        /* What is judged is what is used: the compiler must not read the guest's again. */
        atomic_signal_fence(memory_order_seq_cst);
        return (struct vring_desc) {
                .addr = GUINT64_FROM_LE(desc.addr),
                .len = GUINT32_FROM_LE(desc.len),
                .flags = GUINT16_FROM_LE(desc.flags),
                .next = GUINT16_FROM_LE(desc.next),
        };
}

static int chain_add(struct virtqueue *vq, struct virtq_chain *chain,
                     const struct vring_desc *desc)
{
        unsigned count = chain->out_count + chain->in_count;
        void *memory = guest_memory_at(vq->mem, desc->addr, desc->len);

        if (memory == NULL || count == VIRTQ_CHAIN_MAX
            || !guest_memory_touch(vq->mem, memory, desc->len, desc->flags & VRING_DESC_F_WRITE))
                return -EINVAL;
        chain->iov[count] = (struct iovec) { memory, desc->len };
        if (desc->flags & VRING_DESC_F_WRITE) {
                chain->in_count++;
                chain->in_bytes += desc->len;
        } else {
                if (chain->in_count > 0)        /* all readable ones come first */
                        return -EINVAL;
                chain->out_count++;
                chain->out_bytes += desc->len;
        }
        return 0;
}

/* Enters the indirect table that desc points to: the rest of the chain.  The write flag of
 * such a descriptor means nothing. */
static int table_enter(struct virtqueue *vq, struct desc_table *table,
                       const struct vring_desc *desc)
{
        if (table->indirect || desc->len == 0 || desc->len % DESC_BYTES != 0
            || desc->len / DESC_BYTES > VIRTQ_SIZE_MAX
            || desc->flags & VRING_DESC_F_NEXT)
                return -EINVAL;
        *table = (struct desc_table) {
                .bytes = guest_memory_at(vq->mem, desc->addr, desc->len),
                .count = desc->len / DESC_BYTES,
                .indirect = true,
        };
        if (table->bytes == NULL || !guest_memory_touch(vq->mem, table->bytes, desc->len, false))
                return -EINVAL;
        return 0;
}

/* A loop ends with the chain's limit. */
static int chain_walk(struct virtqueue *vq, struct virtq_chain *chain)
{
        struct desc_table table = { vq->desc, vq->size, false };
        uint32_t index = chain->head;
        int ret;

        for (;;) {
                struct vring_desc desc;

                if (index >= table.count)
                        return -EINVAL;
                desc = desc_copy(&table, index);
                if (desc.flags & VRING_DESC_F_INDIRECT) {
                        ret = table_enter(vq, &table, &desc);
                        if (ret < 0)
                                return ret;
                        index = 0;
                        continue;
                }
                ret = chain_add(vq, chain, &desc);
                if (ret < 0 || !(desc.flags & VRING_DESC_F_NEXT))
                        return ret;
                index = desc.next;
        }
}

int virtqueue_take_head(struct virtqueue *vq, uint16_t head, struct virtq_chain *ret_chain)
{
        int ret;

        g_assert(vq->enabled && !vq->broken);
        ret_chain->head = head;
        ret_chain->out_count = ret_chain->in_count = 0;
        ret_chain->out_bytes = ret_chain->in_bytes = 0;
        ret = chain_walk(vq, ret_chain);
        if (ret < 0)
                vq->broken = true;
        return ret < 0 ? ret : 1;
}

int virtqueue_take(struct virtqueue *vq, struct virtq_chain *ret_chain)
{
        uint16_t waiting;
        uint16_t head;

        if (!vq->enabled || vq->broken)
                return 0;
        waiting = avail_index(vq) - vq->avail_taken;
        if (waiting == 0)
                return 0;
        if (waiting > vq->size) {
                vq->broken = true;
                return -EINVAL;
        }
        head = load_u16(vq->avail + RING_HEAD_BYTES + 2 * (vq->avail_taken % vq->size));
        vq->avail_taken++;
        return virtqueue_take_head(vq, head, ret_chain);
}

/* ---- Notifications ------------------------------------------------------------------- */

void virtqueue_mute(struct virtqueue *vq)
{
        /* With event_idx an avail_event that stands still is mute enough. */
        if (vq->enabled && !vq->broken && !vq->event_idx)
                store_u16(vq->used, VRING_USED_F_NO_NOTIFY);
}

bool virtqueue_unmute(struct virtqueue *vq)
{
        if (!vq->enabled || vq->broken)
                return false;
        if (vq->event_idx)
                store_u16(avail_event(vq), vq->avail_taken);
        else
                store_u16(vq->used, 0);
        /* The guest must see it before we look; it does the same the other way round. */
        atomic_thread_fence(memory_order_seq_cst);
        return avail_index(vq) != vq->avail_taken;
}

static bool wants_interrupt(struct virtqueue *vq)
{
        uint16_t judged = vq->used_judged;

        /* The guest must see what was given before we look at what it wants. */
        atomic_thread_fence(memory_order_seq_cst);
        vq->used_judged = vq->used_given;
        if (!vq->event_idx)
                return !(load_u16(vq->avail) & VRING_AVAIL_F_NO_INTERRUPT);
        return vring_need_event(load_u16(used_event(vq)), vq->used_given, judged);
}

bool virtqueue_give(struct virtqueue *vq, uint16_t head, uint32_t written_bytes)
{
        uint8_t *elem = vq->used + RING_HEAD_BYTES
                        + (size_t) USED_ELEM_BYTES * (vq->used_given % vq->size);
        const struct vring_used_elem value = {
                .id = GUINT32_TO_LE(head),
                .len = GUINT32_TO_LE(written_bytes),
        };

        g_assert(vq->enabled);
        memcpy(elem, &value, sizeof(value));
        store_u16(vq->used + 2, ++vq->used_given);
        return wants_interrupt(vq);
}
