/*
 * tally.h - one counter a host cluster, for clusters that are counted at all.
 *
 * Counters lie in pages that are allocated when the first of their clusters is
 * counted: memory follows what an image references, not what it declares.  They
 * saturate at UINT32_MAX.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_TALLY_H
#define OPS_TALLY_H

#include <stdint.h>

enum {
        TALLY_PAGE_BITS = 12,
        TALLY_PAGE_COUNTERS = 1 << TALLY_PAGE_BITS,
};

/* 512 TiB of clusters of 64 KiB. */
#define TALLY_MAX_CLUSTERS (UINT64_C(1) << 33)

struct tally {
        uint32_t **pages;               /* owned; NULL: all 0 */
        uint64_t page_count;
        uint64_t end;                   /* all counters from here on are 0 */
};

/* Zeroed memory is an empty tally. */
void tally_clear(struct tally *t);

/* 0, -ENOMEM, or -EFBIG beyond TALLY_MAX_CLUSTERS. */
int tally_set(struct tally *t, uint64_t cluster, uint32_t count);

/* *ret_sum: the counter afterwards. */
int tally_add(struct tally *t, uint64_t cluster, uint32_t count, uint32_t *ret_sum);

static inline uint32_t tally_get(const struct tally *t, uint64_t cluster)
{
        uint64_t page = cluster >> TALLY_PAGE_BITS;

        if (page >= t->page_count || !t->pages[page])
                return 0;
        return t->pages[page][cluster & (TALLY_PAGE_COUNTERS - 1)];
}

/* The first cluster in [first, end) whose counter is not 0; end if none. */
uint64_t tally_find_used(const struct tally *t, uint64_t first, uint64_t end);

#endif
