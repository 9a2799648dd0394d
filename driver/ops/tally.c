/*
 * tally.c - counters in pages; tally.h says why.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>

#include "disk/bytes.h"
#include "ops/tally.h"

void tally_clear(struct tally *t)
{
        uint64_t i;

        for (i = 0; i < t->page_count; i++)
                g_free(t->pages[i]);
        g_free(t->pages);
        *t = (struct tally) { .pages = NULL };
}

static int pages_grow(struct tally *t, uint64_t page)
{
        uint64_t count = u64_min(u64_max(page + 1, t->page_count * 2),
                                 TALLY_MAX_CLUSTERS >> TALLY_PAGE_BITS);
        uint32_t **grown = g_try_renew(uint32_t *, t->pages, count);

        if (!grown)
                return -ENOMEM;
        memset(grown + t->page_count, 0, (count - t->page_count) * sizeof(*grown));
        t->pages = grown;
        t->page_count = count;
        return 0;
}

static int find_counter(struct tally *t, uint64_t cluster, uint32_t **ret_counter)
{
        uint64_t page = cluster >> TALLY_PAGE_BITS;
        int ret;

        if (cluster >= TALLY_MAX_CLUSTERS)
                return -EFBIG;
        if (page >= t->page_count) {
                ret = pages_grow(t, page);
                if (ret < 0)
                        return ret;
        }
        if (!t->pages[page])
                t->pages[page] = g_try_new0(uint32_t, TALLY_PAGE_COUNTERS);
        if (!t->pages[page])
                return -ENOMEM;
        *ret_counter = &t->pages[page][cluster & (TALLY_PAGE_COUNTERS - 1)];
        t->end = u64_max(t->end, cluster + 1);
        return 0;
}

int tally_set(struct tally *t, uint64_t cluster, uint32_t count)
{
        uint32_t *counter;
        int ret;

        if (count == 0 && tally_get(t, cluster) == 0)
                return 0;
        ret = find_counter(t, cluster, &counter);
        if (ret == 0)
                *counter = count;
        return ret;
}

int tally_add(struct tally *t, uint64_t cluster, uint32_t count, uint32_t *ret_sum)
{
        uint32_t *counter;
        int ret;

        ret = find_counter(t, cluster, &counter);
        if (ret < 0)
                return ret;
        *counter += MIN(count, UINT32_MAX - *counter);
        *ret_sum = *counter;
        return 0;
}

uint64_t tally_find_used(const struct tally *t, uint64_t first, uint64_t end)
{
        uint64_t last = u64_min(end, t->end);

        while (first < last) {
                uint64_t page = first >> TALLY_PAGE_BITS;

                if (!t->pages[page])
                        first = (page + 1) << TALLY_PAGE_BITS;
                else if (t->pages[page][first & (TALLY_PAGE_COUNTERS - 1)] != 0)
                        return first;
                else
                        first++;
        }
        return end;
}
