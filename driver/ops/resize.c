/*
 * resize.c - a longer or a shorter disk.
 *
 * Growing:    a longer L1 table, if needed, takes the old one's place (one root switch; a
 *             longer table than the disk needs is valid); what will become visible is
 *             made to read as zeros, and preallocated; commit; the root switches to the
 *             new size.  A crash before that leaves the old disk, with more behind its
 *             end than it needs; after it, the new one.
 *
 * Shrinking:  what lies beyond the new end is unmapped, its clusters counted down, the
 *             rest of the last cluster zeroed; commit; then the root switches.  In this
 *             order a crash leaves the old length with zeros at its end, and shrinking
 *             again finishes the work.  The other order would leave content behind the
 *             end of a shorter disk: valid, but it would come back when some other program
 *             grows the disk.
 *
 * The dirty mark is held all the while: leaked clusters are found at the next open.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/error.h"
#include "ops/create.h"
#include "ops/resize-area.h"

/* ---- what is asked for ---- */

static int judge(const struct image *img, uint64_t new_bytes,
                 enum hvb_preallocation preallocation, struct hvb_error *err)
{
        int ret = img->is_raw ? -ENOTSUP : image_check_writable(img);

        if (ret < 0)
                return error_set(err, ret, "'%s' cannot be resized: %s", img->name,
                                 g_strerror(-ret));
        ret = create_check_size(image_geometry(img), new_bytes, err);
        if (ret < 0)
                return ret;
        if ((unsigned)preallocation > HVB_PREALLOC_FULL)
                return error_set(err, -EINVAL, "Unknown preallocation mode %d",
                                 (int)preallocation);
        if (new_bytes < image_size(img) && preallocation != HVB_PREALLOC_OFF)
                return error_set(err, -EINVAL, "Preallocation can't be used for shrinking an image "
                                 "(from %" PRIu64 " to %" PRIu64 " bytes)", image_size(img),
                                 new_bytes);
        if (img->header.snapshot_count > 0 && img->header.version < 3)
                return error_set(err, -ENOTSUP, "Can't resize a v2 image which has snapshots: "
                                 "'%s' has %u", img->name, img->header.snapshot_count);
        return 0;
}

/* ---- the L1 table ---- */

static int prepare_l1(struct l1_extend *s, struct image *img, uint32_t count)
{
        int ret = l1_init(&s->l1, count, s->offset);

        if (ret == 0 && img->active.count > 0)
                memcpy(s->l1.entries, img->active.entries, img->active.count * sizeof(uint64_t));
        s->change = (struct root_change) {
                .what = ROOT_L1,
                .l1_offset = s->offset,
                .l1_entries = count,
        };
        return ret;
}

/* The tables are settled: no commit knows the old one's memory. */
static void install_l1(struct l1_extend *s, struct image *img)
{
        g_assert(!img->active.any_dirty);
        s->old_offset = img->active.offset;
        s->old_bytes = img->active.count * UINT64_C(8);
        l1_clear(&img->active);
        img->active = s->l1;
        s->l1 = (struct l1_table) { .count = 0 };
}

static int extend_l1(struct l1_extend *s, struct image *img, uint32_t count)
{
        const struct geometry *g = image_geometry(img);

        CO_BEGIN(s);
        s->byte_count = round_up(count * UINT64_C(8), g->cluster_bytes);
        CO_TRY(s, out, clusters_alloc(&s->alloc, img, s->byte_count >> g->cluster_bits, 1,
                                      &s->offset));
        CO_TRY(s, free_new, prepare_l1(s, img, count));
        CO_TRY(s, free_new, l1_write(&s->io, img, &s->l1, s->offset, UINT64_MAX));
        CO_TRY(s, free_new, meta_settle(&s->settle, img));
        CO_TRY(s, poisoned, root_switch(&s->root, img, &s->change));
        install_l1(s, img);
        if (s->old_bytes > 0)
                CO_UNDO(s, clusters_free(&s->free, img, s->old_offset, s->old_bytes, 1));
        goto out;
poisoned:
        if (img->state == IMAGE_POISONED)
                goto drop_l1;           /* either table may be the one: leak */
free_new:
        CO_UNDO(s, clusters_free(&s->free, img, s->offset, s->byte_count, 1));
drop_l1:
        l1_clear(&s->l1);
out:
        CO_END(s);
}

/* ---- growing ---- */

/* What new clusters show of what lies below ends here. */
static uint64_t shown_end(const struct image *img, uint64_t new_bytes)
{
        if (img->backing)
                return u64_min(new_bytes, image_size(img->backing));
        return img->backing_missing ? new_bytes : 0;
}

static uint64_t clusters_end(const struct image *img, uint64_t bytes)
{
        return round_up(bytes, image_geometry(img)->cluster_bytes);
}

static uint32_t l1_needed(const struct image *img, uint64_t bytes)
{
        return (uint32_t)geometry_l1_entries(image_geometry(img), bytes);
}

static int switch_size(struct resize *s, struct image *img, uint64_t new_bytes)
{
        s->change = (struct root_change) { .what = ROOT_SIZE, .size_bytes = new_bytes };
        return root_switch(&s->root, img, &s->change);
}

/* Coroutine: everything but the size. */
static int make_room(struct resize *s, struct image *img, uint64_t new_bytes,
                     enum hvb_preallocation preallocation)
{
        uint64_t first = clusters_end(img, s->old_bytes);
        uint64_t end = clusters_end(img, new_bytes);
        uint64_t shown = clusters_end(img, shown_end(img, new_bytes));

        CO_BEGIN(&s->step);
        memset(&s->u, 0, sizeof(s->u));
        if (l1_needed(img, new_bytes) > img->active.count)
                CO_TRY(&s->step, out, extend_l1(&s->u.l1, img, l1_needed(img, new_bytes)));
        memset(&s->u, 0, sizeof(s->u));
        CO_TRY(&s->step, out, unmap_area(&s->u.unmap, img, first, end));
        memset(&s->u, 0, sizeof(s->u));
        CO_TRY(&s->step, out, tail_zero(&s->u.tail, img, s->old_bytes, false));
        memset(&s->u, 0, sizeof(s->u));
        CO_TRY(&s->step, unmap, hide_area(&s->u.hide, img, first, shown));
        memset(&s->u, 0, sizeof(s->u));
        if (preallocation != HVB_PREALLOC_OFF)
                CO_TRY(&s->step, unmap, preallocate(&s->u.preallocate, img, first, end - first,
                                                    preallocation, NULL));
        CO_TRY(&s->step, unmap, meta_settle(&s->settle, img));
        goto out;
unmap:
        memset(&s->u, 0, sizeof(s->u));
        CO_UNDO(&s->step, unmap_area(&s->u.unmap, img, first, end));
out:
        CO_END(&s->step);
}

/* ---- shrinking ---- */

/* Coroutine: everything but the size. */
static int make_less(struct resize *s, struct image *img, uint64_t new_bytes)
{
        uint64_t first = clusters_end(img, new_bytes);

        CO_BEGIN(&s->step);
        memset(&s->u, 0, sizeof(s->u));
        CO_TRY(&s->step, out, unmap_area(&s->u.unmap, img, first, UINT64_MAX));
        memset(&s->u, 0, sizeof(s->u));
        CO_TRY(&s->step, out, tail_zero(&s->u.tail, img, new_bytes, true));
        CO_TRY(&s->step, out, meta_settle(&s->settle, img));
out:
        CO_END(&s->step);
}

static int cut_io(struct resize *s, struct image *img)
{
        if (s->io.state == IO_IDLE)
                io_prepare(&s->io, IO_TRUNCATE, &img->file, s->file_end, NULL, 0);
        return io_await(&s->io);
}

/* Coroutine: the file ends with the last cluster in use.  Only saves space. */
static int cut_file(struct resize *s, struct image *img)
{
        CO_BEGIN(&s->step);
        if (img->file.is_block_device)
                goto out;
        memset(&s->u, 0, sizeof(s->u));
        CO_TRY(&s->step, out, refs_end(&s->u.refs_end, img, &s->file_end));
        if (s->file_end < image_metadata_end(img))
                goto out;               /* damaged counts */
        if (s->file_end < (uint64_t)MAX(io_file_length(&img->file), 0))
                CO_TRY(&s->step, out, cut_io(s, img));
out:
        CO_END(&s->step);
}

/* ---- the operation ---- */

static int change_length(struct resize *s, struct image *img, uint64_t new_bytes,
                         enum hvb_preallocation preallocation, struct hvb_error *err)
{
        CO_BEGIN(s);
        CO_TRY(s, out, co_lock_acquire(&img->control, &s->control));
        CO_TRY(s, unlock, judge(img, new_bytes, preallocation, err));
        s->old_bytes = image_size(img);
        if (new_bytes == s->old_bytes)
                goto unlock;
        CO_TRY(s, unlock, exclusive_begin(&s->exclusive, img));
        if (new_bytes > s->old_bytes)
                CO_TRY(s, end, make_room(s, img, new_bytes, preallocation));
        else
                CO_TRY(s, end, make_less(s, img, new_bytes));
        CO_TRY(s, end, switch_size(s, img, new_bytes));
        if (new_bytes < s->old_bytes)
                CO_UNDO(s, cut_file(s, img));
end:
        CO_UNDO(s, exclusive_end(&s->exclusive, img));
unlock:
        co_lock_release(&img->control);
out:
        CO_END(s);
}

int resize(struct resize *s, struct image *img, uint64_t new_bytes,
           enum hvb_preallocation preallocation, struct hvb_error *err)
{
        int ret = change_length(s, img, new_bytes, preallocation, err);

        if (ret < 0)
                error_set(err, ret, "Could not resize '%s' to %" PRIu64 " bytes: %s", img->name,
                          new_bytes, g_strerror(-ret));
        return ret;
}
