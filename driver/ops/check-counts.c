/*
 * check-counts.c - the counts on disk against the references.
 *
 * A report looks only at counts of clusters that the file has, or that are referenced: what
 * a refcount table says beyond costs nothing.  A repair of leaks goes to the end of the
 * blocks: a crash leaves counts of clusters that the file did not reach yet.  Where no block
 * counts a range, only the clusters that are referenced are visited.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/refcount.h"
#include "ops/check-parts.h"

/* ---- the refcount table ---- */

static uint64_t block_offset(const struct check_context *c, uint64_t block)
{
        const struct refs *refs = &c->img->refs;

        return block < refs->table_entries ? refs->table[block] & REFTABLE_OFFSET_MASK : 0;
}

/* Can the block be read? */
static bool is_block(const struct check_context *c, uint64_t block)
{
        const struct geometry *g = image_geometry(c->img);
        uint64_t offset = block_offset(c, block);

        return offset != 0 && (offset & (g->cluster_bytes - 1)) == 0 &&
               offset >> g->cluster_bits < c->cluster_end;
}

static void broken(struct check_context *c, uint64_t block, const char *why)
{
        check_report(c, "ERROR refcount block %" PRIu64 " %s", block, why);
        c->result->corruptions++;
        c->block_errors++;
        c->rebuild = true;
}

static int count_block(struct check_context *c, uint64_t block)
{
        const struct geometry *g = image_geometry(c->img);
        uint64_t offset = block_offset(c, block);
        char why[64];
        uint32_t refs;
        int ret;

        if (c->img->refs.table[block] & REFTABLE_RESERVED_MASK) {
                broken(c, block, "has reserved bits set in its refcount table entry");
                return 0;
        }
        if (offset == 0)
                return 0;
        if (!is_block(c, block)) {
                broken(c, block, offset & (g->cluster_bytes - 1)
                       ? "is not cluster aligned; refcount table entry corrupted"
                       : "is outside image");
                return 0;
        }
        ret = check_count(c, offset, g->cluster_bytes, 1);
        if (ret < 0)
                return ret;
        refs = tally_get(&c->tally, offset >> g->cluster_bits);
        if (refs == 1)
                return 0;
        g_snprintf(why, sizeof(why), "refcount=%u", refs);
        broken(c, block, why);
        return 0;
}

int check_count_blocks(struct check_context *c)
{
        uint64_t block;
        int ret = 0;

        c->cluster_end = u64_max(c->cluster_end, c->tally.end);
        for (block = 0; block < c->img->refs.table_entries && ret == 0; block++)
                if (c->img->refs.table[block] != 0)
                        ret = count_block(c, block);
        c->cluster_end = u64_max(c->cluster_end, c->tally.end);
        return ret;
}

/* Nobody knows how many references a saturated counter stands for: it stays. */
static void uncount(struct check_context *c, uint64_t cluster)
{
        uint32_t refs = tally_get(&c->tally, cluster);

        if (refs > 0 && refs < UINT32_MAX)
                tally_set(&c->tally, cluster, refs - 1);
}

void check_uncount_blocks(struct check_context *c)
{
        const struct header *h = &c->img->header;
        uint64_t table = h->reftable_offset >> h->geometry.cluster_bits;
        uint64_t i;

        for (i = 0; i < h->reftable_clusters; i++)
                uncount(c, table + i);
        for (i = 0; i < c->img->refs.table_entries; i++)
                if (is_block(c, i) && !(c->img->refs.table[i] & REFTABLE_RESERVED_MASK))
                        uncount(c, block_offset(c, i) >> h->geometry.cluster_bits);
}

/* ---- comparing ---- */

static void note_slice(struct check_context *c, uint64_t block, uint64_t cluster)
{
        const struct geometry *g = image_geometry(c->img);
        uint64_t per_slice = refs_slice_counts(c->img);
        uint64_t in_block = cluster & (g->refblock_entries - 1);
        struct check_count_slice slice = {
                .host_offset = block_offset(c, block) + in_block / per_slice * g->slice_bytes,
                .first_cluster = round_down(cluster, per_slice),
        };
        GArray *slices = c->count_slices;

        if (slices->len > 0 &&
            g_array_index(slices, struct check_count_slice, slices->len - 1).host_offset ==
            slice.host_offset)
                return;
        g_array_append_val(slices, slice);
}

static int differs(struct check_context *c, uint64_t cluster, uint64_t count, uint32_t refs)
{
        check_report(c, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%u",
                     count < refs ? "ERROR" : "Leaked", cluster, count, refs);
        if (count < refs)
                c->count_errors++;
        else
                c->count_leaks++;
        if (c->fix)
                return 0;
        return tally_set(&c->tally, cluster, (uint32_t)u64_min(count, UINT32_MAX));
}

/* A range that no block counts: every reference in it is one too many. */
static int compare_uncounted(struct check_counts *s, struct check_context *c, uint64_t first,
                             uint64_t end)
{
        uint64_t cluster = tally_find_used(&c->tally, first, end);
        int ret = 0;

        for (; cluster < end && ret == 0; cluster = tally_find_used(&c->tally, cluster + 1, end)) {
                s->used_end = cluster + 1;
                c->rebuild = true;
                ret = differs(c, cluster, 0, tally_get(&c->tally, cluster));
        }
        return ret;
}

static int compare_block(struct check_counts *s, struct check_context *c, uint64_t block,
                         uint64_t first, uint64_t end)
{
        const struct geometry *g = image_geometry(c->img);
        uint64_t cluster;
        int ret = 0;

        for (cluster = first; cluster < end && ret == 0; cluster++) {
                uint64_t count = refcount_get(s->bytes, g->refcount_order, cluster - first);
                uint32_t refs = MIN(tally_get(&c->tally, cluster), c->count_max);

                if (count == 0 && refs == 0)
                        continue;
                s->used_end = cluster + 1;
                if (count == refs || (refs == UINT32_MAX && count > refs))
                        continue;
                ret = differs(c, cluster, count, refs);
                if (c->fix)
                        note_slice(c, block, cluster);
        }
        check_progress(c, g->cluster_bytes);
        return ret;
}

/* Ranges without a block up to this one are passed on the way. */
static int compare_up_to(struct check_counts *s, struct check_context *c, uint64_t block,
                         bool readable)
{
        const struct geometry *g = image_geometry(c->img);
        int ret = 0;

        if (s->done < block)
                ret = compare_uncounted(s, c, s->done << g->refblock_bits,
                                        u64_min(block << g->refblock_bits, c->cluster_end));
        if (ret == 0 && readable)
                ret = compare_block(s, c, block, block << g->refblock_bits,
                                    u64_min((block + 1) << g->refblock_bits, c->count_end));
        s->done = block + readable;
        return ret;
}

static int unreadable(struct check_counts *s, struct check_context *c)
{
        int ret = compare_up_to(s, c, s->tag, false);

        check_report(c, "ERROR: Can't get refcounts of refcount block %" PRIu64 ": %s", s->tag,
                     g_strerror(-s->co.ret));
        c->result->check_errors++;
        s->done = s->tag + 1;
        return ret;
}

static void begin_block(struct check_counts *s, struct check_context *c)
{
        if (is_block(c, s->next))
                table_reads_begin(&s->reads, block_offset(c, s->next), s->next);
        s->next++;
}

/* Blocks that are about to be rebuilt say nothing about what the file does not have. */
static uint64_t count_end(const struct check_context *c)
{
        bool all = (c->fix & HVB_CHECK_FIX_LEAKS) && !c->rebuild;
        uint64_t counted = c->img->refs.table_entries << image_geometry(c->img)->refblock_bits;

        return all ? u64_max(c->cluster_end, counted) : c->cluster_end;
}

int check_counts(struct check_counts *s, struct check_context *c)
{
        const struct geometry *g = image_geometry(c->img);

        CO_BEGIN(s);
        c->count_end = count_end(c);
        s->next = 0;
        s->done = 0;
        s->used_end = 0;
        s->block_end = u64_min(div_up(c->count_end, g->refblock_entries),
                               c->img->refs.table_entries);
        CO_TRY(s, out, table_reads_open(&s->reads, &c->img->file, g->cluster_bytes,
                                        s->block_end));
        for (;;) {
                while (s->next < s->block_end && !table_reads_full(&s->reads))
                        begin_block(s, c);
                if (table_reads_idle(&s->reads))
                        break;
                CO_AWAIT(s, table_reads_next(&s->reads, &s->bytes, &s->tag));
                if (s->co.ret < 0)
                        CO_TRY(s, close, unreadable(s, c));
                else
                        CO_TRY(s, close, compare_up_to(s, c, s->tag, true));
                CO_TRY(s, close, check_cancelled());
        }
        CO_TRY(s, close, compare_up_to(s, c, div_up(c->cluster_end, g->refblock_entries), false));
        c->result->image_end_offset = s->used_end << g->cluster_bits;
        c->result->corruptions += c->count_errors;
        c->result->leaks += c->count_leaks;
close:
        CO_UNDO(s, table_reads_close(&s->reads));
out:
        CO_END(s);
}
