/*
 * test-snapshot-note.c - bytes behind a snapshot's VM state, written over while it is held.
 *
 * Snapshot "a" has a VM state of STATE_BYTES, and behind it, in clusters of their own, NOTE_BYTES
 * that were saved with it.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "unit/snapshot-scene.h"

enum {
        DISK_BYTES = 1 << 20,
        STATE_BYTES = 100 * 1000,
        NOTE_AT = 128 << 10,
        NOTE_BYTES = 64 << 10,
        AREA_BYTES = NOTE_AT + NOTE_BYTES,
};

static uint8_t *filled(size_t length, int value)
{
        return memset(g_malloc(length + 1), value, length);
}

static void begin(struct scene *s, const char *options)
{
        g_autofree uint8_t *state = filled(STATE_BYTES, 0x51);
        g_autofree uint8_t *notes = filled(NOTE_BYTES, 0x60);

        scene_begin(s, options, DISK_BYTES);
        scene_write(s, 10);
        g_assert_cmpint(bed_save(&s->bed, 0, state, STATE_BYTES), ==, 0);
        g_assert_cmpint(bed_save(&s->bed, NOTE_AT, notes, NOTE_BYTES), ==, 0);
        g_assert_cmpint(bed_create(&s->bed, "a", STATE_BYTES, 0, NULL), ==, 0);
        note_created(s, "a");
        scene_write(s, 10);
}

static int note(struct scene *s, struct pin *pin, uint64_t offset, size_t length, int value)
{
        g_autofree uint8_t *bytes = filled(length, value);

        return bed_note(&s->bed, pin, offset, bytes, length);
}

/* The state as it was saved, zeros, and the notes, all of one value. */
static void expect_area(struct scene *s, int value)
{
        g_autofree uint8_t *model = g_malloc0(AREA_BYTES);
        g_autofree uint8_t *bytes = g_malloc(AREA_BYTES);

        memset(model, 0x51, STATE_BYTES);
        memset(model + NOTE_AT, value, NOTE_BYTES);
        g_assert_cmpint(bed_load_vmstate(&s->bed, "a"), ==, 0);
        g_assert_cmpint(bed_load(&s->bed, 0, bytes, AREA_BYTES), ==, 0);
        g_assert_cmpmem(bytes, AREA_BYTES, model, AREA_BYTES);
}

/* Over and over, whole and in pieces; to be found again in the file, which is as long as before. */
static void test_life(gconstpointer options)
{
        int64_t length;
        struct scene s;
        struct pin *pin;

        if (qemu_img_missing())
                return;
        begin(&s, options);
        expect_area(&s, 0x60);
        pin = bed_pin(&s.bed, "a");
        length = io_file_length(&s.bed.img->file);
        g_assert_cmpint(note(&s, pin, NOTE_AT, NOTE_BYTES, 0x61), ==, 0);
        expect_area(&s, 0x61);
        for (uint64_t at = 0; at < NOTE_BYTES; at += 8 * 512)
                g_assert_cmpint(note(&s, pin, NOTE_AT + at, 8 * 512, 0x62), ==, 0);
        g_assert_cmpint(note(&s, pin, NOTE_AT, 0, 0), ==, 0);
        g_assert_cmpint(io_file_length(&s.bed.img->file), ==, length);
        g_assert_cmpint(bed_unpin(&s.bed, pin), ==, 0);
        scene_verify(&s);
        expect_area(&s, 0x62);
        scene_delete(&s, "a");
        scene_verify(&s);
        scene_end(&s);
}

/* While a snapshot is prepared, and when the one that is held was deleted. */
static void test_meanwhile(void)
{
        struct scene s;
        struct pin *pin;

        if (qemu_img_missing())
                return;
        begin(&s, "cluster_size=4k");
        pin = bed_pin(&s.bed, "a");
        g_assert_cmpint(bed_prepare(&s.bed, "b", 0), ==, 0);
        g_assert_cmpint(note(&s, pin, NOTE_AT, NOTE_BYTES, 0x63), ==, 0);
        g_assert_cmpint(bed_switch(&s.bed), ==, 0);
        note_created(&s, "b");
        g_assert_cmpint(note(&s, pin, NOTE_AT, 4096, 0x63), ==, 0);
        g_assert_cmpint(bed_publish(&s.bed, "b", 0), ==, 0);
        expect_area(&s, 0x63);
        scene_delete(&s, "a");
        g_assert_cmpint(note(&s, pin, NOTE_AT, NOTE_BYTES, 0x64), ==, 0);
        g_assert_cmpint(bed_unpin(&s.bed, pin), ==, 0);
        scene_verify(&s);
        scene_end(&s);
}

static void test_refusals(void)
{
        struct scene s;
        struct pin *pin;

        if (qemu_img_missing())
                return;
        begin(&s, "cluster_size=4k");
        pin = bed_pin(&s.bed, "a");
        g_assert_cmpint(note(&s, pin, 0, 512, 1), ==, -EINVAL);
        g_assert_cmpint(note(&s, pin, STATE_BYTES / 512 * 512, 512, 1), ==, -EINVAL);
        g_assert_cmpint(note(&s, pin, UINT64_MAX - 511, 1024, 1), ==, -EINVAL);
        g_assert_cmpint(note(&s, pin, NOTE_AT - 4096, 512, 1), ==, -ENOTSUP);
        g_assert_cmpint(note(&s, pin, AREA_BYTES, 512, 1), ==, -ENOTSUP);
        g_assert_cmpint(note(&s, pin, UINT64_C(1) << 60, 512, 1), ==, -ENOTSUP);
        expect_area(&s, 0x60);
        /* Another state has one of the clusters, too. */
        g_assert_cmpint(bed_share(&s.bed, pin, NOTE_AT + 8192, 0, 4096), ==, 0);
        g_assert_cmpint(note(&s, pin, NOTE_AT + 8192, 512, 1), ==, -ENOTSUP);
        g_assert_cmpint(note(&s, pin, NOTE_AT + 8192 + 4096, 512, 0x60), ==, 0);
        g_assert_cmpint(bed_save(&s.bed, 0, NULL, 0), ==, 0);
        g_assert_cmpint(note(&s, pin, NOTE_AT + 8192, 512, 0x60), ==, 0);
        expect_area(&s, 0x60);
        g_assert_cmpint(bed_unpin(&s.bed, pin), ==, 0);
        scene_verify(&s);
        scene_end(&s);
}

/* QEMU's active disk maps the VM state that it went to. */
static void test_after_qemu(void)
{
        struct scene s;
        struct pin *pin;

        if (qemu_img_missing())
                return;
        begin(&s, "cluster_size=64k");
        bed_close(&s.bed);
        g_free(qemu_img("snapshot -a a", s.path, ""));
        scene_open(&s);
        pin = bed_pin(&s.bed, "a");
        g_assert_cmpint(note(&s, pin, NOTE_AT, 4096, 1), ==, -ENOTSUP);
        expect_area(&s, 0x60);
        g_assert_cmpint(bed_unpin(&s.bed, pin), ==, 0);
        scene_end(&s);
}

static void test_read_only(void)
{
        struct scene s;
        struct pin *pin;

        if (qemu_img_missing())
                return;
        begin(&s, "cluster_size=4k");
        bed_close(&s.bed);
        bed_open(&s.bed, s.path, false, 0, 0);
        pin = bed_pin(&s.bed, "a");
        g_assert_cmpint(note(&s, pin, NOTE_AT, 4096, 1), ==, -EROFS);
        g_assert_cmpint(bed_unpin(&s.bed, pin), ==, 0);
        scene_end(&s);
}

/* A table that an image may name: the guest's own bytes, which say that notes lie where counts
 * are found. */
static void test_metadata(void)
{
        g_autofree uint8_t *table = g_malloc0(4096);
        struct mapping map = { .kind = CLUSTER_UNALLOCATED };
        struct l1_table l1;
        struct pin hostile = { .state = PIN_LISTED };
        struct scene s;

        if (qemu_img_missing())
                return;
        begin(&s, "cluster_size=4k");
        be64_store(table, s.bed.img->header.reftable_offset);
        g_assert_cmpint(bed_transfer(&s.bed, OP_WRITE, 0, table, 4096), ==, 0);
        g_assert_cmpint(map_lookup_cached(s.bed.img, &s.bed.img->active, 0, 4096, &map), ==, 0);
        g_assert_cmpint(l1_init(&l1, 1, 0), ==, 0);
        l1.entries[0] = map.host_offset;
        hostile.vm_state = l1;
        g_assert_cmpint(note(&s, &hostile, 0, 4096, 0xff), ==, -EIO);
        l1_clear(&l1);
        scene_end(&s);
}

int main(int argc, char **argv)
{
        static const char *const formats[] = {
                "cluster_size=512", "cluster_size=4k,compat=0.10", "cluster_size=64k",
                "cluster_size=4k,refcount_bits=2", "cluster_size=8k,lazy_refcounts=on",
        };
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(formats); i++) {
                g_autofree char *path = g_strdup_printf("/snapshot-note/life/%s", formats[i]);

                g_test_add_data_func(path, formats[i], test_life);
        }
        g_test_add_func("/snapshot-note/meanwhile", test_meanwhile);
        g_test_add_func("/snapshot-note/refusals", test_refusals);
        g_test_add_func("/snapshot-note/after-qemu", test_after_qemu);
        g_test_add_func("/snapshot-note/read-only", test_read_only);
        g_test_add_func("/snapshot-note/metadata", test_metadata);
        return g_test_run();
}
