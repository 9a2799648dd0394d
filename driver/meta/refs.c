/*
 * refs.c - reading and changing counts.
 *
 * Everything that changes counts from memory alone happens in one step of the loop; the
 * coroutines only bring slices in and try again.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "disk/error.h"
#include "disk/refcount.h"
#include "meta/refs.h"

/* The part of the table that the file has; what it only declares is zero, and not read. */
static uint64_t table_bytes_in_file(struct image *img)
{
        const struct geometry *g = image_geometry(img);
        int64_t length = io_file_length(&img->file);
        uint64_t bytes = img->header.reftable_clusters * g->cluster_bytes;

        if (length < 0 || (uint64_t)length <= img->header.reftable_offset)
                return 0;
        return u64_min(bytes, round_up((uint64_t)length - img->header.reftable_offset,
                                       g->slice_bytes));
}

static int table_from_bytes(struct refs *refs, const uint8_t *bytes, uint64_t byte_count)
{
        uint64_t i;

        refs->table = g_try_new0(uint64_t, refs->table_entries);
        refs->dirty_sectors = g_try_new0(uint64_t, refs->table_entries / 4096 + 1);
        if (!refs->table || !refs->dirty_sectors)
                return -ENOMEM;
        for (i = 0; i < byte_count / 8; i++)
                refs->table[i] = be64_load(bytes + i * 8);
        return 0;
}

int refs_open(struct refs_io *s, struct image *img, struct hvb_error *err)
{
        const struct geometry *g = image_geometry(img);
        struct refs *refs = &img->refs;

        CO_BEGIN(s);
        *refs = (struct refs) {
                .table_entries = img->header.reftable_clusters * g->cluster_bytes / 8,
        };
        refs->frees = g_array_new(FALSE, FALSE, sizeof(struct pending_free));
        CO_TRY(s, out, slices_init(&refs->cache, &img->file, g->slice_bytes,
                                   u64_max(img->refs_cache_limit, 1 << 20)));
        s->byte_count = table_bytes_in_file(img);
        s->buffer = io_buffer_try_new(u64_max(s->byte_count, g->slice_bytes));
        if (!s->buffer)
                CO_FAIL(s, out, -ENOMEM);
        CO_TRY(s, free_buffer, io_read(&s->io, &img->file, img->header.reftable_offset,
                                       s->buffer, s->byte_count, false));
        CO_TRY(s, free_buffer, table_from_bytes(refs, s->buffer, s->byte_count));
free_buffer:
        free(s->buffer);
        s->buffer = NULL;
out:
        if (s->co.err)
                error_set(err, s->co.err, "Could not read the refcount table at 0x%" PRIx64
                          ": %s", img->header.reftable_offset, g_strerror(-s->co.err));
        CO_END(s);
}

void refs_clear(struct refs *refs)
{
        slices_clear(&refs->cache);
        g_free(refs->full_blocks);
        g_free(refs->table);
        g_free(refs->dirty_sectors);
        if (refs->frees)
                g_array_free(refs->frees, TRUE);
        *refs = (struct refs) { .table = NULL };
}

/* ---- blocks without a free cluster ---- */

void refs_forget_free(struct image *img)
{
        g_free(img->refs.full_blocks);
        img->refs.full_blocks = NULL;
        img->refs.full_words = 0;
        img->refs.free_hint = 0;
}

bool refs_is_full(const struct image *img, uint64_t block)
{
        return block / 64 < img->refs.full_words &&
               (img->refs.full_blocks[block / 64] >> block % 64 & 1) != 0;
}

static bool full_words_grow(struct refs *refs, uint64_t words)
{
        uint64_t *grown = g_try_renew(uint64_t, refs->full_blocks, words);

        if (!grown)
                return false;
        memset(grown + refs->full_words, 0, (words - refs->full_words) * sizeof(*grown));
        refs->full_blocks = grown;
        refs->full_words = words;
        return true;
}

void refs_note_full(struct image *img, uint64_t block)
{
        struct refs *refs = &img->refs;

        if (block >= refs->table_entries ||
            (block / 64 >= refs->full_words &&
             !full_words_grow(refs, div_up(refs->table_entries, 64))))
                return;
        refs->full_blocks[block / 64] |= UINT64_C(1) << block % 64;
}

static void note_free(struct image *img, uint64_t cluster_index)
{
        uint64_t block = cluster_index >> image_geometry(img)->refblock_bits;

        if (refs_is_full(img, block))
                img->refs.full_blocks[block / 64] &= ~(UINT64_C(1) << block % 64);
        img->refs.free_hint = u64_min(img->refs.free_hint, cluster_index);
}

/* ---- where a count lies ---- */

uint64_t refs_slice_counts(const struct image *img)
{
        const struct geometry *g = image_geometry(img);

        return g->refblock_entries / (g->cluster_bytes / g->slice_bytes);
}

/* 0 with *ret_offset 0: no refcount block, all counts are 0. */
int refs_slice_offset(struct image *img, uint64_t cluster_index, uint64_t *ret_offset)
{
        const struct geometry *g = image_geometry(img);
        uint64_t block = cluster_index >> g->refblock_bits;
        uint64_t in_block = cluster_index & (g->refblock_entries - 1);
        uint64_t entry;

        if (block >= img->refs.table_entries || img->refs.table[block] == 0) {
                *ret_offset = 0;
                return 0;
        }
        entry = img->refs.table[block];
        if (entry & (g->cluster_bytes - 1) || entry >= MAX_HOST_OFFSET)
                return image_corrupt(img, "%s: refcount table entry %" PRIu64 " (0x%" PRIx64
                                     ") is not a cluster offset", img->name, block, entry);
        if (image_is_metadata(img, entry, g->cluster_bytes))
                return image_corrupt(img, "%s: refcount table entry %" PRIu64 " (0x%" PRIx64
                                     ") lies on metadata", img->name, block, entry);
        *ret_offset = entry + in_block / refs_slice_counts(img) * g->slice_bytes;
        return 0;
}

int refs_get_cached(struct image *img, uint64_t cluster_index, uint64_t *ret_count)
{
        struct slice *slice;
        uint64_t offset;
        int ret;

        ret = refs_slice_offset(img, cluster_index, &offset);
        if (ret < 0)
                return ret;
        if (offset == 0) {
                *ret_count = 0;
                return 0;
        }
        slice = slices_find(&img->refs.cache, offset);
        if (!slice)
                return -EAGAIN;
        *ret_count = refcount_get(slice->bytes, image_geometry(img)->refcount_order,
                                  cluster_index % refs_slice_counts(img));
        return 0;
}

int refs_bring(struct refs_bring *s, struct image *img, uint64_t cluster_index)
{
        CO_BEGIN(s);
        CO_TRY(s, out, refs_slice_offset(img, cluster_index, &s->offset));
        if (s->offset == 0)
                goto out;
        CO_TRY(s, out, slices_load(&s->load, &img->refs.cache, s->offset, &s->slice));
        slice_unpin(&img->refs.cache, s->slice);
out:
        CO_END(s);
}

int refs_get(struct refs_get *s, struct image *img, uint64_t cluster_index, uint64_t *ret_count)
{
        CO_BEGIN(s);
        while ((s->ret = refs_get_cached(img, cluster_index, ret_count)) == -EAGAIN)
                CO_TRY(s, out, refs_bring(&s->bring, img, cluster_index));
        if (s->ret < 0)
                CO_FAIL(s, out, s->ret);
out:
        CO_END(s);
}

/* ---- changing counts ---- */

static int refused(struct image *img, const struct slice *slice, uint64_t cluster_index,
                   int delta)
{
        uint64_t count = refcount_get(slice->bytes, image_geometry(img)->refcount_order,
                                      cluster_index % refs_slice_counts(img));

        if (count != 0)
                return -EINVAL;
        return image_corrupt(img, "%s: host cluster %" PRIu64 " is in use, but its refcount is 0 "
                             "(%s)", img->name, cluster_index,
                             delta > 0 ? "counting up" : "counting down");
}

/* Some counts of the slice fell: clusters below the hint may be free now, and the one that
 * compressed data is being packed into may be gone. */
static void note_freed(struct image *img, const struct slice *slice, uint64_t first,
                       uint64_t count)
{
        uint64_t at = first % refs_slice_counts(img);
        uint64_t packed = img->compressed_next >> image_geometry(img)->cluster_bits;
        uint64_t zero;

        if (packed >= first && packed < first + count &&
            refcount_get(slice->bytes, image_geometry(img)->refcount_order,
                         at + (packed - first)) == 0)
                img->compressed_next = 0;
        if (first >= img->refs.free_hint &&
            !refs_is_full(img, first >> image_geometry(img)->refblock_bits))
                return;
        zero = refcount_find_zero(slice->bytes, image_geometry(img)->refcount_order, at,
                                  at + count);
        if (zero < at + count)
                note_free(img, first + (zero - at));
}

uint64_t refs_add_cached(struct image *img, uint64_t cluster_index, uint64_t cluster_count,
                         int delta, int *ret_why)
{
        unsigned order = image_geometry(img)->refcount_order;
        uint64_t per_slice = refs_slice_counts(img);
        uint64_t done = 0;

        while (done < cluster_count) {
                uint64_t first = cluster_index + done;
                uint64_t n = u64_min(cluster_count - done, per_slice - first % per_slice);
                struct slice *slice;
                uint64_t changed;
                uint64_t offset;

                *ret_why = refs_slice_offset(img, first, &offset);
                if (*ret_why == 0 && offset == 0)
                        *ret_why = image_corrupt(img, "%s: host cluster %" PRIu64 " is in use, but "
                                                 "no refcount block covers it", img->name, first);
                if (*ret_why < 0)
                        break;
                slice = slices_find(&img->refs.cache, offset);
                if (!slice) {
                        *ret_why = -EAGAIN;
                        break;
                }
                changed = refcount_add_run(slice->bytes, order, first % per_slice, n, delta);
                if (changed > 0)
                        slice_mark_dirty(&img->refs.cache, slice);
                if (changed > 0 && delta < 0)
                        note_freed(img, slice, first, changed);
                done += changed;
                if (changed < n) {
                        *ret_why = refused(img, slice, first + changed, delta);
                        break;
                }
        }
        return done;
}

static uint64_t add_more(struct refs_add *s, struct image *img, uint64_t cluster_index,
                         uint64_t cluster_count, int delta)
{
        s->why = 0;
        s->done += refs_add_cached(img, cluster_index + s->done, cluster_count - s->done, delta,
                                   &s->why);
        return s->done;
}

/*
 * Counting up is all or nothing.  Counting down goes on past a count that is 0
 * already (the cluster is free, as wished) and reports the corruption at the end.
 */
int refs_add(struct refs_add *s, struct image *img, uint64_t cluster_index,
             uint64_t cluster_count, int delta)
{
        CO_BEGIN(s);
        s->done = 0;
        s->first_error = 0;
        while (add_more(s, img, cluster_index, cluster_count, delta) < cluster_count) {
                if (s->why == -EAGAIN) {
                        CO_TRY(s, undo, refs_bring(&s->bring, img, cluster_index + s->done));
                        continue;
                }
                if (delta > 0)
                        CO_FAIL(s, undo, s->why);
                s->first_error = s->why;
                s->done++;
        }
        s->co.err = s->first_error;
        goto out;
undo:
        /* Slices just changed are resident, but for what a commit cleaned and the cache
         * evicted since: that leaks. */
        if (delta > 0 &&
            refs_add_cached(img, cluster_index, s->done, -1, &s->why) < s->done)
                co_leak(s->why);
out:
        CO_END(s);
}

/* Goes on after an error, as refs_add does: what is left of the references goes. */
int clusters_free(struct clusters_free *s, struct image *img, uint64_t host_offset,
                  uint64_t byte_count, unsigned weight)
{
        const struct geometry *g = image_geometry(img);
        uint64_t first = host_offset >> g->cluster_bits;
        uint64_t count = div_up(byte_count, g->cluster_bytes);

        CO_BEGIN(s);
        for (s->left = weight; s->left > 0; s->left--) {
                CO_AWAIT(s, refs_add(&s->add, img, first, count, -1));
                if (s->co.ret < 0 && s->co.err == 0)
                        s->co.err = s->co.ret;
        }
        CO_END(s);
}

void clusters_free_later(struct image *img, uint64_t host_offset, uint64_t byte_count,
                         unsigned weight)
{
        const struct geometry *g = image_geometry(img);
        GArray *frees = img->refs.frees;
        struct pending_free f = {
                .cluster_index = host_offset >> g->cluster_bits,
                .cluster_count = div_up(byte_count, g->cluster_bytes),
                .weight = weight,
        };
        struct pending_free *last = frees->len > 0
                ? &g_array_index(frees, struct pending_free, frees->len - 1) : NULL;

        if (last && last->cluster_index + last->cluster_count == f.cluster_index &&
            last->weight == f.weight)
                last->cluster_count += f.cluster_count;
        else
                g_array_append_val(frees, f);
}

/* ---- reading ahead ---- */

static void add_slices(struct image *img, uint64_t host_offset, const uint8_t *bytes,
                       uint64_t byte_count)
{
        struct slice_cache *c = &img->refs.cache;
        uint64_t at;

        for (at = 0; at < byte_count; at += c->slice_bytes)
                slices_add(c, host_offset + at, bytes + at);
}

enum { MORE_BYTES = 64 << 10 };

/* The part of its block that is read with a slice; 0: that would crowd the cache. */
static uint64_t more_bytes(const struct image *img)
{
        const struct slice_cache *c = &img->refs.cache;
        uint64_t bytes = u64_min(image_geometry(img)->cluster_bytes, MORE_BYTES);

        return bytes > c->slice_bytes && bytes * 8 <= c->limit * c->slice_bytes ? bytes : 0;
}

int refs_bring_more(struct refs_bring_more *s, struct image *img, uint64_t cluster_index)
{
        CO_BEGIN(s);
        CO_TRY(s, out, refs_slice_offset(img, cluster_index, &s->offset));
        s->byte_count = s->offset ? more_bytes(img) : 0;
        if (s->byte_count > 0)
                s->buffer = io_buffer_try_new(s->byte_count);
        if (s->buffer) {
                s->offset = round_down(s->offset, s->byte_count);
                slices_watch(&s->watch, &img->refs.cache, s->offset, s->byte_count);
                CO_AWAIT(s, io_read(&s->io, &img->file, s->offset, s->buffer, s->byte_count,
                                    true));
                if (s->co.ret == 0 && !s->watch.is_stale)
                        add_slices(img, s->offset, s->buffer, s->byte_count);
                slices_unwatch(&s->watch, &img->refs.cache);
        }
        CO_TRY(s, out, refs_bring(&s->bring, img, cluster_index));
out:
        free(s->buffer);
        s->buffer = NULL;
        CO_END(s);
}

enum { PREFETCH_WINDOW = G_N_ELEMENTS(((struct refs_prefetch *)NULL)->io) };

static bool has_room(const struct image *img)
{
        const struct geometry *g = image_geometry(img);

        return img->refs.cache.count + g->cluster_bytes / g->slice_bytes * PREFETCH_WINDOW <=
               img->refs.cache.limit;
}

static bool prefetch_start(struct refs_prefetch *s, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        unsigned slot = s->begun % PREFETCH_WINDOW;
        uint64_t offset;

        /* A table that names blocks more than once names more than the file has. */
        if (s->begun >= s->most || task_is_cancelled(task_current()))
                return false;
        for (; s->next_block < img->refs.table_entries; s->next_block++) {
                if ((refs_is_full(img, s->next_block) && !has_room(img)) ||
                    refs_slice_offset(img, s->next_block << g->refblock_bits, &offset) < 0 ||
                    offset == 0 || slices_find(&img->refs.cache, offset))
                        continue;
                if (!s->buffers[slot])
                        s->buffers[slot] = io_buffer_try_new(g->cluster_bytes);
                if (!s->buffers[slot])
                        return false;
                s->blocks[slot] = s->next_block++;
                io_prepare(&s->io[slot], IO_READ, &img->file, offset, s->buffers[slot],
                           g->cluster_bytes);
                slices_watch(&s->watches[slot], &img->refs.cache, offset, g->cluster_bytes);
                io_start(&s->io[slot]);
                s->begun++;
                return true;
        }
        return false;
}

/* No block's count is 0, as memory has it: what is not resident is as it was read. */
static bool block_is_full(struct image *img, uint64_t host_offset, const uint8_t *bytes)
{
        const struct geometry *g = image_geometry(img);
        uint64_t per_slice = refs_slice_counts(img);
        uint64_t at;

        for (at = 0; at < g->cluster_bytes; at += g->slice_bytes) {
                struct slice *slice = slices_find(&img->refs.cache, host_offset + at);
                const uint8_t *counts = slice ? slice->bytes : bytes + at;

                if (refcount_find_zero(counts, g->refcount_order, 0, per_slice) < per_slice)
                        return false;
        }
        return true;
}

/* Slices that came in meanwhile may be newer than what we read: they stay.  Ones that came
 * and went could be newer in the file: then nothing is put in, or known. */
static void prefetch_put(struct refs_prefetch *s, struct image *img)
{
        unsigned slot = s->ended % PREFETCH_WINDOW;
        struct io *io = &s->io[slot];

        if (s->watches[slot].is_stale)
                return;
        if (block_is_full(img, io->offset, s->buffers[slot]))
                refs_note_full(img, s->blocks[slot]);
        if (has_room(img))
                add_slices(img, io->offset, s->buffers[slot], io->length);
}

int refs_prefetch(struct refs_prefetch *s, struct image *img)
{
        unsigned i;

        CO_BEGIN(s);
        s->next_block = 0;
        s->begun = 0;
        s->ended = 0;
        s->most = div_up((uint64_t)MAX(io_file_length(&img->file), 0),
                         image_geometry(img)->cluster_bytes);
        for (;;) {
                while (s->begun - s->ended < PREFETCH_WINDOW && prefetch_start(s, img))
                        ;
                if (s->begun == s->ended)
                        break;
                CO_AWAIT(s, io_wait(&s->io[s->ended % PREFETCH_WINDOW]));
                if (s->co.ret == 0)
                        prefetch_put(s, img);
                slices_unwatch(&s->watches[s->ended % PREFETCH_WINDOW], &img->refs.cache);
                s->ended++;
        }
        for (i = 0; i < PREFETCH_WINDOW; i++) {
                free(s->buffers[i]);
                s->buffers[i] = NULL;
        }
        CO_END(s);
}
