/*
 * commit.c - the one task that writes metadata back; commit.h has the order.
 *
 * Each stage copies its dirty pieces into chunks of memory, sorted by host offset, and writes
 * neighbours as one I/O.  All stages are collected in the same step, at the
 * beginning: what changes while they are written belongs to the next commit.
 *
 *   requested   number of the last commit that somebody waits for
 *   begun       number of the last commit that was collected
 *   completed   number of the last commit that ended
 *   drained     ... and gave back what was to be freed
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/planted.h"
#include "meta/commit.h"
#include "meta/punch.h"
#include "meta/refs.h"

enum {
        WRITE_WINDOW = 32,
        CHUNK_BYTES = 64 << 10,         /* of copies; and the longest write */
        KICK_BYTES = 2 << 20,
        NEEDED_BYTES = 4 << 20,
        KEEP_CHUNKS = 64,
        WALK_KICK_BYTES = 1 << 20,
        WALK_MAX_BYTES = 4 << 20,
        KICK_FREES = 65536,
        TURN_FREES = 256,
};

/* A dirty piece of a table. */
struct piece {
        uint64_t host_offset;
        struct slice *slice;            /* NULL: a sector of a table in memory */
        struct slice_cache *cache;
        const uint64_t *entries;
        uint64_t entry_count;
        uint64_t *dirty_word;           /* for putting the mark back */
        uint64_t dirty_mask;
};

/* The pieces of one stage and their bytes, in the order of the file. */
struct stage {
        struct co co;
        GArray *pieces;                 /* of struct piece */
        struct io_file *file;
        uint64_t piece_bytes;
        GPtrArray *chunks;              /* of CHUNK_BYTES; some are kept for the next commit */
        struct io io[WRITE_WINDOW];
        uint64_t next;                  /* piece to be written next */
        unsigned begun;
        unsigned ended;
        int first_error;
};

struct commit {
        struct co co;
        struct task task;
        struct image *img;
        uint64_t requested;
        uint64_t begun;
        uint64_t completed;
        uint64_t drained;
        uint64_t failed;                /* number of the last one that failed */
        int error;                      /* its error */
        bool running;
        bool force_refs;                /* write refcounts though they are lazy */
        struct waitq ended;
        struct stage refs;
        struct stage table;
        struct stage map;               /* L2 slices ... */
        struct stage l1;                /* ... and L1 sectors: pieces of another size */
        bool maps;
        bool with_refs;                 /* refs and table are part of this one */
        struct io fsync;
        GArray *frees;                  /* of struct pending_free */
        unsigned free_index;
        bool yielded;
        bool draining;                  /* the I/O of `generation` must end before frees */
        unsigned generation;
        struct clusters_free free;
        struct punch punch;
        struct waiter waiter;
        struct { struct co co; } apply;
        struct { struct co co; } write;
        struct { struct co co; } write_map;
};

/* ---- collecting ---- */

static void stage_reset(struct stage *st)
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

/* Best effort: the commit has the last word. */
static void stage_expect(struct stage *st, uint64_t byte_count)
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

static void collect_slices(struct stage *st, struct slice_cache *c)
{
        GList *l;

        for (l = c->dirty.head; l; l = l->next) {
                struct slice *slice = l->data;
                struct piece p = { .host_offset = slice->host_offset, .slice = slice, .cache = c };

                g_array_append_val(st->pieces, p);
        }
}

/* unit_sectors: 512-byte sectors written together (O_DIRECT's block). */
static void collect_table(struct stage *st, const uint64_t *entries, uint64_t entry_count,
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

/* Takes the copies; -ENOMEM leaves everything dirty. */
static int stage_copy(struct stage *st, uint64_t piece_bytes)
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

static void stage_take(struct stage *st)
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

/* After the writes: lets go of the slices; if they failed, all is dirty again. */
static void stage_settle(struct stage *st, bool failed)
{
        unsigned i;

        for (i = 0; i < st->pieces->len; i++) {
                struct piece *p = &g_array_index(st->pieces, struct piece, i);

                if (p->slice && failed)
                        slice_mark_dirty(p->cache, p->slice);
                if (p->slice)
                        slice_unpin(p->cache, p->slice);
                else if (failed)
                        *p->dirty_word |= p->dirty_mask;
        }
        stage_reset(st);
}

static bool refs_wanted(const struct commit *c)
{
        const struct image *img = c->img;

        return !img->lazy || c->force_refs ||
               img->refs.cache.dirty.length * img->refs.cache.slice_bytes >= KICK_BYTES;
}

static void collect_tables(struct commit *c)
{
        struct image *img = c->img;
        unsigned unit = img->root_bytes / 512;

        c->with_refs = refs_wanted(c);
        if (c->with_refs) {
                collect_slices(&c->refs, &img->refs.cache);
                if (img->refs.any_dirty)
                        collect_table(&c->table, img->refs.table, img->refs.table_entries,
                                      img->header.reftable_offset, img->refs.dirty_sectors, unit);
        }
        collect_slices(&c->map, &img->l2);
}

static int collect(struct commit *c)
{
        struct image *img = c->img;
        uint64_t slice_bytes = image_geometry(img)->slice_bytes;
        int ret;

        collect_tables(c);
        if (img->active.any_dirty)
                collect_table(&c->l1, img->active.entries, img->active.count,
                              img->active.offset, img->active.dirty_sectors,
                              img->root_bytes / 512);
        ret = stage_copy(&c->refs, slice_bytes);
        if (ret == 0)
                ret = stage_copy(&c->table, img->root_bytes);
        if (ret == 0)
                ret = stage_copy(&c->map, slice_bytes);
        if (ret == 0)
                ret = stage_copy(&c->l1, img->root_bytes);
        return ret;
}

/* What was freed until now, and the I/O that may still be under way to it. */
static void take_frees(struct commit *c)
{
        struct image *img = c->img;
        GArray *empty = c->frees;

        c->frees = img->refs.frees;
        img->refs.frees = empty;
        c->free_index = 0;
        c->draining = c->frees->len > 0;
        c->generation = img->grace.generation;
        if (c->draining)
                img->grace.generation ^= 1;
}

static void take(struct commit *c)
{
        struct image *img = c->img;

        stage_take(&c->refs);
        stage_take(&c->table);
        stage_take(&c->map);
        stage_take(&c->l1);
        if (c->with_refs)
                img->refs.any_dirty = false;
        img->active.any_dirty = false;
        take_frees(c);
}

static int begin(struct commit *c)
{
        int ret;

        c->begun = c->requested;
        if (c->img->state == IMAGE_POISONED)
                return -EIO;
        ret = collect(c);
        c->force_refs = false;
        if (ret == 0) {
                take(c);
                return 0;
        }
        stage_reset(&c->refs);
        stage_reset(&c->table);
        stage_reset(&c->map);
        stage_reset(&c->l1);
        return ret;
}

/* ---- writing ---- */

static void start_write(struct stage *st)
{
        uint64_t first = st->next++;
        const struct piece *p = &g_array_index(st->pieces, struct piece, first);
        uint64_t length = st->piece_bytes;
        struct io *io = &st->io[st->begun++ % WRITE_WINDOW];

        while (st->next < st->pieces->len && st->next % (CHUNK_BYTES / st->piece_bytes) != 0 &&
               p->host_offset + length ==
               g_array_index(st->pieces, struct piece, st->next).host_offset) {
                length += st->piece_bytes;
                st->next++;
        }
        io_prepare(io, IO_WRITE, st->file, p->host_offset, piece_copy(st, first), length);
        io_start(io);
}

static int stage_write(struct stage *st)
{
        CO_BEGIN(st);
        st->next = 0;
        st->begun = 0;
        st->ended = 0;
        st->first_error = 0;
        for (;;) {
                while (st->next < st->pieces->len && st->begun - st->ended < WRITE_WINDOW &&
                       st->first_error == 0)
                        start_write(st);
                if (st->begun == st->ended)
                        break;
                CO_AWAIT(st, io_wait(&st->io[st->ended % WRITE_WINDOW]));
                if (st->co.ret < 0 && st->first_error == 0)
                        st->first_error = st->co.ret;
                st->ended++;
        }
        st->co.err = st->first_error;
        CO_END(st);
}

/* A failed fsync leaves unknown what of all that was written is on disk. */
static int barrier(struct commit *c)
{
        int ret = io_fsync(&c->fsync, &c->img->file);

        if (ret < 0 && ret != CO_PENDING)
                image_poison(c->img, ret, "fsync");
        return ret;
}

/* What the map refers to, and whether that has to be stable before it. */
static bool comes_first(const struct commit *c)
{
        if (c->refs.pieces->len > 0 || c->table.pieces->len > 0 || !c->maps)
                return true;
        return c->img->data_written && !PLANTED(DATA_UNSTABLE);
}

static int write_map(struct commit *c)
{
        CO_BEGIN(&c->write_map);
        CO_TRY(&c->write_map, out, stage_write(&c->map));
        CO_TRY(&c->write_map, out, stage_write(&c->l1));
        if (!PLANTED(ENTRIES_UNSTABLE))
                CO_TRY(&c->write_map, out, barrier(c));
out:
        CO_END(&c->write_map);
}

static int write_stages(struct commit *c)
{
        struct image *img = c->img;

        CO_BEGIN(&c->write);
        c->maps = c->map.pieces->len > 0 || c->l1.pieces->len > 0;
        if (PLANTED(ENTRIES_FIRST))
                CO_TRY(&c->write, out, write_map(c));
        if (comes_first(c)) {
                CO_TRY(&c->write, out, stage_write(&c->refs));
                img->data_written = false;
                if (!PLANTED(COUNTS_UNSTABLE) &&
                    (!PLANTED(BLOCKS_UNSTABLE) || c->table.pieces->len == 0))
                        CO_TRY(&c->write, out, barrier(c));
        }
        if (c->table.pieces->len > 0) {
                CO_TRY(&c->write, out, stage_write(&c->table));
                if (!PLANTED(REFTABLE_UNSTABLE))
                        CO_TRY(&c->write, out, barrier(c));
        }
        if (c->maps)
                CO_TRY(&c->write, out, write_map(c));
out:
        CO_END(&c->write);
}

/* ---- giving back ---- */

static void put_frees_back(struct commit *c)
{
        unsigned i;

        for (i = 0; i < c->frees->len; i++)
                g_array_append_val(c->img->refs.frees,
                                   g_array_index(c->frees, struct pending_free, i));
        g_array_set_size(c->frees, 0);
}

static const struct pending_free *current_free(const struct commit *c)
{
        return &g_array_index(c->frees, struct pending_free, c->free_index);
}

static int apply_frees(struct commit *c)
{
        CO_BEGIN(&c->apply);
        while (c->draining && c->img->grace.in_flight[c->generation] > 0)
                CO_AWAIT(&c->apply, waitq_wait(&c->img->grace.drained, &c->waiter));
        c->draining = false;
        for (c->free_index = 0; c->free_index < c->frees->len; c->free_index++) {
                if (c->img->discard_to_file)
                        CO_AWAIT(&c->apply, punch_clusters(&c->punch, c->img, current_free(c)));
                CO_AWAIT(&c->apply, clusters_free(&c->free, c->img,
                                                  current_free(c)->cluster_index <<
                                                  image_geometry(c->img)->cluster_bits,
                                                  current_free(c)->cluster_count <<
                                                  image_geometry(c->img)->cluster_bits,
                                                  current_free(c)->weight));
                if (c->apply.co.ret < 0)
                        co_leak(c->apply.co.ret);
                if (c->free_index % TURN_FREES == TURN_FREES - 1)
                        CO_AWAIT(&c->apply, task_yield(&c->yielded));
        }
        g_array_set_size(c->frees, 0);
        CO_END(&c->apply);
}

/* ---- the task ---- */

static void finish(struct commit *c, int error)
{
        bool failed = error < 0;

        stage_settle(&c->refs, failed);
        stage_settle(&c->table, failed);
        stage_settle(&c->map, failed);
        stage_settle(&c->l1, failed);
        if (failed) {
                c->img->active.any_dirty = true;
                c->img->refs.any_dirty = true;
                c->img->data_written = true;
                put_frees_back(c);
                c->failed = c->begun;
                c->error = error;
        }
        c->completed = c->begun;
        waitq_wake_all(&c->ended);
}

static int write_back(struct commit *c)
{
        CO_BEGIN(c);
        while (c->begun < c->requested) {
                if (PLANTED(COUNT_DOWN_FIRST)) {
                        take_frees(c);
                        CO_AWAIT(c, apply_frees(c));
                }
                CO_AWAIT(c, begin(c));
                if (c->co.ret == 0)
                        CO_AWAIT(c, write_stages(c));
                finish(c, c->co.ret);
                CO_AWAIT(c, apply_frees(c));
                c->drained = c->begun;
                waitq_wake_all(&c->ended);
        }
        CO_END(c);
}

static int run(struct task *task)
{
        struct commit *c = (struct commit *)((char *)task - offsetof(struct commit, task));
        int64_t began = image_now_usec(c->img);
        int ret = write_back(c);

        c->img->commit_usec += image_now_usec(c->img) - began;
        return ret;
}

static void stopped(struct task *task, int result)
{
        struct commit *c = (struct commit *)((char *)task - offsetof(struct commit, task));

        (void)result;
        c->running = false;
        waitq_wake_all(&c->ended);
}

static void request(struct commit *c)
{
        c->requested = c->begun + 1;
        if (!c->running) {
                c->running = true;
                task_start(&c->task, c->img->loop, "commit", run, stopped);
        }
}

/* ---- the outside ---- */

static void stage_init(struct stage *st, struct image *img)
{
        st->pieces = g_array_new(FALSE, FALSE, sizeof(struct piece));
        st->chunks = g_ptr_array_new_with_free_func(free);
        st->file = &img->file;
}

static void stage_clear(struct stage *st)
{
        g_ptr_array_free(st->chunks, TRUE);
        g_array_free(st->pieces, TRUE);
}

struct commit *commit_new(struct image *img)
{
        struct commit *c = g_try_new0(struct commit, 1);

        if (!c)
                return NULL;
        c->img = img;
        c->frees = g_array_new(FALSE, FALSE, sizeof(struct pending_free));
        stage_init(&c->refs, img);
        stage_init(&c->table, img);
        stage_init(&c->map, img);
        stage_init(&c->l1, img);
        return c;
}

void commit_free(struct commit *c)
{
        if (!c)
                return;
        g_assert(!c->running);
        stage_clear(&c->refs);
        stage_clear(&c->table);
        stage_clear(&c->map);
        stage_clear(&c->l1);
        g_array_free(c->frees, TRUE);
        g_free(c);
}

static bool anything_dirty(const struct image *img)
{
        return img->data_written || img->l2.dirty.length > 0 || img->active.any_dirty ||
               img->refs.cache.dirty.length > 0 || img->refs.any_dirty ||
               img->refs.frees->len > 0;
}

int meta_commit(struct commit_wait *s, struct image *img)
{
        struct commit *c = img->commit;

        CO_BEGIN(s);
        if (!img->writable)
                goto out;
        if (img->state == IMAGE_POISONED)
                CO_FAIL(s, out, -EIO);
        request(c);
        s->target = c->requested;
        while (c->completed < s->target)
                CO_TRY(s, out, waitq_wait(&c->ended, &s->waiter));
        if (c->failed >= s->target)
                CO_FAIL(s, out, c->error);
out:
        CO_END(s);
}

int meta_commit_counts(struct commit_wait *s, struct image *img)
{
        if (s->co.line == 0 && img->commit)
                img->commit->force_refs = true;
        return meta_commit(s, img);
}

int meta_drain(struct commit_drain *s, struct image *img)
{
        CO_BEGIN(s);
        CO_TRY(s, out, meta_commit_counts(&s->wait, img));
        while (img->commit->drained < s->wait.target)
                CO_TRY(s, out, waitq_wait(&img->commit->ended, &s->waiter));
out:
        CO_END(s);
}

int meta_settle(struct commit_settle *s, struct image *img)
{
        struct commit *c = img->commit;

        CO_BEGIN(s);
        if (!img->writable)
                goto out;
        do {
                c->force_refs = true;
                CO_TRY(s, out, meta_commit(&s->wait, img));
                while (c->running)
                        CO_TRY(s, out, waitq_wait(&c->ended, &s->waiter));
        } while (anything_dirty(img));
out:
        CO_END(s);
}

static uint64_t dirty_bytes(const struct image *img)
{
        uint64_t refs = img->lazy ? 0 : img->refs.cache.dirty.length;

        return (img->l2.dirty.length + refs) * image_geometry(img)->slice_bytes;
}

static void expect_dirty(struct image *img)
{
        uint64_t slice_bytes = image_geometry(img)->slice_bytes;

        stage_expect(&img->commit->refs, img->refs.cache.dirty.length * slice_bytes);
        stage_expect(&img->commit->map, img->l2.dirty.length * slice_bytes);
}

void commit_kick(struct image *img)
{
        struct commit *c = img->commit;

        expect_dirty(img);
        if (!c->running && (dirty_bytes(img) >= KICK_BYTES || img->refs.frees->len > KICK_FREES))
                request(c);
}

/* Lazy counts are written too: the memory that they lie in is limited. */
bool commit_kick_walk(struct image *img)
{
        const struct slice_cache *refs = &img->refs.cache;
        uint64_t slices = img->l2.dirty.length + refs->dirty.length;
        uint64_t bytes = slices * image_geometry(img)->slice_bytes;
        bool is_full = refs->count > refs->limit && refs->dirty.length > refs->limit / 2;

        expect_dirty(img);
        if (bytes < WALK_KICK_BYTES && !is_full)
                return false;
        img->commit->force_refs = true;
        if (!img->commit->running)
                request(img->commit);
        return bytes >= WALK_MAX_BYTES || is_full;
}

bool commit_needed(const struct image *img)
{
        return dirty_bytes(img) >= NEEDED_BYTES || img->refs.frees->len > 4 * KICK_FREES;
}
