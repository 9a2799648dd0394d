/*
 * extent.h - writing to clusters that cannot be written in place.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_EXTENT_H
#define OPS_EXTENT_H

#include "ops/read.h"

enum extent_treatment {
        EXTENT_NEW,                     /* new host clusters */
        EXTENT_REUSE,                   /* zero clusters that kept private host clusters */
        EXTENT_IN_PLACE,                /* somebody else has allocated them meanwhile */
};

/* Bytes of a cluster that the request does not cover, before or behind its data. */
struct extent_edge {
        uint64_t length_bytes;
        enum { EDGE_NONE, EDGE_ZEROS, EDGE_CONTENT } fill;
        uint8_t *bytes;                 /* in iov_zeros() or extent.buffer */
};

/* Bytes that lie together in the file. */
struct extent_part {
        struct iov_cursor at;
        uint64_t host_offset;
        uint64_t length_bytes;
};

enum { EXTENT_IOVECS = 16 };

struct extent {
        struct co co;
        struct { struct co co; uint64_t want; uint64_t count; int why; } claim;
        struct { struct co co; } edges;
        struct { struct co co; uint64_t begun_bytes; unsigned part; } store;
        struct range_lock lock;
        union {                         /* one at a time, each zeroed before use */
                struct map_prepare prepare;
                struct clusters_alloc alloc;
                struct fetch fetch;
                struct clusters_free free;
        } u;
        struct slice *slice;
        uint64_t index;                 /* of the first cluster's entry in slice */
        uint64_t first;                 /* guest offset of the first cluster */
        uint64_t cluster_count;
        unsigned weight;                /* of the clusters, see map_weight */
        uint64_t host_offset;           /* of the first cluster */
        enum extent_treatment treatment;
        bool is_fresh;                  /* the host clusters were never written */
        uint64_t data_bytes;
        struct extent_edge head;
        struct extent_edge tail;
        uint8_t *buffer;                /* owned; old content for the edges */
        struct iovec list[EXTENT_IOVECS];
        struct extent_part part[3];
        unsigned part_count;
};

/*
 * Coroutine: writes a beginning of the range, at least one byte of it, at most what one L2 slice
 * maps; *ret_bytes says how much.  Cancellable until the data is on its way.  On
 * failure the mapping is as before.  The window is empty afterwards.
 *
 * want_host_offset: where the file should go on if it may (0: anywhere).
 * The caller is inside the gate.
 */
int extent_write(struct extent *s, struct pieces *w, struct image *img, struct l1_table *l1,
                 uint64_t offset, uint64_t length_bytes, const struct iov_cursor *at,
                 uint64_t want_host_offset, uint64_t *ret_bytes);

#endif
