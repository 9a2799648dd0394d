/*
 * live-snapshot.c - a host process that takes a snapshot while it writes.
 *
 *   live-snapshot IMAGE RANGES
 *
 * RANGES lists parts of the disk that may be overwritten, "offset length" in
 * bytes a line.  Sixteen writers stamp 4 KiB blocks there without pause; in the
 * middle a snapshot is taken.  Later the disk goes back to it, and every block is
 * held against what the snapshot may contain: what had completed before the
 * snapshot was asked for, or a write that was in flight between then and its end.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <glib.h>

#include "host/drive.h"

enum { BLOCK = 4096, WRITERS = 16, ROUNDS = 20000 };

struct writer {
        struct drive_op *op;
        uint64_t stamp;
        uint32_t block;
        double started;
        uint64_t *buffer;
        struct iovec iov;
};

struct block {
        uint64_t offset;                /* on the disk */
        uint64_t done;                  /* last stamp that completed */
        uint64_t before;                /* the same, when the snapshot was asked for */
        bool busy;
};

struct demo {
        struct drive *drive;
        struct block *blocks;
        uint32_t block_count;
        struct writer writers[WRITERS];
        GArray *targets;                /* stamp -> block, uint32_t; its length: the next stamp */
        uint64_t completed;
        bool stopping;                  /* no new writes */
        uint64_t window_first;          /* stamps that may or may not be in the snapshot */
        uint64_t window_end;
        bool snapshot_running;
        double longest;                 /* seconds a write took, ever ... */
        double longest_in_snapshot;     /* ... and of those that the snapshot met */
        double snapshot_ended;          /* when; 0: not yet */
        GRand *random;
        int error;
};

static double now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what, const struct hvb_error *err, int code)
{
        fprintf(stderr, "live-snapshot: %s: %s\n", what,
                err && err->text[0] ? err->text : strerror(-code));
        exit(1);
}

/* ---- the writers ---- */

static void write_one(struct demo *d, struct writer *w)
{
        unsigned i;

        do
                w->block = g_rand_int_range(d->random, 0, d->block_count);
        while (d->blocks[w->block].busy);
        d->blocks[w->block].busy = true;
        w->stamp = d->targets->len;
        g_array_append_val(d->targets, w->block);
        for (i = 0; i < BLOCK / sizeof(uint64_t); i++)
                w->buffer[i] = w->stamp;
        w->started = now();
        w->iov = (struct iovec) { w->buffer, BLOCK };
        drive_op_pwritev(w->op, d->blocks[w->block].offset, &w->iov, 1, 0);
}

static void written(struct drive_op *op)
{
        struct demo *d = op->opaque;
        struct writer *w = d->writers;
        double took;

        while (w->op != op)
                w++;
        took = now() - w->started;
        d->longest = MAX(d->longest, took);
        if (d->snapshot_running || w->started < d->snapshot_ended)
                d->longest_in_snapshot = MAX(d->longest_in_snapshot, took);
        d->blocks[w->block].busy = false;
        d->blocks[w->block].done = w->stamp;
        d->completed++;
        if (op->result < 0)
                d->error = op->result;
        else if (!d->stopping)
                write_one(d, w);
}

/* Polls until count writes have completed. */
static void run_until(struct demo *d, uint64_t count)
{
        while (d->completed < count && !d->error)
                if (drive_poll(d->drive, -1) < 0)
                        d->error = -EIO;
        if (d->error)
                die("writing", NULL, d->error);
}

/* ---- the snapshot ---- */

static void snapshot_taken(struct drive_op *op)
{
        struct demo *d = op->opaque;

        d->snapshot_running = false;
        d->snapshot_ended = now();
        d->window_end = d->targets->len;
}

static double take_snapshot(struct demo *d, const char *name)
{
        const struct hvb_driver *driver = drive_driver(d->drive);
        struct drive_op *op = drive_op_new(d->drive);
        struct hvb_snapshot_info info = {
                .struct_bytes = sizeof(info),
                .date_sec = (uint32_t)time(NULL),
                .icount = UINT64_MAX,
        };
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        double started = now();
        uint32_t i;

        g_strlcpy(info.name, name, sizeof(info.name));
        op->done = snapshot_taken;
        op->opaque = d;
        d->snapshot_running = true;
        d->window_first = d->targets->len - WRITERS;
        for (i = 0; i < d->block_count; i++)
                d->blocks[i].before = d->blocks[i].done;
        driver->snapshot_create(drive_image(d->drive), drive_op_begin(op), &info, 0, &err);
        while (d->snapshot_running && !d->error)
                if (drive_poll(d->drive, -1) < 0)
                        d->error = -EIO;
        if (op->result < 0 || d->error)
                die("taking the snapshot", &err, op->result);
        drive_op_free(op);
        return now() - started;
}

static bool allowed(const struct demo *d, uint32_t block, uint64_t stamp)
{
        if (stamp == d->blocks[block].before)
                return true;
        return stamp >= d->window_first && stamp < d->window_end &&
               g_array_index(d->targets, uint32_t, stamp) == block;
}

/* How many blocks hold what the snapshot cannot contain. */
static uint32_t count_wrong(struct demo *d, const uint8_t *original)
{
        uint64_t content[BLOCK / sizeof(uint64_t)];
        uint32_t wrong = 0;
        uint32_t i;
        unsigned n;

        for (i = 0; i < d->block_count; i++) {
                if (drive_pread(d->drive, d->blocks[i].offset, content, BLOCK) < 0)
                        die("reading back", NULL, -EIO);
                if (d->blocks[i].before == 0 &&
                    memcmp(content, original + (size_t)i * BLOCK, BLOCK) == 0)
                        continue;
                for (n = 1; n < BLOCK / sizeof(uint64_t); n++)
                        if (content[n] != content[0])
                                break;
                wrong += n < BLOCK / sizeof(uint64_t) || content[0] == 0 ||
                         !allowed(d, i, content[0]);
        }
        return wrong;
}

/* ---- setting up ---- */

static void read_ranges(struct demo *d, const char *path)
{
        GArray *blocks = g_array_new(FALSE, TRUE, sizeof(struct block));
        FILE *f = fopen(path, "r");
        uint64_t offset;
        uint64_t length;

        if (!f)
                die(path, NULL, -errno);
        while (fscanf(f, "%" SCNu64 " %" SCNu64, &offset, &length) == 2)
                for (; length >= BLOCK; offset += BLOCK, length -= BLOCK) {
                        struct block b = { .offset = offset };

                        g_array_append_val(blocks, b);
                }
        fclose(f);
        d->block_count = blocks->len;
        d->blocks = (struct block *)(void *)g_array_free(blocks, FALSE);
        if (d->block_count < 2 * WRITERS)
                die(path, NULL, -EINVAL);
}

static uint8_t *read_originals(struct demo *d)
{
        uint8_t *original = g_malloc((size_t)d->block_count * BLOCK);
        uint32_t i;

        for (i = 0; i < d->block_count; i++)
                if (drive_pread(d->drive, d->blocks[i].offset, original + (size_t)i * BLOCK,
                                BLOCK) < 0)
                        die("reading", NULL, -EIO);
        return original;
}

static void start_writers(struct demo *d)
{
        unsigned i;

        d->targets = g_array_new(FALSE, TRUE, sizeof(uint32_t));
        g_array_set_size(d->targets, 1);        /* no write has stamp 0 */
        d->random = g_rand_new_with_seed(1);
        for (i = 0; i < WRITERS; i++) {
                struct writer *w = &d->writers[i];

                w->op = drive_op_new(d->drive);
                w->op->done = written;
                w->op->opaque = d;
                w->buffer = aligned_alloc(BLOCK, BLOCK);
                write_one(d, w);
        }
}

static void stop_writers(struct demo *d)
{
        unsigned i;

        d->stopping = true;
        drive_drain(d->drive);
        for (i = 0; i < WRITERS; i++) {
                drive_op_free(d->writers[i].op);
                free(d->writers[i].buffer);
        }
}

static void list(struct demo *d)
{
        struct hvb_snapshot_info *infos;
        int n = drive_snapshot_list(d->drive, &infos);
        int i;

        for (i = 0; i < n; i++)
                printf("  snapshot %s '%s', disk of %" PRIu64 " MiB\n", infos[i].id_str,
                       infos[i].name, infos[i].disk_bytes >> 20);
        if (n == 0)
                printf("  no snapshots\n");
        g_free(infos);
}

int main(int argc, char **argv)
{
        static struct demo d;
        struct drive_options options = { .format = "qcow2", .flags = HVB_OPEN_RDWR };
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        struct hvb_image_info info = { .struct_bytes = sizeof(info) };
        uint8_t *original;
        double took;
        int ret;

        if (argc != 3) {
                fprintf(stderr, "usage: live-snapshot IMAGE RANGES\n");
                return 2;
        }
        ret = drive_open(argv[1], &options, &d.drive, &err);
        if (ret < 0)
                die("opening", &err, ret);
        drive_get_info(d.drive, &info);
        printf("  opened %s: %" PRIu64 " MiB, I/O by %s\n", argv[1], info.virtual_bytes >> 20,
               info.engine);
        read_ranges(&d, argv[2]);
        original = read_originals(&d);

        start_writers(&d);
        run_until(&d, ROUNDS);
        took = take_snapshot(&d, "before");
        printf("  snapshot taken in %.1f ms while %d writers wrote\n", took * 1e3, WRITERS);
        run_until(&d, d.completed + ROUNDS);
        stop_writers(&d);
        printf("  %" PRIu64 " writes of 4 KiB in all, the longest took %.1f ms, of those that met "
               "the snapshot %.1f ms\n", d.completed, d.longest * 1e3,
               d.longest_in_snapshot * 1e3);
        list(&d);
        printf("  blocks that differ from the snapshot now: %u of %u\n",
               count_wrong(&d, original), d.block_count);

        ret = drive_snapshot_goto(d.drive, NULL, "before", &err);
        if (ret < 0)
                die("going back", &err, ret);
        ret = (int)count_wrong(&d, original);
        printf("  went back; blocks that differ from the snapshot: %d of %u\n", ret,
               d.block_count);
        if (drive_snapshot_delete(d.drive, NULL, "before", &err) < 0)
                die("deleting the snapshot", &err, -EIO);
        list(&d);
        if (drive_close(d.drive, &err) < 0)
                die("closing", &err, -EIO);
        printf("  closed\n");
        g_free(original);
        g_free(d.blocks);
        g_array_unref(d.targets);
        g_rand_free(d.random);
        return ret != 0;
}
