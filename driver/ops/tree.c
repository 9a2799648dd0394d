/*
 * tree.c - the walk over all L2 tables of an L1.
 *
 * A ring of memory holds the tables in flight.  Batches of neighbouring tables are
 * read ahead as far as it has room, worked on in order, written back if their
 * COPIED flags changed, and then give their room to the next:
 *
 *      ended ........ worked ........ begun         batches
 *        | being written |  being read  |
 *
 * What a crash leaves.  COPIED is cleared while counts go up, in no order with them:
 * a clear flag only costs a copy, and one still set on a count of 2 has one
 * reference.  A write back changes flags alone, so a torn one is a mixture of
 * both.  COPIED is set only after the counts of 1 are durable.
 *
 * Counting up that fails takes back what it counted, by the same walk downwards.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "ops/tree-table.h"
#include "ops/tree.h"

enum {
        WINDOW_TABLES = 64,
        WINDOW_MIN_TABLES = 4,
        WINDOW_MIN_BYTES = 1 << 20,
        WINDOW_MAX_BYTES = 16 << 20,
        BATCH_MAX_BYTES = 1 << 20,
};

/* Batches in flight; a batch is one I/O on tables that are neighbours on the host. */
enum { TREE_BATCHES = 64 };

struct tree_batch {
        struct io io;                   /* the read, then the write back */
        uint64_t first;                 /* place of its first table in the walk */
        uint32_t count;                 /* tables */
        uint32_t changed_first;         /* tables [changed_first, changed_end) are written back */
        uint32_t changed_end;
        bool writing;
};

struct tree_walk {
        struct co co;
        struct refs_prefetch prefetch;
        struct refs_bring bring;
        struct commit_settle settle;
        struct { struct co co; } work;
        struct tree_tally tally;
        struct tree_table table;

        /* Tables in flight have numbers [tables_done, tables_read); number n lies at n % window. */
        uint32_t window;
        uint64_t tables_read;
        uint64_t tables_done;
        uint8_t *memory;                /* window tables */
        uint32_t *l1_indexes;           /* window of them */
        struct tree_batch *batches;     /* TREE_BATCHES of them, used in turn */
        unsigned begun;                 /* batches: read begun ... */
        unsigned worked;                /* ... worked on ... */
        unsigned ended;                 /* ... and written back */
        uint32_t next_l1_index;
        uint32_t at;                    /* table of the batch being worked on */
        int why;
};

static uint64_t window_tables(const struct geometry *g)
{
        uint64_t bytes = u64_max(WINDOW_TABLES * g->cluster_bytes, WINDOW_MIN_BYTES);

        return u64_max(u64_min(bytes, WINDOW_MAX_BYTES) / g->cluster_bytes, WINDOW_MIN_TABLES);
}

static int walk_begin(struct tree_walk *s, struct image *img)
{
        const struct geometry *g = image_geometry(img);

        s->window = (uint32_t)window_tables(g);
        s->memory = io_buffer_try_new(s->window * g->cluster_bytes);
        s->l1_indexes = g_try_new(uint32_t, s->window);
        s->batches = g_try_new0(struct tree_batch, TREE_BATCHES);
        s->tables_read = 0;
        s->tables_done = 0;
        s->begun = 0;
        s->worked = 0;
        s->ended = 0;
        s->next_l1_index = 0;
        return s->memory && s->l1_indexes && s->batches ? 0 : -ENOMEM;
}

static void walk_end(struct tree_walk *s)
{
        g_assert(s->begun == s->worked && s->worked == s->ended);
        free(s->memory);
        g_free(s->l1_indexes);
        g_free(s->batches);
        s->memory = NULL;
        s->l1_indexes = NULL;
        s->batches = NULL;
}

static struct tree_batch *batch_at(struct tree_walk *s, unsigned number)
{
        return &s->batches[number % TREE_BATCHES];
}

static uint8_t *table_bytes(struct tree_walk *s, const struct geometry *g, uint64_t number)
{
        return s->memory + number % s->window * g->cluster_bytes;
}

static uint64_t l2_offset_at(const struct tree_walk *s, const struct l1_table *l1,
                             uint64_t number)
{
        return entry_host_offset(l1->entries[s->l1_indexes[number % s->window]]);
}

static bool limit_reached(const struct tree_walk *s)
{
        return s->tally.counted >= s->tally.limit;
}

/* ---- reading ---- */

/* A shared table: none of its flags is set, and none may become so. */
static bool is_known_shared(const struct tree_walk *s, struct image *img, uint64_t l1_entry)
{
        uint64_t count;

        return s->tally.mode == TREE_REFRESH_COPIED && !(l1_entry & ENTRY_COPIED) &&
               refs_get_cached(img, entry_host_offset(l1_entry) >>
                               image_geometry(img)->cluster_bits, &count) == 0 && count > 1;
}

/* Moves next_l1_index to the next entry with a table; false: there is none. */
static bool find_table(struct tree_walk *s, struct image *img, const struct l1_table *l1,
                       uint32_t slots)
{
        for (; s->next_l1_index < slots; s->next_l1_index++) {
                uint64_t entry = l1->entries[s->next_l1_index];

                if (entry_host_offset(entry) != 0 && !is_known_shared(s, img, entry))
                        return true;
        }
        return false;
}

static void take_table(struct tree_walk *s)
{
        s->l1_indexes[s->tables_read % s->window] = s->next_l1_index++;
        s->tables_read++;
}

/* Begins to read one batch.  1: no room, or nothing left; -EIO: an entry that cannot be. */
static int read_batch(struct tree_walk *s, struct image *img, const struct l1_table *l1,
                      uint32_t slots)
{
        const struct geometry *g = image_geometry(img);
        uint64_t room = s->window - (s->tables_read - s->tables_done);
        struct tree_batch *b = batch_at(s, s->begun);
        uint64_t offset;

        room = u64_min(room, s->window - s->tables_read % s->window);
        room = u64_min(room, u64_max(BATCH_MAX_BYTES / g->cluster_bytes, 1));
        if (room == 0 || s->begun - s->ended == TREE_BATCHES || limit_reached(s) ||
            !find_table(s, img, l1, slots))
                return 1;

        offset = entry_host_offset(l1->entries[s->next_l1_index]);
        if (offset & (g->cluster_bytes - 1))
                return image_corrupt(img, "%s: L2 table offset 0x%" PRIx64 " in L1 entry %u is not "
                                     "cluster-aligned", img->name, offset, s->next_l1_index);
        *b = (struct tree_batch) { .first = s->tables_read };
        do {
                take_table(s);
                b->count++;
        } while (b->count < room && find_table(s, img, l1, slots) &&
                 entry_host_offset(l1->entries[s->next_l1_index]) ==
                 offset + b->count * g->cluster_bytes);
        b->changed_first = b->count;
        io_prepare(&b->io, IO_READ, &img->file, offset, table_bytes(s, g, b->first),
                   b->count * g->cluster_bytes);
        io_start(&b->io);
        s->begun++;
        return 0;
}

static int read_ahead(struct tree_walk *s, struct image *img, const struct l1_table *l1,
                      uint32_t slots)
{
        int ret;

        do {
                ret = read_batch(s, img, l1, slots);
        } while (ret == 0);
        return ret < 0 ? ret : 0;
}

/* ---- working on a table ---- */

/* The file may end in the last table, which then ends in zeros, but not before it. */
static int check_read(struct tree_walk *s, struct image *img, const struct l1_table *l1)
{
        const struct geometry *g = image_geometry(img);
        const struct tree_batch *b = batch_at(s, s->worked);

        if (b->io.eof_bytes < g->cluster_bytes)
                return 0;
        return image_corrupt(img, "%s: L2 table at 0x%" PRIx64 " lies beyond the end of the file",
                             img->name, l2_offset_at(s, l1, b->first + b->count - 1));
}

static void begin_table(struct tree_walk *s, struct image *img, const struct l1_table *l1)
{
        uint64_t number = batch_at(s, s->worked)->first + s->at;

        tree_table_begin(&s->table, table_bytes(s, image_geometry(img), number),
                         l2_offset_at(s, l1, number));
}

/* The table's cluster is free now: what the cache holds of it is no table any more. */
static void forget_if_free(struct image *img, uint64_t l2_offset)
{
        const struct geometry *g = image_geometry(img);
        uint64_t count;

        if (refs_get_cached(img, l2_offset >> g->cluster_bits, &count) == 0 && count == 0)
                slices_drop(&img->l2, l2_offset, g->cluster_bytes);
}

static void end_table(struct tree_walk *s, struct image *img, struct l1_table *l1)
{
        struct tree_batch *b = batch_at(s, s->worked);
        uint32_t index = s->l1_indexes[(b->first + s->at) % s->window];
        uint64_t entry = l1->entries[index];
        uint64_t wanted = entry;

        if (s->tally.mode == TREE_COUNT_DOWN)
                forget_if_free(img, s->table.host_offset);
        else
                wanted &= ~ENTRY_COPIED;
        if (s->table.is_private)
                wanted |= ENTRY_COPIED;
        if (entry != wanted)
                l1_set(l1, index, wanted);
        if (s->table.changed) {
                if (b->changed_first > s->at)
                        b->changed_first = s->at;
                b->changed_end = s->at + 1;
        }
}

/* ---- writing back ---- */

static void write_batch(struct tree_walk *s, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        struct tree_batch *b = batch_at(s, s->worked);
        uint64_t skip = b->changed_first * g->cluster_bytes;
        uint64_t offset = b->io.offset + skip;

        if (b->changed_first >= b->changed_end)
                return;
        b->writing = true;
        io_prepare(&b->io, IO_WRITE, &img->file, offset,
                   table_bytes(s, g, b->first + b->changed_first),
                   (b->changed_end - b->changed_first) * g->cluster_bytes);
        io_start(&b->io);
        img->data_written = true;
}

/* The oldest batch worked on needs no more waiting. */
static bool write_has_ended(struct tree_walk *s)
{
        const struct tree_batch *b = batch_at(s, s->ended);

        return s->ended != s->worked && (!b->writing || b->io.state == IO_DONE);
}

/* Leaf: waits for the oldest batch's write; the cache then has what the file has. */
static int end_batch(struct tree_walk *s, struct image *img)
{
        struct tree_batch *b = batch_at(s, s->ended);
        int ret = b->writing ? io_wait(&b->io) : 0;

        if (ret == CO_PENDING)
                return ret;
        if (ret == 0 && b->writing)
                slices_put(&img->l2, b->io.offset, b->io.iov->iov_base, b->io.length, false);
        s->tables_done += b->count;
        s->ended++;
        return ret;
}

static int end_batches(struct tree_walk *s, struct image *img)
{
        int ret = 0;

        while (ret == 0 && write_has_ended(s))
                ret = end_batch(s, img);
        return ret;
}

/* ---- the walk ---- */

static int work_on_batch(struct tree_walk *s, struct image *img, struct l1_table *l1)
{
        CO_BEGIN(&s->work);
        CO_TRY(&s->work, abandon, io_wait(&batch_at(s, s->worked)->io));
        CO_TRY(&s->work, abandon, check_read(s, img, l1));
        for (s->at = 0; s->at < batch_at(s, s->worked)->count; s->at++) {
                begin_table(s, img, l1);
                while ((s->why = tree_table_step(&s->table, &s->tally, img)) == -EAGAIN)
                        CO_TRY(&s->work, abandon, refs_bring(&s->bring, img, s->tally.missing));
                if (s->why < 0)
                        CO_FAIL(&s->work, abandon, s->why);
                end_table(s, img, l1);
        }
        write_batch(s, img);
abandon:
        s->worked++;
        CO_END(&s->work);
}

/* All refcount slices are in use and many dirty: clean ones make room. */
static bool cache_is_full(const struct image *img)
{
        return img->refs.cache.count > img->refs.cache.limit &&
               img->refs.cache.dirty.length > img->refs.cache.limit / 2;
}

static int walk(struct tree_walk *s, struct image *img, struct l1_table *l1, uint32_t slots,
                enum tree_mode mode, uint64_t limit)
{
        CO_BEGIN(s);
        g_assert(slots <= l1->count);
        s->tally = (struct tree_tally) { .mode = mode, .limit = limit };
        CO_TRY(s, out, walk_begin(s, img));
        if (mode != TREE_CLEAR_COPIED)
                CO_TRY(s, out, refs_prefetch(&s->prefetch, img));
        for (;;) {
                if (task_is_cancelled(task_current()))
                        CO_FAIL(s, drain, -ECANCELED);
                CO_TRY(s, drain, end_batches(s, img));
                CO_TRY(s, drain, read_ahead(s, img, l1, slots));
                if (s->worked != s->begun)
                        CO_TRY(s, drain, work_on_batch(s, img, l1));
                else if (s->ended != s->worked)
                        CO_TRY(s, drain, end_batch(s, img));
                else
                        break;
                if (cache_is_full(img))
                        CO_TRY(s, drain, meta_settle(&s->settle, img));
        }
drain:
        while (s->ended != s->worked)
                CO_AWAIT(s, end_batch(s, img));
        while (s->worked != s->begun) {
                CO_AWAIT(s, io_wait(&batch_at(s, s->worked)->io));
                s->worked++;
        }
        s->ended = s->begun;
out:
        walk_end(s);
        CO_END(s);
}

/* ---- what it is for ---- */

/* A walk in memory of its own, which *w keeps for another one. */
static int run(struct tree_walk **w, struct image *img, struct l1_table *l1, uint32_t slots,
               enum tree_mode mode, uint64_t limit)
{
        if (!*w)
                *w = g_try_new0(struct tree_walk, 1);
        return *w ? walk(*w, img, l1, slots, mode, limit) : -ENOMEM;
}

static void end_run(struct tree_walk **w)
{
        g_free(*w);
        *w = NULL;
}

int tree_count_up(struct tree_count *s, struct image *img, struct l1_table *l1, uint32_t slots)
{
        CO_BEGIN(s);
        CO_TRY(s, undo, run(&s->walk, img, l1, slots, TREE_COUNT_UP, UINT64_MAX));
        goto out;
undo:
        s->counted = s->walk ? s->walk->tally.counted : 0;
        if (s->counted > 0 && img->state != IMAGE_POISONED)
                CO_UNDO(s, run(&s->walk, img, l1, slots, TREE_COUNT_DOWN, s->counted));
out:
        end_run(&s->walk);
        CO_END(s);
}

static int tell_refused(const struct tree_walk *w, struct image *img)
{
        if (w->tally.refused == 0)
                return 0;
        image_log(img, HVB_LOG_WARNING, "%s: %" PRIu64 " references could not be counted down",
                  img->name, w->tally.refused);
        return w->tally.first_refusal;
}

int tree_count_down(struct tree_count *s, struct image *img, struct l1_table *l1,
                    uint32_t slots)
{
        CO_BEGIN(s);
        CO_TRY(s, out, run(&s->walk, img, l1, slots, TREE_COUNT_DOWN, UINT64_MAX));
        CO_TRY(s, out, tell_refused(s->walk, img));
out:
        end_run(&s->walk);
        CO_END(s);
}

int tree_clear_copied(struct tree_count *s, struct image *img, struct l1_table *l1)
{
        CO_BEGIN(s);
        CO_TRY(s, out, run(&s->walk, img, l1, l1->count, TREE_CLEAR_COPIED, UINT64_MAX));
out:
        end_run(&s->walk);
        CO_END(s);
}

int tree_refresh_copied(struct tree_refresh *s, struct image *img, struct l1_table *l1)
{
        CO_BEGIN(s);
        CO_TRY(s, out, meta_settle(&s->settle, img));
        CO_TRY(s, out, run(&s->walk, img, l1, l1->count, TREE_REFRESH_COPIED, UINT64_MAX));
        CO_TRY(s, out, meta_settle(&s->settle, img));
out:
        end_run(&s->walk);
        CO_END(s);
}

/* A free, even an empty one, makes the commit wait for all reads that began before. */
int tree_drop(struct tree_drop *s, struct image *img, struct l1_table *l1)
{
        CO_BEGIN(s);
        clusters_free_later(img, l1->offset, l1->offset ? (uint64_t)l1->count * 8 : 0);
        CO_TRY(s, out, meta_settle(&s->settle, img));
        CO_TRY(s, out, tree_count_down(&s->count, img, l1, l1->count));
out:
        CO_END(s);
}
