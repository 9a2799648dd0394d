/*
 * page-map.h - which pages of RAM a VM state stores, and their sums.
 *
 * Held in memory as it lies in the VM state (vm-state.h): one bit a page, then four
 * bytes a page.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_PAGE_MAP_H
#define SNAPSHOT_PAGE_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "hv-block.h"

struct page_map {
        uint64_t page_count;            /* a multiple of 64 */
        uint8_t *bytes;                 /* page_map_bytes(page_count), 4096-aligned */
};

/* Bytes of a map of so many pages; at most 2^42. */
uint64_t page_map_bytes(uint64_t page_count);

/* All holes.  -ENOMEM. */
int page_map_init(struct page_map *map, uint64_t page_count, struct hvb_error *err);
void page_map_clear(struct page_map *map);      /* an unused or cleared one is fine */

void page_map_set(struct page_map *map, uint64_t page, uint32_t sum);
/* These pages are as in another map of the same size. */
void page_map_copy(struct page_map *map, const struct page_map *other, uint64_t page,
                   uint64_t page_count);
bool page_map_has(const struct page_map *map, uint64_t page);
uint32_t page_map_sum(const struct page_map *map, uint64_t page);
uint64_t page_map_count(const struct page_map *map);    /* pages that are stored */

/* How many pages from page on, at most max_pages, are alike: stored or holes.  page must
 * be below page_count. */
uint64_t page_map_run(const struct page_map *map, uint64_t page, uint64_t max_pages);

/* Judges pages that were read: what the map has no page for becomes zeros, the others must have
 * their sums.  -EIO. */
int page_map_check_pages(const struct page_map *map, uint64_t page, uint64_t page_count,
                         uint8_t *bytes, struct hvb_error *err);

/* Judges the bytes of a map that was read.  -EINVAL. */
int page_map_check(const struct page_map *map, uint32_t sum, uint64_t stored_pages,
                   struct hvb_error *err);

#endif
