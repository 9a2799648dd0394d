/*
 * data.h - operations on guest data: read, write, write zeroes, discard, status.
 *
 * All are coroutines on one image (and what it is backed by); the *_fast forms
 * serve a request from cached metadata without one.  `l1` chooses the disk
 * (&img->active), VM state (&img->vmstate), or a snapshot's, see map.h.
 * offset + length must have been checked against the disk's size for the disk; changes
 * look again (-EIO), because they may have waited for one that made it shorter.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_DATA_H
#define OPS_DATA_H

#include "meta/commit.h"
#include "meta/map.h"

enum fast_result {
        FAST_NO,                /* use the coroutine; nothing was done */
        FAST_STARTED,           /* io is in flight: done(), then fast_finish() for the result */
        FAST_DONE,              /* done without I/O */
};

/* One I/O of a request that needs no coroutine. */
struct fast {
        struct io io;           /* io.done is the caller's, set before the call */
        struct image *img;
        unsigned generation;
        bool is_write;
};

enum fast_result read_fast(struct fast *f, struct image *img, struct l1_table *l1,
                           uint64_t offset, uint64_t length_bytes, const struct iovec *iov,
                           unsigned iov_count);
enum fast_result write_fast(struct fast *f, struct image *img, uint64_t offset,
                            uint64_t length_bytes, const struct iovec *iov, unsigned iov_count);
/* In io.done: leaves gate and grace; returns 0 or -errno. */
int fast_finish(struct fast *f);

/* ---- coroutines; the frames are in the headers of their files ---- */

#include "ops/read.h"
#include "ops/write.h"
#include "ops/discard.h"
#include "ops/status.h"

#endif
