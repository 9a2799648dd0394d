/*
 * snapshot-goto.c - going back to a snapshot: the phases of going.h in a row, or what is left of
 * them.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disk/error.h"
#include "ops/snapshot-goto.h"

int snapshot_goto(struct snapshot_goto *s, struct image *img, const char *id, const char *name,
                  struct hvb_error *err)
{
        image_assert(img);

        CO_BEGIN(s);
        CO_TRY(s, done, prepared_goto(&s->prepared, img, id, name));
        if (s->prepared.was_taken)
                goto done;
        CO_TRY(s, done, co_lock_acquire(&img->control, &s->control));
        CO_TRY(s, unlock, going_prepare(&s->going, img, id, name, err));
        CO_TRY(s, unlock, going_switch(&s->going, img));
        goto done;
unlock:
        co_lock_release(&img->control);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not go to snapshot '%.255s' of %s: %s",
                          name ? name : id ? id : "", img->name, g_strerror(-s->co.err));
        CO_END(s);
}
