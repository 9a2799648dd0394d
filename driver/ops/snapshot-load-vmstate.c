/*
 * snapshot-load-vmstate.c - choosing the snapshot whose VM state is loaded.
 *
 * Memory only: img->loaded becomes another pin.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/snapshot-load-vmstate.h"

int snapshot_load_vmstate(struct snapshot_load_vmstate *s, struct image *img, const char *id,
                          const char *name, struct hvb_error *err)
{
        CO_BEGIN(s);
        CO_TRY(s, out, snapshot_pin(&s->take, img, id, name, NULL, &s->pin, err));
        vmstate_load_pin(img, s->pin);
out:
        CO_END(s);
}
