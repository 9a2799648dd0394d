/*
 * bench-live.c - what a guest that writes feels of snapshot operations.
 *
 *   bench-live [-c] IMAGE PAIRS
 *
 * Random writes of 4 KiB, 32 in flight, go on all the time, to places of the disk that are
 * few enough to be copied after each snapshot.  Runs with and without an operation alternate,
 * as long as each other.  After each PAIR a line an operation:
 *
 *   name  seconds  longest write without, with it (s)  writes a second without, with it
 *
 * and at last "memory" and the most that the process had, in MiB.  publish begins with the
 * switch; goto lasts until the disk that it left is counted down.  In both the guest copies
 * what it writes to.  countdown is goto next to a run that copies as much and counts nothing.
 * Leaves the image without snapshots.
 *
 * On a tmpfs new memory is the disk, and where the machine is a virtual one and that memory was not
 * used before, a page of it takes its host longer than all else that a write does.  So as much as
 * a run may need is used and given back before it begins, whatever kind of run it is.
 *
 * With -c the clock is the CPU time of the thread: what it does itself, however busy the machine is
 * with something else.  What the kernel's workers do for it is not in that: fsync, and on a tmpfs
 * reads and writes too.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "host/drive.h"

enum { DEPTH = 32, BLOCK_BYTES = 4096, PLACES = 4096 };

/* A plain run is as long as the one with the operation, but not shorter. */
static const double shortest_seconds = 0.25;

enum kind { PREPARE, PUBLISH, GOTO, DELETE, KINDS };
static const char *const kind_names[KINDS] = { "prepare", "publish", "goto", "delete" };

struct slot {
        struct drive_op *op;
        struct iovec iov;
        double started;
};

/* What a run saw of its writes. */
struct seen {
        uint64_t count;
        double longest;
        double seconds;
};

static struct {
        clockid_t clock;
        char *directory;                /* owned: of the image */
        struct drive *drive;
        struct slot slots[DEPTH];
        uint64_t places[PLACES];
        uint8_t buffer[BLOCK_BYTES];
        unsigned in_flight;
        bool stopping;
        bool in_order;
        uint64_t next;
        uint64_t random_state;
        struct seen seen;
        struct hvb_error err;
} live = { .clock = CLOCK_MONOTONIC, .random_state = 0x9e3779b97f4a7c15, .err = ERROR_INIT };

static void die(const char *what, int code)
{
        fprintf(stderr, "bench-live: %s: %s\n", what, error_text(&live.err, code));
        exit(1);
}

static double now(void)
{
        struct timespec t;

        clock_gettime(live.clock, &t);
        return t.tv_sec + t.tv_nsec / 1e9;
}

static void poll_once(void)
{
        int ret = drive_poll(live.drive, 1);

        if (ret < 0)
                die("poll", ret);
}

/* ---- the disk ---- */

/* For each place a table and a cluster. */
static void touch_memory(void)
{
        static uint8_t bytes[1 << 20];
        const uint64_t needed = (uint64_t)PLACES * 2 * (64 << 10);
        struct statfs fs;
        int fd;

        if (statfs(live.directory, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
                return;
        fd = open(live.directory, O_TMPFILE | O_RDWR, 0600);
        for (uint64_t at = 0; fd >= 0 && at < needed; at += sizeof(bytes))
                if (pwrite(fd, bytes, sizeof(bytes), (off_t)at) < 0)
                        break;                  /* full: the run will tell */
        if (fd >= 0)
                close(fd);
}

/* ---- the guest ---- */

/* xorshift64*: the same places in each run. */
static uint64_t draw(void)
{
        live.random_state ^= live.random_state >> 12;
        live.random_state ^= live.random_state << 25;
        live.random_state ^= live.random_state >> 27;
        return live.random_state * 0x2545f4914f6cdd1d;
}

static void write_next(struct slot *slot, double started)
{
        uint64_t place = live.in_order ? live.next++ : draw() >> 16;

        live.in_flight++;
        slot->started = started;
        drive_op_pwritev(slot->op, live.places[place % PLACES], &slot->iov, 1, 0);
}

static void written(struct drive_op *op)
{
        struct slot *slot = op->opaque;
        double ended = now();

        if (op->result < 0)
                die("write", op->result);
        live.in_flight--;
        live.seen.count++;
        live.seen.longest = MAX(live.seen.longest, ended - slot->started);
        if (!live.stopping && !(live.in_order && live.next >= PLACES))
                write_next(slot, ended);
}

static void make_guest(void)
{
        uint64_t blocks = drive_bytes(live.drive) / BLOCK_BYTES;

        memset(live.buffer, 0xa5, sizeof(live.buffer));
        for (unsigned i = 0; i < PLACES; i++)
                live.places[i] = (draw() >> 16) % blocks * BLOCK_BYTES;
        for (unsigned i = 0; i < DEPTH; i++) {
                struct slot *slot = &live.slots[i];

                slot->op = drive_op_new(live.drive);
                slot->op->done = written;
                slot->op->opaque = slot;
                slot->iov = (struct iovec) { live.buffer, sizeof(live.buffer) };
        }
}

static void start_guest(void)
{
        double started = now();

        live.stopping = false;
        live.next = 0;
        live.seen = (struct seen) { .count = 0 };
        for (unsigned i = 0; i < DEPTH; i++)
                write_next(&live.slots[i], started);
}

/* Writes that are on their way still count. */
static struct seen stop_guest(double began)
{
        live.stopping = true;
        while (live.in_flight > 0)
                poll_once();
        live.seen.seconds = now() - began;
        return live.seen;
}

static struct seen run_plain(double seconds)
{
        double began;

        touch_memory();
        began = now();
        start_guest();
        while (now() - began < seconds)
                poll_once();
        return stop_guest(began);
}

/* Each place once: what a snapshot shares is copied. */
static void write_all_places(void)
{
        live.in_order = true;
        start_guest();
        while (live.next < PLACES)
                poll_once();
        stop_guest(now());
        live.in_order = false;
}

/* ---- the operations ---- */

static int create(struct hvb_error *err)
{
        struct hvb_snapshot_info info = {
                .struct_bytes = sizeof(info), .name = "bench", .icount = UINT64_MAX,
        };
        int ret = drive_snapshot_switch(live.drive, err);

        return ret < 0 ? ret : drive_snapshot_publish(live.drive, &info, err);
}

/* Whoever comes after a goto waits until the old disk is counted down, found or not. */
static int goto_and_wait(struct hvb_error *err)
{
        struct hvb_error none = ERROR_INIT;
        int ret = drive_snapshot_goto(live.drive, NULL, "bench", err);

        if (ret < 0)
                return ret;
        ret = drive_snapshot_delete(live.drive, NULL, "nobody", &none);
        return ret == -ENOENT ? 0 : ret;
}

static int run(enum kind kind, struct hvb_error *err)
{
        const struct hvb_snapshot_info info = { .struct_bytes = sizeof(info), .name = "bench" };

        switch (kind) {
        case PREPARE:
                return drive_snapshot_prepare(live.drive, &info, 0, err);
        case PUBLISH:
                return create(err);
        case GOTO:
                return goto_and_wait(err);
        case DELETE:
                return drive_snapshot_delete(live.drive, NULL, "bench", err);
        default:
                g_assert_not_reached();
        }
}

static struct seen run_with(enum kind kind)
{
        double began;
        int ret;

        touch_memory();
        began = now();
        start_guest();
        ret = run(kind, &live.err);
        if (ret < 0)
                die(kind_names[kind], ret);
        return stop_guest(began);
}

static void print_pair(const char *name, struct seen plain, struct seen with)
{
        printf("%s %.6f %.6f %.6f %.1f %.1f\n", name, with.seconds, plain.longest, with.longest,
               (double)plain.count / plain.seconds, (double)with.count / with.seconds);
}

/* Back once more, and counted down before the guest runs: what is left for it is to copy. */
static struct seen run_copying(double seconds)
{
        int ret = goto_and_wait(&live.err);

        if (ret < 0)
                die("goto", ret);
        return run_plain(seconds);
}

static void run_pair(enum kind kind)
{
        struct seen with = run_with(kind);
        double seconds = MAX(with.seconds, shortest_seconds);

        write_all_places();
        print_pair(kind_names[kind], run_plain(seconds), with);
        if (kind == GOTO)
                print_pair("countdown", run_copying(seconds), with);
        write_all_places();
}

static void print_memory(void)
{
        struct rusage usage;

        getrusage(RUSAGE_SELF, &usage);
        printf("memory %.1f\n", (double)usage.ru_maxrss / 1024);
}

int main(int argc, char **argv)
{
        struct drive_options options = { .format = "qcow2", .flags = HVB_OPEN_RDWR };
        int pairs = 0;
        int ret;

        if (argc == 4 && strcmp(argv[1], "-c") == 0) {
                live.clock = CLOCK_THREAD_CPUTIME_ID;
                argv++;
                argc--;
        }
        if (argc == 3)
                pairs = atoi(argv[2]);
        setvbuf(stdout, NULL, _IOLBF, 0);
        if (pairs < 1) {
                fprintf(stderr, "Usage: bench-live [-c] IMAGE PAIRS\n");
                return 2;
        }
        ret = drive_open(argv[1], &options, &live.drive, &live.err);
        if (ret < 0)
                die("open", ret);
        live.directory = g_path_get_dirname(argv[1]);
        make_guest();
        write_all_places();
        for (int pair = 0; pair < pairs; pair++)
                for (enum kind kind = 0; kind < KINDS; kind++)
                        run_pair(kind);
        print_memory();
        for (unsigned i = 0; i < DEPTH; i++)
                drive_op_free(live.slots[i].op);
        ret = drive_close(live.drive, &live.err);
        if (ret < 0)
                die("close", ret);
        g_free(live.directory);
        return 0;
}
