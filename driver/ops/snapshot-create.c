/*
 * snapshot-create.c - taking an internal snapshot, at once: the phases of taking.h in a row.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disk/error.h"
#include "ops/snapshot-create.h"

int snapshot_create(struct snapshot_create *s, struct image *img, struct hvb_snapshot_info *info,
                    uint32_t flags, struct hvb_error *err)
{
        image_assert(img);

        CO_BEGIN(s);
        CO_TRY(s, done, co_lock_acquire(&img->control, &s->control));
        task_expect(img->active.count);         /* to publish */
        CO_TRY(s, unlock, taking_prepare(&s->taking, img, info, flags, err));
        CO_TRY(s, abort, taking_switch(&s->taking, img, err));
        CO_TRY(s, unlock, taking_publish(&s->taking, img, info, err));
        goto unlock;
abort:
        CO_UNDO(s, taking_abort(&s->taking, img));
unlock:
        co_lock_release(&img->control);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not create snapshot '%.255s' in %s: %s",
                          info->name, img->name, g_strerror(-s->co.err));
        CO_END(s);
}
