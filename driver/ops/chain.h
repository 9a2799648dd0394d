/*
 * chain.h - which layer of a backing chain holds a guest range, and where.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_CHAIN_H
#define OPS_CHAIN_H

#include "meta/map.h"

enum content_kind {
        CONTENT_ZERO,
        CONTENT_DATA,                   /* at host_offset of layer's file */
        CONTENT_COMPRESSED,             /* map.entry says where in layer's file */
        CONTENT_MISSING,                /* in a backing file that was not opened */
};

/* One guest range whose bytes are all of one kind, in one layer. */
struct content {
        enum content_kind kind;
        struct image *layer;
        unsigned depth;                 /* of layer; 0: the image asked */
        bool is_mapped;                 /* layer has an entry for it; else it is beyond
                                         * the end of the chain or of a backing file */
        bool has_host_offset;
        uint64_t host_offset;
        uint64_t entry;                 /* CONTENT_COMPRESSED: the L2 entry */
        uint64_t length_bytes;          /* at least 1 */
};

struct chain_find {
        struct co co;
        struct map_lookup lookup;
        struct mapping map;
        struct l1_table *l1;            /* of ret's layer */
};

/*
 * Coroutine: the content at offset; at most max_bytes (at least 1) of it.  l1 is that of the top
 * image; trees of VM state have nothing below them.  No wait lies between the last
 * lookup and the return.
 */
int chain_find(struct chain_find *s, struct image *img, struct l1_table *l1, uint64_t offset,
               uint64_t max_bytes, struct content *ret);

/* From memory: as map_lookup_cached. */
int chain_find_cached(struct image *img, struct l1_table *l1, uint64_t offset,
                      uint64_t max_bytes, struct content *ret);

/* Do unallocated clusters of this tree show, or may they some day, another file's content? */
static inline bool chain_goes_on(const struct image *img, const struct l1_table *l1)
{
        return (l1 == &img->active || l1->is_snapshot_disk) &&
               (img->backing || img->backing_missing);
}

#endif
