/*
 * batch.h - what batch.c and batch-check.c share: requests in flight together.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef INTEROP_BATCH_H
#define INTEROP_BATCH_H

#include "sequence.h"

enum { BATCH_REQUESTS_MAX = 32, BATCH_IOV_MAX = 8, BATCH_BYTES_MAX = 8 << 20 };

enum batch_kind {
        BATCH_READ, BATCH_WRITE, BATCH_ZEROES, BATCH_DISCARD, BATCH_COMPRESSED, BATCH_FLUSH,
        BATCH_KINDS,
};

struct batch_request {
        struct batch *batch;
        enum batch_kind kind;
        uint64_t offset;
        size_t length_bytes;
        uint8_t *bytes;                 /* to write, or where to read to */
        struct iovec iov[BATCH_IOV_MAX];
        unsigned iov_count;
        uint32_t flags;
        uint8_t fill;                   /* in a race: the byte written */
        bool done;
        struct drive_op *op;
};

struct batch {
        struct sequence *seq;
        struct batch_request requests[BATCH_REQUESTS_MAX];
        unsigned count;
        uint64_t total_bytes;
        struct model_disk *before;      /* the disk as it was */
        uint64_t window_offset;         /* a race happens within */
        uint64_t window_bytes;

        /* Live mode: a snapshot taken while requests are in flight. */
        struct drive_op *snapshot_op;   /* NULL: none */
        struct hvb_snapshot_info info;
        struct hvb_error snapshot_error;
        unsigned snapshot_at;           /* before the request of this index */
        struct model_disk *floor;       /* what must be in it */
        struct model_disk *ceiling;     /* what may be in it */
        bool snapshot_done;
};

bool batch_writes(enum batch_kind kind);
const char *batch_kind_name(enum batch_kind kind);

/* batch-check.c: after the barrier. */
int batch_check(struct batch *batch);

#endif
