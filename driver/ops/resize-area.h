/*
 * resize-area.h - what resizing does to guest ranges that appear or go.
 *
 * The caller has the mapping to itself.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_RESIZE_AREA_H
#define OPS_RESIZE_AREA_H

#include "ops/resize.h"

/* Coroutine: nothing is mapped in [first, end) of the disk's tree afterwards; cluster-aligned,
 * may reach beyond the L1 table. */
int unmap_area(struct unmap_area *s, struct image *img, uint64_t first, uint64_t end);

/* Coroutine: [first, end), cluster-aligned, reads as zeros whatever lies below. */
int hide_area(struct hide_area *s, struct image *img, uint64_t first, uint64_t end);

/* Coroutine: the rest of the cluster that begins before guest_offset reads as zeros.  own: only
 * if this image holds the cluster, not for what shows from below. */
int tail_zero(struct tail_zero *s, struct image *img, uint64_t guest_offset, bool own);

#endif
