/*
 * test-overlap.c - requests that meet: what the one does while the other is in flight.
 *
 * SPDX-License-Identifier: MIT
 */
#include <glib.h>
#include <string.h>

#include "ops/create.h"
#include "unit/sim-bed.h"

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

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/overlap/zeroed-in-place", test_zeroed_in_place);
        return g_test_run();
}
