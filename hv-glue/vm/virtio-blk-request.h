/*
 * virtio-blk-request.h - one request of the guest: its parts, and what it asks for.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_VIRTIO_BLK_REQUEST_H
#define VM_VIRTIO_BLK_REQUEST_H

#include <linux/virtio_blk.h>

#include "host/drive.h"
#include "vm/virtqueue.h"

enum {
        SECTOR_BYTES = 512,
        BLK_RANGES_MAX = 16,            /* of one discard; seg_max of config space */
        BLK_RANGE_SECTORS_MAX = 1 << 22,        /* 2 GiB a range */
        BLK_DATA_BYTES_MAX = 1 << 30,
};

struct virtio_blk;

/* What a request may do. */
struct blk_limits {
        uint64_t capacity_sectors;
        bool read_only;
        bool discard;
        bool writeback;                 /* else writes are made durable one by one */
};

struct blk_request {
        struct virtio_blk *blk;
        struct drive_op *op;
        struct virtq_chain chain;
        uint8_t *status;                /* in guest memory */
        uint32_t type;                  /* VIRTIO_BLK_T_* */
        uint64_t sector;
        struct iovec *data;             /* in chain.iov */
        unsigned data_count;
        uint64_t data_bytes;
        /* Discard and write zeroes: what is left to do. */
        struct virtio_blk_discard_write_zeroes ranges[BLK_RANGES_MAX];
        unsigned range_count;
        unsigned range_done;
};

/*
 * Takes the chain apart: header, data, status.  -EINVAL: there is no room for a status
 * byte, so that nothing can be answered.  Else 0, and ret_status is VIRTIO_BLK_S_OK when
 * the request may be started, or what it is to be completed with.
 */
int blk_request_parse(struct blk_request *r, const struct blk_limits *limits,
                      const char *serial, uint8_t *ret_status);

/* Does it only need to be completed? (GET_ID) */
bool blk_request_is_done(const struct blk_request *r);
/* Starts it, or its next range; on the drive's thread. */
void blk_request_start(struct blk_request *r, const struct blk_limits *limits);
/* Bytes written to the guest's buffers, the status byte included, if it ends so. */
uint32_t blk_request_written_bytes(const struct blk_request *r, uint8_t status);

#endif
