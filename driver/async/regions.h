/*
 * regions.h - memory that the host says will be used often.  Private to this floor.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef ASYNC_REGIONS_H
#define ASYNC_REGIONS_H

#include <glib.h>
#include <stddef.h>

/* slot_count chunks from first_slot on hold it in the engine's buffer table; 0:
 * the kernel refused it. */
struct region {
        char *address;
        size_t length;
        unsigned first_slot;
        unsigned slot_count;
};

/* A GArray of struct region, in no order. */
static inline GArray *regions_new(void)
{
        return g_array_new(FALSE, TRUE, sizeof(struct region));
}

static inline struct region *regions_at(GArray *regions, unsigned index)
{
        return &g_array_index(regions, struct region, index);
}

/* The region that is exactly this one, or -1. */
static inline int regions_find(GArray *regions, const void *address, size_t length)
{
        unsigned i;

        for (i = 0; i < regions->len; i++) {
                const struct region *region = regions_at(regions, i);

                if (region->address == address && region->length == length)
                        return (int)i;
        }
        return -1;
}

#endif
