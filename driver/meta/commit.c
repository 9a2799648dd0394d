/*
 * commit.c - the one task that writes metadata back; commit.h has the order.
 *
 * All stages (commit-stage.h) are collected in the same step, at the beginning: what changes
 * while they are written belongs to the next commit.
 *
 *   requested   number of the last commit that somebody waits for
 *   begun       number of the last commit that was collected
 *   completed   number of the last commit that ended
 *   drained     ... and gave back what was to be freed
 *
 * Counting down what was freed may have to read counts from all over the file.  It stops for
 * whoever wants the next commit, and goes on after that, the oldest first.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "disk/planted.h"
#include "meta/commit-stage.h"
#include "meta/commit.h"
#include "meta/punch.h"
#include "meta/refs.h"

enum {
        KICK_BYTES = 2 << 20,
        NEEDED_BYTES = 4 << 20,
        WALK_KICK_BYTES = 1 << 20,
        WALK_MAX_BYTES = 4 << 20,
        KICK_FREES = 65536,
        MAX_FREES = 4 * KICK_FREES,     /* then writers wait until they are counted down */
        TURN_FREES = 256,
        LEAST_FREES = 4096,             /* counted down between two commits, or so many as */
        LEAST_LOADS = 8,                /* have to wait for their counts */
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
        struct image_fsync fsync;
        GArray *frees;                  /* of struct pending_free: of the running commit */
        GArray *safe;                   /* ... whose references are durably gone */
        unsigned freed;                 /* so many of them are counted down ... */
        unsigned loads;                 /* ... and waited for counts, since the last commit */
        uint64_t made_safe;             /* so many were, ever */
        uint64_t drain_number;          /* what `drained` becomes when those before the first ... */
        uint64_t drain_end;             /* ... so many are counted down */
        bool freeing;
        bool yielded;
        bool draining;                  /* the I/O of `generation` must end before frees */
        unsigned generation;
        struct clusters_free free;
        struct punch punch;
        struct waiter waiter;
        struct { struct co co; } grace;
        struct { struct co co; } apply;
        struct { struct co co; } write;
        struct { struct co co; } write_map;
};

/* ---- collecting ---- */

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
                stage_add_slices(&c->refs, &img->refs.cache);
                if (img->refs.any_dirty)
                        stage_add_table(&c->table, img->refs.table, img->refs.table_entries,
                                        img->header.reftable_offset, img->refs.dirty_sectors,
                                        unit);
        }
        stage_add_slices(&c->map, &img->l2);
}

static int collect(struct commit *c)
{
        struct image *img = c->img;
        uint64_t slice_bytes = image_geometry(img)->slice_bytes;
        int ret;

        collect_tables(c);
        if (img->active.any_dirty)
                stage_add_table(&c->l1, img->active.entries, img->active.count,
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

/* A failed fsync leaves unknown what of all that was written is on disk. */
static int barrier(struct commit *c)
{
        int ret = image_fsync(&c->fsync, c->img);

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

static void request(struct commit *c);

static void move_frees(GArray *to, GArray *from)
{
        if (from->len > 0)
                g_array_append_vals(to, from->data, from->len);
        g_array_set_size(from, 0);
}

static const struct pending_free *current_free(const struct commit *c)
{
        return &g_array_index(c->safe, struct pending_free, c->freed);
}

static int wait_grace(struct commit *c)
{
        CO_BEGIN(&c->grace);
        while (c->draining && c->img->grace.in_flight[c->generation] > 0)
                CO_AWAIT(&c->grace, waitq_wait(&c->img->grace.drained, &c->waiter));
        c->draining = false;
        CO_END(&c->grace);
}

/* The next commit comes before the rest, unless there is too much of that; and what counting down
 * itself makes dirty must not make it a long one.  Where commits fail that helps nobody. */
static bool stops_freeing(struct commit *c)
{
        const struct slice_cache *refs = &c->img->refs.cache;
        bool is_full = refs->dirty.length * refs->slice_bytes >= KICK_BYTES &&
                       c->failed < c->begun;

        if (is_full)
                request(c);
        return (c->loads >= LEAST_LOADS || c->freed >= LEAST_FREES) &&
               c->begun < c->requested && (is_full || c->safe->len - c->freed <= MAX_FREES);
}

static void make_safe(struct commit *c)
{
        c->made_safe += c->frees->len;
        move_frees(c->safe, c->frees);
        if (c->drained < c->drain_number)
                return;
        c->drain_number = c->begun;
        c->drain_end = c->made_safe;
}

static void note_load(struct commit *c)
{
        uint64_t count;

        c->loads += refs_get_cached(c->img, current_free(c)->cluster_index, &count) == -EAGAIN;
}

static int apply_frees(struct commit *c)
{
        unsigned cluster_bits = image_geometry(c->img)->cluster_bits;

        CO_BEGIN(&c->apply);
        CO_AWAIT(&c->apply, wait_grace(c));
        make_safe(c);
        c->freeing = true;
        c->loads = 0;
        for (c->freed = 0; c->freed < c->safe->len && !stops_freeing(c); c->freed++) {
                note_load(c);
                if (c->img->discard_to_file)
                        CO_AWAIT(&c->apply, punch_clusters(&c->punch, c->img, current_free(c)));
                CO_AWAIT(&c->apply, clusters_free(&c->free, c->img,
                                                  current_free(c)->cluster_index << cluster_bits,
                                                  current_free(c)->cluster_count << cluster_bits,
                                                  current_free(c)->weight));
                if (c->apply.co.ret < 0)
                        co_leak(c->apply.co.ret);
                if (c->freed % TURN_FREES == TURN_FREES - 1)
                        CO_AWAIT(&c->apply, task_yield(&c->yielded));
        }
        c->freeing = false;
        if (c->freed > 0)
                g_array_remove_range(c->safe, 0, c->freed);
        CO_END(&c->apply);
}

/* However much comes behind it: what was made safe is drained some time. */
static void note_drained(struct commit *c)
{
        if (c->made_safe - c->safe->len >= c->drain_end)
                c->drained = c->drain_number;
        if (c->safe->len == 0)
                c->drained = c->drain_number = c->begun;
        waitq_wake_all(&c->ended);
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
                move_frees(c->img->refs.frees, c->frees);
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
                note_drained(c);
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

/* A commit is on its way, and not only counting down behind itself. */
static bool is_written(const struct commit *c)
{
        return c->running && !c->freeing;
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

struct commit *commit_new(struct image *img)
{
        struct commit *c = g_try_new0(struct commit, 1);

        if (!c)
                return NULL;
        c->img = img;
        c->frees = g_array_new(FALSE, FALSE, sizeof(struct pending_free));
        c->safe = g_array_new(FALSE, FALSE, sizeof(struct pending_free));
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
        g_array_free(c->safe, TRUE);
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

int commit_rest(struct commit_rest *s, struct image *img)
{
        CO_BEGIN(s);
        while (img->commit && img->commit->running)
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

void commit_forget_table(struct image *img)
{
        if (img->commit)
                stage_forget_marks(&img->commit->table);
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
        if (!is_written(c) &&
            (dirty_bytes(img) >= KICK_BYTES || img->refs.frees->len > KICK_FREES))
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
        if (!is_written(img->commit))
                request(img->commit);
        return bytes >= WALK_MAX_BYTES || is_full;
}

bool commit_needed(const struct image *img)
{
        return dirty_bytes(img) >= NEEDED_BYTES ||
               img->refs.frees->len + img->commit->safe->len > MAX_FREES;
}
