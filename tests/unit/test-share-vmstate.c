/*
 * test-share-vmstate.c - VM state saved by reference to a snapshot's.
 *
 * Snapshot "a" has a VM state of DATA bytes, a hole of as many, and DATA bytes again.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "unit/snapshot-scene.h"

enum { DISK_BYTES = 1 << 20, DATA = 1 << 20, STATE_BYTES = 3 * DATA };

static void fill(uint8_t *bytes, size_t length, unsigned seed)
{
        size_t i;

        for (i = 0; i < length; i++)
                bytes[i] = (uint8_t)(seed + i / 512 % 100);
}

static void save_data(struct scene *s, uint8_t *model, uint64_t offset, size_t length,
                      unsigned seed)
{
        fill(model + offset, length, seed);
        g_assert_cmpint(bed_save(&s->bed, offset, model + offset, length), ==, 0);
}

static void expect_state(struct scene *s, const char *name, const uint8_t *model)
{
        g_autofree uint8_t *bytes = g_malloc(STATE_BYTES);

        g_assert_cmpint(bed_load_vmstate(&s->bed, name), ==, 0);
        g_assert_cmpint(bed_load(&s->bed, 0, bytes, STATE_BYTES), ==, 0);
        g_assert_cmpmem(bytes, STATE_BYTES, model, STATE_BYTES);
}

/* Filled with what a's VM state is. */
static void begin(struct scene *s, const char *options, uint8_t *model)
{
        memset(model, 0, STATE_BYTES);
        scene_begin(s, options, DISK_BYTES);
        scene_write(s, 10);
        save_data(s, model, 0, DATA, 1);
        save_data(s, model, 2 * DATA, DATA, 101);
        g_assert_cmpint(bed_create(&s->bed, "a", STATE_BYTES, 0, NULL), ==, 0);
        note_created(s, "a");
        scene_write(s, 10);
}

static void create_with_state(struct scene *s, const char *name)
{
        g_assert_cmpint(bed_create(&s->bed, name, STATE_BYTES, 0, NULL), ==, 0);
        note_created(s, name);
}

/* All of it shared, some of that saved anew before and behind: each state stays what it is, and
 * lives on without the other. */
static void test_life(gconstpointer options)
{
        g_autofree uint8_t *a = g_malloc(STATE_BYTES);
        g_autofree uint8_t *b = g_malloc(STATE_BYTES);
        int64_t length_before;
        struct scene s;
        struct pin *pin;

        if (qemu_img_missing())
                return;
        begin(&s, options, a);
        pin = bed_pin(&s.bed, "a");
        save_data(&s, b, DATA, 70000, 33);
        save_data(&s, b, 0, 70000, 34);
        length_before = io_file_length(&s.bed.img->file);
        g_assert_cmpint(bed_share(&s.bed, pin, 0, 0, STATE_BYTES), ==, 0);
        memcpy(b, a, STATE_BYTES);
        g_assert_cmpint(io_file_length(&s.bed.img->file) - length_before, <, DATA / 2);
        save_data(&s, b, 2 * DATA + 100, 5000, 35);
        create_with_state(&s, "b");
        g_assert_cmpint(bed_unpin(&s.bed, pin), ==, 0);
        expect_state(&s, "a", a);
        expect_state(&s, "b", b);
        scene_verify(&s);
        scene_delete(&s, "a");
        scene_verify(&s);
        expect_state(&s, "b", b);
        scene_delete(&s, "b");
        scene_verify(&s);
        scene_end(&s);
}

/* From a deleted snapshot, to another place, between the phases; given up, and not. */
static void test_phases(void)
{
        g_autofree uint8_t *a = g_malloc(STATE_BYTES);
        g_autofree uint8_t *b = g_malloc0(STATE_BYTES);
        struct scene s;
        struct pin *pin;

        if (qemu_img_missing())
                return;
        begin(&s, "cluster_size=4k", a);
        pin = bed_pin(&s.bed, "a");
        scene_delete(&s, "a");
        g_assert_cmpint(bed_prepare(&s.bed, "b", 0), ==, 0);
        g_assert_cmpint(bed_share(&s.bed, pin, 0, 0, STATE_BYTES), ==, 0);
        g_assert_cmpint(bed_switch(&s.bed), ==, 0);
        g_assert_cmpint(bed_share(&s.bed, pin, DATA, 0, DATA), ==, 0);
        g_assert_cmpint(bed_abort(&s.bed), ==, 0);
        g_assert_cmpint(bed_prepare(&s.bed, "b", 0), ==, 0);
        g_assert_cmpint(bed_switch(&s.bed), ==, 0);
        note_created(&s, "b");
        g_assert_cmpint(bed_share(&s.bed, pin, 2 * DATA, DATA + 8192, DATA - 4096), ==, 0);
        memcpy(b + DATA + 8192, a + 2 * DATA, DATA - 4096);
        g_assert_cmpint(bed_unpin(&s.bed, pin), ==, 0);
        scene_write(&s, 10);
        g_assert_cmpint(bed_publish(&s.bed, "b", STATE_BYTES), ==, 0);
        expect_state(&s, "b", b);
        scene_verify(&s);
        expect_state(&s, "b", b);
        scene_end(&s);
}

/* What was saved stays as it was, and no count has moved: scene_verify would see it. */
static void expect_refused(struct scene *s, struct pin *pin, int code)
{
        g_autofree uint8_t *model = g_malloc0(STATE_BYTES);

        save_data(s, model, 0, STATE_BYTES, 70);
        g_assert_cmpint(bed_share(&s->bed, pin, 0, 0, STATE_BYTES), ==, code);
        create_with_state(s, "refused");
        expect_state(s, "refused", model);
        scene_delete(s, "refused");
}

/* Nothing of it is any snapshot's. */
static void empty_disk(struct scene *s)
{
        scene_write(s, 1);
        g_assert_cmpint(bed_discard(&s->bed, 0, DISK_BYTES), ==, 0);
        memset(s->model, 0, DISK_BYTES);
}

/* Counts to 3: the last of many clusters cannot be had, and what came before is taken back. */
static void test_overflow(void)
{
        g_autofree uint8_t *a = g_malloc(STATE_BYTES);
        struct scene s;
        struct pin *pin;

        if (qemu_img_missing())
                return;
        begin(&s, "refcount_bits=2,cluster_size=4k", a);
        empty_disk(&s);
        pin = bed_pin(&s.bed, "a");
        g_assert_cmpint(bed_share(&s.bed, pin, 0, 0, DATA), ==, 0);
        create_with_state(&s, "b");
        g_assert_cmpint(bed_share(&s.bed, pin, DATA - 4096, 2 * DATA, 4096), ==, 0);
        g_assert_cmpint(bed_share(&s.bed, pin, 0, 0, DATA), ==, -EINVAL);
        g_assert_cmpint(bed_share(&s.bed, pin, 0, 0, DATA - 4096), ==, 0);
        g_assert_cmpint(bed_share(&s.bed, pin, 0, DATA, 4096), ==, -EINVAL);
        g_assert_cmpint(bed_save(&s.bed, 0, NULL, 0), ==, 0);
        g_assert_cmpint(bed_share(&s.bed, pin, 0, 0, DATA), ==, 0);
        empty_disk(&s);
        create_with_state(&s, "c");
        empty_disk(&s);
        expect_refused(&s, pin, -EINVAL);
        g_assert_cmpint(bed_unpin(&s.bed, pin), ==, 0);
        scene_verify(&s);
        scene_end(&s);
}

static void test_refusals(void)
{
        g_autofree uint8_t *a = g_malloc(STATE_BYTES);
        g_autofree uint8_t *cluster = g_malloc0(4096);
        struct pin compressed = { .vm_state.count = 0 };
        struct scene s;
        struct pin *pin;

        if (qemu_img_missing())
                return;
        begin(&s, "cluster_size=4k", a);
        memset(s.model + 8192, 0x11, 4096);
        memcpy(cluster, s.model + 8192, 4096);
        g_assert_cmpint(bed_transfer(&s.bed, OP_COMPRESS, 8192, cluster, 4096), ==, 0);
        create_with_state(&s, "c");
        pin = bed_pin(&s.bed, "c");
        g_assert_cmpint(bed_share(&s.bed, pin, 512, 0, 4096), ==, -EINVAL);
        g_assert_cmpint(bed_share(&s.bed, pin, 0, 512, 4096), ==, -EINVAL);
        g_assert_cmpint(bed_share(&s.bed, pin, 0, 0, 4097), ==, -EINVAL);
        g_assert_cmpint(bed_share(&s.bed, pin, UINT64_C(1) << 63, 0, UINT64_C(1) << 63), ==,
                        -EINVAL);
        g_assert_cmpint(bed_share(&s.bed, pin, 0, UINT64_C(1) << 62, 4096), ==, -EFBIG);
        compressed.vm_state = pin->disk;
        expect_refused(&s, &compressed, -ENOTSUP);
        g_assert_cmpint(bed_unpin(&s.bed, pin), ==, 0);
        scene_verify(&s);
        scene_end(&s);
}

int main(int argc, char **argv)
{
        static const char *const formats[] = {
                "cluster_size=512", "cluster_size=4k,compat=0.10", "cluster_size=64k",
                "cluster_size=8k,lazy_refcounts=on",
        };
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(formats); i++) {
                g_autofree char *path = g_strdup_printf("/share-vmstate/life/%s", formats[i]);

                g_test_add_data_func(path, formats[i], test_life);
        }
        g_test_add_func("/share-vmstate/phases", test_phases);
        g_test_add_func("/share-vmstate/overflow", test_overflow);
        g_test_add_func("/share-vmstate/refusals", test_refusals);
        return g_test_run();
}
