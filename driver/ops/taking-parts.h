/*
 * taking-parts.h - what the phases of taking a snapshot share.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_TAKING_PARTS_H
#define OPS_TAKING_PARTS_H

#include "ops/taking.h"

/* Can the image, as it is now, get a snapshot with this name?  Finds the one that is replaced. */
int taking_judge(struct taking *s, struct image *img, const struct hvb_snapshot_info *info,
                 struct hvb_error *err);

/* Entries of the snapshot's L1.  VM state begins at the slot behind the disk's; it may be longer
 * than what was saved, or shorter: both are kept. */
uint64_t taking_l1_slots(const struct image *img, const struct hvb_snapshot_info *info);
/* -EFBIG: more than an L1 may have. */
int taking_check_slots(const struct image *img, const struct hvb_snapshot_info *info,
                       struct hvb_error *err);

#endif
