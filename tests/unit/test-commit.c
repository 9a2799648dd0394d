/*
 * test-commit.c - what a commit does behind its end does not hold up the next one.
 *
 * The clusters are so small that a block of counts covers 128 KiB, and none of it is in memory:
 * counting a cluster down reads a block.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "meta/refs.h"
#include "unit/data-bed.h"
#include "unit/qemu-img.h"

/* Places all over the disk, each in another block of counts; some are freed at first. */
enum {
        CLUSTER = 512,
        FREED = 40,
        COMMITS = 40,
        MORE = 10,                      /* freed behind each: more than are counted down then */
        PLACES = FREED + COMMITS * MORE,
        APART = 160 << 10,
        DISK_BYTES = PLACES * APART,
};

struct scene {
        struct bed bed;
        char *path;
        uint64_t freed[FREED];          /* indexes of host clusters */
};

static uint64_t guest_offset(unsigned i)
{
        return (uint64_t)APART * i;
}

static uint64_t host_cluster_of(struct scene *s, uint64_t offset)
{
        struct op *op = op_new(&s->bed, OP_STATUS, offset, CLUSTER);
        uint64_t host_offset;

        op_start(op);
        bed_poll_until(&s->bed, &op->ended);
        host_offset = op->status.host_offset;
        g_assert_cmpint(op_end(op), ==, 0);
        g_assert_cmpuint(host_offset, >, 0);
        return host_offset / CLUSTER;
}

/* Full, and opened anew; then clusters all over it are discarded. */
static void begin(struct scene *s)
{
        g_autofree char *options = g_strdup_printf("create -q -f qcow2 -o cluster_size=%d,"
                                                   "preallocation=metadata", CLUSTER);
        g_autofree char *size = g_strdup_printf("%d", DISK_BYTES);

        s->path = image_path();
        g_free(qemu_img(options, s->path, size));
        bed_open(&s->bed, s->path, true, 0, 0);
        for (unsigned i = 0; i < FREED; i++)
                s->freed[i] = host_cluster_of(s, guest_offset(i));
        for (unsigned i = 0; i < FREED; i++)
                g_assert_cmpint(bed_discard(&s->bed, guest_offset(i), CLUSTER), ==, 0);
}

/* Those whose counts are not in memory are not. */
static unsigned counted_down(struct scene *s)
{
        unsigned n = 0;

        for (unsigned i = 0; i < FREED; i++) {
                uint64_t count;

                n += refs_get_cached(s->bed.img, s->freed[i], &count) == 0 && count == 0;
        }
        return n;
}

static void end(struct scene *s)
{
        bed_close(&s->bed);
        g_free(qemu_img("check -q", s->path, ""));
        image_remove(s->path);
}

/* Commits one after the other: each is asked for as soon as the one before has ended. */
struct commit_task {
        struct bed_task base;
        struct scene *scene;
        struct commit_task *last;
        const uint64_t *more;           /* MORE clusters that are freed then; or NULL */
        unsigned counted_down;          /* when it ended */
};

static void commit_start(struct scene *s, struct commit_task *t, struct commit_task *last,
                         const uint64_t *more);

static void free_more(struct scene *s, const uint64_t more[MORE])
{
        for (unsigned i = 0; i < MORE; i++)
                clusters_free_later(s->bed.img, more[i] * CLUSTER, CLUSTER, 1);
}

static int commit_step(struct bed_task *base)
{
        struct commit_task *t = (struct commit_task *)base;
        int ret = meta_commit(&base->u.commit, base->bed->img);

        if (ret == CO_PENDING)
                return ret;
        t->counted_down = counted_down(t->scene);
        if (t == t->last)
                return ret;
        if (t->more)
                free_more(t->scene, t->more);
        commit_start(t->scene, t + 1, t->last, t->more ? t->more + MORE : NULL);
        return ret;
}

static void commit_start(struct scene *s, struct commit_task *t, struct commit_task *last,
                         const uint64_t *more)
{
        *t = (struct commit_task){
                .base = { .bed = &s->bed, .step = commit_step },
                .scene = s, .last = last, .more = more,
        };
        task_start(&t->base.task, &s->bed.loop, "commit", bed_task_step, bed_task_done);
}

static void next_one_comes_first(void)
{
        struct commit_task commits[2] = { { .scene = NULL } };
        struct scene s;

        if (qemu_img_missing())
                return;
        begin(&s);
        commit_start(&s, &commits[0], &commits[1], NULL);
        bed_poll_until(&s.bed, &commits[1].base.ended);
        g_assert_cmpint(commits[0].base.result, ==, 0);
        g_assert_cmpint(commits[1].base.result, ==, 0);
        g_assert_cmpuint(commits[0].counted_down, <, 2);
        g_assert_cmpuint(commits[1].counted_down, >, 0);
        g_assert_cmpuint(commits[1].counted_down, <, FREED / 2);
        end(&s);
}

/* ---- More is freed all the time ---------------------------------------------------------- */

struct drain_task {
        struct bed_task base;
        struct commit_drain drain;
};

static int drain_step(struct bed_task *base)
{
        struct drain_task *t = (struct drain_task *)base;

        return meta_drain(&t->drain, base->bed->img);
}

/* Host clusters of the guest's that it keeps; what that makes of the image nobody looks at. */
static void find_more(struct scene *s, uint64_t more[COMMITS * MORE])
{
        for (unsigned i = 0; i < COMMITS * MORE; i++)
                more[i] = host_cluster_of(s, guest_offset(FREED + i));
}

/* Who waits for what was freed before does not wait for that, too. */
static void drains_under_load(void)
{
        struct commit_task commits[COMMITS] = { { .scene = NULL } };
        struct drain_task drain = { .base.ended = false };
        uint64_t more[COMMITS * MORE];
        struct scene s;

        if (qemu_img_missing())
                return;
        begin(&s);
        find_more(&s, more);
        drain.base = (struct bed_task){ .bed = &s.bed, .step = drain_step };
        task_start(&drain.base.task, &s.bed.loop, "drain", bed_task_step, bed_task_done);
        commit_start(&s, &commits[0], &commits[COMMITS - 1], more);
        bed_poll_until(&s.bed, &drain.base.ended);
        g_assert_false(commits[COMMITS - 1].base.ended);
        bed_poll_until(&s.bed, &commits[COMMITS - 1].base.ended);
        bed_close(&s.bed);
        image_remove(s.path);
}

/* ---- */

/* Nobody asks for another commit: all of them are, by themselves. */
static void all_are_counted_down(void)
{
        struct scene s;

        if (qemu_img_missing())
                return;
        begin(&s);
        bed_commit(&s.bed);
        while (counted_down(&s) < FREED)
                g_assert_cmpint(loop_poll(&s.bed.loop, -1), >=, 0);
        end(&s);
}

struct closing_task {
        struct bed_task base;
        struct image_close close;
        bool committed;
};

static int closing_step(struct bed_task *base)
{
        struct closing_task *t = (struct closing_task *)base;
        int ret = t->committed ? 0 : meta_commit(&base->u.commit, base->bed->img);

        if (ret == CO_PENDING)
                return ret;
        if (!t->committed)
                image_poison(base->bed->img, -EIO, "test");
        t->committed = true;
        return image_close(&t->close, base->bed->img, &base->bed->err);
}

/* A poisoned image is closed in the middle of it. */
static void closed_while_counting(void)
{
        struct closing_task t = { .base.step = closing_step };
        struct scene s;

        if (qemu_img_missing())
                return;
        begin(&s);
        t.base.bed = &s.bed;
        task_start(&t.base.task, &s.bed.loop, "close", bed_task_step, bed_task_done);
        bed_poll_until(&s.bed, &t.base.ended);
        g_assert_cmpint(t.base.result, ==, -EIO);
        image_free(s.bed.img);
        loop_clear(&s.bed.loop);
        image_remove(s.path);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/commit/next-one-comes-first", next_one_comes_first);
        g_test_add_func("/commit/drains-under-load", drains_under_load);
        g_test_add_func("/commit/all-are-counted-down", all_are_counted_down);
        g_test_add_func("/commit/closed-while-counting", closed_while_counting);
        return g_test_run();
}
