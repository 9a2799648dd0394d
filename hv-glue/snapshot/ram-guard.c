/*
 * ram-guard.c - RAM that is saved and loaded while the guest runs: units, faults, life.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "host/error.h"
#include "snapshot/ram-guard-parts.h"
#include "snapshot/ram-lazy.h"

/* ---- The lock ------------------------------------------------------------------------- */

void ram_guard_lock(struct ram_guard *g)
{
        g_atomic_int_inc(&g->pressing);
        pthread_mutex_lock(&g->lock);
        g_atomic_int_add(&g->pressing, -1);
}

void ram_guard_lock_patiently(struct ram_guard *g)
{
        while (g_atomic_int_get(&g->pressing) > 0)
                sched_yield();
        pthread_mutex_lock(&g->lock);
}

void ram_guard_unlock(struct ram_guard *g)
{
        pthread_mutex_unlock(&g->lock);
}

/* ---- Units; with the lock ------------------------------------------------------------- */

void ram_unit_open(struct ram_guard *g, uint64_t unit)
{
        int ret = uffd_unprotect(g->fd, unit_at(g, unit), RAM_UNIT_BYTES);

        /* Nobody could go on, ever. */
        if (ret < 0)
                g_error("userfaultfd: taking protection off: %s", g_strerror(-ret));
        unit_change(g, unit, UNIT_SHUT, UNIT_CHANGED);
}

/* What was a hole may be one in the next snapshot again: that costs nothing, so CHANGED is no
 * loss, and the zero page that it shares is protected the first time with the others. */
void ram_unit_fill_zeros(struct ram_guard *g, uint64_t unit)
{
        int ret;

        if (g->units[unit] & UNIT_DUE)
                ram_unit_copy(g, unit);
        ret = uffd_fill_zeros(g->fd, unit_at(g, unit), RAM_UNIT_BYTES);
        if (ret < 0)
                g_error("userfaultfd: zero pages: %s", g_strerror(-ret));
        unit_change(g, unit, UNIT_ABSENT | UNIT_ASKED | UNIT_WANTED, UNIT_CHANGED);
        pthread_cond_broadcast(&g->filled);
}

/* ---- Faults; on the guard's thread ----------------------------------------------------- */

static void serve_missing(struct ram_guard *g, uint64_t unit)
{
        if (!(g->units[unit] & UNIT_ABSENT))
                return;                 /* filled in the meantime, which woke them */
        if (!ram_lazy_has(g, unit) || !ram_lazy_urge(g, unit))
                ram_unit_fill_zeros(g, unit);
}

static void serve_write(struct ram_guard *g, uint64_t unit)
{
        if (g->units[unit] & UNIT_DUE) {
                if (g->copy_count >= RAM_COPIES_MAX) {
                        g_array_append_val(g->parked, unit);
                        return;
                }
                ram_unit_copy(g, unit);
        }
        ram_unit_open(g, unit);
}

static void serve_faults(struct ram_guard *g)
{
        struct uffd_fault fault;
        int ret;

        while ((ret = uffd_next(g->fd, &fault)) > 0) {
                uint64_t unit = (uint64_t) ((uint8_t *) fault.at - g->ram) / RAM_UNIT_BYTES;

                g_assert(unit < g->unit_count);
                ram_guard_lock(g);
                if (fault.is_missing)
                        serve_missing(g, unit);
                else
                        serve_write(g, unit);
                ram_guard_unlock(g);
        }
        if (ret < 0)
                g_error("userfaultfd: %s", g_strerror(-ret));
}

static void *thread_main(void *opaque)
{
        struct ram_guard *g = opaque;
        struct pollfd fds[] = {
                { .fd = g->fd, .events = POLLIN },
                { .fd = g->quit_fd, .events = POLLIN },
        };

        while (fds[1].revents == 0) {
                if (poll(fds, G_N_ELEMENTS(fds), -1) < 0)
                        continue;
                if (fds[0].revents & POLLIN)
                        serve_faults(g);
        }
        return NULL;
}

/* ---- The host's own accesses ----------------------------------------------------------- */

/* Waits for it to be loaded, and copies it whatever the limit is: see is_tight. */
static bool touch_unit(struct ram_guard *g, uint64_t unit, bool for_write)
{
        bool is_there = true;

        ram_guard_lock(g);
        while (is_there && g->units[unit] & UNIT_ABSENT) {
                if (!ram_lazy_has(g, unit))
                        ram_unit_fill_zeros(g, unit);
                else if (ram_lazy_urge(g, unit))
                        pthread_cond_wait(&g->filled, &g->lock);
                else
                        is_there = false;
        }
        if (for_write && g->units[unit] & UNIT_SHUT) {
                if (g->units[unit] & UNIT_DUE)
                        ram_unit_copy(g, unit);
                ram_unit_open(g, unit);
        }
        ram_guard_unlock(g);
        return is_there && !g_atomic_int_get(&g->is_lost);
}

static bool watch_touch(struct guest_memory_watch *watch, uint64_t ram_offset, uint64_t bytes,
                        bool for_write)
{
        struct ram_guard *g = (struct ram_guard *) watch;
        unsigned stops = UNIT_ABSENT | (for_write ? UNIT_SHUT : 0);
        uint64_t end = (ram_offset + bytes + RAM_UNIT_BYTES - 1) / RAM_UNIT_BYTES;

        if (g_atomic_int_get(&g->is_lost))
                return false;
        for (uint64_t unit = ram_offset / RAM_UNIT_BYTES; unit < end; unit++)
                if (unit_bits(g, unit) & stops && !touch_unit(g, unit, for_write))
                        return false;
        return true;
}

/* Nobody brings it the old contents any more: what is not there is zeros. */
static void watch_renew(struct guest_memory_watch *watch)
{
        struct ram_guard *g = (struct ram_guard *) watch;

        ram_lazy_leave(g);
        ram_guard_lock_patiently(g);
        for (uint64_t unit = 0; unit < g->unit_count; unit++)
                if (g->units[unit] & UNIT_ABSENT)
                        unit_change(g, unit, 0, UNIT_CHANGED);
        ram_guard_unlock(g);
        g_atomic_int_set(&g->is_lost, 0);
}

static bool watch_is_tight(struct guest_memory_watch *watch)
{
        struct ram_guard *g = (struct ram_guard *) watch;
        bool is_tight;

        if (__atomic_load_n(&g->copy_count, __ATOMIC_RELAXED) < RAM_COPIES_MAX)
                return false;
        pthread_mutex_lock(&g->lock);
        is_tight = g->copy_count >= RAM_COPIES_MAX;
        /* Never back to 0: another disk may have been told. */
        if (is_tight)
                g_atomic_int_set(&g->is_tight, 1);
        pthread_mutex_unlock(&g->lock);
        return is_tight;
}

/* ---- Life ----------------------------------------------------------------------------- */

void ram_base_clear(struct ram_base *base)
{
        page_map_clear(&base->map);
        *base = (struct ram_base) { .disk = NULL };
}

static void guard_free(struct guest_memory_watch *watch)
{
        struct ram_guard *g = (struct ram_guard *) watch;
        const uint64_t one = 1;

        ram_lazy_stop(g);
        if (g->has_thread) {
                if (write(g->quit_fd, &one, sizeof(one)) != sizeof(one))
                        g_error("eventfd: %s", g_strerror(errno));
                pthread_join(g->thread, NULL);
        }
        /* All that is registered is released by this, and nobody waits any more. */
        if (g->fd >= 0)
                close(g->fd);
        if (g->quit_fd >= 0)
                close(g->quit_fd);
        g_assert(g->copy_count == 0);
        g_array_unref(g->parked);
        ram_base_clear(&g->base);
        g_free(g->units);
        pthread_cond_destroy(&g->filled);
        pthread_mutex_destroy(&g->lock);
        g_free(g);
}

static int begin(struct ram_guard *g, bool is_absent, struct hvb_error *err)
{
        int ret = uffd_open(&g->fd, err);

        if (ret < 0)
                return ret;
        g->quit_fd = eventfd(0, EFD_CLOEXEC);
        g->units = g_try_malloc(g->unit_count);
        if (g->quit_fd < 0 || g->units == NULL)
                return error_set(err, -ENOMEM, "no memory to guard RAM with");
        memset(g->units, is_absent ? UNIT_ABSENT : UNIT_CHANGED, g->unit_count);
        ret = uffd_register(g->fd, g->ram, g->unit_count * RAM_UNIT_BYTES, is_absent);
        if (ret < 0)
                return error_set(err, ret, "userfaultfd does not take RAM: %s", g_strerror(-ret));
        ret = -pthread_create(&g->thread, NULL, thread_main, g);
        if (ret < 0)
                return error_set(err, ret, "no thread to guard RAM: %s", g_strerror(-ret));
        g->has_thread = true;
        return 0;
}

int ram_guard_make(struct machine *m, struct guest_memory *memory, bool is_absent,
                   struct ram_guard **ret_guard, struct hvb_error *err)
{
        struct ram_guard *g = g_new0(struct ram_guard, 1);
        int ret;

        g_assert(memory->ram_bytes % RAM_UNIT_BYTES == 0);
        g->watch = (struct guest_memory_watch) {
                watch_touch, watch_is_tight, watch_renew, guard_free,
        };
        g->machine = m;
        g->ram = memory->ram;
        g->unit_count = memory->ram_bytes / RAM_UNIT_BYTES;
        g->fd = g->quit_fd = -1;
        g->parked = g_array_new(FALSE, FALSE, sizeof(uint64_t));
        g->is_populated = is_absent;
        pthread_mutex_init(&g->lock, NULL);
        pthread_cond_init(&g->filled, NULL);
        ret = begin(g, is_absent, err);
        if (ret < 0) {
                guard_free(&g->watch);
                return ret;
        }
        guest_memory_set_watch(memory, &g->watch);
        *ret_guard = g;
        return 0;
}

int ram_guard_new(struct machine *m, struct guest_memory *memory, struct ram_guard **ret_guard,
                  struct hvb_error *err)
{
        return ram_guard_make(m, memory, false, ret_guard, err);
}

struct ram_guard *ram_guard_of(const struct guest_memory *memory)
{
        return (struct ram_guard *) memory->watch;
}
