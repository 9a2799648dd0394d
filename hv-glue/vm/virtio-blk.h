/*
 * virtio-blk.h - a disk for the guest (VIRTIO 1.2, 5.2), over a drive on its thread.
 *
 * Who does what: vcpus' threads touch the registers; the drive's thread takes requests
 * from the queue, hands them to the drive with the guest's memory in their iovecs, and
 * gives them back; others stop and start all that.  One lock, the transport's.
 *
 *   free --take--> in flight --done--> free
 *                     |  ^
 *         I/O error: v   | retry         (policy "stop": the drive keeps the request)
 *                    parked
 *
 * What a guest sends is judged twice: the chain by virtqueue.c, the request here.  A
 * request without room for its status makes the device need a reset; any other nonsense
 * is completed with an error.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_VIRTIO_BLK_H
#define VM_VIRTIO_BLK_H

#include "host/drive-thread.h"
#include "vm/device.h"
#include "vm/virtio-mmio.h"

struct virtio_blk;

enum { VIRTIO_BLK_SERIAL_MAX = 20 };    /* bytes */

/* What to do about a failed request. */
enum disk_error_policy {
        DISK_ERROR_ENOSPC,              /* stop when there is no space, else report */
        DISK_ERROR_REPORT,              /* to the guest */
        DISK_ERROR_IGNORE,
        DISK_ERROR_STOP,                /* the machine; it is retried by cont */
};

struct virtio_blk_options {
        unsigned instance;
        const char *serial;             /* borrowed until new returns; NULL: none */
        bool read_only;
        bool discard;                   /* offer discard */
        bool writethrough;              /* the guest finds its write cache off */
        unsigned queue_size;            /* power of 2, up to VIRTQ_SIZE_MAX */
        enum disk_error_policy write_error;
        enum disk_error_policy read_error;
        /* A request was parked: the machine should stop.  On the drive's thread. */
        void (*stopped)(void *opaque);
        void *opaque;
};

int virtio_blk_new(const struct guest_memory *mem, const struct virtio_blk_options *options,
                   struct virtio_blk **ret_blk, struct hvb_error *err);
/* The drive that serves it; its io_error must be passed on to virtio_blk_io_error. */
int virtio_blk_attach(struct virtio_blk *blk, struct drive_thread *thread,
                      struct hvb_error *err);

/* Neither vcpus nor anybody else touches it any more.  Waits for what is in flight,
 * cancels what is parked; the drive's thread lives on. */
void virtio_blk_free(struct virtio_blk *blk);

struct device *virtio_blk_device(struct virtio_blk *blk);
struct virtio_mmio *virtio_blk_mmio(struct virtio_blk *blk);

/* The drive's question about a failed request.  On its thread. */
enum hvb_error_action virtio_blk_io_error(struct virtio_blk *blk, const struct hvb_io_error *what);

/* How many requests are parked; starts them again.  Not from the drive's thread. */
unsigned virtio_blk_parked(struct virtio_blk *blk);
void virtio_blk_retry(struct virtio_blk *blk);

#endif
