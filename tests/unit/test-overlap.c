/*
 * test-overlap.c - requests that meet: what the one does while the other is in flight.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "ops/create.h"
#include "ops/resize.h"
#include "unit/sim-bed.h"
#include "unit/snapshot-bed.h"

enum { CLUSTER_BYTES = 65536, DISK_BYTES = 4 * CLUSTER_BYTES, RUNS = 400 };

struct create_task {
        struct bed_task base;
        struct create create;
        struct hvb_create_args args;
};

static int create_step(struct bed_task *base)
{
        struct create_task *t = (struct create_task *)base;

        return create_file(&t->create, &base->bed->loop, &base->bed->img->file, &t->args, NULL);
}

/* An empty disk, opened. */
static struct simdisk *begin(struct bed *b, const struct sim_options *options,
                             uint64_t cluster_bytes, uint64_t disk_bytes)
{
        struct simdisk *disk = simdisk_new(options);
        struct create_task t = {
                .base = { .bed = b, .step = create_step },
                .args = {
                        .struct_bytes = sizeof(t.args),
                        .cluster_bytes = cluster_bytes,
                        .size_bytes = disk_bytes,
                },
        };

        simdisk_file_new(disk);
        *b = (struct bed){ .err = { .struct_bytes = sizeof(b->err) } };
        g_assert_cmpint(open_options_parse(&b->options, NULL, NULL), ==, 0);
        loop_init(&b->loop, simdisk_engine_new(disk), true);
        b->img = image_new(&b->loop, NULL, "sim", HVB_OPEN_RDWR | HVB_OPEN_NO_LOCK, &b->options);
        g_assert_cmpint(image_open_file(b->img, 0, NULL), ==, 0);
        task_start(&t.base.task, &b->loop, "create", bed_task_step, bed_task_done);
        bed_poll_until(b, &t.base.ended);
        g_assert_cmpint(t.base.result, ==, 0);
        g_assert_cmpint(bed_run(b, bed_open_step), ==, 0);
        return disk;
}

static void end(struct bed *b, struct simdisk *disk)
{
        g_assert_cmpint(sim_close(b), ==, 0);
        simdisk_free(disk);
}

static struct op *start_write(struct bed *b, uint64_t offset, void *buffer, uint64_t length)
{
        struct op *op = op_new(b, OP_WRITE, offset, length);

        op_buffer(op, buffer, 0);
        op_start(op);
        return op;
}

/* A write and a zeroing of one cluster overlap, and a third request writes elsewhere in it.  When
 * the first two have ended the byte that both set does not change any more. */
static void race(uint64_t seed)
{
        const struct sim_options options = {
                .seed = seed, .delay_max = 12, .reorder = true, .short_percent = 60,
        };
        g_autofree uint8_t *bytes = g_malloc0(CLUSTER_BYTES);
        struct bed b;
        struct simdisk *disk = begin(&b, &options, CLUSTER_BYTES, DISK_BYTES);
        struct op *write;
        struct op *zero;
        struct op *other;
        uint8_t first;
        uint8_t later;

        g_assert_cmpint(bed_write(&b, 0, bytes, CLUSTER_BYTES), ==, 0);
        memset(bytes, 'w', CLUSTER_BYTES);
        write = start_write(&b, 0, bytes, CLUSTER_BYTES);
        zero = op_new(&b, OP_ZERO, 0, CLUSTER_BYTES);
        op_start(zero);
        other = start_write(&b, CLUSTER_BYTES / 2, bytes, 512);
        bed_poll_until(&b, &write->ended);
        bed_poll_until(&b, &zero->ended);
        g_assert_cmpint(bed_read(&b, 0, &first, 1), ==, 0);
        bed_poll_until(&b, &other->ended);
        g_assert_cmpint(bed_read(&b, 0, &later, 1), ==, 0);
        g_assert_cmpint(first, ==, later);
        op_end(write);
        op_end(zero);
        op_end(other);
        end(&b, disk);
}

static void test_zeroed_in_place(void)
{
        uint64_t seed;

        for (seed = 0; seed < RUNS; seed++)
                race(seed);
}

struct resize_task {
        struct bed_task base;
        struct resize resize;
        uint64_t new_bytes;
};

static int resize_step(struct bed_task *base)
{
        struct resize_task *t = (struct resize_task *)base;

        return resize(&t->resize, base->bed->img, t->new_bytes, HVB_PREALLOC_OFF, NULL);
}

static void grow(struct bed *b, uint64_t new_bytes)
{
        struct resize_task t = { .base = { .bed = b, .step = resize_step } };

        t.new_bytes = new_bytes;
        task_start(&t.base.task, &b->loop, "resize", bed_task_step, bed_task_done);
        bed_poll_until(b, &t.base.ended);
        g_assert_cmpint(t.base.result, ==, 0);
}

static void start_beyond(struct bed *b, struct op **ops, void *buffer, uint64_t offset)
{
        unsigned i;

        ops[0] = op_new(b, OP_WRITE, offset, 512);
        ops[1] = op_new(b, OP_COMPRESS, offset, 512);
        ops[2] = op_new(b, OP_ZERO, offset, 512);
        ops[3] = op_new(b, OP_DISCARD, offset, 512);
        for (i = 0; i < 4; i++) {
                op_buffer(ops[i], buffer, 0);
                op_start(ops[i]);
        }
}

/* Requests that wait while the disk becomes that of a much shorter snapshot, whose L1 table
 * ends before their range. */
static void test_shorter_disk(void)
{
        const struct sim_options options = { .seed = 1, .delay_max = 3 };
        struct snapshot_task go = { .base.step = bed_goto_step, .name = "short" };
        static uint8_t bytes[512] = { 1 };
        struct bed b;
        struct simdisk *disk = begin(&b, &options, 512, 16384);
        struct op *ops[4];
        unsigned i;

        g_assert_cmpint(bed_create(&b, "short", 0, 0, NULL), ==, 0);
        grow(&b, 1 << 20);
        go.base.bed = &b;
        task_start(&go.base.task, &b.loop, "goto", bed_task_step, bed_task_done);
        while (!b.img->writes.closed)
                g_assert_cmpint(loop_poll(&b.loop, 0), ==, 0);
        start_beyond(&b, ops, bytes, 1 << 19);
        bed_poll_until(&b, &go.base.ended);
        g_assert_cmpint(go.base.result, ==, 0);
        for (i = 0; i < 4; i++)
                g_assert_cmpint(op_end(ops[i]), ==, -EIO);
        end(&b, disk);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/overlap/zeroed-in-place", test_zeroed_in_place);
        g_test_add_func("/overlap/shorter-disk", test_shorter_disk);
        return g_test_run();
}
