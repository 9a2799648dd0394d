/*
 * status.h - what kind of content a guest range has.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_STATUS_H
#define OPS_STATUS_H

#include "ops/chain.h"

struct status {
        struct co co;
        struct chain_find find;
        struct content content;
        struct hvb_block_status status;
        uint64_t position;
};

/*
 * Coroutine: the first range at offset of one kind, at most length_bytes of it, as `qemu-img map
 * --output=json` tells it: "present" is ALLOCATED, depth counts layers.  Content in a backing
 * file that was not opened has no flags at all.  ret is filled at the end; its
 * struct_bytes is the caller's.
 */
int status_range(struct status *s, struct image *img, struct l1_table *l1, uint64_t offset,
                 uint64_t length_bytes, struct hvb_block_status *ret);

#endif
