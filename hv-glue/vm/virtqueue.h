/*
 * virtqueue.h - a split virtqueue (VIRTIO 1.2, 2.7), the device's side.
 *
 * The guest shares all of this memory with us and changes it when it likes.  So:
 *  - The rings are turned into pointers once, when the driver enables the queue; they
 *    must lie in RAM as a whole.
 *  - A descriptor is copied once and judged in the copy.
 *  - Every loop is bounded by a number of ours: a chain has at most VIRTQ_CHAIN_MAX
 *    descriptors, the available ring at most `size` entries beyond what we took.
 *
 * RAM may be about to be saved or loaded: what is taken was touched before
 * (guest_memory_touch), the rings and all that a chain names, so that whoever serves the queue
 * never waits for a page.
 *
 * A chain that breaks the rules makes the queue broken: nothing is taken from it any
 * more until the guest resets the device.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_VIRTQUEUE_H
#define VM_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vm/memory.h"

enum {
        VIRTQ_SIZE_MAX = 1024,
        VIRTQ_CHAIN_MAX = 256,          /* descriptors; what seg_max promises fits */
};

struct virtqueue {
        /* The driver's settings, as written to the transport. */
        uint32_t size;                  /* 0: not set */
        uint64_t desc_address;
        uint64_t avail_address;
        uint64_t used_address;
        bool enabled;

        bool event_idx;                 /* negotiated */
        bool broken;
        uint16_t avail_taken;           /* index of the next entry to take */
        uint16_t used_given;            /* index of the next entry to give back */
        uint16_t used_judged;           /* used_given when we last asked about interrupts */

        /* Valid while enabled. */
        const struct guest_memory *mem;
        uint8_t *desc;
        uint8_t *avail;
        uint8_t *used;
};

/* What a request consists of: the driver's bytes, then room for ours. */
struct virtq_chain {
        uint16_t head;                  /* names the chain in virtqueue_give */
        uint16_t out_count;             /* of iov, from the front: readable */
        uint16_t in_count;              /* those after: writable */
        uint64_t out_bytes;
        uint64_t in_bytes;
        struct iovec iov[VIRTQ_CHAIN_MAX];      /* into guest memory; no empty ones */
};

/* Finds the rings.  -EINVAL: size no power of 2 up to VIRTQ_SIZE_MAX, rings misaligned
 * or not in RAM; the queue stays disabled. */
int virtqueue_enable(struct virtqueue *vq, const struct guest_memory *mem);
/* As after power-on. */
void virtqueue_reset(struct virtqueue *vq);

/* Touches the rings: before the first take after the device was quiet, and before mute. */
void virtqueue_touch(struct virtqueue *vq);

/*
 * Takes the next chain.  1: *ret_chain is it; 0: there is none; -EINVAL: the guest broke
 * the rules and the queue is broken now.
 */
int virtqueue_take(struct virtqueue *vq, struct virtq_chain *ret_chain);
/* The chain that begins at descriptor head, which was taken before. */
int virtqueue_take_head(struct virtqueue *vq, uint16_t head, struct virtq_chain *ret_chain);

/* Asks the guest to be silent while we look at the queue anyway; or to ring again.
 * Returns whether there is something to take by now, which no bell will announce. */
void virtqueue_mute(struct virtqueue *vq);
bool virtqueue_unmute(struct virtqueue *vq);

/* Gives a chain back, written_bytes of its writable part written.  Returns whether the
 * guest wants an interrupt. */
bool virtqueue_give(struct virtqueue *vq, uint16_t head, uint32_t written_bytes);

#endif
