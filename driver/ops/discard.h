/*
 * discard.h - discarding and zeroing guest data by changing its mapping.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_DISCARD_H
#define OPS_DISCARD_H

#include "ops/write.h"

/* What whole clusters become. */
enum remap_goal {
        REMAP_DISCARD,                  /* content is gone, host clusters are given back */
        REMAP_ZERO_UNMAP,               /* zeros, host clusters are given back */
        REMAP_ZERO_KEEP,                /* zeros, private host clusters stay */
};

/* Changes the entries of whole clusters; the caller is inside the gate. */
struct remap {
        struct co co;
        struct { struct co co; } run;
        struct map_lookup lookup;
        struct mapping map;
        struct commit_wait commit;
        struct range_lock lock;
        struct map_prepare prepare;
        struct slice *slice;
        uint64_t position;              /* guest offset */
        uint64_t count;                 /* clusters of the run */
};

struct discard {
        struct co co;
        struct waiter waiter;
        struct remap remap;
};

/*
 * Coroutine: whole clusters inside the range lose their content; parts of clusters stay (the
 * disk's last cluster counts as whole if the range ends with the disk).  They then read as
 * zeros; with a backing file a version 2 image cannot say so and keeps them.
 */
int discard_range(struct discard *s, struct image *img, struct l1_table *l1, uint64_t offset,
                  uint64_t length_bytes);

/* Writes zeros as data where there are none yet. */
struct zero_fill {
        struct co co;
        struct chain_find find;
        struct content content;
        struct write_inside write;
        struct iovec iov;
        uint64_t position;
};

struct zero {
        struct co co;
        struct waiter waiter;
        uint64_t first;                 /* of the whole clusters in the range ... */
        uint64_t end;                   /* ... guest offsets; first == end: there are none */
        enum remap_goal goal;
        union {                         /* one at a time, each zeroed before use */
                struct remap remap;
                struct zero_fill fill;
        } u;
};

/*
 * Coroutine: the range reads as zeros afterwards.  flags: HVB_REQ_MAY_UNMAP,
 * HVB_REQ_NO_FALLBACK (-ENOTSUP where data would have to be written; what lies
 * before may be zeroed by then).
 */
int zero_range(struct zero *s, struct image *img, struct l1_table *l1, uint64_t offset,
               uint64_t length_bytes, uint32_t flags);

#endif
