/*
 * test-snapshots.c - internal snapshots on images that qemu-img made, against memory models.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "lib/effort.h"
#include "unit/snapshot-scene.h"

static const char *const formats[] = {
        "cluster_size=512",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=4k,refcount_bits=4",
        "cluster_size=4k,compat=0.10",
        "cluster_size=64k,refcount_bits=32",
        "cluster_size=64k,refcount_bits=16",
        "cluster_size=8k,refcount_bits=8,lazy_refcounts=on",
        "cluster_size=2M",
};

/* Created, gone to, deleted in all orders, the disk changing in between. */
static void test_life(gconstpointer options)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, options, 5 << 20);
        scene_write(&s, 60);
        scene_create(&s, "first");
        scene_write(&s, 20);
        scene_create(&s, "second");
        scene_verify(&s);
        scene_write(&s, 20);
        scene_goto(&s, "first");
        scene_verify(&s);
        scene_write(&s, 20);
        scene_create(&s, "third");
        scene_write(&s, 5);
        scene_delete(&s, "first");
        scene_verify(&s);
        scene_goto(&s, "second");
        scene_delete(&s, "second");
        scene_verify(&s);
        scene_write(&s, 20);
        scene_delete(&s, "third");
        scene_verify(&s);
        scene_end(&s);
}

/* Each side works on what the other made. */
static void test_qemu(gconstpointer options)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, options, 3 << 20);
        scene_write(&s, 30);
        qemu_snapshot(&s, "-c theirs");
        note_created(&s, "theirs");
        scene_write(&s, 20);
        scene_create(&s, "ours");
        scene_write(&s, 20);
        qemu_snapshot(&s, "-a ours");
        note_gone_to(&s, "ours");
        scene_write(&s, 10);
        scene_verify(&s);
        scene_goto(&s, "theirs");
        scene_write(&s, 10);
        scene_verify(&s);
        qemu_snapshot(&s, "-d ours");
        note_deleted(&s, "ours");
        scene_write(&s, 10);
        scene_delete(&s, "theirs");
        scene_verify(&s);
        scene_end(&s);
}

/* A count that cannot grow refuses the snapshot, and nothing of it stays. */
static void test_overflow(void)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "refcount_bits=1,cluster_size=4k", 3 << 20);
        scene_write(&s, 30);
        expect_error(&s, bed_create(&s.bed, "a", 0, 0, NULL), -EINVAL, "refcount_bits=1");
        scene_verify(&s);
        scene_write(&s, 10);
        scene_verify(&s);
        scene_end(&s);

        scene_begin(&s, "refcount_bits=2,cluster_size=4k", 3 << 20);
        scene_write(&s, 30);
        scene_create(&s, "a");
        scene_create(&s, "b");
        scene_write(&s, 3);
        expect_error(&s, bed_create(&s.bed, "c", 0, 0, NULL), -EINVAL, "refcount_bits=2");
        expect_error(&s, bed_goto(&s.bed, "a"), -EINVAL, "refcount_bits=2");
        scene_verify(&s);
        scene_delete(&s, "a");
        scene_create(&s, "c");
        scene_verify(&s);
        scene_end(&s);
}

static void test_replace(void)
{
        struct hvb_snapshot_info info;
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=4k", 3 << 20);
        scene_write(&s, 30);
        scene_create(&s, "a");
        scene_create(&s, "b");
        scene_write(&s, 10);
        expect_error(&s, bed_create(&s.bed, "a", 0, 0, NULL), -EEXIST, "'a'");
        scene_verify(&s);
        g_assert_cmpint(bed_create(&s.bed, "a", 0, HVB_SNAPSHOT_REPLACE, &info), ==, 0);
        g_assert_cmpstr(info.id_str, ==, "3");
        g_assert_cmpuint(info.disk_bytes, ==, s.disk_bytes);
        note_deleted(&s, "a");
        note_created(&s, "a");
        scene_verify(&s);
        scene_write(&s, 10);
        scene_goto(&s, "a");
        scene_verify(&s);
        scene_end(&s);
}

/* By name it is the first, by id each; qemu-img takes them apart in the same way. */
static void test_duplicate(void)
{
        const uint32_t both = HVB_SNAPSHOT_REPLACE | HVB_SNAPSHOT_DUPLICATE;
        struct hvb_snapshot_info info;
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=4k", 3 << 20);
        scene_write(&s, 30);
        g_assert_cmpint(bed_create(&s.bed, "a", 0, HVB_SNAPSHOT_DUPLICATE, NULL), ==, 0);
        note_created(&s, "a");
        scene_write(&s, 10);
        g_assert_cmpint(bed_create(&s.bed, "a", 0, HVB_SNAPSHOT_DUPLICATE, &info), ==, 0);
        g_assert_cmpstr(info.id_str, ==, "2");
        note_created(&s, "a");
        scene_write(&s, 10);
        expect_error(&s, bed_create(&s.bed, "a", 0, both, NULL), -EINVAL, "not both");
        expect_list(&s);

        bed_close(&s.bed);
        g_free(qemu_img("check -q", s.path, ""));
        expect_raw(&s, "convert -O raw -l snapshot.id=1", s.snapshots[0].model, s.disk_bytes);
        expect_raw(&s, "convert -O raw -l snapshot.id=2", s.snapshots[1].model, s.disk_bytes);
        scene_open(&s);

        g_assert_cmpint(bed_create(&s.bed, "a", 0, HVB_SNAPSHOT_REPLACE, &info), ==, 0);
        g_assert_cmpstr(info.id_str, ==, "3");
        note_deleted(&s, "a");
        note_created(&s, "a");
        expect_list(&s);
        g_assert_cmpint(bed_named(&s.bed, bed_goto_step, "2", "a"), ==, 0);
        note_gone_to(&s, "a");
        bed_compare(&s.bed, s.model, s.disk_bytes);
        qemu_snapshot(&s, "-d a");
        note_deleted(&s, "a");
        scene_verify(&s);
        scene_end(&s);
}

static void test_lookup(void)
{
        char long_name[256];
        struct scene s;

        if (qemu_img_missing())
                return;
        memset(long_name, 'n', sizeof(long_name) - 1);
        long_name[sizeof(long_name) - 1] = '\0';
        scene_begin(&s, "cluster_size=4k", 1 << 20);
        scene_create(&s, "2");
        scene_create(&s, long_name);
        expect_error(&s, bed_create(&s.bed, "", 0, 0, NULL), -EINVAL, "name");
        expect_error(&s, bed_goto(&s.bed, "none"), -ENOENT, "snapshot 'none' not found");
        expect_error(&s, bed_delete(&s.bed, "1"), -ENOENT, "snapshot '1' not found");
        expect_error(&s, bed_named(&s.bed, bed_delete_step, "2", "2"), -ENOENT, "with id '2'");
        expect_error(&s, bed_named(&s.bed, bed_goto_step, "9", NULL), -ENOENT, "id '9'");
        g_assert_cmpint(bed_named(&s.bed, bed_delete_step, "1", "2"), ==, 0);
        note_deleted(&s, "2");
        g_assert_cmpint(bed_named(&s.bed, bed_goto_step, "2", NULL), ==, 0);
        scene_verify(&s);
        scene_create(&s, "x");
        g_assert_cmpstr(s.bed.img->snapshots[1].id, ==, "3");
        scene_verify(&s);
        scene_end(&s);
}

static void test_size(void)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=512", 1 << 20);
        scene_write(&s, 20);
        scene_create(&s, "small");
        bed_close(&s.bed);
        g_free(qemu_img("resize -q", s.path, "3M"));
        s.model = g_realloc(s.model, 3 << 20);
        memset(s.model + s.disk_bytes, 0, (3 << 20) - s.disk_bytes);
        s.disk_bytes = 3 << 20;
        scene_open(&s);
        scene_write(&s, 40);
        scene_create(&s, "large");
        scene_goto(&s, "small");
        scene_verify(&s);
        scene_write(&s, 10);
        scene_goto(&s, "large");
        scene_verify(&s);
        scene_end(&s);
}

/* Read-only, in memory: the file does not change by one bit. */
static void test_load_tmp(void)
{
        g_autofree uint8_t *before = NULL;
        g_autofree uint8_t *after = NULL;
        size_t before_bytes;
        size_t after_bytes;
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=4k", 3 << 20);
        scene_write(&s, 30);
        scene_create(&s, "a");
        scene_write(&s, 30);
        expect_error(&s, bed_named(&s.bed, bed_load_tmp_step, NULL, "a"), -EINVAL, "read-only");
        bed_close(&s.bed);
        before = image_read(s.path, &before_bytes);
        bed_open(&s.bed, s.path, false, 0, 0);
        bed_compare(&s.bed, s.model, s.disk_bytes);
        g_assert_cmpint(bed_goto(&s.bed, "a"), ==, -EROFS);
        g_assert_cmpint(bed_named(&s.bed, bed_load_tmp_step, NULL, "a"), ==, 0);
        bed_compare(&s.bed, s.snapshots[0].model, s.snapshots[0].disk_bytes);
        bed_close(&s.bed);
        after = image_read(s.path, &after_bytes);
        g_assert_cmpmem(before, before_bytes, after, after_bytes);
        scene_open(&s);
        scene_end(&s);
}

int main(int argc, char **argv)
{
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(formats); i += EFFORT_EVERY) {
                g_autofree char *life = g_strdup_printf("/snapshots/life/%s", formats[i]);
                g_autofree char *qemu = g_strdup_printf("/snapshots/qemu/%s", formats[i]);

                g_test_add_data_func(life, formats[i], test_life);
                g_test_add_data_func(qemu, formats[i], test_qemu);
        }
        g_test_add_func("/snapshots/overflow", test_overflow);
        g_test_add_func("/snapshots/replace", test_replace);
        g_test_add_func("/snapshots/duplicate", test_duplicate);
        g_test_add_func("/snapshots/lookup", test_lookup);
        g_test_add_func("/snapshots/size", test_size);
        g_test_add_func("/snapshots/load-tmp", test_load_tmp);
        return g_test_run();
}
