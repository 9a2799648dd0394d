/*
 * ram-cut.c - saving RAM while the guest runs: how units are protected, and their copies.
 *
 * Protecting takes time for every page (a hundred times less for huge ones), so most of it is
 * done before the pause, in rounds: in each one the guest opens what it writes to meanwhile,
 * at the price of a fault a unit, which is more than protecting it costs; so each round has
 * less to do than the one before.
 *
 * Pages that were never touched have no entry that could be protected (kernels from 6.4 on have a
 * way, others not).  So all are read first: those get the page of zeros, which costs no memory.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "host/error.h"
#include "snapshot/job.h"
#include "snapshot/ram-guard-parts.h"
#include "snapshot/ram-save.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

enum {
        HUGE_UNITS = (2 << 20) / RAM_UNIT_BYTES,        /* what a huge page holds */
        POPULATE_UNITS = (64 << 20) / RAM_UNIT_BYTES,
        ROUNDS_MAX = 6,
        FEW_UNITS = 64,                 /* so many open ones are left for the pause */
        ROUND_UNITS = (32 << 20) / RAM_UNIT_BYTES,      /* shut at once while the guest runs */
        GAP_UNITS = (32 << 20) / RAM_UNIT_BYTES,        /* see shut_some */
};

/* ---- Protecting ----------------------------------------------------------------------- */

static bool is_open(const struct ram_guard *g, uint64_t unit)
{
        return !(unit_bits(g, unit) & (UNIT_SHUT | UNIT_ABSENT));
}

/* Behind the last open unit of [first, end), or in front of a gap that is too large. */
static uint64_t open_end(const struct ram_guard *g, uint64_t first, uint64_t end)
{
        uint64_t open_until = first;

        for (uint64_t unit = first; unit < end && unit - open_until < GAP_UNITS; unit++)
                if (is_open(g, unit))
                        open_until = unit + 1;
        return open_until;
}

/*
 * Shuts the next open units from *unit on, at most some max_units, and counts them.  *unit
 * becomes the unit behind.  With the lock.
 *
 * Each call of the kernel ends with telling all processors that run the guest, which takes
 * longer than looking at a page that is protected already: so what lies between open units is
 * protected once more.  The end is that of a huge page, which would be split.
 */
static int shut_some(struct ram_guard *g, uint64_t max_units, uint64_t *unit, uint64_t *count)
{
        uint64_t first = *unit;
        uint64_t limit;
        int ret;

        while (first < g->unit_count && !is_open(g, first))
                first++;
        limit = MIN(g->unit_count, first - first % HUGE_UNITS + max_units);
        *unit = open_end(g, first, limit);
        if (*unit == first)
                return 0;
        ret = uffd_protect(g->fd, unit_at(g, first), (*unit - first) * RAM_UNIT_BYTES);
        for (uint64_t u = first; u < *unit && ret == 0; u++) {
                if (!is_open(g, u))
                        continue;
                unit_change(g, u, 0, UNIT_SHUT);
                ++*count;
        }
        return ret;
}

/* All that are open now, while the guest runs.  Returns how many there were, or -errno. */
static int64_t shut_all(struct ram_guard *g, struct vm_job *job)
{
        uint64_t count = 0;
        uint64_t unit = 0;
        int ret = 0;

        while (unit < g->unit_count && ret == 0) {
                ram_guard_lock_patiently(g);
                ret = shut_some(g, ROUND_UNITS, &unit, &count);
                ram_guard_unlock(g);
                if (ret == 0 && job_is_cancelled(job))
                        ret = -ECANCELED;
        }
        return ret < 0 ? ret : (int64_t) count;
}

static int populate(struct ram_guard *g, struct vm_job *job)
{
        for (uint64_t unit = 0; unit < g->unit_count; unit += POPULATE_UNITS) {
                uint64_t count = MIN(POPULATE_UNITS, g->unit_count - unit);

                if (job_is_cancelled(job))
                        return -ECANCELED;
                while (madvise(unit_at(g, unit), count * RAM_UNIT_BYTES, MADV_POPULATE_READ) < 0)
                        if (errno != EAGAIN && errno != EINTR)
                                return -errno;
        }
        g->is_populated = true;
        return 0;
}

static int protecting_failed(struct hvb_error *err, int ret)
{
        if (ret == -ECANCELED)
                return error_set(err, ret, "cancelled");
        return error_set(err, ret, "RAM cannot be protected: %s", g_strerror(-ret));
}

int ram_guard_approach(struct ram_guard *g, struct vm_job *job, struct hvb_error *err)
{
        int64_t count = g->is_populated ? 0 : populate(g, job);

        for (unsigned round = 0; round < ROUNDS_MAX && count >= 0; round++) {
                count = shut_all(g, job);
                if (count <= FEW_UNITS)
                        break;
        }
        return count < 0 ? protecting_failed(err, (int) count) : 0;
}

/* ---- The cut -------------------------------------------------------------------------- */

/* Has any unit of [unit, end) changed? */
static bool any_changed(const struct ram_guard *g, uint64_t unit, uint64_t end)
{
        for (; unit < end; unit++)
                if (g->units[unit] & UNIT_CHANGED)
                        return true;
        return false;
}

static void make_due(struct ram_guard *g, uint64_t group_units, bool whole)
{
        for (uint64_t first = 0; first < g->unit_count; first += group_units) {
                uint64_t end = MIN(first + group_units, g->unit_count);
                bool due = whole || end - first < group_units || any_changed(g, first, end);

                for (uint64_t unit = first; unit < end; unit++) {
                        unsigned set = due ? UNIT_DUE | UNIT_WAS_DUE : 0;

                        g_assert(!is_open(g, unit));
                        if (g->units[unit] & UNIT_CHANGED)
                                set |= UNIT_WAS_CHANGED;
                        unit_change(g, unit, UNIT_CHANGED, set);
                }
        }
}

/*
 * Under one lock: a write that was on its way when the machine paused (the kernel may finish it
 * on a thread of its own) has its unit opened by the guard's thread at any time.  Between being
 * shut and becoming DUE that would leave it open and DUE.
 */
int ram_guard_cut(struct ram_guard *g, uint64_t cluster_bytes, bool whole, struct vm_job *job,
                  struct hvb_error *err)
{
        uint64_t count = 0;
        uint64_t unit = 0;
        int ret = 0;

        ram_guard_lock(g);
        while (unit < g->unit_count && ret == 0)
                ret = shut_some(g, g->unit_count, &unit, &count);
        if (ret == 0) {
                g_assert(g->copy_count == 0 && g->lazy == NULL);
                g->job = job;
                g->error = 0;
                g->walk = 0;
                make_due(g, MAX(1, cluster_bytes / RAM_UNIT_BYTES),
                         whole || g->base.disk == NULL);
        }
        ram_guard_unlock(g);
        return ret < 0 ? protecting_failed(err, ret) : 0;
}

uint64_t ram_guard_run(const struct ram_guard *g, uint64_t unit, uint64_t max_units,
                       bool *ret_due)
{
        uint64_t end = unit + MIN(max_units, g->unit_count - unit);
        unsigned due = unit_bits(g, unit) & UNIT_WAS_DUE;
        uint64_t at = unit;

        while (at < end && (unit_bits(g, at) & UNIT_WAS_DUE) == due)
                at++;
        *ret_due = due != 0;
        return at - unit;
}

const struct ram_base *ram_guard_base(const struct ram_guard *g)
{
        return g->base.disk != NULL ? &g->base : NULL;
}

/* ---- Copies --------------------------------------------------------------------------- */

/* Read without the lock as well. */
static void count_copies(struct ram_guard *g, int more)
{
        __atomic_store_n(&g->copy_count, g->copy_count + (unsigned) more, __ATOMIC_RELAXED);
}

/* NULL: no memory. */
static struct ram_copy *copy_new(const struct ram_guard *g, uint64_t unit)
{
        struct ram_copy *copy = g_try_new0(struct ram_copy, 1);
        void *bytes;

        if (copy == NULL)
                return NULL;
        if (posix_memalign(&bytes, GUEST_PAGE_BYTES, RAM_UNIT_BYTES) != 0) {
                g_free(copy);
                return NULL;
        }
        copy->link.data = copy;
        copy->unit = unit;
        copy->bytes = memcpy(bytes, unit_at(g, unit), RAM_UNIT_BYTES);
        return copy;
}

static void drop_copy(struct ram_guard *g, GQueue *queue, struct ram_copy *copy)
{
        g_queue_unlink(queue, &copy->link);
        free(copy->bytes);
        g_free(copy);
        count_copies(g, -1);
}

/* The guest goes on; the saver hears of it. */
static void stop_copying(struct ram_guard *g, int error)
{
        g->error = error;
        for (uint64_t unit = 0; unit < g->unit_count; unit++)
                unit_change(g, unit, UNIT_DUE, 0);
        for (guint i = 0; i < g->parked->len; i++)
                ram_unit_open(g, g_array_index(g->parked, uint64_t, i));
        g_array_set_size(g->parked, 0);
}

void ram_unit_copy(struct ram_guard *g, uint64_t unit)
{
        struct ram_copy *copy;

        g_assert(g->units[unit] & UNIT_DUE);
        unit_change(g, unit, UNIT_DUE, 0);
        if (g->units[unit] & UNIT_ABSENT || memory_is_zero(unit_at(g, unit), RAM_UNIT_BYTES)) {
                job_count(&g->job->done_bytes, RAM_UNIT_BYTES);
                return;
        }
        copy = copy_new(g, unit);
        if (copy == NULL) {
                stop_copying(g, -ENOMEM);
                return;
        }
        g_queue_push_tail_link(&g->copies, &copy->link);
        count_copies(g, 1);
}

/* Copies the next DUE unit from walk on.  False: there is none.  With the lock. */
static bool walk_on(struct ram_guard *g)
{
        while (g->walk < g->unit_count && !(g->units[g->walk] & UNIT_DUE))
                g->walk++;
        if (g->walk == g->unit_count)
                return false;
        ram_unit_copy(g, g->walk);
        return true;
}

int ram_guard_take(struct ram_guard *g, struct ram_copy **ret_copy)
{
        GList *link = NULL;
        bool more = true;
        int error = 0;

        while (link == NULL && more && error == 0) {
                ram_guard_lock_patiently(g);
                if (g_queue_is_empty(&g->copies))
                        more = walk_on(g);
                error = g->error;
                link = error == 0 ? g_queue_pop_head_link(&g->copies) : NULL;
                if (link != NULL)
                        g_queue_push_tail_link(&g->taken, link);
                ram_guard_unlock(g);
        }
        if (link == NULL)
                return error;
        *ret_copy = link->data;
        return 1;
}

void ram_guard_give_back(struct ram_guard *g, struct ram_copy *copy)
{
        bool kick;

        ram_guard_lock_patiently(g);
        drop_copy(g, &g->taken, copy);
        if (g->parked->len > 0 && g->copy_count < RAM_COPIES_MAX) {
                uint64_t unit = g_array_index(g->parked, uint64_t, 0);

                g_array_remove_index(g->parked, 0);
                if (g->units[unit] & UNIT_DUE)
                        ram_unit_copy(g, unit);
                ram_unit_open(g, unit);
        }
        kick = g->copy_count < RAM_COPIES_MAX / 2 &&
               g_atomic_int_compare_and_exchange(&g->is_tight, 1, 0);
        ram_guard_unlock(g);
        if (kick)
                machine_kick_disks(g->machine);
}

void ram_guard_end(struct ram_guard *g, struct ram_base *new_base)
{
        ram_guard_lock_patiently(g);
        while (!g_queue_is_empty(&g->copies))
                drop_copy(g, &g->copies, g_queue_peek_head(&g->copies));
        while (!g_queue_is_empty(&g->taken))
                drop_copy(g, &g->taken, g_queue_peek_head(&g->taken));
        stop_copying(g, 0);
        for (uint64_t unit = 0; unit < g->unit_count; unit++) {
                bool was = g->units[unit] & UNIT_WAS_CHANGED;

                unit_change(g, unit, UNIT_WAS_DUE | UNIT_WAS_CHANGED,
                            was && new_base == NULL ? UNIT_CHANGED : 0);
        }
        if (new_base != NULL) {
                ram_base_clear(&g->base);
                g->base = *new_base;
                *new_base = (struct ram_base) { .disk = NULL };
        }
        ram_guard_unlock(g);
        if (g_atomic_int_compare_and_exchange(&g->is_tight, 1, 0))
                machine_kick_disks(g->machine);
}
