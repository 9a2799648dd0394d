/*
 * exclusive.c - the frame around operations that change the mapping itself.
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
        CO_TRY(s, open_gate, motion_begin(&s->motion, img));
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
        CO_TRY(s, open_gate, motion_end(&s->motion, img));
open_gate:
        gate_open(&img->writes);
        CO_END(s);
}
