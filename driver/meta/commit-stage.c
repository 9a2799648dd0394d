/*
 * commit-stage.c - see commit-stage.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "meta/commit-stage.h"

enum {
        CHUNK_BYTES = 64 << 10,         /* and the longest write */
        KEEP_CHUNKS = 64,
};

/* A dirty piece of a table. */
struct piece {
        uint64_t host_offset;
        struct slice *slice;            /* NULL: a sector of a table in memory */
        struct slice_cache *cache;
        const uint64_t *entries;
        uint64_t entry_count;
        uint64_t *dirty_word;           /* for putting the mark back; NULL: not that */
        uint64_t dirty_mask;
};

void stage_reset(struct stage *st)
{
        if (st->chunks->len > KEEP_CHUNKS)
                g_ptr_array_set_size(st->chunks, KEEP_CHUNKS);
        g_array_set_size(st->pieces, 0);
}

/* Fresh memory costs much more than the copy into it, a page fault each 4 KiB: it is touched here,
 * a chunk at a time, while pieces become dirty, so that a commit does not pay for all. */
static int stage_add_chunk(struct stage *st)
{
        uint8_t *chunk = io_buffer_try_new(CHUNK_BYTES);

        if (!chunk)
                return -ENOMEM;
        memset(chunk, 0, CHUNK_BYTES);
        g_ptr_array_add(st->chunks, chunk);
        return 0;
}

static bool stage_has_room(const struct stage *st, uint64_t byte_count)
{
        return st->chunks->len * (uint64_t)CHUNK_BYTES >= byte_count;
}

void stage_expect(struct stage *st, uint64_t byte_count)
{
        if (!stage_has_room(st, byte_count) && st->chunks->len < KEEP_CHUNKS)
                stage_add_chunk(st);
}

static uint8_t *piece_copy(const struct stage *st, uint64_t number)
{
        uint64_t each = CHUNK_BYTES / st->piece_bytes;

        return (uint8_t *)g_ptr_array_index(st->chunks, number / each) +
               number % each * st->piece_bytes;
}

static gint by_offset(gconstpointer a, gconstpointer b)
{
        uint64_t x = ((const struct piece *)a)->host_offset;
        uint64_t y = ((const struct piece *)b)->host_offset;

        return x < y ? -1 : x > y;
}

void stage_add_slices(struct stage *st, struct slice_cache *c)
{
        GList *l;

        for (l = c->dirty.head; l; l = l->next) {
                struct slice *slice = l->data;
                struct piece p = { .host_offset = slice->host_offset, .slice = slice, .cache = c };

                g_array_append_val(st->pieces, p);
        }
}

void stage_add_table(struct stage *st, const uint64_t *entries, uint64_t entry_count,
                     uint64_t offset, uint64_t *dirty, unsigned unit_sectors)
{
        uint64_t unit_entries = unit_sectors * 64;
        uint64_t unit_mask = (unit_sectors == 64 ? 0 : UINT64_C(1) << unit_sectors) - 1;
        uint64_t units = div_up(entry_count, unit_entries);
        uint64_t i;

        for (i = 0; i < units; i++) {
                uint64_t first_sector = i * unit_sectors;
                uint64_t *word = &dirty[first_sector / 64];
                uint64_t mask = (*word >> (first_sector % 64)) & unit_mask;
                struct piece p = {
                        .host_offset = offset + first_sector * 512,
                        .entries = entries + i * unit_entries,
                        .entry_count = u64_min(unit_entries, entry_count - i * unit_entries),
                        .dirty_word = word,
                        .dirty_mask = mask << (first_sector % 64),
                };

                if (mask)
                        g_array_append_val(st->pieces, p);
        }
}

static void copy_piece(const struct piece *p, uint8_t *to, uint64_t bytes)
{
        uint64_t i;

        if (p->slice) {
                memcpy(to, p->slice->bytes, bytes);
                return;
        }
        for (i = 0; i < p->entry_count; i++)
                be64_store(to + i * 8, p->entries[i]);
        memset(to + p->entry_count * 8, 0, bytes - p->entry_count * 8);
}

int stage_copy(struct stage *st, uint64_t piece_bytes)
{
        unsigned i;

        st->piece_bytes = piece_bytes;
        while (!stage_has_room(st, st->pieces->len * piece_bytes))
                if (stage_add_chunk(st) < 0)
                        return -ENOMEM;
        g_array_sort(st->pieces, by_offset);
        for (i = 0; i < st->pieces->len; i++)
                copy_piece(&g_array_index(st->pieces, struct piece, i), piece_copy(st, i),
                           piece_bytes);
        return 0;
}

void stage_take(struct stage *st)
{
        unsigned i;

        for (i = 0; i < st->pieces->len; i++) {
                struct piece *p = &g_array_index(st->pieces, struct piece, i);

                if (p->slice)
                        slices_take_dirty(p->cache, p->slice);
                else
                        *p->dirty_word &= ~p->dirty_mask;
        }
}

void stage_settle(struct stage *st, bool failed)
{
        unsigned i;

        for (i = 0; i < st->pieces->len; i++) {
                struct piece *p = &g_array_index(st->pieces, struct piece, i);

                if (p->slice && failed)
                        slice_mark_dirty(p->cache, p->slice);
                if (p->slice)
                        slice_unpin(p->cache, p->slice);
                else if (failed && p->dirty_word)
                        *p->dirty_word |= p->dirty_mask;
        }
        stage_reset(st);
}

void stage_forget_marks(struct stage *st)
{
        unsigned i;

        for (i = 0; i < st->pieces->len; i++)
                g_array_index(st->pieces, struct piece, i).dirty_word = NULL;
}

static void start_write(struct stage *st)
{
        uint64_t first = st->next++;
        const struct piece *p = &g_array_index(st->pieces, struct piece, first);
        uint64_t length = st->piece_bytes;
        struct io *io = &st->io[st->begun++ % STAGE_WRITES];

        while (st->next < st->pieces->len && st->next % (CHUNK_BYTES / st->piece_bytes) != 0 &&
               p->host_offset + length ==
               g_array_index(st->pieces, struct piece, st->next).host_offset) {
                length += st->piece_bytes;
                st->next++;
        }
        io_prepare(io, IO_WRITE, st->file, p->host_offset, piece_copy(st, first), length);
        io_start(io);
}

int stage_write(struct stage *st)
{
        CO_BEGIN(st);
        st->next = 0;
        st->begun = 0;
        st->ended = 0;
        st->first_error = 0;
        for (;;) {
                while (st->next < st->pieces->len && st->begun - st->ended < STAGE_WRITES &&
                       st->first_error == 0)
                        start_write(st);
                if (st->begun == st->ended)
                        break;
                CO_AWAIT(st, io_wait(&st->io[st->ended % STAGE_WRITES]));
                if (st->co.ret < 0 && st->first_error == 0)
                        st->first_error = st->co.ret;
                st->ended++;
        }
        st->co.err = st->first_error;
        CO_END(st);
}

void stage_init(struct stage *st, struct image *img)
{
        st->pieces = g_array_new(FALSE, FALSE, sizeof(struct piece));
        st->chunks = g_ptr_array_new_with_free_func(free);
        st->file = &img->file;
}

void stage_clear(struct stage *st)
{
        g_ptr_array_free(st->chunks, TRUE);
        g_array_free(st->pieces, TRUE);
}
