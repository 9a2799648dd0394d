/*
 * discard.c - discarding and zeroing guest data.
 *
 * Whole clusters change their mapping; parts of clusters are written as data
 * (zeroing) or left alone (discarding).  What an entry becomes:
 *
 *   was \ goal        DISCARD        ZERO_UNMAP     ZERO_KEEP
 *   UNALLOCATED       zeros below    zeros below    zeros below
 *   ZERO_PLAIN        stays          stays          stays
 *   ZERO_ALLOCATED    gone           zeros          stays if private, else zeros
 *   NORMAL            gone           zeros          ZERO_ALLOCATED if private, else zeros
 *   COMPRESSED        gone           zeros          zeros
 *
 * zeros: ZERO_PLAIN; a version 2 image has none: UNALLOCATED.  zeros below: the same if there
 * is a file below, else it stays.  gone: ZERO_PLAIN if there is a file below, else
 * UNALLOCATED.  No version 2 image with a file below comes here.
 *
 * Invariants:
 *  1. Entries are judged and set in one step, with the range locked.
 *  2. An L2 table is added only where an entry must change.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/discard.h"

#include <errno.h>

/* True if the entry must change, to *ret_entry. */
static bool remap_entry(const struct image *img, const struct l1_table *l1, enum remap_goal goal,
                        const struct mapping *map, uint64_t *ret_entry)
{
        bool shows_below = chain_goes_on(img, l1);
        bool is_allocated = map->kind == CLUSTER_NORMAL || map->kind == CLUSTER_ZERO_ALLOCATED;

        g_assert(!shows_below || image_geometry(img)->version >= 3);
        *ret_entry = shows_below || (goal != REMAP_DISCARD && image_geometry(img)->version >= 3)
                ? ENTRY_ZERO : 0;
        if (map->kind == CLUSTER_ZERO_PLAIN)
                return false;
        if (map->kind == CLUSTER_UNALLOCATED)
                return shows_below;
        if (goal == REMAP_ZERO_KEEP && is_allocated && map->copied) {
                *ret_entry = entry_host_offset(map->entry) | ENTRY_COPIED | ENTRY_ZERO;
                return map->kind == CLUSTER_NORMAL;
        }
        return true;
}

/* All entries of the run that must change, in one step. */
static int remap_slice(struct remap *s, struct image *img, struct l1_table *l1,
                       enum remap_goal goal)
{
        uint64_t index = map_index(img, s->position);
        struct mapping map;
        uint64_t entry;
        uint64_t n;
        int ret;

        for (n = 0; n < s->count; n++) {
                ret = map_decode(img, map_entry(s->slice, index + n), s->position, &map);
                if (ret < 0)
                        return ret;
                if (!remap_entry(img, l1, goal, &map, &entry))
                        continue;
                map_set(img, s->slice, index + n, entry, map_weight(img, l1, s->position),
                        entry_host_offset(entry) != 0);
                if (entry_host_offset(entry) != 0)
                        grace_zeroed(img);
        }
        return 0;
}

/* Coroutine: the run of clusters at position, which lie in one slice. */
static int remap_run(struct remap *s, struct image *img, struct l1_table *l1, enum remap_goal goal)
{
        unsigned cluster_bits = image_geometry(img)->cluster_bits;

        CO_BEGIN(&s->run);
        CO_TRY(&s->run, out, range_lock(&s->lock, img, l1 != &img->active, s->position,
                                        s->position + (s->count << cluster_bits)));
        CO_TRY(&s->run, unlock, map_prepare(&s->prepare, img, l1, s->position, &s->slice));
        CO_TRY(&s->run, unpin, remap_slice(s, img, l1, goal));
unpin:
        slice_unpin(&img->l2, s->slice);
unlock:
        range_unlock(&s->lock, img);
        commit_kick(img);
out:
        CO_END(&s->run);
}

static int check_going_on(const struct image *img)
{
        return task_is_cancelled(task_current()) ? -ECANCELED : image_check_writable(img);
}

/* Does what lookup found need any change?  Sets count to the clusters it found, at
 * most what one slice holds. */
static bool needs_remap(struct remap *s, const struct image *img, const struct l1_table *l1,
                        enum remap_goal goal)
{
        uint64_t entry;

        s->count = s->map.length_bytes >> image_geometry(img)->cluster_bits;
        g_assert(s->count > 0);
        if (!remap_entry(img, l1, goal, &s->map, &entry))
                return false;
        s->count = u64_min(s->count, map_entries_left(img, s->position));
        return true;
}

/* Coroutine: [first, end), whole clusters. */
static int remap_clusters(struct remap *s, struct image *img, struct l1_table *l1,
                          uint64_t first, uint64_t end, enum remap_goal goal)
{
        CO_BEGIN(s);
        for (s->position = first; s->position < end;
             s->position += s->count << image_geometry(img)->cluster_bits) {
                CO_TRY(s, out, check_going_on(img));
                CO_TRY(s, out, map_lookup(&s->lookup, img, l1, s->position, end - s->position,
                                          &s->map));
                if (!needs_remap(s, img, l1, goal))
                        continue;
                if (commit_needed(img))
                        CO_TRY(s, out, meta_commit(&s->commit, img));
                CO_TRY(s, out, remap_run(s, img, l1, goal));
        }
out:
        CO_END(s);
}

/* The whole clusters of a range; the last of the disk is whole if the range reaches the disk's
 * end.  first == end: none. */
static void whole_clusters(const struct image *img, const struct l1_table *l1, uint64_t offset,
                           uint64_t length_bytes, uint64_t *ret_first, uint64_t *ret_end)
{
        uint64_t cluster_bytes = image_geometry(img)->cluster_bytes;
        uint64_t end = offset + length_bytes;

        *ret_first = round_up(offset, cluster_bytes);
        if (l1 == &img->active && end == image_size(img))
                *ret_end = round_up(end, cluster_bytes);
        else
                *ret_end = round_down(end, cluster_bytes);
        *ret_end = u64_max(*ret_first, *ret_end);
}

static bool can_discard(const struct image *img, const struct l1_table *l1)
{
        return image_geometry(img)->version >= 3 || !chain_goes_on(img, l1);
}

static int discard_inside(struct discard *s, struct image *img, struct l1_table *l1,
                          uint64_t offset, uint64_t length_bytes)
{
        uint64_t first;
        uint64_t end;

        if (!can_discard(img, l1))
                return 0;
        whole_clusters(img, l1, offset, length_bytes, &first, &end);
        return remap_clusters(&s->remap, img, l1, first, end, REMAP_DISCARD);
}

int discard_range(struct discard *s, struct image *img, struct l1_table *l1, uint64_t offset,
                  uint64_t length_bytes)
{
        CO_BEGIN(s);
        CO_TRY(s, out, gate_enter(&img->writes, &s->waiter));
        CO_TRY(s, leave, image_check_change(img, l1, offset, length_bytes));
        CO_TRY(s, leave, discard_inside(s, img, l1, offset, length_bytes));
leave:
        gate_leave(&img->writes);
out:
        CO_END(s);
}

/* ---- zeroing ---- */

/* Makes content end where the file's blocks do (position does): a block that is zeros only in
 * parts counts as data. */
static void align_content(struct content *c, const struct image *img, uint64_t left_bytes)
{
        uint64_t alignment = img->file.alignment;

        if (c->kind == CONTENT_ZERO && c->length_bytes >= alignment && c->length_bytes < left_bytes)
                c->length_bytes = round_down(c->length_bytes, alignment);
        if (c->length_bytes % alignment == 0 || c->length_bytes == left_bytes)
                return;
        if (c->kind == CONTENT_ZERO)
                c->kind = CONTENT_DATA;
        c->length_bytes = u64_min(round_up(c->length_bytes, alignment), left_bytes);
}

/* Coroutine: [first, end), by writing data. */
static int zero_fill(struct zero_fill *s, struct image *img, struct l1_table *l1, uint64_t first,
                     uint64_t end, uint32_t flags)
{
        CO_BEGIN(s);
        for (s->position = first; s->position < end; s->position += s->content.length_bytes) {
                CO_TRY(s, out, chain_find(&s->find, img, l1, s->position,
                                          u64_min(end - s->position, ZEROS_BYTES),
                                          &s->content));
                align_content(&s->content, img, end - s->position);
                if (s->content.kind == CONTENT_ZERO)
                        continue;
                if (flags & HVB_REQ_NO_FALLBACK)
                        CO_FAIL(s, out, -ENOTSUP);
                s->iov = (struct iovec){ iov_zeros(), s->content.length_bytes };
                CO_TRY(s, out, write_inside(&s->write, img, l1, s->position,
                                            s->content.length_bytes, &s->iov, 1));
        }
out:
        CO_END(s);
}

static enum remap_goal zero_goal(uint32_t flags)
{
        return flags & HVB_REQ_MAY_UNMAP ? REMAP_ZERO_UNMAP : REMAP_ZERO_KEEP;
}

/* May whole clusters change their mapping, or must zeros be written? */
static bool can_zero_by_mapping(const struct image *img, const struct l1_table *l1, uint32_t flags)
{
        return image_geometry(img)->version >= 3 ||
               ((flags & HVB_REQ_MAY_UNMAP) && !chain_goes_on(img, l1));
}

static void plan_zero(struct zero *s, const struct image *img, const struct l1_table *l1,
                      uint64_t offset, uint64_t length_bytes, uint32_t flags)
{
        whole_clusters(img, l1, offset, length_bytes, &s->first, &s->end);
        s->goal = zero_goal(flags);
        if (!can_zero_by_mapping(img, l1, flags) || s->first == s->end)
                s->first = s->end = offset + length_bytes;
        memset(&s->u.fill, 0, sizeof(s->u.fill));
}

int zero_range(struct zero *s, struct image *img, struct l1_table *l1, uint64_t offset,
               uint64_t length_bytes, uint32_t flags)
{
        CO_BEGIN(s);
        CO_TRY(s, out, gate_enter(&img->writes, &s->waiter));
        CO_TRY(s, leave, image_check_change(img, l1, offset, length_bytes));
        plan_zero(s, img, l1, offset, length_bytes, flags);
        CO_TRY(s, leave, zero_fill(&s->u.fill, img, l1, offset, s->first, flags));
        if (s->first == s->end)
                goto leave;
        memset(&s->u.remap, 0, sizeof(s->u.remap));
        CO_TRY(s, leave, remap_clusters(&s->u.remap, img, l1, s->first, s->end, s->goal));
        memset(&s->u.fill, 0, sizeof(s->u.fill));
        CO_TRY(s, leave, zero_fill(&s->u.fill, img, l1, s->end, offset + length_bytes, flags));
leave:
        gate_leave(&img->writes);
out:
        CO_END(s);
}
