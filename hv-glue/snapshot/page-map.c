/*
 * page-map.c - which pages of RAM a VM state stores, and their sums.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/page-map.h"

#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/vm-state.h"

enum { SUM_BYTES = 4, WORD_PAGES = 64 };

uint64_t page_map_bytes(uint64_t page_count)
{
        return page_count / 8 + page_count * SUM_BYTES;
}

int page_map_init(struct page_map *map, uint64_t page_count, struct hvb_error *err)
{
        size_t bytes = page_map_bytes(page_count);
        void *memory;

        g_assert(page_count % WORD_PAGES == 0);
        /* Whole pages: what is read and written with O_DIRECT. */
        bytes = (bytes + VM_STATE_PAGE_BYTES - 1) & ~(size_t) (VM_STATE_PAGE_BYTES - 1);
        if (posix_memalign(&memory, VM_STATE_PAGE_BYTES, bytes) != 0)
                return error_set(err, -ENOMEM, "no memory for a map of %" PRIu64 " pages",
                                 page_count);
        memset(memory, 0, bytes);
        *map = (struct page_map) { page_count, memory };
        return 0;
}

void page_map_clear(struct page_map *map)
{
        free(map->bytes);
        *map = (struct page_map) { 0, NULL };
}

static uint8_t *sum_at(const struct page_map *map, uint64_t page)
{
        return map->bytes + map->page_count / 8 + page * SUM_BYTES;
}

/* The bits of 64 pages, that of the first the lowest. */
static uint64_t word_at(const struct page_map *map, uint64_t page)
{
        uint64_t word;

        memcpy(&word, map->bytes + page / 8, sizeof(word));
        return GUINT64_FROM_LE(word);
}

void page_map_set(struct page_map *map, uint64_t page, uint32_t sum)
{
        g_assert(page < map->page_count);
        map->bytes[page / 8] |= (uint8_t) (1u << page % 8);
        sum = GUINT32_TO_BE(sum);
        memcpy(sum_at(map, page), &sum, sizeof(sum));
}

bool page_map_has(const struct page_map *map, uint64_t page)
{
        g_assert(page < map->page_count);
        return map->bytes[page / 8] >> page % 8 & 1;
}

uint32_t page_map_sum(const struct page_map *map, uint64_t page)
{
        uint32_t sum;

        g_assert(page < map->page_count);
        memcpy(&sum, sum_at(map, page), sizeof(sum));
        return GUINT32_FROM_BE(sum);
}

void page_map_copy(struct page_map *map, const struct page_map *other, uint64_t page,
                   uint64_t page_count)
{
        g_assert(map->page_count == other->page_count);
        for (uint64_t end = page + page_count; page < end; page++)
                if (page_map_has(other, page))
                        page_map_set(map, page, page_map_sum(other, page));
}

uint64_t page_map_count(const struct page_map *map)
{
        uint64_t count = 0;

        for (uint64_t page = 0; page < map->page_count; page += WORD_PAGES)
                count += (uint64_t) __builtin_popcountll(word_at(map, page));
        return count;
}

uint64_t page_map_run(const struct page_map *map, uint64_t page, uint64_t max_pages)
{
        uint64_t end = page + MIN(max_pages, map->page_count - page);
        bool stored = page_map_has(map, page);
        uint64_t at = page;

        while (at < end) {
                uint64_t word = word_at(map, at / WORD_PAGES * WORD_PAGES);
                uint64_t others = (stored ? ~word : word) >> at % WORD_PAGES;

                if (others != 0) {
                        at += (uint64_t) __builtin_ctzll(others);
                        break;
                }
                at += WORD_PAGES - at % WORD_PAGES;
        }
        return MIN(at, end) - page;
}

int page_map_check_pages(const struct page_map *map, uint64_t page, uint64_t page_count,
                         uint8_t *bytes, struct hvb_error *err)
{
        for (uint64_t end = page + page_count; page < end; page++, bytes += VM_STATE_PAGE_BYTES)
                if (!page_map_has(map, page))
                        memset(bytes, 0, VM_STATE_PAGE_BYTES);
                else if (vm_state_sum(bytes, VM_STATE_PAGE_BYTES) != page_map_sum(map, page))
                        return error_set(err, -EIO, "VM state: RAM page %" PRIu64 " is damaged "
                                         "(its sum is not 0x%08" PRIx32 ")", page,
                                         page_map_sum(map, page));
        return 0;
}

int page_map_check(const struct page_map *map, uint32_t sum, uint64_t stored_pages,
                   struct hvb_error *err)
{
        uint64_t count = page_map_count(map);

        if (vm_state_sum(map->bytes, page_map_bytes(map->page_count)) != sum)
                return error_set(err, -EINVAL, "VM state: the page map is damaged (its sum is not "
                                 "0x%08" PRIx32 ")", sum);
        if (count != stored_pages)
                return error_set(err, -EINVAL, "VM state: the page map has %" PRIu64
                                 " pages, stored_pages is %" PRIu64, count, stored_pages);
        return 0;
}
