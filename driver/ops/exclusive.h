/*
 * exclusive.h - having an image's mapping and counts to oneself.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_EXCLUSIVE_H
#define OPS_EXCLUSIVE_H

#include "ops/motion.h"

struct exclusive {
        struct co co;
        struct waiter waiter;
        struct commit_settle settle;
        struct motion motion;
};

/*
 * Coroutine: guest writes are held off, tables in the file are what is in memory, a v3 image is
 * marked dirty.  The caller holds img->control.  On failure nothing is held.
 */
int exclusive_begin(struct exclusive *s, struct image *img);

/*
 * Coroutine: makes everything stable, takes the mark away, lets writers go on.  If that fails, or
 * anything leaked since the beginning, the mark stays for the next open to repair; the
 * gate opens in any case.
 */
int exclusive_end(struct exclusive *s, struct image *img);

#endif
