/*
 * snapshot-list.c - see snapshot-list.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/snapshot-list.h"

unsigned snapshot_list(const struct image *img, unsigned first, struct hvb_snapshot_info *infos,
                       unsigned capacity)
{
        unsigned count = img->snapshots ? img->header.snapshot_count : 0;
        unsigned i;

        for (i = 0; i < capacity && i < count && first < count - i; i++)
                snapshot_describe(&img->snapshots[first + i], &infos[i]);
        return count;
}
