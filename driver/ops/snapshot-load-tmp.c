/*
 * snapshot-load-tmp.c - showing a snapshot instead of the disk.
 *
 * Memory only: the snapshot's L1 takes the active one's place, as large as it says
 * itself.  L2 tables are cached by their place in the file, so the cache stays.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "disk/error.h"
#include "ops/snapshot-load-tmp.h"

static const struct snapshot *target(const struct snapshot_load_tmp *s, const struct image *img)
{
        return &img->snapshots[s->index];
}

static int check_request(struct snapshot_load_tmp *s, struct image *img, const char *id,
                         const char *name, struct hvb_error *err)
{
        if (img->state == IMAGE_INACTIVE)
                return -EINPROGRESS;
        if (img->writable)
                return error_set(err, -EINVAL, "%s is not read-only: a snapshot can only be shown "
                                 "on an image opened read-only", img->name);
        s->index = snapshots_require_readable(img, id, name, err);
        return MIN(s->index, 0);
}

static int install(struct snapshot_load_tmp *s, struct image *img)
{
        uint64_t disk_bytes = target(s, img)->disk_bytes;

        if (vmstate_take_loaded(img, target(s, img), &s->l1) < 0)
                return -ENOMEM;
        l1_clear(&img->active);
        img->active = s->l1;
        img->active.count = (uint32_t)u64_min(img->active.count,
                                              geometry_l1_entries(image_geometry(img),
                                                                  disk_bytes));
        img->header.size_bytes = disk_bytes;
        img->shows_snapshot = true;
        s->l1 = (struct l1_table) { .count = 0 };
        return 0;
}

int snapshot_load_tmp(struct snapshot_load_tmp *s, struct image *img, const char *id,
                      const char *name, struct hvb_error *err)
{
        image_assert(img);

        CO_BEGIN(s);
        CO_TRY(s, done, co_lock_acquire(&img->control, &s->waiter));
        CO_TRY(s, unlock, check_request(s, img, id, name, err));
        CO_TRY(s, unlock, l1_read(&s->io, img, target(s, img)->l1_offset,
                                  target(s, img)->l1_entries, &s->l1));
        CO_TRY(s, unlock, install(s, img));
unlock:
        l1_clear(&s->l1);
        co_lock_release(&img->control);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not show snapshot '%.255s' of %s: %s",
                          name ? name : id ? id : "", img->name, g_strerror(-s->co.err));
        CO_END(s);
}
