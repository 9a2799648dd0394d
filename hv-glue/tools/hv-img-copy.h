/*
 * hv-img-copy.h - convert's pipeline of reads and writes.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TOOLS_HV_IMG_COPY_H
#define TOOLS_HV_IMG_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "host/drive.h"

enum { COPY_PARALLEL_MAX = 16 };

/* What to copy and how.  The sources lie one after the other on the target. */
struct copy {
        struct drive *const *sources;
        unsigned source_count;
        struct drive *target;
        unsigned parallel;              /* pieces under way, 1..COPY_PARALLEL_MAX */
        bool is_out_of_order;           /* else writes start in the order of the disk */
        bool compress;
        uint64_t cluster_bytes;         /* of the target, when compress */
        bool target_is_zero;            /* zeros need not be written */
        bool target_has_backing;        /* only what the source's own file holds is copied */
        uint64_t target_backing_bytes;  /* size of that backing disk */
        uint64_t sparse_bytes;          /* so many zeros are not written as data; 0: all are */
};

/* Copies everything.  0 or -errno, having complained. */
int copy_run(const struct copy *copy);

#endif
