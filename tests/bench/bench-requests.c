/*
 * bench-requests.c - many requests in flight to a qcow2 image, through the plugin.
 *
 * Prints the seconds from the first start to the last completion, and the engine.
 * Opening and closing are not in it, as they are not in what `qemu-img bench` says.
 *
 * SPDX-License-Identifier: MIT
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/workload.h"
#include "host/drive.h"

struct slot {
        struct drive_op *op;
        struct iovec iov;
};

static struct {
        struct workload work;
        struct drive *drive;
        struct slot slots[WORKLOAD_DEPTH_MAX];
        struct slot *idle[WORKLOAD_DEPTH_MAX];
        unsigned idle_count;
        struct drive_op *flush;
} bench;

static void die(const char *what, const struct hvb_error *err, int code)
{
        fprintf(stderr, "bench-requests: %s: %s\n", what, error_text(err, code));
        exit(1);
}

static void start_all(void)
{
        enum workload_step step;
        uint64_t offset;

        while ((step = workload_next(&bench.work, &offset)) != WORKLOAD_WAIT) {
                struct slot *slot;

                if (step == WORKLOAD_FLUSH) {
                        drive_op_flush(bench.flush);
                        continue;
                }
                g_assert(bench.idle_count > 0);
                slot = bench.idle[--bench.idle_count];
                if (bench.work.write)
                        drive_op_pwritev(slot->op, offset, &slot->iov, 1, 0);
                else
                        drive_op_preadv(slot->op, offset, &slot->iov, 1, 0);
        }
}

static void requested(struct drive_op *op)
{
        if (op->result < 0)
                die("request", NULL, op->result);
        bench.idle[bench.idle_count++] = op->opaque;
        workload_requested(&bench.work);
        start_all();
}

static void flushed(struct drive_op *op)
{
        if (op->result < 0)
                die("flush", NULL, op->result);
        workload_flushed(&bench.work);
        start_all();
}

static double run(void)
{
        double begin = workload_now();

        start_all();
        while (!workload_done(&bench.work)) {
                int ret = drive_poll(bench.drive, -1);

                if (ret < 0)
                        die("poll", NULL, ret);
        }
        return workload_now() - begin;
}

static void make_slots(void)
{
        for (unsigned i = 0; i < bench.work.depth; i++) {
                struct slot *slot = &bench.slots[i];

                slot->op = drive_op_new(bench.drive);
                slot->op->done = requested;
                slot->op->opaque = slot;
                slot->iov.iov_base = workload_buffer(&bench.work, i);
                slot->iov.iov_len = bench.work.request_bytes;
                bench.idle[bench.idle_count++] = slot;
        }
        bench.flush = drive_op_new(bench.drive);
        bench.flush->done = flushed;
}

static void free_slots(void)
{
        for (unsigned i = 0; i < bench.work.depth; i++)
                drive_op_free(bench.slots[i].op);
        drive_op_free(bench.flush);
}

int main(int argc, char **argv)
{
        struct drive_options options = { .format = "qcow2" };
        struct hvb_image_info info = { .struct_bytes = sizeof(info) };
        struct hvb_error err = ERROR_INIT;
        double seconds;
        int ret;

        workload_init(&bench.work, "bench-requests", argc, argv);
        options.flags = bench.work.write ? HVB_OPEN_RDWR : 0;
        options.cache.direct = bench.work.direct;
        ret = drive_open(bench.work.path, &options, &bench.drive, &err);
        if (ret < 0)
                die("open", &err, ret);
        drive_get_info(bench.drive, &info);
        bench.work.disk_bytes = drive_bytes(bench.drive);

        make_slots();
        seconds = run();
        ret = drive_drain(bench.drive);
        if (ret < 0)
                die("drain", NULL, ret);
        free_slots();
        ret = drive_close(bench.drive, &err);
        if (ret < 0)
                die("close", &err, ret);
        workload_clear(&bench.work);
        printf("%.6f %s\n", seconds, info.engine);
        return 0;
}
