/*
 * test-vmstate.c - VM state: saved, taken by a snapshot, loaded, given up.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "unit/qemu-img.h"
#include "unit/snapshot-bed.h"

#define FAR_OFFSET ((UINT64_C(5) << 30) + 3)
#define CLAIMED_BYTES (UINT64_C(6) << 30)

enum { PIECE_BYTES = 300000 };

static char *new_image(const char *options)
{
        g_autofree char *arguments = g_strdup_printf("create -q -f qcow2 -o %s", options);
        char *path = image_path();

        g_free(qemu_img(arguments, path, "3M"));
        return path;
}

static void save_pattern(struct bed *b, uint64_t offset, int pattern)
{
        g_autofree uint8_t *bytes = g_malloc(PIECE_BYTES);

        memset(bytes, pattern, PIECE_BYTES);
        g_assert_cmpint(bed_save(b, offset, bytes, PIECE_BYTES), ==, 0);
}

static void expect_pattern(struct bed *b, uint64_t offset, int pattern)
{
        g_autofree uint8_t *bytes = g_malloc(PIECE_BYTES);
        unsigned i;

        memset(bytes, 0xee, PIECE_BYTES);
        g_assert_cmpint(bed_load(b, offset, bytes, PIECE_BYTES), ==, 0);
        for (i = 0; i < PIECE_BYTES; i++)
                g_assert_cmpint(bytes[i], ==, pattern);
}

static void expect_clean(struct bed *b, const char *path)
{
        bed_close(b);
        g_free(qemu_img("check -q", path, ""));
        bed_open(b, path, true, 0, 0);
}

static void test_life(gconstpointer options)
{
        g_autofree char *list = NULL;
        char data[4096];
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(options);
        bed_open(&b, path, true, 0, 0);
        memset(data, 'd', sizeof(data));
        g_assert_cmpint(bed_write(&b, 100000, data, sizeof(data)), ==, 0);
        expect_pattern(&b, 0, 0);

        save_pattern(&b, 0, 1);
        save_pattern(&b, FAR_OFFSET, 2);
        expect_pattern(&b, 0, 1);
        expect_pattern(&b, PIECE_BYTES, 0);
        g_assert_cmpint(bed_create(&b, "vm", CLAIMED_BYTES, 0, NULL), ==, 0);
        expect_pattern(&b, 0, 1);
        expect_clean(&b, path);
        list = qemu_img("snapshot -U -l", path, "");
        g_assert_nonnull(strstr(list, "6 GiB"));
        g_assert_nonnull(strstr(list, "01:02:03.004"));

        /* Another state is saved while the first is still being loaded. */
        expect_pattern(&b, 0, 0);
        g_assert_cmpint(bed_goto(&b, "vm"), ==, 0);
        expect_pattern(&b, FAR_OFFSET, 2);
        save_pattern(&b, 0, 3);
        expect_pattern(&b, 0, 1);
        g_assert_cmpint(bed_create(&b, "other", PIECE_BYTES, 0, NULL), ==, 0);
        expect_pattern(&b, 0, 1);
        expect_clean(&b, path);
        g_assert_cmpint(bed_goto(&b, "other"), ==, 0);
        expect_pattern(&b, 0, 3);
        expect_pattern(&b, FAR_OFFSET, 0);
        g_assert_cmpint(bed_delete(&b, "vm"), ==, 0);
        expect_pattern(&b, 0, 3);
        g_assert_cmpint(bed_delete(&b, "other"), ==, 0);
        g_assert_cmpint(bed_load(&b, 0, data + 1, 1), ==, -ESTALE);
        g_assert_cmpint(bed_read(&b, 100000, data, sizeof(data)), ==, 0);
        g_assert_cmpint(data[0], ==, 'd');
        expect_clean(&b, path);
        bed_close(&b);
        image_remove(path);
}

static enum fast_result load_fast(struct bed *b, uint64_t offset, int pattern)
{
        struct op *op = op_new(b, OP_READ, offset, PIECE_BYTES);
        g_autofree uint8_t *bytes = g_malloc(PIECE_BYTES);
        enum fast_result ret;
        unsigned i;

        op->l1 = vmstate_to_load(b->img);
        op_buffer(op, bytes, 0);
        ret = op_start_fast(op);
        g_assert_cmpint(op_end(op), ==, 0);
        for (i = 0; i < PIECE_BYTES; i++)
                g_assert_cmpint(bytes[i], ==, pattern);
        return ret;
}

/* Pages on demand need no coroutine, neither of what is being saved nor of a snapshot. */
static void test_fast(void)
{
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image("cluster_size=64k");
        bed_open(&b, path, true, 0, 0);
        save_pattern(&b, 0, 1);
        g_assert_cmpint(load_fast(&b, 0, 1), ==, FAST_STARTED);
        g_assert_cmpint(load_fast(&b, FAR_OFFSET, 0), ==, FAST_DONE);
        g_assert_cmpint(bed_create(&b, "vm", PIECE_BYTES, 0, NULL), ==, 0);
        save_pattern(&b, 0, 2);
        expect_pattern(&b, 0, 1);               /* its L2 tables are in memory */
        g_assert_cmpint(load_fast(&b, 0, 1), ==, FAST_STARTED);
        g_assert_cmpint(load_fast(&b, PIECE_BYTES * UINT64_C(2), 0), ==, FAST_DONE);
        bed_close(&b);
        image_remove(path);
}

/* What no snapshot took leaks nothing, whoever ends it. */
static void test_given_up(gconstpointer options)
{
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(options);
        bed_open(&b, path, true, 0, 0);
        g_assert_cmpint(bed_create(&b, "disk", 0, 0, NULL), ==, 0);
        save_pattern(&b, 1000, 1);
        expect_clean(&b, path);                 /* close */
        save_pattern(&b, 1000, 1);
        g_assert_cmpint(bed_save(&b, 0, NULL, 0), ==, 0);
        expect_pattern(&b, 1000, 0);
        save_pattern(&b, 1000, 1);
        g_assert_cmpint(bed_goto(&b, "disk"), ==, 0);
        expect_pattern(&b, 1000, 0);
        expect_clean(&b, path);
        save_pattern(&b, 1000, 1);
        g_assert_cmpint(bed_create(&b, "disk", 0, 0, NULL), ==, -EEXIST);
        expect_pattern(&b, 1000, 1);
        g_assert_cmpint(bed_create(&b, "disk", PIECE_BYTES, HVB_SNAPSHOT_REPLACE, NULL), ==, 0);
        expect_clean(&b, path);
        bed_close(&b);
        image_remove(path);
}

/* The state goes with the attempt that failed. */
static void test_overflow(void)
{
        char data[4096];
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image("refcount_bits=1");
        bed_open(&b, path, true, 0, 0);
        memset(data, 'd', sizeof(data));
        g_assert_cmpint(bed_write(&b, 0, data, sizeof(data)), ==, 0);
        save_pattern(&b, 0, 1);
        g_assert_cmpint(bed_create(&b, "a", PIECE_BYTES, 0, NULL), ==, -EINVAL);
        expect_pattern(&b, 0, 0);
        save_pattern(&b, PIECE_BYTES, 2);
        expect_clean(&b, path);
        bed_close(&b);
        image_remove(path);
}

/* More than one L1 maps. */
static void test_too_much(void)
{
        char byte = 1;
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image("cluster_size=512");
        bed_open(&b, path, true, 0, 0);
        g_assert_cmpint(bed_save(&b, UINT64_C(200) << 30, &byte, 1), ==, -EFBIG);
        g_assert_cmpint(bed_save(&b, UINT64_MAX, &byte, 1), ==, -EFBIG);
        g_assert_cmpint(bed_create(&b, "a", UINT64_C(200) << 30, 0, NULL), ==, -EFBIG);
        g_assert_nonnull(strstr(b.err.text, "L1 entries"));
        g_assert_cmpint(bed_create(&b, "a", UINT64_MAX, 0, NULL), ==, -EFBIG);
        expect_clean(&b, path);
        bed_close(&b);
        image_remove(path);
}

/* A state that QEMU's library would keep behind the disk survives a goto and a delete there. */
static void test_qemu(void)
{
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image("cluster_size=4k");
        bed_open(&b, path, true, 0, 0);
        save_pattern(&b, 0, 1);
        g_assert_cmpint(bed_create(&b, "vm", PIECE_BYTES, 0, NULL), ==, 0);
        bed_close(&b);
        g_free(qemu_img("snapshot -a vm", path, ""));   /* the active L1 maps it now, too */
        g_free(qemu_img("check -q", path, ""));
        bed_open(&b, path, true, 0, 0);
        g_assert_cmpint(bed_create(&b, "disk", 0, 0, NULL), ==, 0);
        expect_clean(&b, path);
        g_assert_cmpint(bed_goto(&b, "vm"), ==, 0);
        expect_pattern(&b, 0, 1);
        g_assert_cmpint(bed_delete(&b, "disk"), ==, 0);
        expect_clean(&b, path);
        bed_close(&b);
        g_free(qemu_img("snapshot -d vm", path, ""));
        g_free(qemu_img("check -q", path, ""));
        image_remove(path);
}

int main(int argc, char **argv)
{
        static const char *const formats[] = {
                "cluster_size=512", "cluster_size=64k", "cluster_size=2M",
                "cluster_size=4k,compat=0.10",
        };
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(formats); i++) {
                g_autofree char *life = g_strdup_printf("/vmstate/life/%s", formats[i]);
                g_autofree char *given_up = g_strdup_printf("/vmstate/given-up/%s", formats[i]);

                g_test_add_data_func(life, formats[i], test_life);
                g_test_add_data_func(given_up, formats[i], test_given_up);
        }
        g_test_add_func("/vmstate/fast", test_fast);
        g_test_add_func("/vmstate/overflow", test_overflow);
        g_test_add_func("/vmstate/too-much", test_too_much);
        g_test_add_func("/vmstate/qemu", test_qemu);
        return g_test_run();
}
