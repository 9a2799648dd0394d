/*
 * motion.c - the dirty mark around every operation that moves counts.
 *
 * The mark is durable before the first count moves, and goes only after the last one is
 * durable: a crash in between is repaired by the next who opens a v3 image.  In a v2
 * image it leaves counts that are too high.  What the guest does meanwhile needs no mark.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/motion.h"

#include "disk/planted.h"

int motion_begin(struct motion *s, struct image *img)
{
        CO_BEGIN(s);
        CO_TRY(s, out, dirty_hold(&s->dirty, img));
        s->leaks = img->loop->leaks;
out:
        CO_END(s);
}

int motion_end(struct motion *s, struct image *img)
{
        CO_BEGIN(s);
        if (!PLANTED(CLEAN_TOO_EARLY))
                CO_TRY(s, out, meta_commit_counts(&s->commit, img));
        if (img->loop->leaks == s->leaks)
                CO_TRY(s, out, dirty_release(&s->dirty, img));
out:
        CO_END(s);
}
