/*
 * share-vmstate.c - see share-vmstate.h.
 *
 *   1. everything in the range is counted once more; if that cannot be, it is taken back
 *   2. entry after entry takes what was counted for it
 *
 * The source never changes (pins.h), so whoever looks at it again finds the same.  Failing in 2
 * counts down what no entry has.  The entries are without COPIED: whatever is saved on top is
 * copied.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "ops/share-vmstate.h"

static int check_request(struct image *img, uint64_t source_offset, uint64_t offset,
                         uint64_t length_bytes)
{
        uint64_t mask = image_geometry(img)->cluster_bytes - 1;
        uint64_t end;

        if (((source_offset | offset | length_bytes) & mask) ||
            !u64_add(source_offset, length_bytes, &end))
                return -EINVAL;
        if (img->vmstate_taken)
                return -EBUSY;
        return write_grow_vmstate(img, offset, length_bytes);
}

static int check_going_on(const struct image *img)
{
        return task_is_cancelled(task_current()) ? -ECANCELED : image_check_writable(img);
}

static bool is_shared(const struct share_vmstate *s)
{
        return s->map.kind == CLUSTER_NORMAL;
}

/* Coroutine: adds delta to the counts of [first, end) of the range; counted says how far. */
static int count(struct share_vmstate *s, struct image *img, struct l1_table *source,
                 uint64_t source_offset, uint64_t first, uint64_t end, int delta)
{
        unsigned cluster_bits = image_geometry(img)->cluster_bits;

        CO_BEGIN(&s->count);
        for (s->counted = first; s->counted < end; s->counted += s->map.length_bytes) {
                CO_TRY(&s->count, out, check_going_on(img));
                CO_TRY(&s->count, out, map_lookup(&s->lookup, img, source,
                                                  source_offset + s->counted, end - s->counted,
                                                  &s->map));
                if (s->map.kind == CLUSTER_COMPRESSED)
                        CO_FAIL(&s->count, out, -ENOTSUP);
                if (!is_shared(s))
                        continue;
                if (commit_needed(img))
                        CO_TRY(&s->count, out, meta_commit(&s->commit, img));
                CO_TRY(&s->count, out, refs_add(&s->add, img, s->map.host_offset >> cluster_bits,
                                                s->map.length_bytes >> cluster_bits, delta));
        }
out:
        CO_END(&s->count);
}

/* All entries of the run, in one step. */
static void set_entries(struct share_vmstate *s, struct image *img, uint64_t offset)
{
        const struct geometry *g = image_geometry(img);
        uint64_t index = map_index(img, offset);
        uint64_t at;

        for (at = 0; at < s->run_bytes; at += g->cluster_bytes, index++)
                map_set(img, s->slice, index, is_shared(s) ? s->map.host_offset + at : 0, 1,
                        false);
}

/* Coroutine: the run at offset, which lies in one slice. */
static int link_run(struct share_vmstate *s, struct image *img, uint64_t offset)
{
        CO_BEGIN(&s->link_run);
        CO_TRY(&s->link_run, out, range_lock(&s->lock, img, true, offset, offset + s->run_bytes));
        CO_TRY(&s->link_run, unlock, map_prepare(&s->prepare, img, &img->vmstate, offset,
                                                 &s->slice));
        set_entries(s, img, offset);
        slice_unpin(&img->l2, s->slice);
unlock:
        range_unlock(&s->lock, img);
        commit_kick(img);
out:
        CO_END(&s->link_run);
}

/* A hole where nothing was saved needs no table. */
static bool is_hole_in_hole(struct share_vmstate *s)
{
        if (is_shared(s) || s->old.kind != CLUSTER_UNALLOCATED)
                return false;
        s->run_bytes = u64_min(s->map.length_bytes, s->old.length_bytes);
        return true;
}

static int link_all(struct share_vmstate *s, struct image *img, struct l1_table *source,
                    uint64_t source_offset, uint64_t offset, uint64_t length_bytes)
{
        unsigned cluster_bits = image_geometry(img)->cluster_bits;

        CO_BEGIN(&s->link);
        for (s->linked = 0; s->linked < length_bytes; s->linked += s->run_bytes) {
                CO_TRY(&s->link, out, check_going_on(img));
                CO_TRY(&s->link, out, map_lookup(&s->lookup, img, &img->vmstate,
                                                 offset + s->linked, length_bytes - s->linked,
                                                 &s->old));
                CO_TRY(&s->link, out, map_lookup(&s->lookup, img, source,
                                                 source_offset + s->linked,
                                                 length_bytes - s->linked, &s->map));
                if (is_hole_in_hole(s))
                        continue;
                s->run_bytes = u64_min(s->map.length_bytes,
                                       map_entries_left(img, offset + s->linked) << cluster_bits);
                if (commit_needed(img))
                        CO_TRY(&s->link, out, meta_commit(&s->commit, img));
                CO_TRY(&s->link, out, link_run(s, img, offset + s->linked));
        }
out:
        CO_END(&s->link);
}

int share_vmstate(struct share_vmstate *s, struct image *img, struct l1_table *source,
                  uint64_t source_offset, uint64_t offset, uint64_t length_bytes)
{
        CO_BEGIN(s);
        CO_TRY(s, out, image_check_writable(img));
        CO_TRY(s, out, gate_enter(&img->saves, &s->saves));
        CO_TRY(s, leave_saves, gate_enter(&img->writes, &s->writes));
        CO_TRY(s, leave, check_request(img, source_offset, offset, length_bytes));
        s->linked = 0;
        CO_TRY(s, count_down, count(s, img, source, source_offset, 0, length_bytes, 1));
        CO_TRY(s, count_down, link_all(s, img, source, source_offset, offset,
                                          length_bytes));
        goto pending;
count_down:
        s->undo_end = s->counted;
        if (img->state != IMAGE_POISONED)
                CO_UNDO(s, count(s, img, source, source_offset, s->linked, s->undo_end, -1));
pending:
        if (img->vmstate.count > 0)
                img->vmstate_pending = true;
leave:
        gate_leave(&img->writes);
leave_saves:
        gate_leave(&img->saves);
out:
        CO_END(s);
}
