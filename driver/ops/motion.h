/*
 * motion.h - the time in which an operation moves counts.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_MOTION_H
#define OPS_MOTION_H

#include "meta/commit.h"

struct motion {
        struct co co;
        struct commit_wait commit;
        struct dirty_change dirty;
        uint64_t leaks;                 /* of the loop, at the beginning */
};

/* Coroutine: a v3 image is marked dirty.  The caller holds img->control.  On failure nothing is
 * held. */
int motion_begin(struct motion *s, struct image *img);

/*
 * Coroutine: makes what happened until now stable and takes the mark away.  If that fails, or
 * anything leaked since the beginning, the mark stays for the next open to repair.
 */
int motion_end(struct motion *s, struct image *img);

#endif
