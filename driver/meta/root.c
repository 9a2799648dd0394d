/*
 * root.c - the one writer of the header, and the dirty bit.
 *
 * Every change of a header field is one write of the sector that holds bytes
 * 0..511, between two fsyncs, under root_lock.  A failure of the write or of an fsync
 * leaves two possible roots on disk: the image is poisoned.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/planted.h"
#include "meta/image.h"

static void apply(struct header *h, const struct root_change *change)
{
        if (change->what & ROOT_SIZE)
                h->size_bytes = change->size_bytes;
        if (change->what & ROOT_L1) {
                h->l1_offset = change->l1_offset;
                h->l1_entries = change->l1_entries;
        }
        if (change->what & ROOT_REFTABLE) {
                h->reftable_offset = change->reftable_offset;
                h->reftable_clusters = change->reftable_clusters;
        }
        if (change->what & ROOT_SNAPSHOTS) {
                h->snapshots_offset = change->snapshots_offset;
                h->snapshot_count = change->snapshot_count;
        }
        if (change->what & ROOT_INCOMPAT_SET)
                h->incompatible |= change->incompatible_set;
        if (change->what & ROOT_INCOMPAT_CLEAR)
                h->incompatible &= ~change->incompatible_clear;
        if (change->what & ROOT_AUTOCLEAR)
                h->autoclear = change->autoclear;
}

static int prepare(struct root_switch *s, struct image *img, const struct root_change *change)
{
        if (img->state == IMAGE_POISONED)
                return -EIO;
        s->buffer = io_buffer_try_new(img->root_bytes);
        if (!s->buffer)
                return -ENOMEM;
        s->next = img->header;
        apply(&s->next, change);
        memcpy(s->buffer, img->root_sector, img->root_bytes);
        header_patch_root(&s->next, s->buffer);
        return 0;
}

int root_switch(struct root_switch *s, struct image *img, const struct root_change *change)
{
        CO_BEGIN(s);
        CO_TRY(s, out, co_lock_acquire(&img->root_lock, &s->waiter));
        CO_TRY(s, unlock, prepare(s, img, change));
        if (!PLANTED(ROOT_FIRST))
                CO_TRY(s, poison, co_shielded(image_fsync(&s->fsync, img)));
        if (PLANTED(ROOT_IN_TWO))
                CO_TRY(s, poison, io_write(&s->io, &img->file, 0, s->buffer, 64));
        CO_TRY(s, poison, io_write(&s->io, &img->file, 0, s->buffer, img->root_bytes));
        if (!PLANTED(ROOT_UNSTABLE))
                CO_TRY(s, poison, co_shielded(image_fsync(&s->fsync, img)));
        memcpy(img->root_sector, s->buffer, img->root_bytes);
        apply(&img->header, change);
        goto free_buffer;
poison:
        image_poison(img, s->co.err, "switching the root");
free_buffer:
        free(s->buffer);
        s->buffer = NULL;
unlock:
        co_lock_release(&img->root_lock);
out:
        CO_END(s);
}

int dirty_hold(struct dirty_change *s, struct image *img)
{
        CO_BEGIN(s);
        if (img->header.version < 3 || img->dirty_holders > 0 || PLANTED(NO_DIRTY_BIT))
                goto held;
        s->change = (struct root_change) {
                .what = ROOT_INCOMPAT_SET,
                .incompatible_set = INCOMPAT_DIRTY,
        };
        CO_TRY(s, out, root_switch(&s->root, img, &s->change));
held:
        img->dirty_holders++;
out:
        CO_END(s);
}

int dirty_release(struct dirty_change *s, struct image *img)
{
        CO_BEGIN(s);
        g_assert(img->dirty_holders > 0);
        if (--img->dirty_holders > 0 || img->header.version < 3)
                goto out;
        s->change = (struct root_change) {
                .what = ROOT_INCOMPAT_CLEAR,
                .incompatible_clear = INCOMPAT_DIRTY,
        };
        CO_TRY(s, out, root_switch(&s->root, img, &s->change));
out:
        CO_END(s);
}
