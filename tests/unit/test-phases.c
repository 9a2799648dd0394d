/*
 * test-phases.c - a snapshot taken phase by phase, with the guest writing between them.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "lib/effort.h"
#include "ops/snapshot-pin.h"
#include "unit/snapshot-scene.h"

enum { DISK_BYTES = 5 << 20, STATE_BYTES = 300000 };

/* Byte n of a VM state. */
static void state_fill(uint8_t *bytes)
{
        unsigned i;

        for (i = 0; i < STATE_BYTES; i++)
                bytes[i] = (uint8_t)(1 + i / 300 % 200);
}

/* The state from one byte to another, saved in one request. */
static void save_part(struct scene *s, unsigned first, unsigned end)
{
        g_autofree uint8_t *state = g_malloc(STATE_BYTES);

        state_fill(state);
        g_assert_cmpint(bed_save(&s->bed, first, state + first, end - first), ==, 0);
}

static void expect_state(struct scene *s, const char *name)
{
        g_autofree uint8_t *state = g_malloc(STATE_BYTES);
        g_autofree uint8_t *bytes = g_malloc(STATE_BYTES);

        state_fill(state);
        g_assert_cmpint(bed_load_vmstate(&s->bed, name), ==, 0);
        g_assert_cmpint(bed_load(&s->bed, 0, bytes, STATE_BYTES), ==, 0);
        g_assert_cmpmem(bytes, STATE_BYTES, state, STATE_BYTES);
}

static void scene_switch(struct scene *s, const char *name)
{
        g_assert_cmpint(bed_switch(&s->bed), ==, 0);
        note_created(s, name);
}

/* After an abort: nothing is prepared, nothing saved, and others may go on. */
static void expect_nothing_left(struct scene *s)
{
        uint8_t bytes[4096];
        unsigned i;

        expect_error(s, bed_abort(&s->bed), -EINVAL, "no snapshot");
        g_assert_cmpint(bed_load(&s->bed, 0, bytes, sizeof(bytes)), ==, 0);
        for (i = 0; i < sizeof(bytes); i++)
                g_assert_cmpuint(bytes[i], ==, 0);
        g_assert_cmpuint(s->bed.img->dirty_holders, ==, s->bed.img->lazy);
        g_assert_cmpuint(s->bed.img->walked_slots, ==, 0);
        scene_verify(s);
        scene_write(s, 20);
        scene_create(s, "another");
        scene_write(s, 20);
        scene_verify(s);
}

static void expect_progress(const struct scene *s)
{
        g_assert_cmpuint(s->bed.progress_total, >, 0);
        g_assert_cmpuint(s->bed.progress_done, ==, s->bed.progress_total);
}

/* ---- what they are for ---- */

/* The disk is that of the switch, the VM state all that was saved before publish. */
static void test_life(gconstpointer options)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, options, DISK_BYTES);
        scene_write(&s, 60);
        scene_create(&s, "before");
        scene_write(&s, 20);
        save_part(&s, 0, 70000);
        g_assert_cmpint(bed_prepare(&s.bed, "a", 0), ==, 0);
        scene_write(&s, 20);
        save_part(&s, 70000, 150000);
        scene_switch(&s, "a");
        scene_write(&s, 20);
        save_part(&s, 150000, STATE_BYTES);
        save_part(&s, 1000, 2000);
        g_assert_cmpint(bed_publish(&s.bed, "a", STATE_BYTES), ==, 0);
        scene_write(&s, 20);
        expect_state(&s, "a");
        scene_verify(&s);
        expect_state(&s, "a");
        scene_goto(&s, "a");
        scene_write(&s, 10);
        scene_delete(&s, "a");
        scene_delete(&s, "before");
        scene_verify(&s);
        scene_end(&s);
}

static void test_abort_prepared(gconstpointer options)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, options, DISK_BYTES);
        scene_write(&s, 40);
        save_part(&s, 0, 70000);
        g_assert_cmpint(bed_prepare(&s.bed, "a", 0), ==, 0);
        scene_write(&s, 30);
        save_part(&s, 70000, 90000);
        g_assert_cmpint(bed_abort(&s.bed), ==, 0);
        expect_nothing_left(&s);
        scene_end(&s);
}

static void test_abort_switched(gconstpointer options)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, options, DISK_BYTES);
        scene_write(&s, 40);
        save_part(&s, 0, 70000);
        g_assert_cmpint(bed_prepare(&s.bed, "a", 0), ==, 0);
        scene_write(&s, 20);
        g_assert_cmpint(bed_switch(&s.bed), ==, 0);
        scene_write(&s, 20);
        save_part(&s, 70000, 90000);
        g_assert_cmpint(bed_abort(&s.bed), ==, 0);
        expect_nothing_left(&s);
        scene_end(&s);
}

/* ---- going to a snapshot ---- */

/* Prepared, the guest goes on with the old disk, and then nothing but the switch is left. */
static void test_goto(gconstpointer options)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, options, DISK_BYTES);
        scene_write(&s, 40);
        save_part(&s, 0, STATE_BYTES);
        g_assert_cmpint(bed_create(&s.bed, "a", STATE_BYTES, 0, NULL), ==, 0);
        note_created(&s, "a");
        scene_write(&s, 30);
        scene_create(&s, "b");
        g_assert_cmpint(bed_goto_prepare(&s.bed, "a"), ==, 0);
        expect_progress(&s);
        scene_write(&s, 30);
        bed_compare(&s.bed, s.model, s.disk_bytes);
        scene_goto(&s, "a");
        g_assert_cmpuint(s.bed.progress_total, ==, 0);
        scene_write(&s, 10);
        scene_verify(&s);
        expect_state(&s, "a");
        scene_goto(&s, "b");
        scene_delete(&s, "a");
        scene_verify(&s);
        scene_end(&s);
}

static void test_goto_abort(gconstpointer options)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, options, DISK_BYTES);
        scene_write(&s, 40);
        scene_create(&s, "a");
        scene_write(&s, 30);
        g_assert_cmpint(bed_goto_prepare(&s.bed, "a"), ==, 0);
        scene_write(&s, 30);
        save_part(&s, 0, 70000);
        g_assert_cmpint(bed_abort(&s.bed), ==, 0);
        scene_write(&s, 10);
        g_assert_cmpint(bed_save(&s.bed, 0, NULL, 0), ==, 0);
        expect_nothing_left(&s);
        scene_end(&s);
}

/* ---- two requests at a time ---- */

static void start(struct scene *s, struct snapshot_task *t, int (*step)(struct bed_task *t))
{
        t->base.bed = &s->bed;
        t->base.step = step;
        s->bed.err = (struct hvb_error){ .struct_bytes = sizeof(s->bed.err) };
        task_start(&t->base.task, &s->bed.loop, "first", bed_task_step, bed_task_done);
}

/* The preparation is cancelled, at whatever it is, and has ended when the abort does. */
static void test_abort_preparing(gconstpointer options)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info), .name = "a" };
        unsigned polls;
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, options, DISK_BYTES);
        scene_write(&s, 60);
        for (polls = 0;; polls++) {
                struct snapshot_task t = { .info = &info };
                unsigned i;

                start(&s, &t, bed_prepare_step);
                for (i = 0; i < polls && !t.base.ended; i++)
                        g_assert_cmpint(loop_poll(&s.bed.loop, -1), >=, 0);
                if (t.base.ended)
                        break;
                g_assert_cmpint(bed_abort(&s.bed), ==, 0);
                g_assert_true(t.base.ended);
                g_assert_cmpint(t.base.result, ==, -ECANCELED);
                g_assert_null(s.bed.img->prepared);
                scene_write(&s, 2);
        }
        g_assert_cmpuint(polls, >, 0);
        g_assert_cmpint(bed_abort(&s.bed), ==, 0);
        expect_nothing_left(&s);
        scene_end(&s);
}

/* Going elsewhere waits like all others; so does going there while that is prepared still. */
static void test_goto_others(void)
{
        struct snapshot_task prepare = { .name = "a" };
        struct snapshot_task go = { .name = "a" };
        struct snapshot_task elsewhere = { .name = "b" };
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=512", DISK_BYTES);
        scene_write(&s, 30);
        scene_create(&s, "a");
        scene_write(&s, 30);
        scene_create(&s, "b");
        scene_write(&s, 30);
        start(&s, &prepare, bed_goto_prepare_step);
        start(&s, &elsewhere, bed_goto_step);
        start(&s, &go, bed_goto_step);
        expect_error(&s, bed_prepare(&s.bed, "c", 0), -EBUSY, "prepared already");
        snapshot_poll(&s.bed, &go);
        g_assert_cmpint(go.base.result, ==, 0);
        g_assert_true(prepare.base.ended);
        snapshot_poll(&s.bed, &elsewhere);
        g_assert_cmpint(elsewhere.base.result, ==, 0);
        note_gone_to(&s, "b");
        scene_verify(&s);
        g_assert_cmpint(bed_goto_prepare(&s.bed, "a"), ==, 0);
        expect_error(&s, bed_switch(&s.bed), -EINVAL, "no snapshot");
        expect_error(&s, bed_publish(&s.bed, "a", 0), -EINVAL, "no snapshot");
        expect_error(&s, bed_goto_prepare(&s.bed, "a"), -EBUSY, "prepared already");
        scene_verify(&s);
        scene_end(&s);
}

/* Who moves counts waits for the end; who reads a snapshot does not. */
static void test_others(void)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        struct snapshot_task waiting = { .name = "before" };
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=4k", DISK_BYTES);
        scene_write(&s, 30);
        save_part(&s, 0, STATE_BYTES);
        g_assert_cmpint(bed_create(&s.bed, "before", STATE_BYTES, 0, NULL), ==, 0);
        note_created(&s, "before");
        scene_write(&s, 10);
        g_assert_cmpint(bed_prepare(&s.bed, "a", 0), ==, 0);
        start(&s, &waiting, bed_delete_step);
        scene_write(&s, 10);
        scene_switch(&s, "a");
        expect_state(&s, "before");
        scene_write(&s, 10);
        expect_error(&s, bed_save(&s.bed, 0, NULL, 0), -EBUSY, "");
        g_assert_false(waiting.base.ended);
        g_assert_cmpint(bed_publish(&s.bed, "a", 0), ==, 0);
        snapshot_poll(&s.bed, &waiting);
        g_assert_cmpint(waiting.base.result, ==, 0);
        note_deleted(&s, "before");
        scene_verify(&s);
        scene_end(&s);
}

/* What walks all tables has done all that it said it would; the switch has nothing to do. */
static void test_progress(void)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=512", DISK_BYTES);
        scene_write(&s, 30);
        g_assert_cmpint(bed_prepare(&s.bed, "a", 0), ==, 0);
        expect_progress(&s);
        g_assert_cmpuint(s.bed.progress_total, ==, s.bed.img->active.count);
        save_part(&s, 0, STATE_BYTES);
        scene_switch(&s, "a");
        g_assert_cmpuint(s.bed.progress_total, ==, 0);
        g_assert_cmpint(bed_publish(&s.bed, "a", STATE_BYTES), ==, 0);
        expect_progress(&s);
        scene_write(&s, 10);
        scene_create(&s, "b");
        expect_progress(&s);
        scene_goto(&s, "a");
        expect_progress(&s);
        scene_delete(&s, "a");
        expect_progress(&s);
        scene_verify(&s);
        scene_end(&s);
}

/* What is being saved when the publication begins is the snapshot's, and nothing after that. */
static void test_saving(void)
{
        enum { SAVES = 8, PART = STATE_BYTES / SAVES };
        struct hvb_snapshot_info info = {
                .struct_bytes = sizeof(info), .name = "a", .vm_state_bytes = STATE_BYTES,
        };
        g_autofree uint8_t *state = g_malloc(STATE_BYTES);
        g_autofree uint8_t *junk = g_malloc(PART);
        struct snapshot_task saves[SAVES + 1] = { 0 };
        struct snapshot_task publish = { .info = &info };
        struct scene s;
        unsigned i;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=4k", DISK_BYTES);
        scene_write(&s, 30);
        g_assert_cmpint(bed_prepare(&s.bed, "a", 0), ==, 0);
        scene_switch(&s, "a");
        state_fill(state);
        memset(junk, 0xdd, PART);
        for (i = 0; i < SAVES; i++) {
                saves[i].offset = i * PART;
                saves[i].iov = (struct iovec){ state + i * PART, PART };
                start(&s, &saves[i], bed_save_step);
        }
        start(&s, &publish, bed_publish_step);
        saves[SAVES].iov = (struct iovec){ junk, PART };
        start(&s, &saves[SAVES], bed_save_step);
        snapshot_poll(&s.bed, &publish);
        for (i = 0; i <= SAVES; i++) {
                snapshot_poll(&s.bed, &saves[i]);
                g_assert_cmpint(saves[i].base.result, ==, i < SAVES ? 0 : -EBUSY);
        }
        g_assert_cmpint(publish.base.result, ==, 0);
        scene_verify(&s);
        expect_state(&s, "a");
        scene_end(&s);
}

/* ---- what is refused ---- */

static void test_order(void)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=4k", DISK_BYTES);
        scene_write(&s, 30);
        scene_create(&s, "there");
        scene_write(&s, 10);
        expect_error(&s, bed_switch(&s.bed), -EINVAL, "no snapshot");
        expect_error(&s, bed_publish(&s.bed, "a", 0), -EINVAL, "no snapshot");
        expect_error(&s, bed_prepare(&s.bed, "", 0), -EINVAL, "name");
        expect_error(&s, bed_prepare(&s.bed, "there", 0), -EEXIST, "'there'");
        g_assert_cmpint(bed_prepare(&s.bed, "a", 0), ==, 0);
        expect_error(&s, bed_prepare(&s.bed, "b", 0), -EBUSY, "prepared already");
        expect_error(&s, bed_publish(&s.bed, "a", 0), -EINVAL, "no moment");
        scene_write(&s, 10);
        scene_switch(&s, "b");
        expect_error(&s, bed_switch(&s.bed), -EINVAL, "its moment already");
        scene_write(&s, 10);
        g_assert_cmpint(bed_publish(&s.bed, "b", 0), ==, 0);
        scene_verify(&s);
        scene_end(&s);
}

/* The name is settled at the end; one that cannot be had aborts. */
static void test_name(void)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=4k", DISK_BYTES);
        scene_write(&s, 30);
        scene_create(&s, "there");
        scene_write(&s, 10);
        g_assert_cmpint(bed_prepare(&s.bed, "a", 0), ==, 0);
        g_assert_cmpint(bed_switch(&s.bed), ==, 0);
        scene_write(&s, 10);
        save_part(&s, 0, 70000);
        expect_error(&s, bed_publish(&s.bed, "there", 70000), -EEXIST, "'there'");
        expect_error(&s, bed_abort(&s.bed), -EINVAL, "no snapshot");
        scene_verify(&s);
        g_assert_cmpint(bed_prepare(&s.bed, "there", HVB_SNAPSHOT_REPLACE), ==, 0);
        scene_write(&s, 10);
        note_deleted(&s, "there");
        scene_switch(&s, "there");
        scene_write(&s, 10);
        g_assert_cmpint(bed_publish(&s.bed, "there", 0), ==, 0);
        scene_verify(&s);
        scene_end(&s);
}

/* Counts of one bit: what is written between the phases cannot be the snapshot's, too. */
static void test_narrow(void)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "refcount_bits=1,cluster_size=4k", DISK_BYTES);
        g_assert_cmpint(bed_prepare(&s.bed, "empty", 0), ==, 0);
        scene_switch(&s, "empty");
        scene_write(&s, 3);
        g_assert_cmpint(bed_publish(&s.bed, "empty", 0), ==, 0);
        scene_verify(&s);
        expect_error(&s, bed_prepare(&s.bed, "a", 0), -EINVAL, "refcount_bits=1");
        scene_goto(&s, "empty");
        g_assert_cmpint(bed_prepare(&s.bed, "a", 0), ==, 0);
        scene_write(&s, 3);
        expect_error(&s, bed_switch(&s.bed), -EINVAL, "refcount_bits=1");
        g_assert_cmpint(bed_abort(&s.bed), ==, 0);
        scene_verify(&s);
        scene_end(&s);
}

/* Leaving the image aborts. */
static void test_close(gconstpointer switches)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        scene_begin(&s, "cluster_size=4k", DISK_BYTES);
        scene_write(&s, 30);
        save_part(&s, 0, 70000);
        g_assert_cmpint(bed_prepare(&s.bed, "a", 0), ==, 0);
        scene_write(&s, 10);
        if (switches)
                g_assert_cmpint(bed_switch(&s.bed), ==, 0);
        scene_write(&s, 10);
        scene_verify(&s);
        scene_end(&s);
}

static const char *const formats[] = {
        "cluster_size=512",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=8k,refcount_bits=8,lazy_refcounts=on",
        "cluster_size=4k,compat=0.10",
        "cluster_size=64k",
};

static void add_with(const char *name, const char *options, GTestDataFunc test)
{
        g_autofree char *path = g_strdup_printf("/phases/%s/%s", name, options);

        g_test_add_data_func(path, options, test);
}

int main(int argc, char **argv)
{
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(formats); i += EFFORT_EVERY) {
                add_with("life", formats[i], test_life);
                add_with("abort-prepared", formats[i], test_abort_prepared);
                add_with("abort-switched", formats[i], test_abort_switched);
                add_with("abort-preparing", formats[i], test_abort_preparing);
                add_with("goto", formats[i], test_goto);
                add_with("goto-abort", formats[i], test_goto_abort);
        }
        g_test_add_func("/phases/others", test_others);
        g_test_add_func("/phases/goto-others", test_goto_others);
        g_test_add_func("/phases/progress", test_progress);
        g_test_add_func("/phases/saving", test_saving);
        g_test_add_func("/phases/order", test_order);
        g_test_add_func("/phases/name", test_name);
        g_test_add_func("/phases/narrow", test_narrow);
        g_test_add_data_func("/phases/close-prepared", NULL, test_close);
        g_test_add_data_func("/phases/close-switched", "switched", test_close);
        return g_test_run();
}
