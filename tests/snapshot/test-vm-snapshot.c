/*
 * test-vm-snapshot.c - savevm, loadvm, delvm and the list over one to three disks.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/machine-bed.h"

#define expect_text(b, words) \
        do { \
                if (strstr((b)->err.text, words) == NULL) \
                        g_error("'%s' does not say '%s'", (b)->err.text, words); \
        } while (0)

/* There, on, and back; again after a restart. */
static void test_there_and_back(gconstpointer disk_count)
{
        uint64_t step;
        struct bed b;

        bed_open(&b, GPOINTER_TO_UINT(disk_count), BED_RAM_BYTES);
        bed_expect_list(&b, "");
        step = fake_step(b.m);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        g_assert_cmpuint(b.job.done_bytes, ==, BED_RAM_BYTES);
        g_assert_cmpuint(b.job.total_bytes, ==, BED_RAM_BYTES);
        g_assert_cmpuint(b.job.written_bytes, <, BED_RAM_BYTES / 2);
        g_assert_cmpuint(b.job.pause_nsec, >, 0);
        bed_expect_list(&b, "a");
        g_assert_cmpuint(fake_step(b.m), ==, step);
        g_assert_true(fake_verify(b.m));

        fake_run_steps(b.m, 500);
        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
        g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_RUNNING);
        fake_stop(b.m);
        g_assert_true(fake_verify(b.m));
        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
        g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_PAUSED);
        g_assert_cmpuint(fake_step(b.m), ==, step);
        g_assert_true(fake_verify(b.m));
        bed_expect_clean(&b);

        fake_run_steps(b.m, 200);
        bed_machine_close(&b);
        bed_machine_open(&b);
        bed_expect_list(&b, "a");
        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
        g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_PRELAUNCH);
        g_assert_cmpuint(fake_step(b.m), ==, step);
        g_assert_true(fake_verify(b.m));
        g_assert_cmpint(bed_del(&b, "a"), ==, 0);
        bed_expect_list(&b, "");
        bed_expect_clean(&b);
        bed_close(&b);
}

/* The guest runs while it is asked for; what is saved is of one moment. */
static void test_running(gconstpointer disk_count)
{
        struct bed b;

        bed_open(&b, GPOINTER_TO_UINT(disk_count), BED_RAM_BYTES);
        fake_cont(b.m);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_RUNNING);
        fake_run_steps(b.m, 300);
        g_assert_cmpint(bed_save(&b, "b", false), ==, 0);
        fake_run_steps(b.m, 300);
        g_assert_cmpint(bed_save(&b, "a", false), ==, -EEXIST);
        expect_text(&b, "Snapshot 'a' already exists in one or more devices");
        g_assert_cmpint(bed_save(&b, "a", true), ==, 0);
        bed_expect_list(&b, "a b");
        fake_stop(b.m);
        for (unsigned round = 0; round < 4; round++) {
                uint64_t step;

                g_assert_cmpint(bed_load(&b, round % 2 ? "a" : "b"), ==, 0);
                step = fake_step(b.m);
                g_assert_true(fake_verify(b.m));
                g_assert_cmpuint(machine_clock_nsec(b.m), ==, step * 1000);
                fake_run_steps(b.m, 100);
                fake_stop(b.m);
        }
        bed_expect_clean(&b);
        bed_close(&b);
}

static void test_own_tag(void)
{
        g_autoptr(GPtrArray) rows = NULL;
        const struct vm_snapshot_row *row;
        struct bed b;

        bed_open(&b, 1, BED_RAM_BYTES);
        g_assert_cmpint(bed_save(&b, NULL, true), ==, 0);
        rows = vm_snapshots(b.m, &b.err);
        g_assert_cmpuint(rows->len, ==, 1);
        row = rows->pdata[0];
        g_assert_true(g_regex_match_simple("^vm-20[0-9]{12}$", row->info.name, 0, 0));
        g_assert_cmpuint(row->info.icount, ==, UINT64_MAX);
        g_assert_cmpuint(row->info.vm_clock_nsec, ==, machine_clock_nsec(b.m));
        g_assert_cmpuint(row->info.vm_state_bytes, >, BED_RAM_BYTES);
        bed_close(&b);
}

/* All that is refused leaves everything as it is. */
static void test_refused(void)
{
        struct vm_snapshot_options options = { .tag = "a" };
        const char *ids[] = { "virtio1", "other", NULL };
        g_autofree char *long_tag = g_strnfill(256, 'x');
        uint32_t sum;
        struct bed b;

        bed_open(&b, 2, BED_RAM_BYTES);
        sum = fake_sum(b.m);
        g_assert_cmpint(bed_load(&b, "a"), ==, -ENOENT);
        expect_text(&b, "Snapshot 'a' does not exist in one or more devices");
        g_assert_cmpint(bed_del(&b, "a"), ==, -ENOENT);
        g_assert_cmpint(bed_save(&b, long_tag, true), ==, -ENAMETOOLONG);
        g_assert_cmpint(bed_save(&b, "", true), ==, -EINVAL);
        options.vmstate_disk = "none";
        g_assert_cmpint(vm_savevm(b.m, &options, NULL, &b.err), ==, -ENOENT);
        expect_text(&b, "vmstate block device 'none' does not exist");
        options.vmstate_disk = NULL;
        options.disks = ids;
        g_assert_cmpint(vm_savevm(b.m, &options, NULL, &b.err), ==, -ENOENT);
        expect_text(&b, "No block device node 'other'");
        ids[1] = NULL;
        g_assert_cmpint(vm_savevm(b.m, &options, NULL, &b.err), ==, 0);
        bed_expect_list(&b, "a@virtio1");
        g_assert_cmpint(bed_load(&b, "a"), ==, -ENOENT);
        g_assert_cmpint(bed_save(&b, "a", false), ==, -EEXIST);
        g_assert_cmpuint(fake_sum(b.m), ==, sum);
        g_assert_cmpint(vm_loadvm(b.m, &options, NULL, &b.err), ==, 0);
        g_assert_cmpint(bed_del(&b, "a"), ==, 0);
        bed_expect_list(&b, "");
        g_assert_true(fake_verify(b.m));
        bed_close(&b);
}

/* The VM state on a disk that is not the first. */
static void test_other_disk(void)
{
        struct vm_snapshot_options options = { .tag = "a", .vmstate_disk = "virtio1" };
        struct bed b;

        bed_open(&b, 2, BED_RAM_BYTES);
        g_assert_cmpint(vm_savevm(b.m, &options, NULL, &b.err), ==, 0);
        bed_expect_list(&b, "a");
        fake_run_steps(b.m, 100);
        fake_stop(b.m);
        options.vmstate_disk = "virtio0";
        g_assert_cmpint(vm_loadvm(b.m, &options, NULL, &b.err), ==, -EINVAL);
        g_assert_cmpstr(b.err.text, ==,
                        "This is a disk-only snapshot. Revert to it  offline using qemu-img");
        g_assert_true(fake_verify(b.m));
        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
        g_assert_true(fake_verify(b.m));
        bed_expect_clean(&b);
        bed_close(&b);
}

/* Read-only disks take no part; a raw one that is writable makes it impossible. */
static void test_raw(void)
{
        struct fake_disk_options disks[2] = { { 0 } };
        g_autofree char *raw = NULL;
        struct machine *m;
        struct bed b;

        bed_open(&b, 1, BED_RAM_BYTES);
        bed_machine_close(&b);
        raw = g_build_filename(b.directory, "raw", NULL);
        g_assert_true(g_file_set_contents(raw, "", 0, NULL));
        g_assert_cmpint(truncate(raw, 4 << 20), ==, 0);
        disks[0].path = b.paths[0];
        disks[1] = (struct fake_disk_options) { raw, "raw", false };
        m = fake_new(BED_RAM_BYTES, disks, 2);
        b.m = m;
        g_assert_cmpint(bed_save(&b, "a", true), ==, -ENOTSUP);
        g_assert_cmpstr(b.err.text, ==,
                        "Device 'virtio1' is writable but does not support snapshots");
        g_assert_cmpint(bed_load(&b, "a"), ==, -ENOTSUP);
        fake_free(m);

        disks[1].read_only = true;
        b.m = m = fake_new(BED_RAM_BYTES, disks, 2);
        g_assert_cmpint(bed_save(&b, "a", true), ==, 0);
        bed_expect_list(&b, "a");
        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
        bed_machine_close(&b);

        /* Of another machine: the read-only disk is missing. */
        bed_machine_open(&b);
        g_assert_cmpint(bed_load(&b, "a"), ==, -ENOTSUP);
        expect_text(&b, "a machine with 2 disks, this one has 1");
        bed_machine_close(&b);
        b.ram_bytes *= 2;
        bed_machine_open(&b);
        g_assert_cmpint(bed_load(&b, "a"), ==, -ENOTSUP);
        expect_text(&b, "8 MiB of RAM, this one has 16 MiB");
        g_unlink(raw);
        bed_close(&b);
}

static void make_snapshot(const char *path, const char *name, uint64_t vm_state_bytes,
                          const void *state, size_t count)
{
        struct drive_options how = { .format = "qcow2", .flags = HVB_OPEN_RDWR };
        struct hvb_snapshot_info info = { .vm_state_bytes = vm_state_bytes };
        struct iovec iov = { (void *) state, count };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;

        g_strlcpy(info.name, name, sizeof(info.name));
        g_assert_cmpint(drive_open(path, &how, &drive, &err), ==, 0);
        if (count > 0)
                g_assert_cmpint(drive_save_vmstate(drive, 0, &iov, 1), ==, 0);
        g_assert_cmpint(drive_snapshot_create(drive, &info, 0, &err), ==, 0);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
}

/* What others made: of the disks only, of QEMU, of nobody. */
static void test_foreign(void)
{
        char qemu[4096] = "QEVM\0\0\0\3";
        char junk[4096] = "junk";
        uint32_t sum;
        struct bed b;

        bed_open(&b, 1, BED_RAM_BYTES);
        bed_machine_close(&b);
        make_snapshot(b.paths[0], "disk", 0, NULL, 0);
        make_snapshot(b.paths[0], "qemu", 1 << 20, qemu, sizeof(qemu));
        make_snapshot(b.paths[0], "junk", 1 << 20, junk, sizeof(junk));
        make_snapshot(b.paths[0], "none", 1, NULL, 0);
        bed_machine_open(&b);
        sum = fake_sum(b.m);
        bed_expect_list(&b, "disk? junk none qemu");
        g_assert_cmpint(bed_load(&b, "disk"), ==, -EINVAL);
        expect_text(&b, "disk-only snapshot");
        g_assert_cmpint(bed_load(&b, "qemu"), ==, -ENOTSUP);
        expect_text(&b, "QEMU");
        g_assert_cmpint(bed_load(&b, "junk"), ==, -EINVAL);
        expect_text(&b, "no VM state of this hypervisor");
        g_assert_cmpint(bed_load(&b, "none"), ==, -EINVAL);
        g_assert_cmpuint(fake_sum(b.m), ==, sum);
        g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_PRELAUNCH);
        g_assert_cmpint(bed_del(&b, "junk"), ==, 0);
        bed_expect_list(&b, "disk? none qemu");
        bed_expect_clean(&b);
        bed_close(&b);
}

/* One name on two disks, but of two moments. */
static void test_two_moments(void)
{
        struct vm_snapshot_options options = { .tag = "a" };
        const char *first[] = { "virtio0", NULL };
        const char *second[] = { "virtio1", NULL };
        struct bed b;

        bed_open(&b, 2, BED_RAM_BYTES);
        options.disks = first;
        g_assert_cmpint(vm_savevm(b.m, &options, NULL, &b.err), ==, 0);
        options.disks = second;
        g_assert_cmpint(vm_savevm(b.m, &options, NULL, &b.err), ==, 0);
        bed_expect_list(&b, "a@virtio0 a@virtio1");
        g_assert_cmpint(bed_load(&b, "a"), ==, -EINVAL);
        expect_text(&b, "of another moment");
        g_assert_true(fake_verify(b.m));
        g_assert_cmpint(bed_save(&b, "a", true), ==, 0);
        bed_expect_list(&b, "a");
        g_assert_cmpint(bed_del(&b, "a"), ==, 0);
        bed_expect_list(&b, "");
        bed_expect_clean(&b);
        bed_close(&b);
}

static void test_cancel(void)
{
        struct vm_snapshot_options options = { .tag = "a" };
        struct vm_job job = { .cancelled = 1 };
        uint32_t sum;
        struct bed b;

        bed_open(&b, 2, BED_RAM_BYTES);
        sum = fake_sum(b.m);
        g_assert_cmpint(vm_savevm(b.m, &options, &job, &b.err), ==, -ECANCELED);
        bed_expect_list(&b, "");
        bed_expect_clean(&b);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        g_assert_cmpint(vm_loadvm(b.m, &options, &job, &b.err), ==, -ECANCELED);
        g_assert_cmpuint(fake_sum(b.m), ==, sum);
        g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_PAUSED);
        bed_expect_list(&b, "a");
        bed_close(&b);
}

/* A device that the kernel refuses, after the disks went back. */
static void test_apply_fails(gconstpointer disk_count)
{
        g_autofree char *tag = NULL;
        uint64_t step;
        struct bed b;

        bed_open(&b, GPOINTER_TO_UINT(disk_count), BED_RAM_BYTES);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        step = fake_step(b.m);
        fake_run_steps(b.m, 100);
        fake_fail_apply(b.m, -ENODEV);
        g_assert_cmpint(bed_load(&b, "a"), ==, -ENODEV);
        expect_text(&b, "repeat the loadvm");
        g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_INTERNAL_ERROR);
        g_assert_cmpstr(fake_failure(b.m), ==, b.err.text);
        g_assert_cmpint(bed_save(&b, "b", false), ==, -EPERM);
        g_assert_cmpint(vm_loadvm_unfinished(b.m, &tag, &b.err), ==, b.disk_count > 1);

        fake_fail_apply(b.m, 0);
        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
        g_assert_cmpuint(fake_step(b.m), ==, step);
        g_assert_true(fake_verify(b.m));
        g_clear_pointer(&tag, g_free);
        g_assert_cmpint(vm_loadvm_unfinished(b.m, &tag, &b.err), ==, 0);
        bed_expect_list(&b, "a");
        bed_expect_clean(&b);
        bed_close(&b);
}

struct second {
        struct machine *m;
        int result;
};

static gpointer run_second(gpointer opaque)
{
        struct second *s = opaque;
        struct vm_snapshot_options options = { .tag = "second", .replace = true };
        struct hvb_error err;

        s->result = vm_savevm(s->m, &options, NULL, &err);
        return NULL;
}

/* Two at once: each is done whole, or told that the other runs. */
static void test_busy(void)
{
        struct second s;
        struct bed b;
        int busy = 0;

        bed_open(&b, 1, BED_RAM_BYTES);
        fake_cont(b.m);
        for (unsigned round = 0; round < 20; round++) {
                GThread *thread;
                int ret;

                s = (struct second) { b.m, 1 };
                thread = g_thread_new("second", run_second, &s);
                ret = bed_save(&b, "first", true);
                g_thread_join(thread);
                g_assert_true(ret == 0 || ret == -EBUSY);
                g_assert_true(s.result == 0 || s.result == -EBUSY);
                g_assert_true(ret == 0 || s.result == 0);
                busy += ret == -EBUSY || s.result == -EBUSY;
        }
        g_test_message("busy: %d of 20", busy);
        fake_stop(b.m);
        bed_expect_clean(&b);
        bed_close(&b);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        for (guint disks = 1; disks <= 3; disks++) {
                g_autofree char *back = g_strdup_printf("/vm/there-and-back/%u", disks);
                g_autofree char *running = g_strdup_printf("/vm/running/%u", disks);
                g_autofree char *apply = g_strdup_printf("/vm/apply-fails/%u", disks);

                g_test_add_data_func(back, GUINT_TO_POINTER(disks), test_there_and_back);
                g_test_add_data_func(running, GUINT_TO_POINTER(disks), test_running);
                g_test_add_data_func(apply, GUINT_TO_POINTER(disks), test_apply_fails);
        }
        g_test_add_func("/vm/own-tag", test_own_tag);
        g_test_add_func("/vm/refused", test_refused);
        g_test_add_func("/vm/other-disk", test_other_disk);
        g_test_add_func("/vm/raw", test_raw);
        g_test_add_func("/vm/foreign", test_foreign);
        g_test_add_func("/vm/two-moments", test_two_moments);
        g_test_add_func("/vm/cancel", test_cancel);
        g_test_add_func("/vm/busy", test_busy);
        return g_test_run();
}
