/*
 * exclusive.c - the frame around every operation that moves counts.
 *
 * The dirty mark is durable before the first count moves, and goes only after the
 * last one is durable: a crash in between is repaired by the next who opens a v3 image.
 * In a v2 image it leaves counts that are too high.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disk/planted.h"
#include "ops/exclusive.h"

int exclusive_begin(struct exclusive *s, struct image *img)
{
        CO_BEGIN(s);
        CO_TRY(s, out, gate_close(&img->writes, &s->waiter));
        CO_TRY(s, open_gate, meta_settle(&s->settle, img));
        CO_TRY(s, open_gate, dirty_hold(&s->dirty, img));
        s->leaks = img->loop->leaks;
        goto out;
open_gate:
        gate_open(&img->writes);
out:
        CO_END(s);
}

int exclusive_end(struct exclusive *s, struct image *img)
{
        CO_BEGIN(s);
        if (!PLANTED(CLEAN_TOO_EARLY))
                CO_TRY(s, open_gate, meta_settle(&s->settle, img));
        if (img->loop->leaks == s->leaks)
                CO_TRY(s, open_gate, dirty_release(&s->dirty, img));
open_gate:
        gate_open(&img->writes);
        CO_END(s);
}
