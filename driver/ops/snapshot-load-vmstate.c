/*
 * snapshot-load-vmstate.c - choosing the snapshot whose VM state is loaded.
 *
 * Memory only: a copy of the end of the snapshot's L1 becomes img->loaded.  The L1 is read
 * under img->control, so nobody deletes the snapshot meanwhile; who deletes it later makes
 * the image forget the copy (vmstate_forget_loaded) before its clusters are counted down.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "disk/error.h"
#include "ops/snapshot-load-vmstate.h"

static const struct snapshot *target(const struct snapshot_load_vmstate *s,
                                     const struct image *img)
{
        return &img->snapshots[s->index];
}

static int find(struct snapshot_load_vmstate *s, struct image *img, const char *id,
                const char *name, struct hvb_error *err)
{
        if (img->state == IMAGE_INACTIVE)
                return -EINPROGRESS;
        s->index = snapshots_require_readable(img, id, name, err);
        return MIN(s->index, 0);
}

int snapshot_load_vmstate(struct snapshot_load_vmstate *s, struct image *img, const char *id,
                          const char *name, struct hvb_error *err)
{
        image_assert(img);

        CO_BEGIN(s);
        CO_TRY(s, done, co_lock_acquire(&img->control, &s->waiter));
        CO_TRY(s, unlock, find(s, img, id, name, err));
        CO_TRY(s, unlock, l1_read(&s->io, img, target(s, img)->l1_offset,
                                  target(s, img)->l1_entries, &s->l1));
        CO_TRY(s, clear, vmstate_take_loaded(img, target(s, img), &s->l1));
clear:
        l1_clear(&s->l1);
unlock:
        co_lock_release(&img->control);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not load the VM state of snapshot '%.255s' of "
                          "%s: %s", name ? name : id ? id : "", img->name,
                          g_strerror(-s->co.err));
        CO_END(s);
}
