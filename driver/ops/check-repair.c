/*
 * check-repair.c - correcting what a check has noted, through the caches and commits.
 *
 * Order on disk:
 *   1. entries that reference an impossible place become zero;           commit
 *   2. counts are raised to the references, and lowered to them where
 *      nothing references the cluster that often;                       commit
 *   3. COPIED flags follow the counts that are now durable;             commit
 *
 * A crash after any write leaves counts that are no further below the references than
 * they were found; running the repair again finishes it.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/planted.h"
#include "disk/refcount.h"
#include "ops/check-parts.h"

/* ---- L2 entries ---- */

static uint64_t zeroed(const struct check_context *c, uint64_t entry)
{
        const struct geometry *g = image_geometry(c->img);

        if (entry_kind(g, entry) == CLUSTER_ZERO_ALLOCATED &&
            (entry_host_offset(entry) & (g->cluster_bytes - 1)))
                return ENTRY_ZERO;
        return entry;
}

static uint64_t with_copied_right(const struct check_context *c, uint64_t entry)
{
        uint64_t cluster = entry_host_offset(entry) >> image_geometry(c->img)->cluster_bits;

        if ((entry & ENTRY_COMPRESSED) || entry_host_offset(entry) == 0)
                return entry;
        return (entry & ~ENTRY_COPIED) | (tally_get(&c->tally, cluster) == 1 ? ENTRY_COPIED : 0);
}

static void correct_slice(struct check_context *c, struct slice *slice,
                          uint64_t (*right)(const struct check_context *c, uint64_t entry))
{
        uint64_t bytes = image_geometry(c->img)->slice_bytes;
        uint64_t at;

        for (at = 0; at < bytes; at += 8)
                be64_store(slice->bytes + at, right(c, be64_load(slice->bytes + at)));
        slice_mark_dirty(&c->img->l2, slice);
}

static int correct_entries(struct entries_fix *s, struct check_context *c, GArray *slices,
                           uint64_t (*right)(const struct check_context *c, uint64_t entry))
{
        CO_BEGIN(s);
        for (s->i = 0; s->i < slices->len; s->i++) {
                CO_TRY(s, out, slices_load(&s->load, &c->img->l2,
                                           g_array_index(slices, uint64_t, s->i), &s->slice));
                correct_slice(c, s->slice, right);
                slice_unpin(&c->img->l2, s->slice);
                if (commit_needed(c->img))
                        CO_TRY(s, out, meta_commit(&s->commit, c->img));
        }
        if (!PLANTED(REPAIR_TOO_EARLY))
                CO_TRY(s, out, meta_settle(&s->settle, c->img));
out:
        CO_END(s);
}

int check_zero_entries(struct entries_fix *s, struct check_context *c)
{
        int ret = correct_entries(s, c, c->zero_slices, zeroed);

        if (ret == 0) {
                c->result->corruptions -= c->zero_entries;
                c->result->corruptions_fixed += c->zero_entries;
                c->zero_entries = 0;
        }
        return ret;
}

int check_fix_copied(struct entries_fix *s, struct check_context *c)
{
        return correct_entries(s, c, c->copied_slices, with_copied_right);
}

/* ---- counts ---- */

static bool may_set(const struct check_context *c, uint64_t count, uint32_t refs)
{
        return c->fix & (count < refs ? HVB_CHECK_FIX_ERRORS : HVB_CHECK_FIX_LEAKS);
}

static void count_fixed(struct check_context *c, bool was_error)
{
        if (was_error) {
                c->result->corruptions--;
                c->result->corruptions_fixed++;
        } else {
                c->result->leaks--;
                c->result->leaks_fixed++;
        }
}

/* Sets a slice's counts, or takes those that must stay into the tally. */
static int correct_counts(struct check_context *c, const struct check_count_slice *where,
                          struct slice *slice)
{
        unsigned order = image_geometry(c->img)->refcount_order;
        uint64_t n = u64_min(refs_slice_counts(c->img), c->count_end - where->first_cluster);
        uint64_t i;
        int ret = 0;

        for (i = 0; i < n && ret == 0; i++) {
                uint64_t cluster = where->first_cluster + i;
                uint64_t count = refcount_get(slice->bytes, order, i);
                uint32_t refs = MIN(tally_get(&c->tally, cluster), c->count_max);

                if (count == refs || (refs == UINT32_MAX && count > refs))
                        continue;
                if (!may_set(c, count, refs)) {
                        ret = tally_set(&c->tally, cluster, (uint32_t)u64_min(count, UINT32_MAX));
                        continue;
                }
                check_report(c, "Repairing cluster %" PRIu64 " refcount=%" PRIu64 " reference=%u",
                             cluster, count, refs);
                refcount_set(slice->bytes, order, i, refs);
                slice_mark_dirty(&c->img->refs.cache, slice);
                count_fixed(c, count < refs);
        }
        return ret;
}

static const struct check_count_slice *count_slice(const struct counts_fix *s,
                                                   const struct check_context *c)
{
        return &g_array_index(c->count_slices, struct check_count_slice, s->i);
}

int check_fix_counts(struct counts_fix *s, struct check_context *c)
{
        struct slice_cache *cache = &c->img->refs.cache;

        CO_BEGIN(s);
        for (s->i = 0; s->i < c->count_slices->len; s->i++) {
                CO_TRY(s, out, slices_load(&s->load, cache, count_slice(s, c)->host_offset,
                                           &s->slice));
                s->co.ret = correct_counts(c, count_slice(s, c), s->slice);
                slice_unpin(cache, s->slice);
                if (s->co.ret < 0)
                        CO_FAIL(s, out, s->co.ret);
                if (commit_needed(c->img))
                        CO_TRY(s, out, meta_commit(&s->commit, c->img));
        }
        refs_forget_free(c->img);
        c->img->compressed_next = 0;
        if (!PLANTED(REPAIR_TOO_EARLY))
                CO_TRY(s, out, meta_settle(&s->settle, c->img));
out:
        CO_END(s);
}

/* ---- the snapshot table ---- */

enum { V3_EXTRA_BYTES = 16 };

uint64_t check_snapshot_entries(struct check_context *c)
{
        uint64_t incomplete = 0;
        uint32_t i;

        for (i = 0; c->img->header.version >= 3 && i < c->img->header.snapshot_count; i++) {
                if (c->img->snapshots[i].extra_bytes >= V3_EXTRA_BYTES)
                        continue;
                check_report(c, "%s snapshot table entry %u is incomplete",
                             check_verb(c->fix & HVB_CHECK_FIX_ERRORS), i);
                incomplete++;
        }
        return incomplete;
}

static void free_list(struct snapshots_fix *s)
{
        uint32_t i;

        for (i = 0; s->list && i < s->count; i++)
                snapshot_clear(&s->list[i]);
        g_free(s->list);
        s->list = NULL;
}

static int copy_list(struct snapshots_fix *s, struct image *img)
{
        int ret = 0;

        s->count = 0;
        s->list = g_try_new0(struct snapshot, img->header.snapshot_count);
        if (!s->list)
                return -ENOMEM;
        for (; s->count < img->header.snapshot_count && ret == 0; s->count++)
                ret = snapshot_copy(&s->list[s->count], &img->snapshots[s->count]);
        return ret;
}

int check_fix_snapshots(struct snapshots_fix *s, struct check_context *c)
{
        CO_BEGIN(s);
        s->change = (struct root_change) { .what = 0 };
        CO_TRY(s, out, copy_list(s, c->img));
        CO_TRY(s, out, snapshots_publish(&s->publish, c->img, s->list, s->count, &s->change));
        s->list = NULL;
        CO_TRY(s, out, meta_settle(&s->settle, c->img));        /* the old table's counts */
out:
        free_list(s);
        CO_END(s);
}
