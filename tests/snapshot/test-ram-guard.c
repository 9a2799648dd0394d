/*
 * test-ram-guard.c - RAM is cut at one moment while threads write to it, and what is said to be
 * unchanged is.
 *
 * Writers are vcpus: they hold a lock for reading while they write, which a pause takes for
 * writing.  One of them is a disk, in whose place the kernel writes.  At each cut all of RAM is
 * kept besides, and what is taken from the guard compared with that.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/error.h"
#include "snapshot/ram-guard.h"
#include "snapshot/ram-save.h"

enum { WRITERS = 3, ROUNDS = 8, TOUCH_BYTES = 12000, PACE_USEC = 100 };

#define RAM_BYTES       (UINT64_C(96) << 20)    /* more than RAM_COPIES_MAX units */
#define UNITS           (RAM_BYTES / RAM_UNIT_BYTES)

struct writer {
        GThread *thread;
        struct guest *guest;
        uint64_t random;
        bool is_disk;
};

struct guest {
        struct guest_memory memory;
        struct ram_guard *guard;
        pthread_rwlock_t running;
        struct writer writers[WRITERS];
        gint quit;
        gint writes;
        uint8_t *at_cut;                /* RAM */
        uint8_t *at_base;
        int memory_fd;                  /* what the disk reads */
        struct vm_job job;
        struct hvb_error err;
        struct machine_disk disk;
};

/* ---- The guest ------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

/* Most writes go to some place of their own for a while. */
static uint64_t next_offset(struct writer *w, uint64_t bytes)
{
        uint64_t place = next_random(&w->random) % 64 == 0 ? RAM_BYTES : RAM_BYTES / 16;

        return next_random(&w->random) % (place - bytes) & ~UINT64_C(7);
}

static void vcpu_write(struct writer *w)
{
        uint8_t *at = w->guest->memory.ram + next_offset(w, 64);
        uint64_t value = next_random(&w->random);

        for (unsigned i = 0; i < 64; i++)
                __atomic_store_n(&at[i], (uint8_t) (value >> i % 8), __ATOMIC_RELAXED);
}

static void disk_write(struct writer *w)
{
        uint64_t offset = next_offset(w, TOUCH_BYTES);
        uint8_t *at = w->guest->memory.ram + offset;

        if (guest_memory_is_tight(&w->guest->memory))
                return;
        g_assert_true(guest_memory_touch(&w->guest->memory, at, TOUCH_BYTES, true));
        g_assert_cmpint(pread(w->guest->memory_fd, at, TOUCH_BYTES, (off_t) offset), ==,
                        TOUCH_BYTES);
}

static gpointer writer_main(gpointer opaque)
{
        struct writer *w = opaque;

        while (!g_atomic_int_get(&w->guest->quit)) {
                pthread_rwlock_rdlock(&w->guest->running);
                (w->is_disk ? disk_write : vcpu_write)(w);
                pthread_rwlock_unlock(&w->guest->running);
                g_atomic_int_inc(&w->guest->writes);
                g_usleep(PACE_USEC);
        }
        return NULL;
}

/* Half of RAM has contents, the rest was never touched. */
static void guest_open(struct guest *g, bool huge_pages)
{
        pthread_rwlockattr_t fair;

        memset(g, 0, sizeof(*g));
        g_assert_cmpint(guest_memory_init(&g->memory, RAM_BYTES, huge_pages, &g->err), ==, 0);
        for (uint64_t i = 0; i < RAM_BYTES / 2; i += GUEST_PAGE_BYTES)
                memset(g->memory.ram + i, (int) (i / GUEST_PAGE_BYTES % 7), GUEST_PAGE_BYTES);
        g->at_cut = g_malloc0(RAM_BYTES);
        g->at_base = g_malloc0(RAM_BYTES);
        g->memory_fd = memfd_create("disk", MFD_CLOEXEC);
        g_assert_cmpint(write(g->memory_fd, g->memory.ram, RAM_BYTES / 2), ==, RAM_BYTES / 2);
        g_assert_cmpint(ftruncate(g->memory_fd, RAM_BYTES), ==, 0);
        pthread_rwlockattr_init(&fair);
        pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        pthread_rwlock_init(&g->running, &fair);
        for (unsigned i = 0; i < WRITERS; i++) {
                g->writers[i] = (struct writer) {
                        .guest = g, .random = i + 1, .is_disk = i == 0,
                };
                g->writers[i].thread = g_thread_new("writer", writer_main, &g->writers[i]);
        }
}

static void guest_close(struct guest *g)
{
        g_atomic_int_set(&g->quit, 1);
        for (unsigned i = 0; i < WRITERS; i++)
                g_thread_join(g->writers[i].thread);
        guest_memory_clear(&g->memory);
        pthread_rwlock_destroy(&g->running);
        close(g->memory_fd);
        g_free(g->at_cut);
        g_free(g->at_base);
}

static void let_write(struct guest *g, int writes)
{
        int end = g_atomic_int_get(&g->writes) + writes;

        while (g_atomic_int_get(&g->writes) < end)
                g_usleep(100);
}

/* ---- Cuts ------------------------------------------------------------------------------ */

static void guard_guest(struct guest *g)
{
        g_assert_cmpint(ram_guard_new(NULL, &g->memory, &g->guard, &g->err), ==, 0);
        g_assert_true(ram_guard_of(&g->memory) == g->guard);
        g_assert_null(ram_guard_base(g->guard));
}

static void cut(struct guest *g, uint64_t cluster_bytes)
{
        g_assert_cmpint(ram_guard_approach(g->guard, &g->job, &g->err), ==, 0);
        pthread_rwlock_wrlock(&g->running);
        memcpy(g->at_cut, g->memory.ram, RAM_BYTES);
        g_assert_cmpint(ram_guard_cut(g->guard, cluster_bytes, false, &g->job, &g->err), ==, 0);
        pthread_rwlock_unlock(&g->running);
}

static void end(struct guest *g, bool success)
{
        struct ram_base base = { .disk = &g->disk };

        ram_guard_end(g->guard, success ? &base : NULL);
        if (success)
                memcpy(g->at_base, g->at_cut, RAM_BYTES);
}

static const uint8_t *unit_in(const uint8_t *ram, uint64_t unit)
{
        return ram + unit * RAM_UNIT_BYTES;
}

/* Takes at most so many copies, and marks what came.  False: there are no more. */
static bool take(struct guest *g, uint8_t *seen, unsigned count)
{
        while (count-- > 0) {
                struct ram_copy *copy;
                int ret = ram_guard_take(g->guard, &copy);

                g_assert_cmpint(ret, >=, 0);
                if (ret == 0)
                        return false;
                g_assert_cmpuint(seen[copy->unit], ==, 0);
                seen[copy->unit] = 1;
                g_assert_cmpint(memcmp(copy->bytes, unit_in(g->at_cut, copy->unit),
                                       RAM_UNIT_BYTES), ==, 0);
                ram_guard_give_back(g->guard, copy);
        }
        return true;
}

/* Each unit came, was zero, or is what it was at the base.  Returns how many those are. */
static uint64_t expect_complete(struct guest *g, const uint8_t *seen, uint64_t cluster_units)
{
        uint64_t unchanged = 0;
        uint64_t run;

        for (uint64_t unit = 0; unit < UNITS; unit += run) {
                bool due;

                run = ram_guard_run(g->guard, unit, UNITS, &due);
                g_assert_cmpuint(run, >, 0);
                g_assert_cmpuint(unit % cluster_units, ==, 0);
                for (uint64_t u = unit; u < unit + run; u++) {
                        const uint8_t *was = unit_in(g->at_cut, u);

                        if (due)
                                g_assert_true(seen[u] != memory_is_zero(was, RAM_UNIT_BYTES));
                        else
                                g_assert_cmpint(memcmp(was, unit_in(g->at_base, u),
                                                       RAM_UNIT_BYTES), ==, 0);
                }
                unchanged += due ? 0 : run;
        }
        return unchanged;
}

/* Every third saving fails: the base stays. */
static void test_cuts(gconstpointer huge_pages)
{
        g_autofree uint8_t *seen = g_malloc(UNITS);
        uint64_t unchanged = 0;
        struct guest g;

        guest_open(&g, huge_pages != NULL);
        let_write(&g, 1000);
        guard_guest(&g);
        for (unsigned round = 0; round < ROUNDS; round++) {
                uint64_t cluster_units = round % 4 == 3 ? 32 : 1;
                bool fails = round % 3 == 1;

                memset(seen, 0, UNITS);
                g.job.done_bytes = 0;
                cut(&g, cluster_units * RAM_UNIT_BYTES);
                take(&g, seen, 200);
                let_write(&g, 500);
                if (fails) {
                        end(&g, false);
                        continue;
                }
                take(&g, seen, UINT_MAX);
                unchanged += expect_complete(&g, seen, cluster_units);
                end(&g, true);
        }
        g_test_message("units that were the base's: %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT,
                       unchanged, (uint64_t) UNITS * ROUNDS);
        g_assert_cmpuint(unchanged, >, 0);
        guest_close(&g);
}

/* More is written to than there are copies: vcpus wait, the disk is told, nobody is lost. */
static void test_slow_saver(void)
{
        g_autofree uint8_t *seen = g_malloc0(UNITS);
        unsigned tight = 0;
        struct guest g;

        guest_open(&g, false);
        memset(g.memory.ram, 1, RAM_BYTES);
        guard_guest(&g);
        cut(&g, RAM_UNIT_BYTES);
        for (unsigned i = 0; i < 3000 && tight < 20; i++) {
                uint64_t unit = i % UNITS;

                if (!guest_memory_is_tight(&g.memory))
                        g_assert_true(guest_memory_touch(&g.memory, unit_in(g.memory.ram, unit), 1,
                                                         true));
                else
                        tight++;
        }
        g_assert_cmpuint(tight, ==, 20);
        /* Those that wait go on one by one, and then all. */
        take(&g, seen, UINT_MAX);
        g_assert_false(guest_memory_is_tight(&g.memory));
        let_write(&g, 1000);
        expect_complete(&g, seen, 1);
        end(&g, true);
        guest_close(&g);
}

/* A saver that gives up: who waits goes on, and the guard goes with the memory. */
static void test_give_up(void)
{
        g_autofree uint8_t *seen = g_malloc0(UNITS);
        struct ram_copy *copy;
        struct guest g;

        guest_open(&g, true);
        guard_guest(&g);
        g.job.cancelled = 1;
        g_assert_cmpint(ram_guard_approach(g.guard, &g.job, &g.err), ==, -ECANCELED);
        g.job.cancelled = 0;
        cut(&g, RAM_UNIT_BYTES);
        g_assert_cmpint(ram_guard_take(g.guard, &copy), ==, 1);
        g_assert_cmpint(ram_guard_take(g.guard, &copy), ==, 1);
        ram_guard_end(g.guard, NULL);
        let_write(&g, 1000);
        cut(&g, RAM_UNIT_BYTES);
        take(&g, seen, UINT_MAX);
        g_assert_cmpuint(expect_complete(&g, seen, 1), ==, 0);
        end(&g, true);
        guest_close(&g);
}

/* ---- No memory for a copy ---------------------------------------------------------------- */

static gint no_memory;

int __real_posix_memalign(void **ret, size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **ret, size_t alignment, size_t bytes);

int __wrap_posix_memalign(void **ret, size_t alignment, size_t bytes)
{
        return g_atomic_int_get(&no_memory) ? ENOMEM : __real_posix_memalign(ret, alignment, bytes);
}

/* The saver hears of it though copies wait for it, and the guest goes on. */
static void test_no_memory(void)
{
        g_autofree uint8_t *seen = g_malloc0(UNITS);
        struct ram_copy *copy;
        struct guest g;

        guest_open(&g, false);
        memset(g.memory.ram, 1, RAM_BYTES);
        guard_guest(&g);
        cut(&g, RAM_UNIT_BYTES);
        g_assert_true(guest_memory_touch(&g.memory, g.memory.ram, RAM_BYTES / 2, true));
        g_atomic_int_set(&no_memory, 1);
        g_assert_true(guest_memory_touch(&g.memory, g.memory.ram, RAM_BYTES, true));
        g_assert_cmpint(ram_guard_take(g.guard, &copy), ==, -ENOMEM);
        g_atomic_int_set(&no_memory, 0);
        end(&g, false);
        let_write(&g, 1000);
        cut(&g, RAM_UNIT_BYTES);
        take(&g, seen, UINT_MAX);
        expect_complete(&g, seen, 1);
        end(&g, true);
        guest_close(&g);
}

/* ---- A write that is on its way --------------------------------------------------------- */

/*
 * One writer that no pause stops: what the kernel has begun for a vcpu and finishes later.  It
 * writes 1, 2, 3, ... each to some unit, so a cut that is one moment has all numbers up to some
 * one, and none behind it.
 */
enum { LATE_CUTS = 300, LATE_UNITS = 32 };

struct late {
        struct guest_memory memory;
        gint quit;
        uint64_t newest;
};

static uint64_t late_unit(uint64_t number)
{
        return (number * UINT64_C(0x9e3779b97f4a7c15) >> 32) % LATE_UNITS;
}

static gpointer late_main(gpointer opaque)
{
        struct late *l = opaque;

        for (uint64_t number = 1; !g_atomic_int_get(&l->quit); number++) {
                uint8_t *at = l->memory.ram + late_unit(number) * RAM_UNIT_BYTES;

                __atomic_store_n((uint64_t *) (void *) at, number, __ATOMIC_RELEASE);
                __atomic_store_n(&l->newest, number, __ATOMIC_RELEASE);
        }
        return NULL;
}

static void late_let_write(const struct late *l, uint64_t writes)
{
        uint64_t end = __atomic_load_n(&l->newest, __ATOMIC_ACQUIRE) + writes;

        while (__atomic_load_n(&l->newest, __ATOMIC_ACQUIRE) < end)
                g_thread_yield();
}

/* The numbers that a cut has, by unit. */
static void late_take(struct ram_guard *guard, uint64_t found[LATE_UNITS])
{
        struct ram_copy *copy;
        int ret;

        memset(found, 0, LATE_UNITS * sizeof(found[0]));
        while ((ret = ram_guard_take(guard, &copy)) > 0) {
                g_assert_cmpuint(copy->unit, <, LATE_UNITS);
                memcpy(&found[copy->unit], copy->bytes, sizeof(found[0]));
                ram_guard_give_back(guard, copy);
        }
        g_assert_cmpint(ret, ==, 0);
}

static void late_expect_moment(const uint64_t found[LATE_UNITS])
{
        uint64_t newest = 0;

        for (unsigned u = 0; u < LATE_UNITS; u++)
                newest = MAX(newest, found[u]);
        for (unsigned u = 0; u < LATE_UNITS; u++) {
                uint64_t number = newest;

                while (number > 0 && late_unit(number) != u)
                        number--;
                g_assert_cmpuint(found[u], ==, number);
        }
}

static void test_late_writes(void)
{
        struct late l = { .quit = 0 };
        struct hvb_error err = ERROR_INIT;
        struct vm_job job = { .cancelled = 0 };
        uint64_t found[LATE_UNITS];
        struct ram_guard *guard;
        GThread *writer;

        g_assert_cmpint(guest_memory_init(&l.memory, 8 << 20, false, &err), ==, 0);
        g_assert_cmpint(ram_guard_new(NULL, &l.memory, &guard, &err), ==, 0);
        writer = g_thread_new("late", late_main, &l);
        for (unsigned i = 0; i < LATE_CUTS; i++) {
                late_let_write(&l, 100);
                g_assert_cmpint(ram_guard_approach(guard, &job, &err), ==, 0);
                g_assert_cmpint(ram_guard_cut(guard, RAM_UNIT_BYTES, true, &job, &err), ==, 0);
                late_take(guard, found);
                ram_guard_end(guard, NULL);
                late_expect_moment(found);
        }
        g_atomic_int_set(&l.quit, 1);
        g_thread_join(writer);
        guest_memory_clear(&l.memory);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_data_func("/ram-guard/cuts/small-pages", NULL, test_cuts);
        g_test_add_data_func("/ram-guard/cuts/huge-pages", GINT_TO_POINTER(1), test_cuts);
        g_test_add_func("/ram-guard/slow-saver", test_slow_saver);
        g_test_add_func("/ram-guard/no-memory", test_no_memory);
        g_test_add_func("/ram-guard/late-writes", test_late_writes);
        g_test_add_func("/ram-guard/give-up", test_give_up);
        return g_test_run();
}
