/*
 * test-vm-live.c - the guest runs while RAM is saved and loaded, and while that fails.
 *
 * That a snapshot is of one moment shows when it is loaded: fake_verify knows all of RAM and of
 * the disks from the step that the first vcpu is at.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/faulty-driver.h"
#include "snapshot/machine-bed.h"
#include "snapshot/ram-guard.h"
#include "snapshot/uffd.h"

enum { ROUNDS = 6, CANCELS = 20, SHARED = 5 };

#define RAM_BYTES (UINT64_C(8) << 20)

/* ---- A kernel without userfaultfd ------------------------------------------------------ */

static gint no_uffd;

int __real_uffd_open(int *ret_fd, struct hvb_error *err);
int __wrap_uffd_open(int *ret_fd, struct hvb_error *err);

int __wrap_uffd_open(int *ret_fd, struct hvb_error *err)
{
        if (g_atomic_int_get(&no_uffd))
                return error_set(err, -ENOSYS, "userfaultfd: there is none");
        return __real_uffd_open(ret_fd, err);
}

/* The guest waits, and somebody says so. */
static void test_without(void)
{
        struct bed b;

        bed_open(&b, 2, RAM_BYTES);
        fake_cont(b.m);
        g_atomic_int_set(&no_uffd, 1);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        g_assert_cmpstr(fake_told(b.m), ==, "savevm: the guest is stopped while RAM is saved: "
                        "userfaultfd: there is none");
        fake_run_steps(b.m, 200);
        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
        g_assert_cmpstr(fake_told(b.m), ==, "loadvm: the guest waits until all of RAM is read: "
                        "userfaultfd: there is none");
        g_assert_null(ram_guard_of(machine_memory(b.m)));
        fake_stop(b.m);
        g_assert_true(fake_verify(b.m));
        g_atomic_int_set(&no_uffd, 0);
        bed_expect_clean(&b);
        bed_close(&b);
}

/* ---- Loads that go on ------------------------------------------------------------------ */

/* The guest runs at once, and is taken back again before all of it is there. */
static void test_again(gconstpointer eager_too)
{
        struct bed b;

        bed_open(&b, 2, RAM_BYTES);
        fake_run_steps(b.m, 2000);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        for (unsigned round = 0; round < ROUNDS; round++) {
                fake_run_steps(b.m, (uint64_t) g_test_rand_int_range(1, 100));
                b.eager = eager_too != NULL && round % 3 == 2;
                g_assert_cmpint(bed_load(&b, "a"), ==, 0);
                g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_RUNNING);
                g_assert_true((ram_guard_of(machine_memory(b.m)) == NULL) == b.eager);
                if (round % 2)
                        fake_run_steps(b.m, 50);
                if (round % 4 == 3) {
                        fake_stop(b.m);
                        g_assert_true(fake_verify(b.m));
                        fake_cont(b.m);
                }
        }
        fake_stop(b.m);
        g_assert_true(fake_verify(b.m));
        g_assert_cmpint(bed_wait_loaded(&b), ==, 0);
        bed_expect_clean(&b);
        bed_close(&b);
}

/* What is being loaded is saved, by a guest that writes. */
static void test_save_while_loading(void)
{
        struct bed b;

        bed_open(&b, 1, RAM_BYTES);
        fake_run_steps(b.m, 2000);
        g_assert_cmpint(bed_save(&b, "0", false), ==, 0);
        for (unsigned round = 0; round < ROUNDS; round++) {
                g_autofree char *from = g_strdup_printf("%u", round);
                g_autofree char *to = g_strdup_printf("%u", round + 1);
                uint64_t at_least;

                g_assert_cmpint(bed_load(&b, from), ==, 0);
                at_least = fake_step(b.m);
                g_assert_cmpint(bed_save(&b, to, false), ==, 0);
                fake_run_steps(b.m, 20);
                fake_stop(b.m);
                g_assert_cmpint(bed_load(&b, to), ==, 0);
                g_assert_cmpuint(fake_step(b.m), >=, at_least);
                g_assert_true(fake_verify(b.m));
                fake_cont(b.m);
                if (round % 2)
                        g_assert_cmpint(bed_del(&b, from), ==, 0);
        }
        bed_expect_clean(&b);
        bed_close(&b);
}

/* The snapshot goes while it is loaded; its space when that has ended. */
static void test_delete_while_loading(void)
{
        struct bed b;

        bed_open(&b, 1, RAM_BYTES);
        for (unsigned round = 0; round < ROUNDS; round++) {
                fake_run_steps(b.m, 500);
                g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
                g_assert_cmpint(bed_load(&b, "a"), ==, 0);
                g_assert_cmpint(bed_del(&b, "a"), ==, 0);
                bed_expect_list(&b, "");
                fake_stop(b.m);
                g_assert_true(fake_verify(b.m));
                g_assert_cmpint(bed_wait_loaded(&b), ==, 0);
                bed_expect_clean(&b);
        }
        bed_close(&b);
}

/* ---- RAM that has not changed ---------------------------------------------------------- */

struct image {
        const char *name;
        uint64_t cluster_bytes;
        bool driver_shares;
        unsigned shares;                /* so many snapshots have clusters in common */
};

static const struct image images[] = {
        { "64k", 0, true, SHARED },
        { "4k", 4096, true, SHARED },
        { "2m", 2 << 20, true, 1 },     /* there is none that no step of a few writes to */
        { "copied", 0, false, 1 },
};

/* Each snapshot is whole though most of it is another's, which goes.  The last one is taken of
 * RAM that was loaded. */
static void test_shared(gconstpointer data)
{
        const struct image *image = data;
        uint64_t whole_bytes = 0;
        uint64_t steps[SHARED];
        struct bed b;

        bed_open_with(&b, 1, RAM_BYTES + (1 << 20), image->cluster_bytes);
        faulty_refuse_sharing(!image->driver_shares);
        fake_advance(b.m, 700);
        for (unsigned i = 0; i < SHARED; i++) {
                g_autofree char *tag = g_strdup_printf("%u", i);

                if (i == SHARED - 1) {
                        g_assert_cmpint(bed_load(&b, "1"), ==, 0);
                        fake_advance(b.m, 3);
                }
                g_assert_cmpint(bed_save(&b, tag, false), ==, 0);
                g_assert_cmpuint(b.job.done_bytes, ==, b.ram_bytes);
                if (i == 0)
                        whole_bytes = b.job.written_bytes;
                else
                        g_assert_cmpint(b.job.written_bytes < whole_bytes / 4, ==,
                                        i < image->shares);
                steps[i] = fake_step(b.m);
                bed_expect_clean(&b);
                fake_advance(b.m, 3);
        }
        for (unsigned i = 0; i < SHARED; i++) {
                g_autofree char *tag = g_strdup_printf("%u", i);

                g_assert_cmpint(bed_load(&b, tag), ==, 0);
                g_assert_cmpuint(fake_step(b.m), ==, steps[i]);
                g_assert_true(fake_verify(b.m));
                g_assert_cmpint(bed_del(&b, tag), ==, 0);
                g_assert_cmpint(bed_wait_loaded(&b), ==, 0);
                bed_expect_clean(&b);
        }
        faulty_refuse_sharing(false);
        bed_close(&b);
}

/* What is copied from the base is judged by the base's sums, or a new one would hide the damage. */
static void test_damaged_base(void)
{
        static const uint8_t nothing;
        const struct fed_piece zeros = { 0, &nothing, 1 };
        struct bed b;

        bed_open(&b, 1, RAM_BYTES);
        fake_advance(b.m, 700);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        fake_run_steps(b.m, 3);
        faulty_refuse_sharing(true);
        faulty_feed(&zeros, 1);
        g_assert_cmpint(bed_save(&b, "b", false), ==, -EIO);
        g_assert_nonnull(strstr(b.err.text, "RAM page"));
        faulty_feed(NULL, 0);
        bed_expect_list(&b, "a");
        g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_RUNNING);
        g_assert_cmpint(bed_save(&b, "b", false), ==, 0);
        faulty_refuse_sharing(false);
        fake_stop(b.m);
        g_assert_true(fake_verify(b.m));
        g_assert_cmpint(bed_load(&b, "b"), ==, 0);
        g_assert_true(fake_verify(b.m));
        bed_expect_clean(&b);
        bed_close(&b);
}

/* What is gone, or was replaced, or is another disk's, is no base. */
static void test_no_base(void)
{
        struct vm_snapshot_options options = { .tag = "c", .vmstate_disk = "virtio1" };
        uint64_t whole_bytes;
        struct bed b;

        bed_open(&b, 2, RAM_BYTES);
        fake_advance(b.m, 700);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        whole_bytes = b.job.written_bytes;
        g_assert_cmpint(bed_save(&b, "a", true), ==, 0);
        g_assert_cmpuint(b.job.written_bytes, <, whole_bytes / 4);
        g_assert_cmpint(bed_del(&b, "a"), ==, 0);
        b.stopped = true;
        g_assert_cmpint(bed_save(&b, "other", false), ==, 0);
        b.stopped = false;
        g_assert_cmpint(bed_save(&b, "b", false), ==, 0);
        g_assert_cmpuint(b.job.written_bytes, ==, whole_bytes);
        b.job = (struct vm_job) { .cancelled = 0 };
        g_assert_cmpint(vm_savevm(b.m, &options, &b.job, &b.err), ==, 0);
        g_assert_cmpuint(b.job.written_bytes, ==, whole_bytes);
        bed_expect_clean(&b);
        bed_close(&b);
}

/* ---- Saves that end early -------------------------------------------------------------- */

struct cancel {
        struct vm_job job;
        gint64 usec;                    /* after which it is cancelled */
};

static gpointer cancel_later(gpointer opaque)
{
        struct cancel *c = opaque;

        g_usleep((gulong) c->usec);
        g_atomic_int_set(&c->job.cancelled, 1);
        return NULL;
}

/* At any moment: all is as before, or the snapshot is whole. */
static void test_cancel(gconstpointer disk_count)
{
        unsigned cancelled = 0;
        gint64 usec;
        struct bed b;

        bed_open(&b, GPOINTER_TO_UINT(disk_count), RAM_BYTES);
        fake_run_steps(b.m, 2000);
        usec = g_get_monotonic_time();
        g_assert_cmpint(bed_save(&b, "a", true), ==, 0);
        usec = g_get_monotonic_time() - usec;
        g_assert_cmpint(bed_del(&b, "a"), ==, 0);
        for (unsigned round = 0; round < CANCELS; round++) {
                struct vm_snapshot_options options = { .tag = "a" };
                struct cancel c = { .usec = round * usec / 2 / CANCELS };
                GThread *thread = g_thread_new("cancel", cancel_later, &c);
                int ret = vm_savevm(b.m, &options, &c.job, &b.err);

                g_thread_join(thread);
                g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_RUNNING);
                bed_expect_list(&b, ret == 0 ? "a" : "");
                if (ret == 0) {
                        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
                        fake_stop(b.m);
                        g_assert_true(fake_verify(b.m));
                        fake_cont(b.m);
                        g_assert_cmpint(bed_del(&b, "a"), ==, 0);
                } else {
                        g_assert_cmpint(ret, ==, -ECANCELED);
                        cancelled++;
                }
        }
        g_test_message("%u of %u were cancelled", cancelled, CANCELS);
        fake_stop(b.m);
        g_assert_true(fake_verify(b.m));
        g_assert_cmpint(bed_wait_loaded(&b), ==, 0);
        bed_expect_clean(&b);
        bed_close(&b);
}

/* Each call of the driver's fails once, under a guest that writes and never notices. */
static void test_fails(gconstpointer disk_count)
{
        unsigned failed = 0;
        unsigned calls;
        struct bed b;

        bed_open(&b, GPOINTER_TO_UINT(disk_count), RAM_BYTES);
        fake_run_steps(b.m, 1000);
        faulty_set(FAULT_NONE, 0);
        g_assert_cmpint(bed_save(&b, "a", true), ==, 0);
        calls = faulty_calls();
        for (unsigned nth = 1; nth <= calls; nth += nth < 6 || nth + 8 > calls ? 1 : 31) {
                int ret;

                faulty_set(FAULT_ERROR, nth);
                ret = bed_save(&b, "b", false);
                faulty_set(FAULT_NONE, 0);
                g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_RUNNING);
                if (ret == 0) {
                        g_assert_cmpint(bed_del(&b, "b"), ==, 0);
                } else {
                        g_assert_cmpint(ret, ==, -EIO);
                        failed++;
                }
                bed_expect_list(&b, "a");
                fake_run_steps(b.m, 5);
        }
        g_assert_cmpuint(failed, >, 10);
        fake_stop(b.m);
        g_assert_true(fake_verify(b.m));
        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
        g_assert_true(fake_verify(b.m));
        g_assert_cmpint(bed_wait_loaded(&b), ==, 0);
        bed_expect_clean(&b);
        bed_close(&b);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/vm-live/without", test_without);
        g_test_add_data_func("/vm-live/again/lazy", NULL, test_again);
        g_test_add_data_func("/vm-live/again/eager-too", GINT_TO_POINTER(1), test_again);
        g_test_add_func("/vm-live/save-while-loading", test_save_while_loading);
        g_test_add_func("/vm-live/delete-while-loading", test_delete_while_loading);
        for (size_t i = 0; i < G_N_ELEMENTS(images); i++) {
                g_autofree char *path = g_strconcat("/vm-live/shared/", images[i].name, NULL);

                g_test_add_data_func(path, &images[i], test_shared);
        }
        g_test_add_func("/vm-live/damaged-base", test_damaged_base);
        g_test_add_func("/vm-live/no-base", test_no_base);
        g_test_add_data_func("/vm-live/cancel/1", GINT_TO_POINTER(1), test_cancel);
        g_test_add_data_func("/vm-live/cancel/2", GINT_TO_POINTER(2), test_cancel);
        g_test_add_data_func("/vm-live/fails/1", GINT_TO_POINTER(1), test_fails);
        g_test_add_data_func("/vm-live/fails/3", GINT_TO_POINTER(3), test_fails);
        return g_test_run();
}
