/*
 * test-vm-rounds.c - savevm, loadvm and delvm again and again under a guest that never
 * stops: nothing differs, leaks or grows.  More rounds where $TEST_SECONDS is set.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>

#include "snapshot/machine-bed.h"

enum { ROUNDS = 50, SOAK_ROUNDS = 200, WARM_UP = 10 };

/* The kernel's own I/O workers come and go as it likes. */
static bool is_kernels(const char *directory, const char *entry)
{
        g_autofree char *path = g_build_filename(directory, entry, "comm", NULL);
        g_autofree char *comm = NULL;

        return g_file_get_contents(path, &comm, NULL, NULL) && g_str_has_prefix(comm, "iou-");
}

static unsigned count_in(const char *directory)
{
        GDir *dir = g_dir_open(directory, 0, NULL);
        unsigned count = 0;
        const char *entry;

        while ((entry = g_dir_read_name(dir)) != NULL)
                count += !is_kernels(directory, entry);
        g_dir_close(dir);
        return count;
}

/* Two tags take turns; each round replaces, runs on, loads one of them and deletes at times. */
static void one_round(struct bed *b, unsigned round)
{
        const char *tag = round % 2 ? "odd" : "even";
        const char *other = round % 2 ? "even" : "odd";
        uint64_t step;

        fake_run_steps(b->m, 40);
        step = fake_step(b->m);
        g_assert_cmpint(bed_save(b, tag, true), ==, 0);
        fake_run_steps(b->m, 40);
        if (round % 3 == 0 && round > 0)
                g_assert_cmpint(bed_del(b, other), ==, 0);
        g_assert_cmpint(bed_load(b, tag), ==, 0);
        fake_stop(b->m);
        g_assert_cmpuint(fake_step(b->m), >=, step);
        g_assert_true(fake_verify(b->m));
        g_assert_cmpint(bed_load(b, tag), ==, 0);
        g_assert_true(fake_verify(b->m));
        bed_expect_clean(b);
        fake_cont(b->m);
}

static void test_rounds(void)
{
        unsigned rounds = g_getenv("TEST_SECONDS") == NULL ? ROUNDS : SOAK_ROUNDS;
        uint64_t warm_clusters = 0;
        unsigned warm_fds = 0;
        unsigned warm_threads = 0;
        struct bed b;

        bed_open(&b, 2, BED_RAM_BYTES);
        fake_cont(b.m);
        for (unsigned round = 0; round < rounds; round++) {
                one_round(&b, round);
                if (round != WARM_UP)
                        continue;
                fake_stop(b.m);
                warm_clusters = bed_allocated_clusters(&b);
                warm_fds = count_in("/proc/self/fd");
                warm_threads = count_in("/proc/self/task");
                fake_cont(b.m);
        }
        fake_stop(b.m);
        g_assert_cmpuint(count_in("/proc/self/fd"), ==, warm_fds);
        g_assert_cmpuint(count_in("/proc/self/task"), ==, warm_threads);
        g_test_message("clusters to the end of the images: %" G_GUINT64_FORMAT ", %"
                       G_GUINT64_FORMAT " after %d rounds", bed_allocated_clusters(&b),
                       warm_clusters, WARM_UP);
        g_assert_cmpuint(bed_allocated_clusters(&b), <=, warm_clusters * 3 / 2);
        g_test_message("%u rounds", rounds);
        bed_close(&b);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/vm/rounds", test_rounds);
        return g_test_run();
}
