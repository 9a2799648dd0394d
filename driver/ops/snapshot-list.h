/*
 * snapshot-list.h - telling the host which snapshots there are.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_LIST_H
#define OPS_SNAPSHOT_LIST_H

#include "meta/image.h"

/* Fills infos (struct_bytes set by the caller) with entries [first, first + capacity) that
 * exist, in the order of the table.  Returns how many snapshots there are. */
unsigned snapshot_list(const struct image *img, unsigned first, struct hvb_snapshot_info *infos,
                       unsigned capacity);

#endif
