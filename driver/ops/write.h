/*
 * write.h - writing guest data, plain and compressed.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_WRITE_H
#define OPS_WRITE_H

#include "meta/commit.h"
#include "ops/extent.h"

/* The walk over a range by somebody who is inside the gate already. */
struct write_inside {
        struct co co;
        struct pieces pieces;
        struct map_lookup lookup;
        struct mapping map;
        struct commit_wait commit;
        struct extent extent;
        struct iov_cursor at;
        uint64_t position;              /* bytes of the range dealt with */
        uint64_t begun_bytes;
        uint64_t next_host_offset;      /* behind what was written last; 0: nothing yet */
};

int write_inside(struct write_inside *s, struct image *img, struct l1_table *l1,
                 uint64_t offset, uint64_t length_bytes, const struct iovec *iov,
                 unsigned iov_count);

/* The tree of the VM state being saved reaches as far as the range.  -EFBIG, -ENOMEM. */
int write_grow_vmstate(struct image *img, uint64_t offset, uint64_t length_bytes);

struct write {
        struct co co;
        struct waiter waiter;
        struct write_inside inside;
};

/*
 * Coroutine: writes the range: in place where clusters are private, to new clusters elsewhere.
 * On failure some of the range may have been written.  -EROFS, -EIO (poisoned): refused.
 * -EINVAL: the file does not take the alignment.  -EFBIG: no L1 holds disk and VM state.
 * A write of VM state (l1 == &img->vmstate) lets that tree grow.
 */
int write_range(struct write *s, struct image *img, struct l1_table *l1, uint64_t offset,
                uint64_t length_bytes, const struct iovec *iov, unsigned iov_count);

/* How a compressed cluster gets its place; see write-compressed.c. */
struct pack {
        struct co co;
        struct clusters_alloc alloc;
        struct clusters_free free;
        struct refs_get get;
        uint64_t host_offset;           /* of the stream */
        uint64_t new_cluster;           /* host offset; 0: none allocated */
        uint64_t open_cluster;          /* index of the one that compressed_next is in */
        uint64_t count;
        unsigned weight;                /* counts that the stream has in each of its clusters */
        int why;
};

struct deflate_work;

struct write_compressed {
        struct co co;
        struct waiter gate_waiter;
        struct waiter pack_waiter;
        struct commit_wait commit;
        struct range_lock lock;
        struct slice *slice;
        struct deflate_work *deflate;   /* owned */
        struct { struct co co; } put;
        struct { struct co co; } store;
        struct { struct co co; } link;
        struct io io;
        union {                         /* one at a time, each zeroed before use */
                struct write_inside plain;
                struct map_prepare prepare;
                struct pack pack;
                struct clusters_free free;
        } u;
        uint64_t host_offset;           /* of the stream */
        uint64_t block_bytes;           /* written */
        unsigned weight;                /* see map_weight */
};

/*
 * Coroutine: stores one whole cluster of the disk (its last one may be cut by the disk's end)
 * compressed, or as it is if that does not save anything.  -EINVAL: not such a range.
 */
int write_compressed(struct write_compressed *s, struct image *img, uint64_t offset,
                     uint64_t length_bytes, const struct iovec *iov, unsigned iov_count);

#endif
