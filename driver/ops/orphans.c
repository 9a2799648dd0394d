/*
 * orphans.c - see orphans.h.
 *
 * An orphan is counted down like any tree: counts, made stable; COPIED where clusters became
 * private, made stable; and only then its hold of the dirty mark ends.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/orphans.h"

int orphans_drop(struct orphans_drop *s, struct image *img, bool held_too)
{
        CO_BEGIN(s);
        while ((s->pin = pins_orphan(img, held_too)) != NULL) {
                CO_TRY(s, lost, tree_drop(&s->drop, img, &s->pin->l1));
                CO_TRY(s, lost, meta_commit_counts(&s->commit, img));
                CO_TRY(s, lost, tree_refresh_copied(&s->refresh, img));
                CO_TRY(s, lost, meta_commit_counts(&s->commit, img));
                CO_TRY(s, lost, dirty_release(&s->dirty, img));
                pin_forget(img, s->pin);
        }
        goto out;
lost:
        pin_forget(img, s->pin);
out:
        CO_END(s);
}

int snapshot_unlink(struct snapshot_unlink *s, struct image *img, struct pin *pin,
                    struct l1_table *l1)
{
        CO_BEGIN(s);
        if (!pin) {
                CO_TRY(s, out, tree_drop(&s->drop, img, l1));
                goto out;
        }
        pin_unlink(img, pin);
        pin_put(img, pin);
        CO_TRY(s, out, orphans_drop(&s->orphans, img, false));
out:
        CO_END(s);
}
