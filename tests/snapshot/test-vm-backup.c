/*
 * test-vm-backup.c - snapshots written to files of their own, under a guest that never stops.
 *
 * What is in the file is what qemu-img extracts from the snapshot.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>

#include "snapshot/backup.h"
#include "snapshot/machine-bed.h"
#include "unit/qemu-img.h"

static char *path_in(const struct bed *b, const char *name)
{
        return g_build_filename(b->directory, name, NULL);
}

static int back_up(struct bed *b, const char *disk, const char *tag, const char *target,
                   const char *format)
{
        const struct vm_backup_options options = {
                .disk = disk, .tag = tag, .target = target, .format = format,
        };

        b->job = (struct vm_job) { 0 };
        return vm_backup(b->m, &options, &b->job, &b->err);
}

/* Against what QEMU says that the snapshot holds.  Removes the target. */
static void expect_same(struct bed *b, unsigned disk, const char *tag, const char *target,
                        const char *format)
{
        g_autofree char *expected = path_in(b, "expected.raw");
        g_autofree char *extract = g_strdup_printf("convert -U -l snapshot.name=%s -f qcow2 -O raw",
                                                   tag);
        g_autofree char *compare = g_strdup_printf("compare -f raw -F %s", format);

        g_free(qemu_img(extract, b->paths[disk], expected));
        g_free(qemu_img(compare, expected, target));
        if (strcmp(format, "qcow2") == 0)
                g_free(qemu_img("check -q -f qcow2", target, ""));
        g_remove(expected);
        g_remove(target);
}

static void test_beside_the_guest(void)
{
        g_autofree char *target = NULL;
        struct bed b;

        if (qemu_img_missing())
                return;
        bed_open(&b, 2, BED_RAM_BYTES);
        target = path_in(&b, "backup");
        fake_cont(b.m);
        fake_run_steps(b.m, 300);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        for (unsigned i = 0; i < 2; i++) {
                g_autofree char *disk = g_strdup_printf("virtio%u", i);

                fake_run_steps(b.m, 100);
                g_assert_cmpint(back_up(&b, disk, "a", target, NULL), ==, 0);
                g_assert_cmpuint(b.job.done_bytes, ==, b.job.total_bytes);
                g_assert_cmpuint(b.job.written_bytes, >, 0);
                expect_same(&b, i, "a", target, "qcow2");
                g_assert_cmpint(back_up(&b, disk, "a", target, "raw"), ==, 0);
                expect_same(&b, i, "a", target, "raw");
        }
        fake_stop(b.m);
        g_assert_true(fake_verify(b.m));
        bed_expect_clean(&b);
        bed_close(&b);
}

struct deleter {
        struct bed *bed;
        int result;
};

static gpointer delete_thread(gpointer opaque)
{
        struct deleter *d = opaque;
        const struct vm_snapshot_options options = { .tag = "a" };

        while (__atomic_load_n(&d->bed->job.total_bytes, __ATOMIC_ACQUIRE) == 0)
                g_usleep(100);
        d->result = vm_delvm(d->bed->m, &options, NULL, NULL);
        return NULL;
}

/* From the moment it is opened the backup does not need the snapshot's name. */
static void test_deleted_meanwhile(void)
{
        g_autofree char *target = NULL, *before = NULL;
        struct deleter d;
        GThread *thread;
        struct bed b;

        if (qemu_img_missing())
                return;
        bed_open(&b, 1, BED_RAM_BYTES);
        d.bed = &b;
        target = path_in(&b, "backup");
        before = path_in(&b, "before");
        fake_run_steps(b.m, 300);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        g_free(qemu_img("convert -U -l snapshot.name=a -f qcow2 -O raw", b.paths[0], before));
        fake_cont(b.m);
        b.job.total_bytes = 0;
        thread = g_thread_new("delete", delete_thread, &d);
        g_assert_cmpint(back_up(&b, "virtio0", "a", target, "raw"), ==, 0);
        g_thread_join(thread);
        g_assert_cmpint(d.result, ==, 0);
        g_free(qemu_img("compare -f raw -F raw", before, target));
        g_remove(before);
        g_remove(target);
        fake_stop(b.m);
        g_assert_true(fake_verify(b.m));
        bed_expect_list(&b, "");
        bed_expect_clean(&b);
        bed_close(&b);
}

static void expect_refused(struct bed *b, const char *disk, const char *tag, const char *target,
                           const char *format, int code, const char *words)
{
        g_assert_cmpint(back_up(b, disk, tag, target, format), ==, code);
        if (strstr(b->err.text, words) == NULL)
                g_error("'%s' does not say '%s'", b->err.text, words);
}

static void test_refusals(void)
{
        const struct vm_backup_options options = { .disk = "virtio0", .tag = "a" };
        struct vm_backup_options cancelled = options;
        g_autofree char *target = NULL, *nowhere = NULL;
        struct bed b;

        bed_open(&b, 1, BED_RAM_BYTES);
        target = path_in(&b, "backup");
        nowhere = path_in(&b, "missing/backup");
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        expect_refused(&b, "virtio7", "a", target, NULL, -ENODEV, "device='virtio7'");
        expect_refused(&b, "virtio0", "b", target, NULL, -ENOENT, "Snapshot 'b' does not exist");
        expect_refused(&b, "virtio0", "a", target, "vmdk", -EINVAL, "format 'vmdk'");
        expect_refused(&b, "virtio0", "a", nowhere, NULL, -ENOENT, nowhere);
        expect_refused(&b, "virtio0", "a", b.paths[0], NULL, -EEXIST, b.paths[0]);

        cancelled.target = target;
        b.job = (struct vm_job) { .cancelled = 1 };
        g_assert_cmpint(vm_backup(b.m, &cancelled, &b.job, &b.err), ==, -ECANCELED);
        g_assert_false(g_file_test(target, G_FILE_TEST_EXISTS));
        bed_expect_clean(&b);
        bed_close(&b);
}

/* Where the target's file system is full there is no target, and the guest does not notice. */
static void test_full(void)
{
        g_autofree char *small = NULL, *target = NULL;
        struct bed b;

        /* Of this thread alone, which is who writes the target. */
        if (unshare(CLONE_NEWNS) < 0) {
                g_test_skip("mounting a small file system needs root");
                return;
        }
        bed_open(&b, 1, BED_RAM_BYTES);
        small = path_in(&b, "small");
        target = g_build_filename(small, "backup", NULL);
        g_assert_cmpint(g_mkdir(small, 0700), ==, 0);
        g_assert_cmpint(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), ==, 0);
        g_assert_cmpint(mount("small", small, "tmpfs", 0, "size=64k"), ==, 0);
        fake_cont(b.m);
        fake_run_steps(b.m, 1000);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        expect_refused(&b, "virtio0", "a", target, "raw", -ENOSPC, "No space left");
        expect_refused(&b, "virtio0", "a", target, "qcow2", -ENOSPC, "No space left");
        g_assert_false(g_file_test(target, G_FILE_TEST_EXISTS));
        fake_run_steps(b.m, 100);
        fake_stop(b.m);
        g_assert_true(fake_verify(b.m));
        g_assert_cmpint(umount(small), ==, 0);
        g_rmdir(small);
        bed_expect_clean(&b);
        bed_close(&b);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/vm/backup/beside-the-guest", test_beside_the_guest);
        g_test_add_func("/vm/backup/deleted-meanwhile", test_deleted_meanwhile);
        g_test_add_func("/vm/backup/refusals", test_refusals);
        g_test_add_func("/vm/backup/full", test_full);
        return g_test_run();
}
