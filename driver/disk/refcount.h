/*
 * refcount.h - counts inside a refcount block, of width 1 to 64 bits.
 *
 * Source: format section "Host cluster management".  Widths below 8 pack from
 * the least significant bits up; wider ones are big-endian.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef DISK_REFCOUNT_H
#define DISK_REFCOUNT_H

#include "disk/format.h"

uint64_t refcount_get(const void *counts, unsigned order, uint64_t index);
void refcount_set(void *counts, unsigned order, uint64_t index, uint64_t value);

/*
 * Adds delta (+1 or -1) to counts [first, first + n).  Stops before a count that
 * would leave 0..max, and on +1 also before one that is 0 (a referenced cluster
 * without a count is a corruption).  Returns how many were changed.
 */
uint64_t refcount_add_run(void *counts, unsigned order, uint64_t first, uint64_t n, int delta);

/* The first index in [first, end) whose count is 0 / is not 0; end if none. */
uint64_t refcount_find_zero(const void *counts, unsigned order, uint64_t first, uint64_t end);
uint64_t refcount_find_used(const void *counts, unsigned order, uint64_t first, uint64_t end);

/* True if all counts in [first, first + n) are value. */
bool refcount_all(const void *counts, unsigned order, uint64_t first, uint64_t n, uint64_t value);

#endif
