/*
 * virtio-blk-parts.h - what virtio-blk.c (requests, life) and virtio-blk-device.c (registers,
 * quiescing, state) share.
 *
 * Invariants, under the lock:
 *  1. requests = idle + in_flight; parked <= in_flight.
 *  2. Nothing is taken from the queue while `stoppers` or `held` say so.
 *  3. The queue stays enabled as long as something is in flight: whoever disables it has
 *     stopped the device first.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_VIRTIO_BLK_PARTS_H
#define VM_VIRTIO_BLK_PARTS_H

#include "vm/virtio-blk-request.h"
#include "vm/virtio-blk.h"

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

static inline void virtio_blk_lock(struct virtio_blk *blk)
{
        pthread_mutex_lock(&blk->mmio.lock);
}

static inline void virtio_blk_unlock(struct virtio_blk *blk)
{
        pthread_mutex_unlock(&blk->mmio.lock);
}

/* ---- virtio-blk.c; all with the lock ---- */

/* Waits until what is in flight is parked. */
void virtio_blk_wait_quiet(struct virtio_blk *blk);
/* Nothing is in flight when it returns; what is parked is cancelled. */
void virtio_blk_empty(struct virtio_blk *blk);
/* The same, and the guest hears nothing: it is given up itself, and its memory may be
 * another one's by now. */
void virtio_blk_forget(struct virtio_blk *blk);

/* ---- virtio-blk-device.c ---- */

/* Offered to the transport and to the machine. */
extern const struct virtio_ops virtio_blk_virtio_ops;
extern const struct device_ops virtio_blk_device_ops;

#endif
