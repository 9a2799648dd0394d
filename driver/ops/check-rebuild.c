/*
 * check-rebuild.c - a new refcount table with new blocks, from the references.
 *
 * The old structure may be anywhere and anything, so nothing of it is written to. The new one
 * goes to clusters that nothing references: behind the end of a file, on a block
 * device behind the last cluster in use, or wherever there is room.  When all of it
 * is durable the root switches to it.  A crash before the switch leaves the image as it was
 * found; after it, a complete structure.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "disk/refcount.h"
#include "ops/check-parts.h"

enum { MAX_BLOCKS = MAX_REFTABLE_BYTES / 8 };

/* A block that is needed but has no place yet. */
#define PLACE_WANTED UINT64_MAX

/* ---- places ---- */

static int want_block(struct check_rebuild *s, struct check_context *c, uint64_t cluster)
{
        uint64_t block = cluster >> image_geometry(c->img)->refblock_bits;

        if (block >= MAX_BLOCKS)
                return -EFBIG;
        if (s->table[block] == 0)
                s->table[block] = PLACE_WANTED;
        s->block_end = u64_max(s->block_end, block + 1);
        return 0;
}

/* count clusters in a row without references; they get one each. */
static int take_clusters(struct check_rebuild *s, struct check_context *c, uint64_t count,
                         uint64_t *ret_cluster)
{
        uint64_t first;
        uint64_t used;
        uint64_t i;
        int ret = 0;

        for (;;) {
                first = s->next_cluster;
                if (first + count > s->cluster_limit && s->wrapped)
                        return -ENOSPC;
                if (first + count > s->cluster_limit) {
                        s->wrapped = true;
                        s->next_cluster = 1;
                        continue;
                }
                used = tally_find_used(&c->tally, first, first + count);
                if (used == first + count)
                        break;
                s->next_cluster = used + 1;
        }
        s->next_cluster = first + count;
        *ret_cluster = first;
        for (i = 0; i < count && ret == 0; i++) {
                ret = tally_set(&c->tally, first + i, 1);
                if (ret == 0)
                        ret = want_block(s, c, first + i);
        }
        return ret;
}

static void release_clusters(struct check_context *c, uint64_t first, uint64_t count)
{
        uint64_t i;

        for (i = 0; i < count; i++)
                tally_set(&c->tally, first + i, 0);
}

/* Placing a block may want another block, until one counts its own cluster. */
static int place_blocks(struct check_rebuild *s, struct check_context *c)
{
        unsigned cluster_bits = image_geometry(c->img)->cluster_bits;
        uint64_t cluster;
        uint64_t block;
        bool placed;
        int ret;

        do {
                placed = false;
                for (block = 0; block < s->block_end; block++) {
                        if (s->table[block] != PLACE_WANTED)
                                continue;
                        ret = take_clusters(s, c, 1, &cluster);
                        if (ret < 0)
                                return ret;
                        s->table[block] = cluster << cluster_bits;
                        placed = true;
                }
        } while (placed);
        return 0;
}

static uint64_t table_clusters_for(const struct check_context *c, uint64_t blocks)
{
        return div_up(blocks * 8, image_geometry(c->img)->cluster_bytes);
}

/* The table may lie so far out that its own blocks make it longer. */
static int place_table(struct check_rebuild *s, struct check_context *c)
{
        uint64_t cluster;
        int ret;

        for (;;) {
                s->table_clusters = table_clusters_for(c, s->block_end);
                ret = take_clusters(s, c, s->table_clusters, &cluster);
                if (ret == 0)
                        ret = place_blocks(s, c);
                if (ret < 0)
                        return ret;
                if (table_clusters_for(c, s->block_end) == s->table_clusters)
                        break;
                release_clusters(c, cluster, s->table_clusters);
        }
        s->table_offset = cluster << image_geometry(c->img)->cluster_bits;
        return 0;
}

static int want_used_blocks(struct check_rebuild *s, struct check_context *c)
{
        unsigned bits = image_geometry(c->img)->refblock_bits;
        uint64_t end = c->tally.end;
        uint64_t cluster = tally_find_used(&c->tally, 0, end);
        int ret = 0;

        while (cluster < end && ret == 0) {
                ret = want_block(s, c, cluster);
                cluster = tally_find_used(&c->tally, u64_min(((cluster >> bits) + 1) << bits, end),
                                          end);
        }
        return ret;
}

static int plan(struct check_rebuild *s, struct check_context *c)
{
        const struct geometry *g = image_geometry(c->img);
        uint64_t in_use = c->result->image_end_offset >> g->cluster_bits;
        int ret;

        s->table = g_try_new0(uint64_t, MAX_BLOCKS);
        s->buffer = io_buffer_try_new(g->cluster_bytes);
        if (!s->table || !s->buffer)
                return -ENOMEM;
        s->block_end = 0;
        s->wrapped = false;
        s->cluster_limit = MAX_HOST_OFFSET >> g->cluster_bits;
        s->next_cluster = c->cluster_end;
        if (c->img->file.is_block_device) {
                s->cluster_limit = c->file_bytes >> g->cluster_bits;
                s->next_cluster = u64_max(c->tally.end, in_use);
        }
        ret = want_used_blocks(s, c);
        if (ret == 0)
                ret = place_blocks(s, c);
        if (ret == 0)
                ret = place_table(s, c);
        if (ret < 0)
                return ret;
        s->dirty_sectors = g_try_new0(uint64_t,
                                      s->table_clusters * g->cluster_bytes / 8 / 4096 + 1);
        return s->dirty_sectors ? 0 : -ENOMEM;
}

/* ---- writing ---- */

static void fill_block(struct check_rebuild *s, struct check_context *c)
{
        const struct geometry *g = image_geometry(c->img);
        uint64_t first = s->i << g->refblock_bits;
        uint64_t end = first + g->refblock_entries;
        uint64_t cluster = tally_find_used(&c->tally, first, end);

        memset(s->buffer, 0, g->cluster_bytes);
        for (; cluster < end; cluster = tally_find_used(&c->tally, cluster + 1, end))
                refcount_set(s->buffer, g->refcount_order, cluster - first,
                             MIN(tally_get(&c->tally, cluster), c->count_max));
}

static void fill_table(struct check_rebuild *s, struct check_context *c)
{
        uint64_t per_cluster = image_geometry(c->img)->cluster_bytes / 8;
        uint64_t i;

        for (i = 0; i < per_cluster; i++)
                be64_store(s->buffer + i * 8, s->table[s->i * per_cluster + i]);
}

static int write_all(struct check_rebuild *s, struct check_context *c)
{
        const struct geometry *g = image_geometry(c->img);

        CO_BEGIN(&s->write);
        for (s->i = 0; s->i < s->block_end; s->i++) {
                if (s->table[s->i] == 0)
                        continue;
                fill_block(s, c);
                CO_TRY(&s->write, out, io_write(&s->io, &c->img->file, s->table[s->i], s->buffer,
                                                g->cluster_bytes));
        }
        for (s->i = 0; s->i < s->table_clusters; s->i++) {
                fill_table(s, c);
                CO_TRY(&s->write, out, io_write(&s->io, &c->img->file,
                                                s->table_offset + s->i * g->cluster_bytes,
                                                s->buffer, g->cluster_bytes));
        }
out:
        CO_END(&s->write);
}

/* ---- switching ---- */

static void install(struct check_rebuild *s, struct check_context *c)
{
        const struct geometry *g = image_geometry(c->img);
        struct refs *refs = &c->img->refs;
        uint64_t end = (c->tally.end + 1) << g->cluster_bits;

        slices_reset(&refs->cache);
        g_free(refs->table);
        g_free(refs->dirty_sectors);
        refs->table = s->table;
        refs->dirty_sectors = s->dirty_sectors;
        refs->table_entries = s->table_clusters * g->cluster_bytes / 8;
        refs->any_dirty = false;
        refs_forget_free(c->img);
        if (refs->fresh_offset < end)
                refs->fresh_offset = end;
        c->img->compressed_next = 0;
        s->table = NULL;
        s->dirty_sectors = NULL;
}

static void note_fixed(struct check_context *c)
{
        struct hvb_check_result *r = c->result;

        r->corruptions -= c->block_errors + c->count_errors;
        r->corruptions_fixed += c->block_errors + c->count_errors;
        r->leaks -= c->count_leaks;
        r->leaks_fixed += c->count_leaks;
}

int check_rebuild(struct check_rebuild *s, struct check_context *c)
{
        CO_BEGIN(s);
        check_report(c, "Rebuilding refcount structure");
        CO_TRY(s, out, plan(s, c));
        check_uncount_blocks(c);
        CO_TRY(s, out, write_all(s, c));
        s->change = (struct root_change) {
                .what = ROOT_REFTABLE,
                .reftable_offset = s->table_offset,
                .reftable_clusters = (uint32_t)s->table_clusters,
        };
        CO_TRY(s, out, root_switch(&s->root, c->img, &s->change));
        install(s, c);
        note_fixed(c);
out:
        free(s->buffer);
        g_free(s->table);
        g_free(s->dirty_sectors);
        s->buffer = NULL;
        s->table = NULL;
        s->dirty_sectors = NULL;
        CO_END(s);
}
