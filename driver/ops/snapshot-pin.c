/*
 * snapshot-pin.c - see snapshot-pin.h.
 *
 * A pin is taken under img->list_lock, so nobody deletes the snapshot while its L1 is read.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "disk/error.h"
#include "ops/snapshot-list.h"
#include "ops/snapshot-phases.h"
#include "ops/snapshot-pin.h"

static const struct snapshot *target(const struct snapshot_pin *s, const struct image *img)
{
        return &img->snapshots[s->index];
}

static int find(struct snapshot_pin *s, struct image *img, const char *id, const char *name,
                struct hvb_error *err)
{
        if (img->state == IMAGE_INACTIVE)
                return -EINPROGRESS;
        s->index = snapshots_require_readable(img, id, name, err);
        return MIN(s->index, 0);
}

static int take(struct snapshot_pin *s, struct image *img, struct pin **ret_pin)
{
        struct pin *pin = pin_take(img, target(s, img), &s->l1);

        if (!pin)
                return -ENOMEM;
        *ret_pin = pin;
        return 0;
}

int snapshot_pin(struct snapshot_pin *s, struct image *img, const char *id, const char *name,
                 struct hvb_snapshot_info *info, struct pin **ret_pin, struct hvb_error *err)
{
        image_assert(img);

        CO_BEGIN(s);
        CO_TRY(s, done, co_lock_acquire(&img->list_lock, &s->waiter));
        CO_TRY(s, unlock, find(s, img, id, name, err));
        CO_TRY(s, unlock, l1_read(&s->io, img, target(s, img)->l1_offset,
                                  target(s, img)->l1_entries, &s->l1));
        CO_TRY(s, clear, take(s, img, ret_pin));
        if (info)
                snapshot_list(img, (unsigned)s->index, info, 1);
clear:
        l1_clear(&s->l1);
unlock:
        co_lock_release(&img->list_lock);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not read snapshot '%.255s' of %s: %s",
                          name ? name : id ? id : "", img->name, g_strerror(-s->co.err));
        CO_END(s);
}

int snapshot_unpin(struct snapshot_unpin *s, struct image *img, struct pin *pin,
                   struct hvb_error *err)
{
        CO_BEGIN(s);
        pin_put(img, pin);
        if (!pins_orphan(img, false) || prepared_drops_orphans(img))
                goto out;
        CO_TRY(s, out, co_shielded(co_lock_acquire(&img->control, &s->waiter)));
        CO_TRY(s, unlock, co_shielded(motion_begin(&s->motion, img)));
        CO_UNDO(s, orphans_drop(&s->orphans, img, false));
        s->co.err = MIN(s->co.ret, 0);
        CO_UNDO(s, motion_end(&s->motion, img));
unlock:
        co_lock_release(&img->control);
out:
        if (s->co.err)
                error_set(err, s->co.err, "could not free what a deleted snapshot holds in %s: %s",
                          img->name, g_strerror(-s->co.err));
        CO_END(s);
}
