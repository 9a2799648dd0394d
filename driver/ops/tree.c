/*
 * tree.c - the walk over all L2 tables of an L1.
 *
 * Tables are read ahead in the order of the walk, with many reads in flight.  Then, one L2
 * table (slot) at a time: its guest range is locked where the guest may change it, the
 * table is brought up to date with memory, worked on, and unlocked.  Between two slots
 * everybody else has a turn; while the guest has requests in flight the walk takes no more
 * than its share of the thread's time (option walk-share).
 *
 * What a crash leaves.  Counts that went up, in memory and then by commits, of which some
 * reached the file: they are too high by at most one walk.  Counts that went down: the
 * references had gone from the file before.  Flags that are set: the counts were stable
 * before.  Flags that are cleared may be so before the counts are up, which is the safe side; in a
 * v2 image, which has no dirty bit to tell of it, a commit writes them after the counts.
 *
 * Counting up that fails takes back what it counted: first of the table at hand, whose
 * references come in a fixed order, then slot by slot backwards.
 *
 * Invariants:
 *  1. Walking the active tree up, slots [0, img->walked_slots) are counted, the rest is not;
 *     the slot at hand is locked, so that nobody is between asking and acting (map_weight).
 *  2. A walk makes little dirty before it waits for a commit: a guest's flush does not
 *     inherit more.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "disk/planted.h"
#include "ops/table-reads.h"
#include "ops/tree-table.h"
#include "ops/tree.h"

/* Worked on between two turns of the others: a table while the guest is busy, else as many as have
 * so many bytes. */
enum { TURN_BYTES = 64 << 10, TURN_EMPTY_SLOTS = 1024, BURST_USEC = 2000 };

/* Reads begun between two slots: all that fit, at once, would be felt. */
enum { AHEAD_STEP = 2 };

/* Slots [0, slots) of l1, or from the last to the first. */
struct tree_plan {
        struct l1_table *l1;
        uint32_t slots;
        enum tree_mode mode;
        bool is_active;                 /* the guest may change the tree */
        bool backwards;
};

/* A table being read. */
struct tree_ahead {
        uint32_t slot;
        struct slices_watch watch;
};

struct tree_walk {
        struct co co;
        struct { struct co co; } visit;
        struct { struct co co; } get;
        struct { struct co co; } store;
        struct { struct co co; } take_back;
        struct tree_plan plan;
        struct refs_prefetch prefetch;
        struct refs_bring_more bring;
        struct commit_wait commit;
        struct table_reads reads;
        struct tree_ahead *ahead;       /* owned; reads.depth of them */
        struct slices_read read;
        struct io write;
        struct range_lock lock;
        struct tree_tally tally;
        struct tree_tally undo;
        struct tree_table table;
        uint8_t *spare;                 /* owned; for a table that was not read ahead */
        uint32_t next;                  /* slots read ahead, or known to be empty then */
        uint32_t done;                  /* slots worked on */
        uint32_t slot;                  /* at hand */
        struct tree_ahead *current;     /* its read, or NULL */
        uint8_t *bytes;                 /* the table at hand; NULL: the slot is empty */
        uint64_t l2_offset;             /* of it */
        uint64_t counted_before;        /* references, when the slot began */
        uint64_t turn_bytes;            /* worked on since the others had a turn */
        int64_t spent_usec;             /* ... and the time that took before the last resume */
        int64_t resumed_usec;
        int64_t commit_usec;            /* image's when the others had a turn */
        int64_t next_usec;              /* when the next turn may begin while the guest is busy */
        struct waiter rest;
        bool yielded;
        uint64_t tag;
        int why;
};

static uint32_t slot_at(const struct tree_plan *p, uint32_t number)
{
        return p->backwards ? p->slots - 1 - number : number;
}

static int walk_begin(struct tree_walk *s, struct image *img)
{
        uint64_t table_bytes = image_geometry(img)->cluster_bytes;
        int ret;

        ret = table_reads_open(&s->reads, &img->file, table_bytes, s->plan.slots);
        if (ret < 0)
                return ret;
        s->ahead = g_try_new0(struct tree_ahead, s->reads.depth);
        s->spare = io_buffer_try_new(table_bytes);
        s->tally = (struct tree_tally) { .mode = s->plan.mode, .limit = UINT64_MAX };
        s->next = 0;
        s->done = 0;
        s->turn_bytes = 0;
        s->spent_usec = 0;
        s->next_usec = 0;
        s->commit_usec = img->commit_usec;
        return s->ahead && s->spare ? 0 : -ENOMEM;
}

/* ---- reading ahead ---- */

/* A shared table: none of its flags is set, and none may become so. */
static bool is_known_shared(const struct tree_walk *s, struct image *img, uint64_t l1_entry)
{
        uint64_t count;

        return s->plan.mode == TREE_REFRESH_COPIED && !(l1_entry & ENTRY_COPIED) &&
               refs_get_cached(img, entry_host_offset(l1_entry) >>
                               image_geometry(img)->cluster_bits, &count) == 0 && count > 1;
}

/* The table of a slot as the L1 says now; 0: none that has to be looked into. */
static uint64_t wanted_table(const struct tree_walk *s, struct image *img, uint32_t slot)
{
        uint64_t entry = s->plan.l1->entries[slot];

        return is_known_shared(s, img, entry) ? 0 : entry_host_offset(entry);
}

static int check_offset(struct image *img, uint64_t l2_offset, uint32_t slot)
{
        uint64_t cluster_bytes = image_geometry(img)->cluster_bytes;
        const char *why = NULL;

        if (l2_offset & (cluster_bytes - 1))
                why = "is not cluster-aligned";
        else if (l2_offset != 0 && image_is_metadata(img, l2_offset, cluster_bytes))
                why = "lies on metadata";
        if (!why)
                return 0;
        return image_corrupt(img, "%s: L2 table offset 0x%" PRIx64 " in L1 entry %u %s", img->name,
                             l2_offset, slot, why);
}

static int read_ahead(struct tree_walk *s, struct image *img)
{
        uint32_t limit = (uint32_t)u64_min(s->plan.slots,
                                           (uint64_t)s->done + TURN_EMPTY_SLOTS);
        unsigned most = s->reads.begun + AHEAD_STEP;

        for (; s->next < limit && !table_reads_full(&s->reads) && s->reads.begun != most;
             s->next++) {
                uint32_t slot = slot_at(&s->plan, s->next);
                uint64_t l2_offset = wanted_table(s, img, slot);
                struct tree_ahead *ahead;
                int ret = check_offset(img, l2_offset, slot);

                if (ret < 0)
                        return ret;
                if (l2_offset == 0)
                        continue;
                ahead = &s->ahead[s->reads.begun % s->reads.depth];
                ahead->slot = slot;
                slices_watch(&ahead->watch, &img->l2, l2_offset, s->reads.table_bytes);
                table_reads_begin(&s->reads, l2_offset, slot);
        }
        return 0;
}

static struct tree_ahead *find_ahead(const struct tree_walk *s)
{
        struct tree_ahead *oldest = &s->ahead[s->reads.ended % s->reads.depth];

        return !table_reads_idle(&s->reads) && oldest->slot == s->slot ? oldest : NULL;
}

static int beyond_end(struct image *img, uint64_t l2_offset)
{
        return image_corrupt(img, "%s: L2 table at 0x%" PRIx64 " lies beyond the end of the file",
                             img->name, l2_offset);
}

/* Coroutine: the table of the slot, as memory has it. */
static int get_table(struct tree_walk *s, struct image *img)
{
        uint64_t table_bytes = image_geometry(img)->cluster_bytes;

        CO_BEGIN(&s->get);
        s->bytes = NULL;
        s->current = find_ahead(s);
        if (s->current) {
                CO_TRY(&s->get, out, table_reads_next(&s->reads, &s->bytes, &s->tag));
        }
        s->l2_offset = wanted_table(s, img, s->slot);
        if (s->l2_offset == 0) {
                s->bytes = NULL;
        } else if (s->bytes && s->l2_offset == s->current->watch.first) {
                if (table_reads_eof_bytes(&s->reads) == table_bytes)
                        CO_FAIL(&s->get, out, beyond_end(img, s->l2_offset));
                CO_TRY(&s->get, out, slices_overlay(&s->read, &img->l2, &s->current->watch,
                                                    s->bytes));
        } else {
                CO_TRY(&s->get, out, check_offset(img, s->l2_offset, s->slot));
                CO_TRY(&s->get, out, slices_read(&s->read, &img->l2, s->l2_offset, s->spare,
                                                 table_bytes));
                if (s->read.io.eof_bytes == table_bytes)
                        CO_FAIL(&s->get, out, beyond_end(img, s->l2_offset));
                s->bytes = s->spare;
        }
out:
        if (s->current)
                slices_unwatch(&s->current->watch, &img->l2);
        CO_END(&s->get);
}

/* ---- one slot ---- */

/* The verdict outlives waits. */
static int table_step(struct tree_walk *s, struct image *img, struct tree_tally *tally)
{
        s->why = tree_table_step(&s->table, tally, img);
        return s->why;
}

/* The table's cluster is free now: what the cache holds of it is no table any more. */
static void forget_if_free(struct image *img, uint64_t l2_offset)
{
        const struct geometry *g = image_geometry(img);
        uint64_t count;

        if (refs_get_cached(img, l2_offset >> g->cluster_bits, &count) == 0 && count == 0)
                slices_drop(&img->l2, l2_offset, g->cluster_bytes);
}

/* Past the cache if it can be: a snapshot's tables are many, and nobody reads them soon.  A v2
 * image, which no mark protects, has the counts written first. */
static bool may_write_past(const struct tree_walk *s, struct image *img)
{
        return img->header.version >= 3 &&
               slices_are_settled(&img->l2, s->l2_offset, s->reads.table_bytes);
}

static int store_in_memory(const struct tree_walk *s, struct image *img)
{
        uint64_t slice_bytes = image_geometry(img)->slice_bytes;
        uint64_t at;
        int ret = 0;

        for (at = 0; at < s->reads.table_bytes && ret == 0; at += slice_bytes)
                ret = slices_store(&img->l2, s->l2_offset + at, s->bytes + at);
        return ret;
}

/* Coroutine: the table gets the flags that changed.  Nobody else changes it now. */
static int store_flags(struct tree_walk *s, struct image *img)
{
        CO_BEGIN(&s->store);
        if (!may_write_past(s, img)) {
                CO_TRY(&s->store, out, store_in_memory(s, img));
                goto out;
        }
        CO_TRY(&s->store, forget, io_write(&s->write, &img->file, s->l2_offset, s->bytes,
                                           s->reads.table_bytes));
        img->data_written = true;
        slices_put(&img->l2, s->l2_offset, s->bytes, s->reads.table_bytes, false);
        goto out;
forget:
        slices_drop(&img->l2, s->l2_offset, s->reads.table_bytes);
out:
        CO_END(&s->store);
}

static void end_table(struct tree_walk *s, struct image *img)
{
        struct l1_table *l1 = s->plan.l1;
        uint64_t entry = l1->entries[s->slot];
        uint64_t wanted = (entry & ~ENTRY_COPIED) | (s->table.is_private ? ENTRY_COPIED : 0);

        if (s->plan.mode == TREE_COUNT_DOWN)
                forget_if_free(img, s->l2_offset);
        if (s->plan.mode == TREE_REFRESH_COPIED && entry != wanted)
                l1_set(l1, s->slot, wanted);
}

/* How far the active tree has been counted for the snapshot to come: a slot that has been counted
 * in part has not.  So what fails in the middle of it leaks. */
static void note_walked(const struct tree_walk *s, struct image *img, enum tree_mode mode)
{
        if (s->plan.is_active && s->plan.mode == mode)
                img->walked_slots = s->slot + (mode == TREE_COUNT_UP_ONLY);
}

static bool counts_up(const struct tree_walk *s)
{
        return s->plan.mode == TREE_COUNT_UP || s->plan.mode == TREE_COUNT_UP_ONLY;
}

/* Coroutine: what was counted of the table at hand is taken back. */
static int take_back(struct tree_walk *s, struct image *img)
{
        CO_BEGIN(&s->take_back);
        s->undo = (struct tree_tally) {
                .mode = TREE_COUNT_DOWN,
                .limit = s->tally.counted - s->counted_before,
        };
        tree_table_begin(&s->table, s->bytes, s->l2_offset);
        while (table_step(s, img, &s->undo) == -EAGAIN)
                CO_TRY(&s->take_back, out, refs_bring_more(&s->bring, img,
                                                           s->undo.missing));
out:
        CO_END(&s->take_back);
}

static int lock_slot(struct tree_walk *s, struct image *img)
{
        uint64_t span = image_geometry(img)->l2_span_bytes;

        if (!s->plan.is_active || PLANTED(WALK_UNLOCKED))
                return 0;
        return range_lock(&s->lock, img, false, s->slot * span, (s->slot + 1) * span);
}

static void unlock_slot(struct tree_walk *s, struct image *img)
{
        if (s->lock.is_queued)
                range_unlock(&s->lock, img);
}

static int visit_slot(struct tree_walk *s, struct image *img)
{
        CO_BEGIN(&s->visit);
        s->slot = slot_at(&s->plan, s->done);
        CO_TRY(&s->visit, out, lock_slot(s, img));
        CO_TRY(&s->visit, unlock, get_table(s, img));
        note_walked(s, img, TREE_COUNT_DOWN);
        if (s->bytes) {
                s->counted_before = s->tally.counted;
                tree_table_begin(&s->table, s->bytes, s->l2_offset);
                while (table_step(s, img, &s->tally) == -EAGAIN)
                        CO_TRY(&s->visit, take_back, refs_bring_more(&s->bring, img,
                                                                     s->tally.missing));
                if (s->why < 0)
                        CO_FAIL(&s->visit, take_back, s->why);
                if (s->table.changed)
                        CO_TRY(&s->visit, take_back, store_flags(s, img));
                end_table(s, img);
        }
        note_walked(s, img, TREE_COUNT_UP_ONLY);
        goto unlock;
take_back:
        if (counts_up(s) && img->state != IMAGE_POISONED)
                CO_UNDO(&s->visit, take_back(s, img));
unlock:
        unlock_slot(s, img);
out:
        CO_END(&s->visit);
}

/* ---- turns ---- */

static bool guest_is_busy(const struct image *img)
{
        return img->grace.in_flight[0] + img->grace.in_flight[1] > 0;
}

static bool turn_is_over(struct tree_walk *s, const struct image *img)
{
        unsigned share = img->walk_share;
        int64_t now = image_now_usec(img);

        s->turn_bytes += s->bytes ? image_geometry(img)->cluster_bytes : 0;
        if (s->done % TURN_EMPTY_SLOTS != 0 && s->turn_bytes < TURN_BYTES &&
            (!s->bytes || !guest_is_busy(img)))
                return false;
        /* On the average over BURST_USEC: a rest ends with an I/O of the guest's, late perhaps.
         * Writing back is for the walk, most of it. */
        s->spent_usec += now - s->resumed_usec + img->commit_usec - s->commit_usec;
        s->commit_usec = img->commit_usec;
        s->next_usec = MAX(s->next_usec, now - BURST_USEC) + s->spent_usec * 100 / share;
        s->turn_bytes = 0;
        s->spent_usec = 0;
        s->resumed_usec = now;
        return true;
}

static bool must_rest(const struct tree_walk *s, const struct image *img)
{
        return guest_is_busy(img) && image_now_usec(img) < s->next_usec;
}

/* ---- the walk ---- */

static void forget_ahead(struct tree_walk *s, struct image *img)
{
        unsigned i;

        for (i = 0; s->ahead && i < s->reads.depth; i++)
                slices_unwatch(&s->ahead[i].watch, &img->l2);
}

static int walk(struct tree_walk *s, struct image *img)
{
        CO_BEGIN(s);
        g_assert(s->plan.slots <= s->plan.l1->count);
        CO_TRY(s, close, walk_begin(s, img));
        if (s->plan.mode != TREE_CLEAR_COPIED)
                CO_TRY(s, close, refs_prefetch(&s->prefetch, img));
        while (s->done < s->plan.slots) {
                if (task_is_cancelled(task_current()))
                        CO_FAIL(s, close, -ECANCELED);
                CO_TRY(s, close, read_ahead(s, img));
                CO_TRY(s, close, visit_slot(s, img));
                s->done++;
                task_advance(1);
                if (commit_kick_walk(img))
                        CO_TRY(s, close, meta_commit_counts(&s->commit, img));
                if (!turn_is_over(s, img))
                        continue;
                CO_AWAIT(s, task_yield(&s->yielded));
                while (must_rest(s, img))
                        CO_TRY(s, close, waitq_wait(&img->grace.left, &s->rest));
        }
close:
        forget_ahead(s, img);
        CO_AWAIT(s, table_reads_close(&s->reads));
        g_free(s->ahead);
        free(s->spare);
        s->ahead = NULL;
        s->spare = NULL;
        CO_END(s);
}

/* ---- what it is for ---- */

/* A walk in memory of its own, which *w keeps for another one. */
static int run(struct tree_walk **w, struct image *img, struct tree_plan plan)
{
        int ret;

        if (!*w)
                *w = g_try_new0(struct tree_walk, 1);
        if (!*w)
                return -ENOMEM;
        (*w)->plan = plan;
        (*w)->resumed_usec = image_now_usec(img);
        ret = walk(*w, img);
        (*w)->spent_usec += image_now_usec(img) - (*w)->resumed_usec;
        return ret;
}

static void end_run(struct tree_walk **w)
{
        g_free(*w);
        *w = NULL;
}

static uint32_t slots_done(const struct tree_walk *w)
{
        return w ? w->done : 0;
}

static struct tree_plan back_plan(const struct tree_count *s, struct image *img,
                                  struct l1_table *l1)
{
        return (struct tree_plan) {
                .l1 = l1, .slots = s->counted, .mode = TREE_COUNT_DOWN,
                .is_active = l1 == &img->active, .backwards = true,
        };
}

/* Up, or on failure down again. */
static int count_up(struct tree_count *s, struct image *img, struct l1_table *l1, uint32_t slots,
                    enum tree_mode mode)
{
        struct tree_plan up = { .l1 = l1, .slots = slots, .mode = mode,
                                .is_active = l1 == &img->active };

        CO_BEGIN(s);
        CO_TRY(s, undo, run(&s->walk, img, up));
        goto out;
undo:
        s->counted = slots_done(s->walk);
        if (s->counted > 0 && img->state != IMAGE_POISONED)
                CO_UNDO(s, run(&s->walk, img, back_plan(s, img, l1)));
        img->walked_slots = 0;
out:
        end_run(&s->walk);
        CO_END(s);
}

int tree_count_up(struct tree_count *s, struct image *img, struct l1_table *l1, uint32_t slots)
{
        g_assert(l1 != &img->active);
        return count_up(s, img, l1, slots, TREE_COUNT_UP);
}

int tree_prepare(struct tree_count *s, struct image *img, uint32_t slots)
{
        return count_up(s, img, &img->active, slots, TREE_COUNT_UP_ONLY);
}

static int tell_refused(const struct tree_walk *w, struct image *img)
{
        if (w->tally.refused == 0)
                return 0;
        image_log(img, HVB_LOG_WARNING, "%s: %" PRIu64 " references could not be counted down",
                  img->name, w->tally.refused);
        return w->tally.first_refusal;
}

static int count_down(struct tree_count *s, struct image *img, struct tree_plan plan)
{
        CO_BEGIN(s);
        CO_TRY(s, out, run(&s->walk, img, plan));
        CO_TRY(s, out, tell_refused(s->walk, img));
out:
        end_run(&s->walk);
        CO_END(s);
}

int tree_count_down(struct tree_count *s, struct image *img, struct l1_table *l1,
                    uint32_t slots)
{
        const struct tree_plan plan = { .l1 = l1, .slots = slots, .mode = TREE_COUNT_DOWN };

        return count_down(s, img, plan);
}

int tree_unprepare(struct tree_count *s, struct image *img)
{
        int ret;

        if (s->co.line == 0)
                s->counted = img->walked_slots;
        ret = count_down(s, img, back_plan(s, img, &img->active));
        if (ret != CO_PENDING)
                img->walked_slots = 0;          /* what it did not reach leaks */
        return ret;
}

int tree_clear_copied(struct tree_count *s, struct image *img, struct l1_table *l1)
{
        const struct tree_plan plan = {
                .l1 = l1, .slots = l1->count, .mode = TREE_CLEAR_COPIED,
        };

        CO_BEGIN(s);
        CO_TRY(s, out, run(&s->walk, img, plan));
out:
        end_run(&s->walk);
        CO_END(s);
}

int tree_refresh_copied(struct tree_count *s, struct image *img)
{
        const struct tree_plan plan = {
                .l1 = &img->active, .slots = img->active.count, .mode = TREE_REFRESH_COPIED,
                .is_active = true,
        };

        CO_BEGIN(s);
        CO_TRY(s, out, run(&s->walk, img, plan));
out:
        end_run(&s->walk);
        CO_END(s);
}

/* A free, even an empty one, waits for all reads that began before. */
int tree_drop(struct tree_drop *s, struct image *img, struct l1_table *l1)
{
        CO_BEGIN(s);
        clusters_free_later(img, l1->offset, l1->offset ? (uint64_t)l1->count * 8 : 0, 1);
        CO_TRY(s, out, meta_drain(&s->drain, img));
        CO_TRY(s, out, tree_count_down(&s->count, img, l1, l1->count));
out:
        CO_END(s);
}
