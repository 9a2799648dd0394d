/*
 * alloc.c - allocation of host clusters; adding refcount blocks.
 *
 * Order on disk when a block is added: the block itself is written first; the
 * table entry follows in a commit, after an fsync; entries that rely on its counts
 * after another.  A crash in between leaves clusters that nothing references
 * and nothing counts: free space.  A grown table is written whole, with the blocks
 * that count it and itself, then the root switches to it.
 *
 * Free clusters are found by going through the counts from the hint on.  In a large image most
 * counts are not in memory: a guest's write does not wait for more than a few loads, one
 * behind the other, and takes the end of the file instead.  The next one goes on from there.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "disk/refcount.h"
#include "meta/commit.h"
#include "meta/refs.h"

/* Loads of counts that one allocation waits for before it takes the end of the file. */
enum { MOST_SEARCHES = 8 };

static uint64_t cluster_limit(const struct image *img)
{
        return MAX_HOST_OFFSET >> image_geometry(img)->cluster_bits;
}

/* Free clusters at `first`, at most max_count, within its slice.  0: not free; or -errno. */
static int64_t free_run(struct image *img, uint64_t first, uint64_t max_count,
                        struct slice **ret_slice)
{
        unsigned order = image_geometry(img)->refcount_order;
        uint64_t per_slice = refs_slice_counts(img);
        uint64_t at = first % per_slice;
        uint64_t offset;
        int ret;

        if (first >= cluster_limit(img))
                return -ENOSPC;
        ret = refs_slice_offset(img, first, &offset);
        if (ret < 0)
                return ret;
        *ret_slice = offset ? slices_find(&img->refs.cache, offset) : NULL;
        if (!*ret_slice)
                return -EAGAIN;
        return refcount_find_used((*ret_slice)->bytes, order, at,
                                  u64_min(at + max_count, per_slice)) - at;
}

/* Nothing below is free: so nothing is in the blocks that lie below it as a whole. */
static void advance_hint(struct image *img, uint64_t to)
{
        unsigned block_bits = image_geometry(img)->refblock_bits;
        uint64_t block;

        for (block = img->refs.free_hint >> block_bits; block < to >> block_bits; block++)
                refs_note_full(img, block);
        img->refs.free_hint = to;
}

/* The first cluster from `first` on whose refcount block is not known to be full. */
static uint64_t skip_full(const struct image *img, uint64_t first)
{
        unsigned block_bits = image_geometry(img)->refblock_bits;
        uint64_t block = first >> block_bits;

        if (!refs_is_full(img, block))
                return first;
        while (refs_is_full(img, block))
                block++;
        return block << block_bits;
}

/* Counts a free run up to weight.  All slices are resident. */
static int claim(struct image *img, uint64_t first, uint64_t count, unsigned weight)
{
        const struct geometry *g = image_geometry(img);
        uint64_t per_slice = refs_slice_counts(img);
        uint64_t host_offset = first << g->cluster_bits;
        uint64_t end = (first + count) << g->cluster_bits;
        uint64_t i;

        if (image_is_metadata(img, host_offset, end - host_offset))
                return image_corrupt(img, "%s: refcounts call host range 0x%" PRIx64 "..0x%" PRIx64
                                     " free, but metadata lies there",
                                     img->name, host_offset, end);
        for (i = first; i < first + count; i++) {
                struct slice *slice;
                uint64_t offset;

                refs_slice_offset(img, i, &offset);
                slice = slices_find(&img->refs.cache, offset);
                refcount_set(slice->bytes, g->refcount_order, i % per_slice, weight);
                slice_mark_dirty(&img->refs.cache, slice);
        }
        if (first <= img->refs.free_hint)
                advance_hint(img, u64_max(img->refs.free_hint, first + count));
        img->refs.fresh_before = img->refs.fresh_offset;
        if (end > img->refs.fresh_offset)
                img->refs.fresh_offset = end;
        return 0;
}

bool clusters_take_fresh(struct image *img, uint64_t host_offset, uint64_t byte_count)
{
        return host_offset >= img->refs.fresh_before && byte_count > 0;
}

/* Moves free_hint to the first free cluster; then it is resident. */
static int find_free(struct image *img)
{
        uint64_t per_slice = refs_slice_counts(img);
        unsigned order = image_geometry(img)->refcount_order;

        for (;;) {
                uint64_t hint = skip_full(img, img->refs.free_hint);
                uint64_t at = hint % per_slice;
                struct slice *slice;
                int64_t run = free_run(img, hint, 1, &slice);

                img->refs.free_hint = hint;
                if (run != 0)
                        return run < 0 ? (int)run : 0;
                at = refcount_find_zero(slice->bytes, order, at, per_slice);
                advance_hint(img, round_down(hint, per_slice) + at);
        }
}

int clusters_alloc_cached(struct image *img, uint64_t max_count, unsigned weight,
                          uint64_t want_host_offset, uint64_t *ret_host_offset,
                          uint64_t *ret_count)
{
        unsigned cluster_bits = image_geometry(img)->cluster_bits;
        uint64_t first = want_host_offset >> cluster_bits;
        struct slice *slice;
        int64_t run = 0;
        int ret;

        if (first > img->refs.free_hint)
                run = free_run(img, first, max_count, &slice);
        if (run <= 0) {
                ret = find_free(img);
                if (ret < 0)
                        return ret;
                first = img->refs.free_hint;
                run = free_run(img, first, max_count, &slice);
        }
        if (run < 0)
                return (int)run;
        ret = claim(img, first, (uint64_t)run, weight);
        if (ret < 0)
                return ret;
        *ret_host_offset = first << cluster_bits;
        *ret_count = (uint64_t)run;
        return 0;
}

/* ---- adding refcount blocks ---- */

static bool has_block(struct image *img, uint64_t cluster_index)
{
        uint64_t block = cluster_index >> image_geometry(img)->refblock_bits;

        return block < img->refs.table_entries && img->refs.table[block] != 0;
}

/* A block lies among the clusters it counts: a run longer than what it leaves needs several. */
static uint64_t blocks_for_run(const struct image *img, uint64_t run_count)
{
        return div_up(run_count, image_geometry(img)->refblock_entries - 1);
}

/* Missing blocks in a row, all at the beginning of the clusters they count. */
static int blocks_layout(struct refs_grow_step *s, struct image *img, uint64_t block,
                         uint64_t run_count)
{
        const struct geometry *g = image_geometry(img);
        uint64_t wanted = u64_min(blocks_for_run(img, run_count),
                                  img->refs.table_entries - block);

        s->block_count = 1;
        while (s->block_count < wanted && img->refs.table[block + s->block_count] == 0)
                s->block_count++;
        s->total_clusters = s->block_count;
        s->first_cluster = block << g->refblock_bits;
        if (image_is_metadata(img, s->first_cluster << g->cluster_bits,
                              s->block_count << g->cluster_bits))
                return image_corrupt(img, "%s: refcount block %" PRIu64 " is missing, but metadata "
                                     "lies in the clusters that it counts", img->name, block);
        s->buffer = io_buffer_try_new(g->cluster_bytes);
        return s->buffer ? 0 : -ENOMEM;
}

/* The counts of block i of the new ones: what was added is in use. */
static void fill_block(struct refs_grow_step *s, struct image *img, uint64_t i)
{
        const struct geometry *g = image_geometry(img);
        uint64_t first = i << g->refblock_bits;
        uint64_t n;

        memset(s->buffer, 0, g->cluster_bytes);
        for (n = 0; n < g->refblock_entries && first + n < s->total_clusters; n++)
                refcount_set(s->buffer, g->refcount_order, n, 1);
}

static void note_written(struct image *img, uint64_t host_end)
{
        if (host_end > img->refs.fresh_offset)
                img->refs.fresh_offset = host_end;
}

static void install_block(struct refs_grow_step *s, struct image *img, uint64_t block)
{
        const struct geometry *g = image_geometry(img);
        uint64_t host_offset = (s->first_cluster + s->i) << g->cluster_bits;

        slices_put(&img->refs.cache, host_offset, s->buffer, g->cluster_bytes, true);
        img->refs.table[block] = host_offset;
        sectors_mark(img->refs.dirty_sectors, block);
        img->refs.any_dirty = true;
        note_written(img, host_offset + g->cluster_bytes);
}

/* All are written before the first is installed: nothing is allocated among them meanwhile. */
static int blocks_add(struct refs_grow_step *s, struct image *img, uint64_t block,
                      uint64_t run_count)
{
        const struct geometry *g = image_geometry(img);

        CO_BEGIN(s);
        CO_TRY(s, out, blocks_layout(s, img, block, run_count));
        for (s->i = s->block_count; s->i-- > 0;) {
                fill_block(s, img, s->i);
                CO_TRY(s, out, io_write(&s->io, &img->file,
                                        (s->first_cluster + s->i) << g->cluster_bits, s->buffer,
                                        g->cluster_bytes));
        }
        for (s->i = 0; s->i < s->block_count; s->i++) {
                fill_block(s, img, s->i);
                install_block(s, img, block + s->i);
        }
out:
        free(s->buffer);
        s->buffer = NULL;
        CO_END(s);
}

/* ---- a larger refcount table ---- */

/*
 * New blocks and then the new table, in a row, where the old table's reach ends:
 * no cluster there has a count, so all are free.
 */
static int table_layout(struct refs_grow_step *s, struct image *img, uint64_t block,
                        uint64_t run_count)
{
        const struct geometry *g = image_geometry(img);
        uint64_t old_entries = img->refs.table_entries;
        uint64_t grown = u64_min(old_entries + old_entries / 2, MAX_REFTABLE_BYTES / 8);
        uint64_t entries = u64_max(block + 1, grown);
        uint64_t table_clusters;

        s->block_count = 1;
        do {
                entries = u64_max(entries, old_entries + s->block_count);
                table_clusters = div_up(entries * 8, g->cluster_bytes);
                s->total_clusters = s->block_count + table_clusters;
        } while (s->total_clusters + run_count > s->block_count * g->refblock_entries &&
                 s->block_count++);

        s->new_entries = table_clusters * g->cluster_bytes / 8;
        s->first_cluster = old_entries << g->refblock_bits;
        if (s->new_entries * 8 > MAX_REFTABLE_BYTES ||
            s->first_cluster + s->total_clusters > cluster_limit(img))
                return -ENOSPC;
        if (image_is_metadata(img, s->first_cluster << g->cluster_bits,
                              s->total_clusters << g->cluster_bits))
                return image_corrupt(img, "%s: metadata lies beyond the clusters that the refcount "
                                     "table counts", img->name);
        s->new_table = g_try_new0(uint64_t, s->new_entries);
        s->buffer = io_buffer_try_new(u64_max(s->new_entries * 8, g->cluster_bytes));
        return s->new_table && s->buffer ? 0 : -ENOMEM;
}

static void fill_table(struct refs_grow_step *s, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        uint64_t i;

        memcpy(s->new_table, img->refs.table, img->refs.table_entries * 8);
        for (i = 0; i < s->block_count; i++)
                s->new_table[img->refs.table_entries + i] =
                        (s->first_cluster + i) << g->cluster_bits;
        for (i = 0; i < s->new_entries; i++)
                be64_store(s->buffer + i * 8, s->new_table[i]);
        s->change = (struct root_change) {
                .what = ROOT_REFTABLE,
                .reftable_offset = (s->first_cluster + s->block_count) << g->cluster_bits,
                .reftable_clusters = (uint32_t)(s->total_clusters - s->block_count),
        };
}

/* The old table goes with the next commit: one that runs now may still write to it. */
static void install_table(struct refs_grow_step *s, struct image *img, uint64_t old_offset,
                          uint64_t old_bytes)
{
        struct refs *refs = &img->refs;

        commit_forget_table(img);
        g_free(refs->table);
        g_free(refs->dirty_sectors);
        refs->table = s->new_table;
        refs->dirty_sectors = s->new_dirty;
        refs->any_dirty = false;
        refs->table_entries = s->new_entries;
        s->new_table = NULL;
        s->new_dirty = NULL;
        clusters_free_later(img, old_offset, old_bytes, 1);
        note_written(img, (s->first_cluster + s->total_clusters) <<
                          image_geometry(img)->cluster_bits);
}

static int table_grow(struct refs_grow_step *s, struct image *img, uint64_t block,
                      uint64_t run_count)
{
        const struct geometry *g = image_geometry(img);

        CO_BEGIN(s);
        CO_TRY(s, out, table_layout(s, img, block, run_count));
        s->new_dirty = g_try_new0(uint64_t, s->new_entries / 4096 + 1);
        if (!s->new_dirty)
                CO_FAIL(s, out, -ENOMEM);
        for (s->i = 0; s->i < s->block_count; s->i++) {
                fill_block(s, img, s->i);
                CO_TRY(s, out, io_write(&s->io, &img->file,
                                        (s->first_cluster + s->i) << g->cluster_bits, s->buffer,
                                        g->cluster_bytes));
        }
        fill_table(s, img);
        s->old_offset = img->header.reftable_offset;
        s->old_bytes = img->header.reftable_clusters * g->cluster_bytes;
        CO_TRY(s, out, io_write(&s->io, &img->file, s->change.reftable_offset, s->buffer,
                                s->new_entries * 8));
        CO_TRY(s, out, root_switch(&s->root, img, &s->change));
        install_table(s, img, s->old_offset, s->old_bytes);
out:
        free(s->buffer);
        g_free(s->new_table);
        g_free(s->new_dirty);
        s->buffer = NULL;
        s->new_table = NULL;
        s->new_dirty = NULL;
        CO_END(s);
}

int refs_grow(struct refs_grow *s, struct image *img, uint64_t cluster_index,
              uint64_t run_count)
{
        uint64_t block = cluster_index >> image_geometry(img)->refblock_bits;

        CO_BEGIN(s);
        CO_TRY(s, out, co_lock_acquire(&img->refs.grow_lock, &s->waiter));
        if (block >= img->refs.table_entries)
                CO_TRY(s, unlock, table_grow(&s->step, img, block, run_count));
        if (!has_block(img, cluster_index))
                CO_TRY(s, unlock, blocks_add(&s->step, img, block, run_count));
unlock:
        co_lock_release(&img->refs.grow_lock);
out:
        CO_END(s);
}

/* ---- the coroutines ---- */

/* Removes what stopped an allocation of run_count clusters at cluster_index. */
static int make_way(struct clusters_alloc *s, struct image *img, uint64_t cluster_index,
                    uint64_t run_count)
{
        if (s->growing || !has_block(img, cluster_index)) {
                int ret;

                s->growing = true;
                ret = refs_grow(&s->grow, img, cluster_index, run_count);
                if (ret != CO_PENDING)
                        s->growing = false;
                return ret;
        }
        return refs_bring_more(&s->bring, img, cluster_index);
}

/* Is there a place that needs no search?  On a block device nothing is known to be. */
static bool may_take_end(const struct clusters_alloc *s, const struct image *img)
{
        return !s->end_is_used && img->refs.fresh_offset != UINT64_MAX &&
               s->searches >= MOST_SEARCHES;
}

static int alloc_at_end(struct clusters_alloc *s, struct image *img, uint64_t max_count,
                        unsigned weight, uint64_t *ret_host_offset)
{
        unsigned cluster_bits = image_geometry(img)->cluster_bits;
        uint64_t first = img->refs.fresh_offset >> cluster_bits;
        struct slice *slice;
        int64_t run = free_run(img, first, max_count, &slice);

        s->scan = first;
        s->at_end = run == -EAGAIN;
        s->end_is_used = run <= 0 && run != -EAGAIN;
        if (run <= 0)
                return -EAGAIN;
        s->found_count = (uint64_t)run;
        *ret_host_offset = first << cluster_bits;
        return claim(img, first, s->found_count, weight);
}

/* From memory.  -EAGAIN: what is missing there is the count of s->scan. */
static int alloc_somewhere(struct clusters_alloc *s, struct image *img, uint64_t max_count,
                           unsigned weight, uint64_t want_host_offset, uint64_t *ret_host_offset)
{
        int ret = clusters_alloc_cached(img, max_count, weight, want_host_offset,
                                        ret_host_offset, &s->found_count);

        s->at_end = false;
        if (ret == -EAGAIN && may_take_end(s, img))
                ret = alloc_at_end(s, img, max_count, weight, ret_host_offset);
        if (ret == -EAGAIN && !s->at_end)
                s->scan = img->refs.free_hint;
        return ret;
}

/* One at a time loads the counts that the search needs next: all would load the same. */
static int alloc_run(struct clusters_alloc *s, struct image *img, uint64_t max_count,
                     unsigned weight, uint64_t want_host_offset, uint64_t *ret_host_offset)
{
        CO_BEGIN(&s->run);
        s->searches = 0;
        s->end_is_used = false;
        while ((s->why = alloc_somewhere(s, img, max_count, weight, want_host_offset,
                                         ret_host_offset)) == -EAGAIN) {
                s->searches++;
                if (s->at_end) {
                        CO_TRY(&s->run, out, make_way(s, img, s->scan, 1));
                } else if (img->refs.is_searched) {
                        CO_TRY(&s->run, out, waitq_wait(&img->refs.searched, &s->waiter));
                } else {
                        img->refs.is_searched = true;
                        CO_AWAIT(&s->run, make_way(s, img, s->scan, 1));
                        img->refs.is_searched = false;
                        waitq_wake_all(&img->refs.searched);
                        if (s->run.co.ret < 0)
                                CO_FAIL(&s->run, out, s->run.co.ret);
                }
        }
        if (s->why < 0)
                CO_FAIL(&s->run, out, s->why);
out:
        CO_END(&s->run);
}

int clusters_alloc_run(struct clusters_alloc *s, struct image *img, uint64_t max_count,
                       unsigned weight, uint64_t want_host_offset, uint64_t *ret_host_offset,
                       uint64_t *ret_count)
{
        int ret = alloc_run(s, img, max_count, weight, want_host_offset, ret_host_offset);

        *ret_count = s->found_count;
        return ret;
}

/* The first free cluster after a used one, or the end of its slice. */
static uint64_t next_free(struct image *img, const struct slice *slice, uint64_t used)
{
        uint64_t per_slice = refs_slice_counts(img);

        return round_down(used, per_slice) +
               refcount_find_zero(slice->bytes, image_geometry(img)->refcount_order,
                                  used % per_slice, per_slice);
}

/* Advances scan; 0 when the run_count clusters below scan are enough. */
static int scan_run(struct clusters_alloc *s, struct image *img, uint64_t cluster_count)
{
        while (s->run_count < cluster_count) {
                uint64_t next = skip_full(img, s->scan);
                struct slice *slice;
                int64_t run;

                s->run_count = next == s->scan ? s->run_count : 0;
                s->scan = next;
                run = free_run(img, s->scan, cluster_count - s->run_count, &slice);
                if (run < 0)
                        return (int)run;
                s->run_count = run > 0 ? s->run_count + (uint64_t)run : 0;
                s->scan = run > 0 ? s->scan + (uint64_t)run : next_free(img, slice, s->scan);
        }
        return 0;
}

/* Others allocate while we wait for slices: look at the whole run once more, at once. */
static int claim_run(struct clusters_alloc *s, struct image *img, uint64_t cluster_count,
                     unsigned weight)
{
        uint64_t end = s->scan;
        int ret;

        s->scan -= s->run_count;
        s->run_count = 0;
        ret = scan_run(s, img, cluster_count);
        if (ret < 0)
                return ret;
        if (s->scan != end)
                return -EAGAIN;
        return claim(img, end - cluster_count, cluster_count, weight);
}

int clusters_alloc(struct clusters_alloc *s, struct image *img, uint64_t cluster_count,
                   unsigned weight, uint64_t *ret_host_offset)
{
        CO_BEGIN(s);
        g_assert(cluster_count > 0);
        if (cluster_count == 1) {
                CO_TRY(s, out, alloc_run(s, img, 1, weight, 0, ret_host_offset));
                goto out;
        }
        s->scan = img->refs.free_hint;
        s->run_count = 0;
        for (;;) {
                s->why = scan_run(s, img, cluster_count);
                if (s->why == 0)
                        s->why = claim_run(s, img, cluster_count, weight);
                if (s->why != -EAGAIN)
                        break;
                CO_TRY(s, out, make_way(s, img, s->scan, cluster_count));
        }
        if (s->why < 0)
                CO_FAIL(s, out, s->why);
        *ret_host_offset = (s->scan - cluster_count) << image_geometry(img)->cluster_bits;
out:
        CO_END(s);
}

int refs_end(struct refs_end *s, struct image *img, uint64_t *ret_end_bytes)
{
        const struct geometry *g = image_geometry(img);
        uint64_t per_slice = refs_slice_counts(img);
        uint64_t used;

        CO_BEGIN(s);
        s->cluster = img->refs.table_entries << g->refblock_bits;
        while (s->cluster > 0) {
                s->cluster -= has_block(img, s->cluster - 1) ? per_slice : g->refblock_entries;
                if (!has_block(img, s->cluster))
                        continue;
                CO_TRY(s, out, refs_slice_offset(img, s->cluster, &s->offset));
                CO_TRY(s, out, slices_load(&s->load, &img->refs.cache, s->offset, &s->slice));
                for (used = per_slice; used > 0; used--)
                        if (refcount_get(s->slice->bytes, g->refcount_order, used - 1) != 0)
                                break;
                slice_unpin(&img->refs.cache, s->slice);
                if (used > 0) {
                        *ret_end_bytes = (s->cluster + used) << g->cluster_bits;
                        goto out;
                }
        }
        *ret_end_bytes = 0;
out:
        CO_END(s);
}
