/*
 * test-commit.c - what a commit does behind its end does not hold up the next one.
 *
 * The clusters are so small that a block of counts covers 128 KiB, and none of it is in memory:
 * counting a cluster down reads a block.
 *
 * SPDX-License-Identifier: MIT
 */
#include "meta/refs.h"
#include "unit/data-bed.h"
#include "unit/qemu-img.h"

enum { CLUSTER = 512, DISK_BYTES = 16 << 20, FREED = 100, APART = DISK_BYTES / FREED };

struct scene {
        struct bed bed;
        char *path;
        uint64_t freed[FREED];          /* indexes of host clusters */
};

static uint64_t guest_offset(unsigned i)
{
        return (uint64_t)APART * i / CLUSTER * CLUSTER;
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

/* When it ends it tells how many are counted down, and the next one begins. */
struct commit_task {
        struct bed_task base;
        struct scene *scene;
        struct commit_task *next;
        unsigned counted_down;
};

static void commit_start(struct scene *s, struct commit_task *t, struct commit_task *next);

static int commit_step(struct bed_task *base)
{
        struct commit_task *t = (struct commit_task *)base;
        int ret = meta_commit(&base->u.commit, base->bed->img);

        if (ret == CO_PENDING)
                return ret;
        t->counted_down = counted_down(t->scene);
        if (t->next)
                commit_start(t->scene, t->next, NULL);
        return ret;
}

static void commit_start(struct scene *s, struct commit_task *t, struct commit_task *next)
{
        *t = (struct commit_task){
                .base = { .bed = &s->bed, .step = commit_step }, .scene = s, .next = next,
        };
        task_start(&t->base.task, &s->bed.loop, "commit", bed_task_step, bed_task_done);
}

static void next_one_comes_first(void)
{
        struct commit_task first, second;
        struct scene s;

        if (qemu_img_missing())
                return;
        begin(&s);
        second.base.ended = false;
        commit_start(&s, &first, &second);
        bed_poll_until(&s.bed, &second.base.ended);
        g_assert_cmpint(first.base.result, ==, 0);
        g_assert_cmpint(second.base.result, ==, 0);
        g_assert_cmpuint(first.counted_down, <, 2);
        g_assert_cmpuint(second.counted_down, >, 0);
        g_assert_cmpuint(second.counted_down, <, FREED / 4);
        end(&s);
}

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

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/commit/next-one-comes-first", next_one_comes_first);
        g_test_add_func("/commit/all-are-counted-down", all_are_counted_down);
        return g_test_run();
}
