/*
 * resize-area.c - unmapping, hiding and zeroing.
 *
 * Entries and the clusters they reference part in one step: an L2 table that goes as a
 * whole is read completely before the first of its clusters is noted to be counted
 * down, which happens after the commit that removes the L1 entry.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/resize-area.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* ---- unmapping ---- */

static int may_go_on(const struct image *img)
{
        return task_is_cancelled(task_current()) ? -ECANCELED : image_check_writable(img);
}

/* Sound entries only: what makes no sense references nothing that we know. */
static int check_entries(struct image *img, const uint8_t *entries, uint64_t count,
                         uint64_t guest_offset)
{
        struct mapping map;
        uint64_t i;
        int ret = 0;

        for (i = 0; i < count && ret == 0; i++)
                ret = map_decode(img, be64_load(entries + i * 8),
                                 guest_offset + (i << image_geometry(img)->cluster_bits), &map);
        return ret;
}

/* Coroutine: the table at l2_offset, as the cache has it. */
static int load_table(struct unmap_area *s, struct image *img)
{
        const struct geometry *g = image_geometry(img);

        CO_BEGIN(&s->part);
        if (!s->buffer)
                s->buffer = io_buffer_try_new(g->cluster_bytes);
        if (!s->buffer)
                CO_FAIL(&s->part, out, -ENOMEM);
        for (s->at = 0; s->at < g->cluster_bytes; s->at += g->slice_bytes) {
                CO_TRY(&s->part, out, slices_load(&s->load, &img->l2, s->l2_offset + s->at,
                                                  &s->slice));
                memcpy(s->buffer + s->at, s->slice->bytes, g->slice_bytes);
                slice_unpin(&img->l2, s->slice);
        }
        CO_TRY(&s->part, out, check_entries(img, s->buffer, g->l2_entries, s->position));
out:
        CO_END(&s->part);
}

static void release_table(struct unmap_area *s, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        uint64_t i;

        for (i = 0; i < g->l2_entries; i++) {
                struct cluster_run run = map_entry_clusters(img, be64_load(s->buffer + i * 8));

                if (run.cluster_count > 0)
                        clusters_free_later(img, run.cluster_index << g->cluster_bits,
                                            run.cluster_count << g->cluster_bits, 1);
        }
        l1_set(&img->active, (uint32_t)(s->position / g->l2_span_bytes), 0);
        clusters_free_later(img, s->l2_offset, g->cluster_bytes, 1);
        slices_drop(&img->l2, s->l2_offset, g->cluster_bytes);
}

/* Coroutine: a table all of whose guest range goes. */
static int unmap_table(struct unmap_area *s, struct image *img)
{
        CO_BEGIN(&s->table);
        CO_TRY(&s->table, out, load_table(s, img));
        release_table(s, img);
out:
        CO_END(&s->table);
}

/* Coroutine: [position, next), within one slice. */
static int unmap_slice(struct unmap_area *s, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        uint64_t index = map_index(img, s->position);
        uint64_t count = (s->next - s->position) >> g->cluster_bits;
        uint64_t i;

        CO_BEGIN(&s->table);
        CO_TRY(&s->table, out, map_prepare(&s->prepare, img, &img->active, s->position,
                                           &s->slice));
        CO_TRY(&s->table, unpin, check_entries(img, s->slice->bytes + index * 8, count,
                                               s->position));
        for (i = 0; i < count; i++)
                if (map_entry(s->slice, index + i) != 0)
                        map_set(img, s->slice, index + i, 0, 1, false);
unpin:
        slice_unpin(&img->l2, s->slice);
out:
        CO_END(&s->table);
}

static uint64_t l2_offset_at(const struct image *img, uint64_t guest_offset)
{
        uint64_t index = guest_offset / image_geometry(img)->l2_span_bytes;

        return index < img->active.count ? entry_host_offset(img->active.entries[index]) : 0;
}

static bool is_whole_table(const struct unmap_area *s, const struct image *img, uint64_t end)
{
        uint64_t span = image_geometry(img)->l2_span_bytes;

        return s->position % span == 0 && s->position + span <= end;
}

static void end_of_table(struct unmap_area *s, const struct image *img, uint64_t end)
{
        uint64_t span = image_geometry(img)->l2_span_bytes;

        s->next = u64_min(round_down(s->position, span) + span, end);
        s->l2_offset = l2_offset_at(img, s->position);
}

static void end_of_slice(struct unmap_area *s, const struct image *img, uint64_t end)
{
        uint64_t bytes = map_entries_left(img, s->position) << image_geometry(img)->cluster_bits;

        s->next = u64_min(s->position + bytes, end);
}

static int check_table_offset(const struct unmap_area *s, struct image *img)
{
        if ((s->l2_offset & (image_geometry(img)->cluster_bytes - 1)) == 0)
                return 0;
        return image_corrupt(img, "%s: an L2 table lies at 0x%" PRIx64 ", which is not "
                             "cluster-aligned", img->name, s->l2_offset);
}

int unmap_area(struct unmap_area *s, struct image *img, uint64_t first, uint64_t end)
{
        uint64_t mapped_end = u64_min(end, img->active.count * image_geometry(img)->l2_span_bytes);

        CO_BEGIN(s);
        for (s->position = first; s->position < mapped_end; s->position = s->next) {
                end_of_table(s, img, mapped_end);
                if (s->l2_offset == 0)
                        continue;
                CO_TRY(s, out, may_go_on(img));
                CO_TRY(s, out, check_table_offset(s, img));
                if (commit_needed(img))
                        CO_TRY(s, out, meta_commit(&s->commit, img));
                if (is_whole_table(s, img, mapped_end)) {
                        CO_TRY(s, out, unmap_table(s, img));
                        continue;
                }
                end_of_slice(s, img, mapped_end);
                CO_TRY(s, out, unmap_slice(s, img));
        }
out:
        free(s->buffer);
        s->buffer = NULL;
        CO_END(s);
}

/* ---- hiding ---- */

/* Coroutine: version 3, [position, next) within one slice. */
static int hide_slice(struct hide_area *s, struct image *img)
{
        uint64_t index = map_index(img, s->position);
        uint64_t count = (s->next - s->position) >> image_geometry(img)->cluster_bits;
        uint64_t i;

        CO_BEGIN(&s->slice);
        CO_TRY(&s->slice, out, map_prepare(&s->prepare, img, &img->active, s->position, &s->l2));
        for (i = 0; i < count; i++)
                if (map_entry(s->l2, index + i) != ENTRY_ZERO)
                        map_set(img, s->l2, index + i, ENTRY_ZERO, 1, false);
        slice_unpin(&img->l2, s->l2);
out:
        CO_END(&s->slice);
}

static int hide_with_entries(struct hide_area *s, struct image *img, uint64_t first, uint64_t end)
{
        CO_BEGIN(s);
        for (s->position = first; s->position < end; s->position = s->next) {
                s->next = u64_min(end, s->position + (map_entries_left(img, s->position) <<
                                                      image_geometry(img)->cluster_bits));
                CO_TRY(s, out, may_go_on(img));
                if (commit_needed(img))
                        CO_TRY(s, out, meta_commit(&s->commit, img));
                CO_TRY(s, out, hide_slice(s, img));
        }
out:
        CO_END(s);
}

/* Whole clusters, because the content's end may be anywhere. */
static uint64_t filled_bytes(const struct hide_area *s, const struct image *img, uint64_t end)
{
        uint64_t bytes = round_up(s->content.length_bytes, image_geometry(img)->cluster_bytes);

        return u64_min(bytes, end - s->position);
}

/* Version 2 knows no zero clusters: zeros are data. */
static int hide_with_data(struct hide_area *s, struct image *img, uint64_t first, uint64_t end)
{
        CO_BEGIN(s);
        for (s->position = first; s->position < end; s->position = s->next) {
                CO_TRY(s, out, chain_find(&s->find, img, &img->active, s->position,
                                          u64_min(end - s->position, ZEROS_BYTES), &s->content));
                s->next = s->position + round_down(s->content.length_bytes,
                                                   image_geometry(img)->cluster_bytes);
                if (s->content.kind == CONTENT_ZERO && s->next > s->position)
                        continue;
                s->iov = (struct iovec){ iov_zeros(), filled_bytes(s, img, end) };
                s->next = s->position + s->iov.iov_len;
                CO_TRY(s, out, write_inside(&s->write, img, &img->active, s->position,
                                            s->iov.iov_len, &s->iov, 1));
        }
out:
        CO_END(s);
}

int hide_area(struct hide_area *s, struct image *img, uint64_t first, uint64_t end)
{
        if (image_geometry(img)->version >= 3)
                return hide_with_entries(s, img, first, end);
        return hide_with_data(s, img, first, end);
}

/* ---- the last cluster ---- */

static bool is_zero(const uint8_t *bytes, uint64_t count)
{
        return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

static bool is_of_interest(const struct mapping *map, bool own)
{
        switch (map->kind) {
        case CLUSTER_NORMAL:
        case CLUSTER_COMPRESSED:
                return true;
        case CLUSTER_UNALLOCATED:
                return !own;
        default:
                return false;
        }
}

int tail_zero(struct tail_zero *s, struct image *img, uint64_t guest_offset, bool own)
{
        uint64_t bytes = image_geometry(img)->cluster_bytes;
        uint64_t kept = guest_offset % bytes;

        CO_BEGIN(s);
        if (kept == 0)
                goto out;
        s->first = guest_offset - kept;
        CO_TRY(s, out, map_lookup(&s->lookup, img, &img->active, s->first, bytes, &s->map));
        if (!is_of_interest(&s->map, own))
                goto out;
        s->buffer = io_buffer_try_new(bytes);
        if (!s->buffer)
                CO_FAIL(s, out, -ENOMEM);
        CO_TRY(s, out, read_simple(&s->read, img, &img->active, s->first, s->buffer, bytes));
        if (is_zero(s->buffer + kept, bytes - kept))
                goto out;
        memset(s->buffer + kept, 0, bytes - kept);
        s->iov = (struct iovec){ s->buffer, bytes };
        CO_TRY(s, out, write_inside(&s->write, img, &img->active, s->first, bytes, &s->iov, 1));
out:
        free(s->buffer);
        s->buffer = NULL;
        CO_END(s);
}
