/*
 * raw-io.h - the blocking half of the raw driver: one request, done by a worker.
 *
 * Nothing here touches the queue; raw.c hands a request over and gets it back.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_RAW_IO_H
#define HOST_RAW_IO_H

#include <glib.h>
#include <stdbool.h>

#include "hv-block.h"

enum raw_kind {
        RAW_READ,
        RAW_WRITE,
        RAW_ZERO,
        RAW_DISCARD,
        RAW_FLUSH,
        RAW_STATUS,
        RAW_TRUNCATE,                   /* length: the new size */
        RAW_DRAIN,                      /* no work; completes in its turn */
        RAW_NOTHING,                    /* result known at start */
};

/* What the worker needs to know of the file.  virtual_bytes changes on truncate only. */
struct raw_file {
        int fd;
        uint64_t virtual_bytes;         /* length of the file, rounded up to sectors */
        uint32_t alignment;             /* of offsets, lengths and memory; 1 without O_DIRECT */
        bool is_block_device;
};

/* A request; the ABI's part comes first. */
struct raw_request {
        struct hvb_request base;
        struct hvb_image *image;
        enum raw_kind kind;
        uint64_t offset;
        uint64_t length;
        const struct iovec *iov;
        unsigned iov_count;
        uint32_t flags;                 /* HVB_REQ_*; for RAW_TRUNCATE the preallocation */
        struct hvb_block_status *ret_status;
        struct hvb_error *err;          /* of control operations */
        GList link;                     /* in the image's started or parked queue */
};

/* Length of a file or block device in bytes, or -errno. */
int64_t raw_file_length(int fd);
/* Finds out type, length and alignment of fd. */
int raw_file_open(struct raw_file *file, int fd);
/* Changes the length of file; preallocation covers what is new. */
int raw_file_truncate(struct raw_file *file, uint64_t new_bytes, uint32_t preallocation,
                      struct hvb_error *err);
/* Does the work of request; 0 or -errno.  Blocks.  Any thread. */
int raw_request_run(struct raw_file *file, struct raw_request *request);

#endif
