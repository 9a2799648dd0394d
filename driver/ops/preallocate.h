/*
 * preallocate.h - giving a disk its clusters ahead of time.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_PREALLOCATE_H
#define OPS_PREALLOCATE_H

#include "meta/commit.h"
#include "meta/map.h"

enum { PREALLOCATE_WRITES = 8 };

struct preallocate {
        struct co co;
        struct { struct co co; } map;
        struct { struct co co; } ready;
        struct { struct co co; } fill;
        struct io io[PREALLOCATE_WRITES];
        struct map_prepare prepare;
        struct clusters_alloc alloc;
        struct clusters_free free;
        struct commit_wait commit;
        struct slice *slice;
        uint64_t position;              /* guest offset */
        uint64_t end;
        uint64_t slice_count;           /* clusters of the slice at position */
        uint64_t index;                 /* in the slice: the next that may lack a cluster */
        uint64_t host_offset;           /* of the run */
        uint64_t run_count;
        uint64_t next_host_offset;      /* behind the last run */
        uint64_t file_end;              /* length of the file; may be ahead of what is used */
        bool is_fresh;
        uint64_t filled;                /* bytes of the run being written */
        unsigned begun;
        unsigned ended;
        int first_error;
};

/*
 * Coroutine: every cluster of the guest range that has no host cluster gets one, reading as zeros,
 * and all that is durable.  METADATA: no space is taken for them; FALLOC: it is; FULL: by writing
 * zeros.  The L1 table covers the range.  The caller has the mapping to itself.
 * On failure a part of the range has its clusters.
 */
int preallocate(struct preallocate *s, struct image *img, uint64_t offset, uint64_t length_bytes,
                enum hvb_preallocation mode, struct hvb_error *err);

#endif
