/*
 * check-tree.c - who references which cluster.
 *
 * Every L1 table is read whole and gives a list of L2 tables, each with the number of
 * L1 entries that point to it.  The list is sorted, and each table is read once,
 * in the order of the file, with many reads in flight; a table that k entries share
 * counts k for everything in it.  So a hundred snapshots of one disk cost one walk.
 *
 * Tables must lie in the file to be read, and different tables do not overlap in a
 * sound image; so the work is bounded by the file's length, and where L1 tables
 * overlap or L2 tables lie at odd places, by budgets of that length.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "ops/check-parts.h"

enum { COMPACT_STEP = 1 << 20 };

/* ---- L1 tables ---- */

static void add_active_l1(struct check_tree *s, struct check_context *c)
{
        const struct check_l1 l1 = {
                .offset = c->img->header.l1_offset,
                .entries = c->img->header.l1_entries,
                .refs = 1,
                .is_active = true,
        };

        if (l1.entries > 0)
                g_array_append_val(s->l1s, l1);
}

static void add_snapshot_l1(struct check_tree *s, struct check_context *c, unsigned index)
{
        const struct snapshot *snapshot = &c->img->snapshots[index];
        const struct check_l1 l1 = {
                .offset = snapshot->l1_offset,
                .entries = snapshot->l1_entries,
                .refs = 1,
        };
        struct hvb_error err = { .struct_bytes = sizeof(err) };

        if (l1.entries == 0)
                return;
        if (snapshot_validate_l1(snapshot, image_geometry(c->img), c->file_bytes, &err) < 0) {
                check_report(c, "ERROR snapshot %s (%s) l1_offset=0x%" PRIx64 ": %s; snapshot "
                             "table entry corrupted", snapshot->id, snapshot->name, l1.offset,
                             err.text);
                c->uncounted = true;
                c->result->corruptions++;
                return;
        }
        g_array_append_val(s->l1s, l1);
}

static gint l1_order(gconstpointer a, gconstpointer b)
{
        const struct check_l1 *x = a;
        const struct check_l1 *y = b;

        if (x->is_active != y->is_active)
                return x->is_active ? -1 : 1;
        if (x->offset != y->offset)
                return x->offset < y->offset ? -1 : 1;
        return x->entries < y->entries ? -1 : x->entries > y->entries;
}

static void merge_l1s(GArray *l1s)
{
        unsigned kept = 0;
        unsigned i;

        g_array_sort(l1s, l1_order);
        for (i = 1; i < l1s->len; i++) {
                struct check_l1 *last = &g_array_index(l1s, struct check_l1, kept);
                struct check_l1 *next = &g_array_index(l1s, struct check_l1, i);

                if (l1_order(last, next) == 0)
                        last->refs += next->refs;
                else
                        g_array_index(l1s, struct check_l1, ++kept) = *next;
        }
        if (l1s->len > 0)
                g_array_set_size(l1s, kept + 1);
}

static void collect_l1s(struct check_tree *s, struct check_context *c)
{
        unsigned i;

        s->l1s = g_array_new(FALSE, FALSE, sizeof(struct check_l1));
        add_active_l1(s, c);
        for (i = 0; i < c->img->header.snapshot_count; i++)
                add_snapshot_l1(s, c, i);
        merge_l1s(s->l1s);
}

static const struct check_l1 *current_l1(const struct check_tree *s)
{
        return &g_array_index(s->l1s, struct check_l1, s->l1_index);
}

/* ---- the list of L2 tables ---- */

static gint l2_order(gconstpointer a, gconstpointer b)
{
        uint64_t x = ((const struct check_l2 *)a)->offset;
        uint64_t y = ((const struct check_l2 *)b)->offset;

        return x < y ? -1 : x > y;
}

static uint32_t saturated(uint64_t count)
{
        return (uint32_t)u64_min(count, UINT32_MAX);
}

static void merge_l2s(struct check_tree *s, GArray *l2s)
{
        unsigned kept = 0;
        unsigned i;

        g_array_sort(l2s, l2_order);
        for (i = 1; i < l2s->len; i++) {
                struct check_l2 *last = &g_array_index(l2s, struct check_l2, kept);
                struct check_l2 *next = &g_array_index(l2s, struct check_l2, i);

                if (last->offset == next->offset) {
                        last->refs = saturated((uint64_t)last->refs + next->refs);
                        last->active_refs = saturated((uint64_t)last->active_refs +
                                                      next->active_refs);
                } else {
                        g_array_index(l2s, struct check_l2, ++kept) = *next;
                }
        }
        if (l2s->len > 0)
                g_array_set_size(l2s, kept + 1);
        s->compact_at = l2s->len * UINT64_C(2) + COMPACT_STEP;
}

static int take_l1_entry(struct check_tree *s, struct check_context *c, uint64_t entry,
                         uint32_t refs, bool is_active)
{
        const struct geometry *g = image_geometry(c->img);
        struct check_l2 l2 = {
                .offset = entry_host_offset(entry),
                .refs = refs,
                .active_refs = is_active ? refs : 0,
        };

        if (entry & L1_RESERVED_MASK) {
                check_report(c, "ERROR found L1 entry with reserved bits set: %" PRIx64, entry);
                c->result->corruptions += refs;
        }
        if (l2.offset == 0)
                return 0;
        if (l2.offset & (g->cluster_bytes - 1)) {
                check_report(c, "ERROR l2_offset=0x%" PRIx64 ": Table is not cluster aligned; L1 "
                             "entry corrupted", l2.offset);
                c->result->corruptions += refs;
        }
        g_array_append_val(c->l2s, l2);
        if (c->l2s->len >= s->compact_at)
                merge_l2s(s, c->l2s);
        return check_count(c, l2.offset, g->cluster_bytes, refs);
}

static int take_l1(struct check_tree *s, struct check_context *c)
{
        const struct check_l1 *l1 = current_l1(s);
        uint32_t i;
        int ret;

        if (l1->is_active) {
                c->l1 = g_try_new(uint64_t, l1->entries);
                if (!c->l1)
                        return -ENOMEM;
                c->l1_entries = l1->entries;
        }
        for (i = 0; i < l1->entries; i++) {
                uint64_t entry = be64_load(s->buffer + i * UINT64_C(8));

                if (l1->is_active)
                        c->l1[i] = entry;
                ret = take_l1_entry(s, c, entry, l1->refs, l1->is_active);
                if (ret < 0)
                        return ret;
        }
        return 0;
}

/* Counts the table itself.  False: it is not to be walked. */
static bool may_walk_l1(struct check_tree *s, struct check_context *c)
{
        const struct check_l1 *l1 = current_l1(s);

        if (l1->offset >= c->file_bytes)
                return false;
        s->l1_bytes += l1->entries * UINT64_C(8);
        if (l1->is_active || s->l1_bytes <= c->file_bytes + MAX_L1_BYTES)
                return true;
        check_report(c, "ERROR: L1 tables of snapshots overlap; that at 0x%" PRIx64 " is not "
                     "checked", l1->offset);
        c->result->check_errors++;
        return false;
}

static int walk_l1(struct check_tree *s, struct check_context *c)
{
        uint64_t bytes = current_l1(s)->entries * UINT64_C(8);

        CO_BEGIN(&s->walk);
        CO_TRY(&s->walk, out, check_count(c, current_l1(s)->offset, bytes, current_l1(s)->refs));
        if (!may_walk_l1(s, c))
                goto out;
        s->buffer = io_buffer_try_new(round_up(bytes, c->img->root_bytes));
        if (!s->buffer)
                CO_FAIL(&s->walk, out, -ENOMEM);
        CO_AWAIT(&s->walk, io_read(&s->io, &c->img->file, current_l1(s)->offset, s->buffer,
                                   round_up(bytes, c->img->root_bytes), false));
        if (s->walk.co.ret < 0) {
                check_report(c, "ERROR: I/O error reading the L1 table at 0x%" PRIx64 ": %s",
                             current_l1(s)->offset, g_strerror(-s->walk.co.ret));
                c->result->check_errors++;
                goto out;
        }
        CO_TRY(&s->walk, out, take_l1(s, c));
out:
        free(s->buffer);
        s->buffer = NULL;
        CO_END(&s->walk);
}

/* VM state that waits for its snapshot: its L1 lies in memory alone. */
static int take_vmstate(struct check_tree *s, struct check_context *c)
{
        uint32_t i;
        int ret = 0;

        for (i = 0; i < c->img->vmstate.count && ret == 0; i++)
                ret = take_l1_entry(s, c, c->img->vmstate.entries[i], 1, false);
        return ret;
}

/* A snapshot that was deleted while somebody reads it is referenced by memory alone. */
static int take_unlinked(struct check_tree *s, struct check_context *c, const struct pin *pin)
{
        int ret = check_count(c, pin->l1.offset, (uint64_t)pin->l1.count * 8, 1);
        uint32_t i;

        for (i = 0; i < pin->l1.count && ret == 0; i++)
                ret = take_l1_entry(s, c, pin->l1.entries[i], 1, false);
        return ret;
}

static int take_pins(struct check_tree *s, struct check_context *c)
{
        GList *link;
        int ret = 0;

        for (link = c->img->pins.head; link && ret == 0; link = link->next) {
                const struct pin *pin = link->data;

                if (pin->state == PIN_UNLINKED)
                        ret = take_unlinked(s, c, pin);
        }
        return ret;
}

/* ---- L2 tables ---- */

struct l2_walk {
        const struct check_l2 *l2;
        uint64_t next_contiguous;       /* 0: no cluster seen yet */
        uint64_t last_zero_slice;
};

static int count_compressed(struct check_context *c, const struct l2_walk *w, uint64_t entry)
{
        struct compressed_place place = entry_compressed_place(image_geometry(c->img), entry);

        if (entry & ENTRY_COPIED) {
                check_report(c, "ERROR: coffset=0x%" PRIx64 ": copied flag must never be set for "
                             "compressed clusters", place.host_offset);
                c->result->corruptions += w->l2->refs;
        }
        c->result->allocated_clusters += w->l2->active_refs;
        c->result->compressed_clusters += w->l2->active_refs;
        c->result->fragmented_clusters += w->l2->active_refs;
        return check_count(c, place.host_offset, place.length_bytes, w->l2->refs);
}

/* A cluster at an odd place.  True if the entry will be zeroed and references nothing. */
static bool judge_unaligned(struct check_context *c, struct l2_walk *w, uint64_t index,
                            uint64_t entry)
{
        const struct geometry *g = image_geometry(c->img);
        bool holds_data = entry_kind(g, entry) == CLUSTER_NORMAL;
        bool repair = (c->fix & HVB_CHECK_FIX_ERRORS) && !holds_data &&
                      (w->l2->offset & (g->cluster_bytes - 1)) == 0;
        uint64_t slice = w->l2->offset + round_down(index * 8, g->slice_bytes);

        check_report(c, "%s offset=0x%" PRIx64 ": %s cluster is not properly aligned; L2 entry "
                     "corrupted", check_verb(repair), entry_host_offset(entry),
                     holds_data ? "Data" : "Preallocated");
        c->result->corruptions += w->l2->refs;
        if (!repair)
                return false;
        c->zero_entries += w->l2->refs;
        if (slice != w->last_zero_slice)
                g_array_append_val(c->zero_slices, slice);
        w->last_zero_slice = slice;
        return true;
}

static int count_standard(struct check_context *c, struct l2_walk *w, uint64_t index,
                          uint64_t entry)
{
        const struct geometry *g = image_geometry(c->img);
        uint64_t offset = entry_host_offset(entry);

        if ((offset & (g->cluster_bytes - 1)) && judge_unaligned(c, w, index, entry))
                return 0;
        c->result->allocated_clusters += w->l2->active_refs;
        if (w->next_contiguous && offset != w->next_contiguous)
                c->result->fragmented_clusters += w->l2->active_refs;
        w->next_contiguous = offset + g->cluster_bytes;
        return check_count(c, offset, g->cluster_bytes, w->l2->refs);
}

static int count_entry(struct check_context *c, struct l2_walk *w, uint64_t index,
                       uint64_t entry)
{
        enum cluster_kind kind = entry_kind(image_geometry(c->img), entry);

        if (kind == CLUSTER_COMPRESSED)
                return count_compressed(c, w, entry);
        if (entry & L2_RESERVED_MASK) {
                check_report(c, "ERROR found l2 entry with reserved bits set: %" PRIx64, entry);
                c->result->corruptions += w->l2->refs;
        }
        if (kind == CLUSTER_NORMAL || kind == CLUSTER_ZERO_ALLOCATED)
                return count_standard(c, w, index, entry);
        return 0;
}

static int count_l2(struct check_tree *s, struct check_context *c)
{
        struct l2_walk walk = { .l2 = &g_array_index(c->l2s, struct check_l2, s->tag) };
        uint64_t i;
        int ret = 0;

        for (i = 0; i < image_geometry(c->img)->l2_entries && ret == 0; i++) {
                uint64_t entry = be64_load(s->bytes + i * 8);

                if (entry != 0)
                        ret = count_entry(c, &walk, i, entry);
        }
        check_progress(c, image_geometry(c->img)->cluster_bytes);
        return ret;
}

/* Not beyond the end of the file, and not more at odd places than the file is long. */
static bool may_walk_l2(struct check_tree *s, struct check_context *c, uint64_t offset)
{
        const struct geometry *g = image_geometry(c->img);

        if (offset >= c->file_bytes)
                return false;
        if ((offset & (g->cluster_bytes - 1)) == 0)
                return true;
        s->odd_bytes += g->cluster_bytes;
        if (s->odd_bytes <= c->file_bytes)
                return true;
        c->too_many_odd = true;
        check_report(c, "ERROR: L2 tables at odd places overlap; that at 0x%" PRIx64 " is not "
                     "checked", offset);
        c->result->check_errors++;
        return false;
}

static void begin_l2(struct check_tree *s, struct check_context *c)
{
        uint64_t offset = g_array_index(c->l2s, struct check_l2, s->next).offset;

        if (may_walk_l2(s, c, offset))
                table_reads_begin(&s->reads, offset, s->next);
        s->next++;
}

static int walk_l2s(struct check_tree *s, struct check_context *c)
{
        CO_BEGIN(&s->walk);
        s->next = 0;
        CO_TRY(&s->walk, out, table_reads_open(&s->reads, &c->img->file,
                                               image_geometry(c->img)->cluster_bytes,
                                               c->l2s->len));
        for (;;) {
                while (s->next < c->l2s->len && !table_reads_full(&s->reads))
                        begin_l2(s, c);
                if (table_reads_idle(&s->reads))
                        break;
                CO_AWAIT(&s->walk, table_reads_next(&s->reads, &s->bytes, &s->tag));
                if (s->walk.co.ret < 0) {
                        check_report(c, "ERROR: I/O error reading the L2 table at 0x%" PRIx64
                                     ": %s", g_array_index(c->l2s, struct check_l2, s->tag).offset,
                                     g_strerror(-s->walk.co.ret));
                        c->result->check_errors++;
                        continue;
                }
                CO_TRY(&s->walk, close, check_cancelled());
                CO_TRY(&s->walk, close, count_l2(s, c));
        }
close:
        CO_UNDO(&s->walk, table_reads_close(&s->reads));
out:
        CO_END(&s->walk);
}

/* ---- everything ---- */

static void announce(struct check_context *c)
{
        const struct geometry *g = image_geometry(c->img);
        uint64_t tables = c->l2s->len * UINT64_C(2) +
                          div_up(c->cluster_end, g->refblock_entries);

        if (c->progress_total)
                *c->progress_total += tables * g->cluster_bytes;
}

static int count_single_tables(struct check_context *c)
{
        const struct header *h = &c->img->header;
        uint64_t cluster_bytes = h->geometry.cluster_bytes;
        int ret;

        ret = check_count(c, 0, cluster_bytes, 1);
        if (ret == 0 && h->snapshot_count > 0)
                ret = check_count(c, h->snapshots_offset, c->img->snapshots_bytes, 1);
        if (ret == 0)
                ret = check_count(c, h->reftable_offset, h->reftable_clusters * cluster_bytes, 1);
        return ret;
}

int check_tree(struct check_tree *s, struct check_context *c)
{
        CO_BEGIN(s);
        s->compact_at = COMPACT_STEP;
        s->l1_bytes = 0;
        s->odd_bytes = 0;
        CO_TRY(s, out, count_single_tables(c));
        collect_l1s(s, c);
        for (s->l1_index = 0; s->l1_index < s->l1s->len; s->l1_index++)
                CO_TRY(s, out, walk_l1(s, c));
        CO_TRY(s, out, take_vmstate(s, c));
        CO_TRY(s, out, take_pins(s, c));
        merge_l2s(s, c->l2s);
        announce(c);
        CO_TRY(s, out, walk_l2s(s, c));
        CO_TRY(s, out, check_bitmaps(&s->bitmaps, c));
        CO_TRY(s, out, check_count_blocks(c));
out:
        if (s->l1s)
                g_array_free(s->l1s, TRUE);
        s->l1s = NULL;
        CO_END(s);
}
