/*
 * resize.h - changing the length of a disk.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_RESIZE_H
#define OPS_RESIZE_H

#include "ops/exclusive.h"
#include "ops/preallocate.h"
#include "ops/read.h"
#include "ops/write.h"

/* Taking mappings away. */
struct unmap_area {
        struct co co;
        struct { struct co co; } table;
        struct { struct co co; } part;
        struct slice_load load;
        struct map_prepare prepare;
        struct commit_wait commit;
        struct slice *slice;
        uint8_t *buffer;                /* owned; one L2 table */
        uint64_t position;              /* guest offset */
        uint64_t next;                  /* where the table or slice at position ends */
        uint64_t l2_offset;
        uint64_t at;                    /* bytes of the table loaded */
};

/* Making a range read as zeros that shows a backing file, or would. */
struct hide_area {
        struct co co;
        struct { struct co co; } slice;
        struct map_prepare prepare;
        struct commit_wait commit;
        struct chain_find find;
        struct content content;
        struct write_inside write;
        struct slice *l2;
        struct iovec iov;
        uint64_t position;
        uint64_t next;
};

/* Zeroing the end of a cluster behind the end of the disk. */
struct tail_zero {
        struct co co;
        struct map_lookup lookup;
        struct mapping map;
        struct read read;
        struct write_inside write;
        struct iovec iov;
        uint8_t *buffer;                /* owned; the cluster */
        uint64_t first;                 /* guest offset of the cluster */
};

/* A longer L1 table at another place. */
struct l1_extend {
        struct co co;
        struct clusters_alloc alloc;
        struct clusters_free free;
        struct commit_settle settle;
        struct l1_io io;
        struct root_switch root;
        struct root_change change;
        struct l1_table l1;
        uint64_t offset;
        uint64_t byte_count;
        uint64_t old_offset;
        uint64_t old_bytes;
};

struct resize {
        struct co co;
        struct { struct co co; } step;
        struct waiter control;
        struct exclusive exclusive;
        union {                         /* one at a time, each zeroed before use */
                struct unmap_area unmap;
                struct hide_area hide;
                struct tail_zero tail;
                struct l1_extend l1;
                struct preallocate preallocate;
                struct refs_end refs_end;
        } u;
        struct commit_settle settle;
        struct root_switch root;
        struct root_change change;
        struct io io;
        uint64_t old_bytes;
        uint64_t file_end;
};

/*
 * Coroutine: the disk has new_bytes afterwards; what is new reads as zeros, whatever a backing
 * file has there.  preallocation is for growing only.  -EINVAL: not a multiple of 512; -EFBIG;
 * -ENOTSUP: a version 2 image with snapshots.  On failure, and after a crash, the length is the
 * old or the new one; of a disk that was to shrink the part beyond new_bytes may read as zeros,
 * or as the backing file.  Guest writes wait.
 */
int resize(struct resize *s, struct image *img, uint64_t new_bytes,
           enum hvb_preallocation preallocation, struct hvb_error *err);

#endif
