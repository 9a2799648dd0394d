/*
 * test-snapshot-faults.c - snapshot operations on a disk that fails, and one that loses power.
 *
 * An image has a disk, two snapshots and a VM state being saved.  Each operation runs
 * with its 1st, 2nd, 3rd ... I/O failing until a run meets no fault; cancelled after each of
 * its polls, which must leak nothing; and once recorded, with the power cut at every moment,
 * several ways each.  Then the image is opened again, which repairs what is marked dirty, and
 * what must hold is:
 *
 *   1. the disk is exactly the old or the new one, and so is the list; of an operation that
 *      succeeded the new one; of one that failed unpoisoned the old one
 *   2. every snapshot in the list reads as when it was taken
 *   3. no count is below its references
 *   4. after a cut or a told failure clusters may leak: all in version 2, in version 3 those
 *      of a VM state that no snapshot took (its saving sets no dirty bit)
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "lib/effort.h"
#include "lib/simdisk-cut.h"
#include "unit/qemu-img.h"
#include "unit/sim-bed.h"
#include "unit/snapshot-bed.h"

enum { DISK_BYTES = 160 << 10, STATE_BYTES = 9000, PICKS = EFFORT(8), FAULTS_MAX = 5000 };

struct model {
        uint8_t disk[DISK_BYTES];
        const char *list;               /* names in order, each with a space behind */
};

struct world {
        struct sim_image image;
        struct model before;
        uint8_t disk_a[DISK_BYTES];
        uint8_t disk_b[DISK_BYTES];
        unsigned version;
};

struct plan {
        const char *name;
        int (*run)(struct bed *b);
        const char *list_after;
        bool disk_becomes_a;
        bool writes;                    /* state or data, without the dirty mark: a crash leaks */
};

/* ---- the world ---- */

static void scribble(struct bed *b, uint8_t *model, unsigned seed)
{
        unsigned i;

        for (i = 0; i < 12; i++) {
                uint32_t x = (seed * 97 + i) * 2654435761u;
                uint32_t length = 1 + (x >> 8) % 9000;
                uint32_t offset = (x >> 4) % (DISK_BYTES - length);

                memset(model + offset, (int)(seed * 16 + i), length);
                g_assert_cmpint(bed_write(b, offset, model + offset, length), ==, 0);
        }
}

static void world_begin(struct world *w, const char *options)
{
        g_autofree char *arguments = g_strdup_printf("create -q -f qcow2 -o %s", options);
        char *path = image_path();
        struct sim_image created = { .root = NULL };
        struct simdisk *disk;
        struct bed b;
        int fd;

        *w = (struct world){ .before.list = "a b " };
        g_free(qemu_img(arguments, path, "163840"));
        fd = open(path, O_RDONLY | O_CLOEXEC);
        g_assert_cmpint(sim_image_import(&created, fd), ==, 0);
        close(fd);
        image_remove(path);

        disk = disk_with(&created, NULL);
        sim_open(&b, disk, HVB_OPEN_RDWR);
        w->version = b.img->header.version;
        scribble(&b, w->before.disk, 1);
        g_assert_cmpint(bed_create(&b, "a", 0, 0, NULL), ==, 0);
        memcpy(w->disk_a, w->before.disk, DISK_BYTES);
        scribble(&b, w->before.disk, 2);
        g_assert_cmpint(bed_create(&b, "b", 0, 0, NULL), ==, 0);
        memcpy(w->disk_b, w->before.disk, DISK_BYTES);
        scribble(&b, w->before.disk, 3);
        g_assert_cmpint(sim_close(&b), ==, 0);
        w->image = sim_image_clone(&disk->files[0].image);
        sim_image_clear(&created);
        simdisk_free(disk);
}

static void world_end(struct world *w)
{
        sim_image_clear(&w->image);
}

/* ---- judging ---- */

struct findings {
        unsigned bad;
        struct bed *bed;
};

static void on_finding(void *opaque, const char *text)
{
        struct findings *f = opaque;

        g_test_message("%s", text);
        f->bad += strstr(text, "ERROR") != NULL && strstr(text, "COPIED") == NULL;
}

struct check_task {
        struct bed_task base;
        struct check check;
        uint32_t flags;
        struct hvb_check_result result;
};

static int check_step(struct bed_task *base)
{
        struct check_task *t = (struct check_task *)base;

        return check_image(&t->check, base->bed->img, t->flags, &t->result, &base->bed->err);
}

static struct hvb_check_result run_check(struct bed *b, struct findings *f, uint32_t flags)
{
        g_autofree struct check_task *t = g_new0(struct check_task, 1);

        t->base = (struct bed_task){ .bed = b, .step = check_step };
        t->flags = flags;
        t->result = (struct hvb_check_result){
                .struct_bytes = sizeof(t->result),
                .report = on_finding,
                .opaque = f,
        };
        task_start(&t->base.task, &b->loop, "check", bed_task_step, bed_task_done);
        bed_poll_until(b, &t->base.ended);
        g_assert_cmpint(t->base.result, ==, 0);
        g_assert_cmpuint(t->result.check_errors, ==, 0);
        return t->result;
}

static char *list_of(struct bed *b)
{
        GString *list = g_string_new(NULL);
        uint32_t i;

        for (i = 0; i < b->img->header.snapshot_count; i++)
                g_string_append_printf(list, "%s ", b->img->snapshots[i].name);
        return g_string_free(list, FALSE);
}

static void expect_snapshot(struct simdisk *disk, const char *name, const uint8_t *model)
{
        struct bed b;

        sim_open(&b, disk, 0);
        g_assert_cmpint(bed_named(&b, bed_load_tmp_step, NULL, name), ==, 0);
        bed_compare(&b, model, DISK_BYTES);
        sim_close(&b);
}

enum { MAY_BE_OLD = 1, MAY_BE_NEW = 2, MAY_LEAK = 4 };

static void expect_disk(struct bed *b, const struct model *before, const struct model *after,
                        unsigned may_be)
{
        static uint8_t bytes[DISK_BYTES];

        g_assert_cmpint(bed_read(b, 0, bytes, DISK_BYTES), ==, 0);
        if ((may_be & MAY_BE_OLD) && memcmp(bytes, before->disk, DISK_BYTES) == 0)
                return;
        g_assert_true(may_be & MAY_BE_NEW);
        g_assert_cmpint(memcmp(bytes, after->disk, DISK_BYTES), ==, 0);
}

static void expect_counts(struct bed *b, const struct plan *p, unsigned version, unsigned may_be)
{
        struct findings f = { .bed = b };
        struct hvb_check_result r = run_check(b, &f, 0);

        g_assert_cmpuint(f.bad, ==, 0);
        g_assert_true(version < 3 || r.corruptions == 0);
        if ((may_be & MAY_LEAK) && (version < 3 || p->writes)) {
                run_check(b, &f, HVB_CHECK_FIX_LEAKS | HVB_CHECK_FIX_ERRORS);
                r = run_check(b, &f, 0);
        }
        g_assert_cmpuint(r.corruptions, ==, 0);
        g_assert_cmpuint(r.leaks, ==, 0);
}

static void judge(const struct world *w, const struct plan *p, const struct sim_image *image,
                  unsigned may_be)
{
        struct simdisk *disk = disk_with(image, NULL);
        struct model after = w->before;
        g_autofree char *list = NULL;
        struct bed b;

        if (p->disk_becomes_a)
                memcpy(after.disk, w->disk_a, DISK_BYTES);
        sim_open(&b, disk, HVB_OPEN_RDWR);
        expect_disk(&b, &w->before, &after, may_be);
        list = list_of(&b);
        if (!(may_be & MAY_BE_OLD) || strcmp(list, w->before.list) != 0) {
                g_assert_true(may_be & MAY_BE_NEW);
                g_assert_cmpstr(list, ==, p->list_after);
        }
        expect_counts(&b, p, w->version, may_be);
        g_assert_cmpint(sim_close(&b), ==, 0);
        if (strstr(list, "a "))
                expect_snapshot(disk, "a", strcmp(list, "b a ") == 0 ? w->before.disk : w->disk_a);
        if (strstr(list, "b "))
                expect_snapshot(disk, "b", w->disk_b);
        if (strstr(list, "c "))
                expect_snapshot(disk, "c", w->before.disk);
        simdisk_free(disk);
}

/* ---- the operations ---- */

static void save_some(struct bed *b)
{
        uint8_t state[STATE_BYTES];
        unsigned cancel_after = b->cancel_after;

        b->cancel_after = 0;
        memset(state, 0x5a, sizeof(state));
        bed_save(b, 100, state, sizeof(state));
        b->cancel_after = cancel_after;
}

static int create_c(struct bed *b)
{
        save_some(b);
        return bed_create(b, "c", STATE_BYTES, 0, NULL);
}

/* As far as the switch; a failure of that leaves it prepared. */
static int switch_to_c(struct bed *b)
{
        int ret;

        save_some(b);
        ret = bed_prepare(b, "c", 0);
        if (ret < 0)
                return ret;
        ret = bed_switch(b);
        if (ret < 0)
                bed_abort(b);
        return ret;
}

static int phases_c(struct bed *b)
{
        int ret = switch_to_c(b);

        if (ret < 0)
                return ret;
        save_some(b);
        return bed_publish(b, "c", STATE_BYTES);
}

static int abort_prepared(struct bed *b)
{
        int ret;

        save_some(b);
        ret = bed_prepare(b, "c", 0);
        return ret < 0 ? ret : bed_abort(b);
}

static int goto_a(struct bed *b)
{
        int ret = bed_goto(b, "a");

        bed_background(b);
        return ret;
}

/* The same bytes once more: all that is shared is copied. */
static void rewrite(struct bed *b)
{
        static uint8_t bytes[DISK_BYTES];

        if (bed_read(b, 0, bytes, DISK_BYTES) == 0)
                bed_write(b, 0, bytes, DISK_BYTES);
}

/* Whatever the abort could not take back, nothing of that is counted down later. */
static int abort_and_go_back(struct bed *b)
{
        int ret;

        if (bed_prepare(b, "c", 0) == 0)
                bed_abort(b);
        ret = goto_a(b);
        if (ret == 0)
                rewrite(b);
        return ret;
}

static int abort_switched(struct bed *b)
{
        int ret = switch_to_c(b);

        if (ret < 0)
                return ret;
        save_some(b);
        return bed_abort(b);
}

static int replace_a(struct bed *b)
{
        return bed_create(b, "a", 0, HVB_SNAPSHOT_REPLACE, NULL);
}

static int duplicate_a(struct bed *b)
{
        return bed_create(b, "a", 0, HVB_SNAPSHOT_DUPLICATE, NULL);
}

/* A failure between the two leaves it prepared, for somebody to take back. */
static int prepared_goto_a(struct bed *b)
{
        int ret = bed_goto_prepare(b, "a");

        if (ret < 0)
                return ret;
        ret = goto_a(b);
        if (ret < 0)
                bed_abort(b);
        return ret;
}

static int abort_goto(struct bed *b)
{
        int ret = bed_goto_prepare(b, "a");

        return ret < 0 ? ret : bed_abort(b);
}

static int delete_a(struct bed *b)
{
        return bed_delete(b, "a");
}

static int give_up(struct bed *b)
{
        save_some(b);
        return bed_save(b, 0, NULL, 0);
}

static const struct plan plans[] = {
        { "create", create_c, "a b c ", false, true },
        { "phases", phases_c, "a b c ", false, true },
        { "abort prepared", abort_prepared, "a b ", false, true },
        { "abort, go back", abort_and_go_back, "a b ", true, true },
        { "abort switched", abort_switched, "a b ", false, true },
        { "replace", replace_a, "b a ", false, false },
        { "duplicate", duplicate_a, "a b a ", false, false },
        { "goto", goto_a, "a b ", true, false },
        { "prepared goto", prepared_goto_a, "a b ", true, false },
        { "abort goto", abort_goto, "a b ", false, false },
        { "delete", delete_a, "b ", false, false },
        { "give up", give_up, "a b ", false, true },
};

/* ---- faults ---- */

/* False when the run met no fault. */
static bool run_with_fault(const struct world *w, const struct plan *p, struct sim_fault fault)
{
        struct simdisk *disk = disk_with(&w->image, NULL);
        unsigned may_be = 0;
        bool was_hit;
        unsigned index;
        struct bed b;
        int ret;

        sim_open(&b, disk, HVB_OPEN_RDWR);
        index = simdisk_fault_add(disk, &fault);
        ret = p->run(&b);
        was_hit = simdisk_fault(disk, index)->hits > 0;
        simdisk_faults_clear(disk);
        g_test_message("%s, %s fault %" G_GUINT64_FORMAT ": %s", p->name,
                       fault.sticky ? "sticky" : "one", fault.nth,
                       ret < 0 ? b.err.text : "succeeded");
        if (b.img->state == IMAGE_POISONED)
                may_be = MAY_BE_OLD | MAY_BE_NEW | MAY_LEAK;
        else
                may_be = ret < 0 ? MAY_BE_OLD : MAY_BE_NEW;
        if (was_hit && (b.loop.leaks > 0 || (ret < 0 && p->run == give_up)))
                may_be |= MAY_LEAK;
        g_assert_true(was_hit || ret == 0);
        ret = sim_close(&b);
        if (ret < 0)
                may_be |= MAY_LEAK;
        judge(w, p, &disk->files[0].image, may_be);
        simdisk_free(disk);
        return was_hit;
}

static void fail_each(const struct world *w, const struct plan *p, unsigned ops, bool sticky,
                      int error)
{
        struct sim_fault fault = {
                .ops = ops, .file = -1, .nth = 1, .sticky = sticky, .torn = true, .error = error,
        };

        while (run_with_fault(w, p, fault))
                g_assert_cmpuint(++fault.nth, <, FAULTS_MAX);
}

static void test_faults(gconstpointer options)
{
        g_autofree struct world *w = g_new0(struct world, 1);
        unsigned i;

        if (qemu_img_missing())
                return;
        world_begin(w, options);
        for (i = 0; i < G_N_ELEMENTS(plans); i++) {
                fail_each(w, &plans[i], 0, false, -EIO);
                fail_each(w, &plans[i], 0, true, -EIO);
                fail_each(w, &plans[i], 1 << IO_WRITE, true, -ENOSPC);
        }
        world_end(w);
}

/* ---- cancels ---- */

/* False when the operation ended before it was cancelled. */
static bool run_cancelled(const struct world *w, const struct plan *p, unsigned polls)
{
        const struct sim_options options = { .seed = polls, .delay_max = 5, .reorder = true };
        struct simdisk *disk = disk_with(&w->image, &options);
        bool was_cancelled;
        struct bed b;
        int ret;

        sim_open(&b, disk, HVB_OPEN_RDWR);
        b.cancel_after = polls;
        ret = p->run(&b);
        was_cancelled = b.cancel_after == 0;
        g_test_message("%s, cancelled after %u polls: %d", p->name, polls, ret);
        g_assert_true(ret == 0 || (was_cancelled && ret == -ECANCELED));
        g_assert_cmpuint(b.loop.leaks, ==, 0);
        g_assert_cmpint(sim_close(&b), ==, 0);
        judge(w, p, &disk->files[0].image, ret < 0 ? MAY_BE_OLD : MAY_BE_NEW);
        simdisk_free(disk);
        return was_cancelled;
}

static void test_cancels(gconstpointer options)
{
        g_autofree struct world *w = g_new0(struct world, 1);
        unsigned polls;
        unsigned i;

        if (qemu_img_missing())
                return;
        world_begin(w, options);
        for (i = 0; i < G_N_ELEMENTS(plans); i++)
                for (polls = 1; run_cancelled(w, &plans[i], polls); polls++)
                        g_assert_cmpuint(polls, <, FAULTS_MAX);
        world_end(w);
}

/* ---- power cuts ---- */

static unsigned pick(struct sim_random *random, unsigned way, unsigned option_count)
{
        switch (way) {
        case 0:
                return 0;
        case 1:
                return option_count - 1;
        default:
                return (unsigned)sim_random_below(random, option_count);
        }
}

static void judge_cut(const struct world *w, const struct plan *p, struct sim_cut *cut,
                      struct sim_random *random, bool has_ended)
{
        unsigned may_be = has_ended ? MAY_BE_NEW : MAY_BE_OLD | MAY_BE_NEW | MAY_LEAK;
        const struct sim_choice *choices;
        g_autofree unsigned *picks = NULL;
        unsigned count;
        unsigned way;
        unsigned i;

        choices = sim_cut_choices(cut, &count);
        picks = g_new(unsigned, count + 1);
        for (way = 0; way < (count ? PICKS : 1); way++) {
                struct sim_image image = { .root = NULL };

                for (i = 0; i < count; i++)
                        picks[i] = pick(random, way, choices[i].option_count);
                sim_cut_build(cut, picks, &image);
                judge(w, p, &image, may_be);
                sim_image_clear(&image);
        }
}

static void cut_each(const struct world *w, const struct plan *p)
{
        struct sim_options options = {
                .seed = 7, .delay_max = 3, .reorder = true, .short_percent = 5, .record = true,
        };
        struct simdisk *disk = disk_with(&w->image, &options);
        struct sim_random random = { 11 };
        struct sim_cut *cut;
        uint64_t op_end;
        struct bed b;

        sim_open(&b, disk, HVB_OPEN_RDWR);
        g_assert_cmpint(p->run(&b), ==, 0);
        op_end = simdisk_moments(disk);
        g_assert_cmpint(sim_close(&b), ==, 0);
        g_assert_cmpuint(disk->changed_buffers, ==, 0);

        cut = sim_cut_new(disk);
        for (;;) {
                g_test_message("%s, cut at %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT, p->name,
                               sim_cut_point(cut), simdisk_moments(disk));
                judge_cut(w, p, cut, &random, sim_cut_point(cut) >= op_end);
                if (sim_cut_point(cut) == simdisk_moments(disk))
                        break;
                sim_cut_advance(cut, sim_cut_point(cut) + 1);
        }
        sim_cut_free(cut);
        simdisk_free(disk);
}

static void test_cuts(gconstpointer options)
{
        g_autofree struct world *w = g_new0(struct world, 1);
        unsigned i;

        if (qemu_img_missing())
                return;
        world_begin(w, options);
        for (i = 0; i < G_N_ELEMENTS(plans); i++)
                if (plans[i].run != abort_and_go_back)  /* a short write tears an entry in place */
                        cut_each(w, &plans[i]);
        world_end(w);
}

int main(int argc, char **argv)
{
        static const char *const formats[] = {
                "cluster_size=512", "cluster_size=4k", "cluster_size=4k,lazy_refcounts=on",
                "cluster_size=1k,compat=0.10",
        };
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(formats); i += EFFORT_EVERY) {
                g_autofree char *faults = g_strdup_printf("/snapshot-faults/%s", formats[i]);
                g_autofree char *cancels = g_strdup_printf("/snapshot-cancels/%s", formats[i]);
                g_autofree char *cuts = g_strdup_printf("/snapshot-cuts/%s", formats[i]);

                g_test_add_data_func(faults, formats[i], test_faults);
                g_test_add_data_func(cancels, formats[i], test_cancels);
                g_test_add_data_func(cuts, formats[i], test_cuts);
        }
        return g_test_run();
}
