/*
 * test-life.c - what is left of an image that was closed: nothing.
 *
 * Properties: after a close, and after an open that failed, the process has the file
 * descriptors, threads and locks that it had before, whatever was done in between
 * and with either engine.  Of a process that was killed nothing is left either, but the
 * kernel takes its time.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "host/drive-op.h"

enum { DISK_BYTES = 8 << 20, IN_FLIGHT = 32, WRITE_BYTES = 8192, DRAINS = 3, ROUNDS = 20 };
enum { KILLED_ROUNDS = 20, IMPATIENT_MS = 20, PATIENT_MS = 20000 };

struct life {
        const char *engine;             /* the driver's option */
        const char *path;
};

/* How many entries a directory of /proc/self has; kernel workers of rings are not ours. */
static unsigned count_in(const char *directory, bool are_threads)
{
        GDir *dir = g_dir_open(directory, 0, NULL);
        const char *name;
        unsigned count = 0;

        while ((name = g_dir_read_name(dir)) != NULL) {
                g_autofree char *comm_path = g_build_filename(directory, name, "comm", NULL);
                g_autofree char *comm = NULL;

                if (are_threads && (!g_file_get_contents(comm_path, &comm, NULL, NULL) ||
                                    g_str_has_prefix(comm, "iou-wrk")))
                        continue;
                count++;
        }
        g_dir_close(dir);
        return count;
}

/* Locks that anybody holds on the file. */
static unsigned locks_on(const char *path)
{
        g_autofree char *locks = NULL;
        g_autofree char *inode = NULL;
        struct stat st;
        unsigned count = 0;
        const char *at;

        g_assert_cmpint(g_stat(path, &st), ==, 0);
        inode = g_strdup_printf(":%llu ", (unsigned long long)st.st_ino);
        if (!g_file_get_contents("/proc/locks", &locks, NULL, NULL))
                return 0;
        for (at = locks; (at = strstr(at, inode)) != NULL; at++)
                count++;
        return count;
}

/* A thread that was joined may be listed a moment longer. */
static void expect_threads(unsigned count)
{
        gint64 until = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND;

        while (count_in("/proc/self/task", true) != count && g_get_monotonic_time() < until)
                g_thread_yield();
        g_assert_cmpuint(count_in("/proc/self/task", true), ==, count);
}

static struct drive *open_within(const struct life *life, uint32_t flags,
                                 unsigned lock_timeout_ms, int expected)
{
        g_autofree char *engine = g_strdup_printf("engine=%s", life->engine);
        const char *options[] = { engine, NULL };
        struct drive_options how = {
                .format = "qcow2",
                .flags = flags,
                .options = options,
                .lock_timeout_ms = lock_timeout_ms,
        };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive = NULL;

        g_assert_cmpint(drive_open(life->path, &how, &drive, &err), ==, expected);
        return drive;
}

static struct drive *life_open(const struct life *life, uint32_t flags, int expected)
{
        return open_within(life, flags, 0, expected);
}

static void life_create(const struct life *life)
{
        g_autofree char *engine = g_strdup_printf("engine=%s", life->engine);
        const char *options[] = { engine, NULL };
        struct hvb_create_args args = {
                .struct_bytes = sizeof(args), .size_bytes = DISK_BYTES,
        };
        struct drive_options how = { .format = "qcow2", .flags = HVB_OPEN_RDWR,
                                     .options = options };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;

        g_assert_cmpint(drive_create(life->path, &args, &how, &drive, &err), ==, 0);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
}

static void vm_state_given_up(struct drive *drive)
{
        char state[4096] = "state";
        struct iovec iov = { state, sizeof(state) };

        g_assert_cmpint(drive_save_vmstate(drive, 0, &iov, 1), ==, 0);
        g_assert_cmpint(drive_save_vmstate(drive, 0, NULL, 0), ==, 0);
        g_assert_cmpint(drive_load_vmstate(drive, 0, &iov, 1), ==, 0);
        g_assert_cmpint(state[0], ==, 0);
}

static void snapshots(struct drive *drive)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info), .name = "one" };
        char state[4096] = "state";
        struct iovec iov = { state, sizeof(state) };
        struct hvb_error err = ERROR_INIT;

        vm_state_given_up(drive);
        g_assert_cmpint(drive_save_vmstate(drive, 0, &iov, 1), ==, 0);
        g_assert_cmpint(drive_snapshot_create(drive, &info, 0, &err), ==, 0);
        g_assert_cmpint(drive_snapshot_goto(drive, NULL, "one", &err), ==, 0);
        g_assert_cmpint(drive_snapshot_delete(drive, NULL, "one", &err), ==, 0);
        /* Given up by the close. */
        g_assert_cmpint(drive_save_vmstate(drive, 0, &iov, 1), ==, 0);
}

/* Writes at once, a snapshot there and back, and a VM state that nobody took. */
static void live(const struct life *life)
{
        static char bytes[WRITE_BYTES];
        struct iovec iov = { bytes, sizeof(bytes) };
        struct drive_op *ops[IN_FLIGHT];
        struct hvb_error err = ERROR_INIT;
        struct drive *drive = life_open(life, HVB_OPEN_RDWR, 0);
        int i;

        memset(bytes, 7, sizeof(bytes));
        for (i = 0; i < IN_FLIGHT; i++) {
                ops[i] = drive_op_new(drive);
                drive_op_pwritev(ops[i], (uint64_t)i * (DISK_BYTES / IN_FLIGHT), &iov, 1, 0);
        }
        for (i = 0; i < IN_FLIGHT; i++)
                g_assert_cmpint(drive_op_wait(ops[i]), ==, 0);
        snapshots(drive);
        g_assert_cmpint(drive_flush(drive), ==, 0);
        for (i = 0; i < IN_FLIGHT; i++)
                drive_op_free(ops[i]);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
}

static void drain_next(struct drive_op *op)
{
        struct drive_op *next = op->opaque;

        if (next != NULL)
                drive_driver(op->drive)->drain(drive_queue(op->drive), drive_op_begin(next));
}

/* Each is begun when the one before completes, with nothing else in flight. */
static void drains(const struct life *life)
{
        static char bytes[WRITE_BYTES];
        struct iovec iov = { bytes, sizeof(bytes) };
        struct drive *drive = life_open(life, HVB_OPEN_RDWR, 0);
        struct drive_op *ops[DRAINS + 1];
        struct hvb_error err = ERROR_INIT;
        int i;

        for (i = 0; i <= DRAINS; i++)
                ops[i] = drive_op_new(drive);
        for (i = 0; i < DRAINS; i++) {
                ops[i]->done = drain_next;
                ops[i]->opaque = ops[i + 1];
        }
        drive_op_pwritev(ops[0], 0, &iov, 1, 0);
        for (i = 0; i <= DRAINS; i++)
                g_assert_cmpint(drive_op_wait(ops[i]), ==, 0);
        for (i = 0; i <= DRAINS; i++)
                drive_op_free(ops[i]);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
}

/* An activate that comes too early is refused, and is no more than that. */
static void activates(const struct life *life)
{
        struct drive *drive = life_open(life, HVB_OPEN_RDWR, 0);
        const struct hvb_driver *driver = drive_driver(drive);
        struct drive_op *leave = drive_op_new(drive);
        struct drive_op *early = drive_op_new(drive);
        struct hvb_error err = ERROR_INIT;

        driver->inactivate(drive_image(drive), drive_op_begin(leave), &err);
        driver->activate(drive_image(drive), drive_op_begin(early), &err);
        g_assert_cmpint(drive_op_wait(early), ==, -EINPROGRESS);
        g_assert_cmpint(drive_op_wait(leave), ==, 0);
        g_assert_cmpint(drive_activate(drive, &err), ==, 0);
        g_assert_cmpint(drive_flush(drive), ==, 0);
        drive_op_free(leave);
        drive_op_free(early);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
}

static void refused(const struct life *life)
{
        struct drive *drive = life_open(life, HVB_OPEN_RDWR, 0);
        struct hvb_error err = ERROR_INIT;

        g_assert_null(life_open(life, HVB_OPEN_RDWR, -EAGAIN));
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
}

static void not_qcow2(const struct life *life)
{
        const struct life bad = { life->engine, "/proc/self/exe" };

        g_assert_null(life_open(&bad, 0, -EINVAL));
}

static void nothing_is_left(gconstpointer data)
{
        const char *engine = data;
        g_autofree char *directory = g_dir_make_tmp("life-XXXXXX", NULL);
        g_autofree char *path = g_build_filename(directory, "image.qcow2", NULL);
        struct life life = { engine, path };
        unsigned fds;
        unsigned threads;
        int round;

        life_create(&life);
        live(&life);                    /* what is loaded once stays */
        fds = count_in("/proc/self/fd", false);
        threads = count_in("/proc/self/task", true);
        for (round = 0; round < ROUNDS; round++) {
                live(&life);
                drains(&life);
                activates(&life);
                refused(&life);
                not_qcow2(&life);
                g_assert_cmpuint(count_in("/proc/self/fd", false), ==, fds);
                expect_threads(threads);
                g_assert_cmpuint(locks_on(path), ==, 0);
        }
        g_unlink(path);
        g_rmdir(directory);
}

/* Has the image open, a write in flight, and says so. */
static void G_GNUC_NORETURN hold(const struct life *life, int ready_fd)
{
        static char bytes[WRITE_BYTES];
        struct iovec iov = { bytes, sizeof(bytes) };
        struct drive *drive = life_open(life, HVB_OPEN_RDWR, 0);
        struct drive_op *op = drive_op_new(drive);

        drive_op_pwritev(op, 0, &iov, 1, 0);
        drive_poll(drive, 0);
        g_assert_cmpint(write(ready_fd, "r", 1), ==, 1);
        for (;;)
                pause();
}

static pid_t start_holder(const struct life *life)
{
        int ready[2];
        char byte;
        pid_t pid;

        g_assert_cmpint(pipe(ready), ==, 0);
        pid = fork();
        g_assert_cmpint(pid, >=, 0);
        if (pid == 0)
                hold(life, ready[1]);
        close(ready[1]);
        g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
        close(ready[0]);
        return pid;
}

/* Whoever is patient gets the image of a process as soon as that was killed, and never that of
 * one that lives. */
static void killed(gconstpointer data)
{
        g_autofree char *directory = g_dir_make_tmp("life-XXXXXX", NULL);
        g_autofree char *path = g_build_filename(directory, "image.qcow2", NULL);
        struct life life = { data, path };
        struct hvb_error err = ERROR_INIT;

        life_create(&life);
        for (int round = 0; round < KILLED_ROUNDS; round++) {
                pid_t pid = start_holder(&life);
                gint64 begin = g_get_monotonic_time();

                g_assert_null(open_within(&life, HVB_OPEN_RDWR, IMPATIENT_MS, -EAGAIN));
                g_assert_cmpint(g_get_monotonic_time() - begin, >=,
                                IMPATIENT_MS * G_TIME_SPAN_MILLISECOND);
                g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
                g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
                g_assert_cmpint(drive_close(open_within(&life, HVB_OPEN_RDWR, PATIENT_MS, 0),
                                            &err), ==, 0);
        }
        g_unlink(path);
        g_rmdir(directory);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        if (!g_getenv("TEST_ENGINE"))
                g_test_add_data_func("/life/killed/io_uring", "auto", killed);
        g_test_add_data_func("/life/killed/threads", "threads", killed);
        if (!g_getenv("TEST_ENGINE"))
                g_test_add_data_func("/life/io_uring", "auto", nothing_is_left);
        g_test_add_data_func("/life/threads", "threads", nothing_is_left);
        return g_test_run();
}
