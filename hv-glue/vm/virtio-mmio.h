/*
 * virtio-mmio.h - the registers of a virtio device (VIRTIO 1.2, 4.2; version 2).
 *
 * The transport: status, features, the one queue, interrupts.  What the device is for
 * stands behind struct virtio_ops.  It knows no KVM: the guest's bell is an eventfd
 * (bell_fd; KVM rings it for QueueNotify, or the register does), an interrupt is
 * another (irq_fd, which KVM turns into one).
 *
 * The lock is held over everything here and by the device over its queue.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_VIRTIO_MMIO_H
#define VM_VIRTIO_MMIO_H

#include <pthread.h>

#include "snapshot/state.h"
#include "vm/virtqueue.h"

enum {
        VIRTIO_MMIO_BYTES = 0x1000,     /* of guest address space for a device */
        VIRTIO_MMIO_NOTIFY = 0x50,      /* where the bell hangs */
};

struct virtio_mmio;

/* Called with the lock held. */
struct virtio_ops {
        uint32_t device_id;
        uint64_t (*features)(struct virtio_mmio *mmio);        /* offered */
        /* bytes of config space; what lies beyond it reads as 0 and is not written */
        void (*read_config)(struct virtio_mmio *mmio, uint64_t offset, void *bytes, size_t count);
        void (*write_config)(struct virtio_mmio *mmio, uint64_t offset, const void *bytes,
                             size_t count);
        /* The driver's features are settled. */
        void (*features_ok)(struct virtio_mmio *mmio);
        /* Returns when no request is in flight; it lets go of the lock while it waits, and
         * none can start before the caller does. */
        void (*stop)(struct virtio_mmio *mmio);
        /* Back to power-on settings, after stop. */
        void (*reset)(struct virtio_mmio *mmio);
};

/* What the guest sees and sets, and what a VM state holds. */
struct virtio_registers {
        uint32_t status;                /* VIRTIO_CONFIG_S_* */
        uint32_t device_features_sel;
        uint32_t driver_features_sel;
        uint32_t queue_sel;
        uint64_t driver_features;
        uint32_t interrupt_status;
        uint32_t config_generation;
        struct virtqueue vq;            /* number 0, the only one */
};

struct virtio_mmio {
        const struct virtio_ops *ops;
        const struct guest_memory *mem;
        int bell_fd;                    /* eventfd: look at the queue */
        int irq_fd;                     /* eventfd: interrupt the guest */
        uint32_t queue_size_max;
        pthread_mutex_t lock;
        struct virtio_registers regs;   /* under the lock */
};

int virtio_mmio_init(struct virtio_mmio *mmio, const struct virtio_ops *ops,
                     const struct guest_memory *mem, uint32_t queue_size_max);
void virtio_mmio_clear(struct virtio_mmio *mmio);

/* The guest's accesses, count 1, 2, 4 or 8 bytes; opaque is the struct virtio_mmio.  From a
 * vcpu's thread, lock not held. */
void virtio_mmio_read(void *opaque, uint64_t offset, void *bytes, unsigned count);
void virtio_mmio_write(void *opaque, uint64_t offset, const void *bytes, unsigned count);

/* ---- For the device; with the lock ---- */

/* May requests be taken from the queue? */
bool virtio_mmio_live(const struct virtio_mmio *mmio);
/* Interrupt: the used ring has news. */
void virtio_mmio_used(struct virtio_mmio *mmio);
/* The guest broke the rules: DEVICE_NEEDS_RESET, and an interrupt. */
void virtio_mmio_needs_reset(struct virtio_mmio *mmio);
/* Interrupts that were raised may have been lost on their way (a state was loaded, a
 * save came between): raise them again. */
void virtio_mmio_raise_again(struct virtio_mmio *mmio);
/* Have the device look at its queue. */
void virtio_mmio_ring_bell(struct virtio_mmio *mmio);
/* As after power-on; stopped before. */
void virtio_mmio_reset(struct virtio_mmio *mmio);

/* As struct device_ops says; load changes nothing but *ret_regs, which the device then
 * installs as regs. */
void virtio_mmio_save(const struct virtio_mmio *mmio, struct state_writer *w);
int virtio_mmio_load(struct virtio_mmio *mmio, struct state_reader *r,
                     struct virtio_registers *ret_regs, struct hvb_error *err);

#endif
