/*
 * test-drive-thread.c - a drive that other threads use.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/drive-thread.h"

#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { DISK_BYTES = 64 << 20, BLOCK = 4096 };

struct bed {
        char *directory;
        char *path;
        struct drive_thread *thread;
};

static const struct drive_options qcow2 = { .format = "qcow2", .flags = HVB_OPEN_RDWR };

static void set_up(struct bed *bed, gconstpointer unused)
{
        const struct hvb_create_args args = { .size_bytes = DISK_BYTES };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;

        (void) unused;
        bed->directory = g_dir_make_tmp("drive-thread-XXXXXX", NULL);
        bed->path = g_build_filename(bed->directory, "image", NULL);
        g_assert_cmpint(drive_create(bed->path, &args, &qcow2, &drive, &err), ==, 0);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
        g_assert_cmpint(drive_thread_open(bed->path, &qcow2, &bed->thread, &err), ==, 0);
}

static void tear_down(struct bed *bed, gconstpointer unused)
{
        struct hvb_error err = ERROR_INIT;

        (void) unused;
        g_assert_cmpint(drive_thread_close(bed->thread, &err), ==, 0);
        g_remove(bed->path);
        g_rmdir(bed->directory);
        g_free(bed->path);
        g_free(bed->directory);
}

static int call_self(struct drive *drive, void *opaque)
{
        pthread_t *ret_self = opaque;

        g_assert_cmpuint(drive_bytes(drive), ==, DISK_BYTES);
        *ret_self = pthread_self();
        return -EXDEV;
}

static void test_call(struct bed *bed, gconstpointer unused)
{
        pthread_t first;
        pthread_t second;

        (void) unused;
        g_assert_cmpint(drive_thread_call(bed->thread, call_self, &first), ==, -EXDEV);
        g_assert_cmpint(drive_thread_call(bed->thread, call_self, &second), ==, -EXDEV);
        g_assert_true(pthread_equal(first, second));
        g_assert_false(pthread_equal(first, pthread_self()));
}

static void test_open_fails(struct bed *bed, gconstpointer unused)
{
        g_autofree char *path = g_strconcat(bed->path, "-not-there", NULL);
        struct drive_thread *thread = NULL;
        struct hvb_error err = ERROR_INIT;

        (void) unused;
        g_assert_cmpint(drive_thread_open(path, &qcow2, &thread, &err), ==, -ENOENT);
        g_assert_nonnull(strstr(err.text, path));
        g_assert_null(thread);
}

struct doorbell {
        int fd;
        gint heard;
};

static void hear(void *opaque)
{
        struct doorbell *bell = opaque;
        uint64_t rings;

        g_assert_cmpint(read(bell->fd, &rings, sizeof(rings)), ==, sizeof(rings));
        g_atomic_int_add(&bell->heard, (int) rings);
}

static void test_watch(struct bed *bed, gconstpointer unused)
{
        struct doorbell bell = { .fd = eventfd(0, EFD_CLOEXEC) };
        struct drive_watch_fd *watch = drive_thread_watch(bed->thread, bell.fd, hear, &bell);

        (void) unused;
        for (int i = 0; i < 1000; i++)
                eventfd_write(bell.fd, 1);
        while (g_atomic_int_get(&bell.heard) < 1000)
                g_thread_yield();
        drive_thread_unwatch(bed->thread, watch);
        eventfd_write(bell.fd, 1);
        drive_thread_drain(bed->thread);
        g_assert_cmpint(bell.heard, ==, 1000);
        close(bell.fd);
        /* A closed descriptor is refused. */
        g_assert_null(drive_thread_watch(bed->thread, bell.fd, hear, &bell));
}

/* ---- Control operations beside requests ----------------------------------------------- */

struct writer {
        struct drive_op *op;
        uint8_t buffer[BLOCK];
        struct iovec iov;
        uint64_t count;                 /* completed */
        gint stop;
};

static void write_next(struct drive_op *op)
{
        struct writer *w = op->opaque;

        g_assert_cmpint(op->result, ==, 0);
        w->count++;
        if (!g_atomic_int_get(&w->stop))
                drive_op_pwritev(op, w->count % 1000 * BLOCK, &w->iov, 1, 0);
}

static int call_start_writer(struct drive *drive, void *opaque)
{
        struct writer *w = opaque;

        w->iov = (struct iovec) { w->buffer, sizeof(w->buffer) };
        w->op = drive_op_new(drive);
        w->op->opaque = w;
        w->op->done = write_next;
        drive_op_pwritev(w->op, 0, &w->iov, 1, 0);
        return 0;
}

static int call_free_writer(struct drive *drive, void *opaque)
{
        struct writer *w = opaque;

        (void) drive;
        drive_op_free(w->op);
        return 0;
}

struct snapshot_job {
        struct hvb_snapshot_info info;
        struct hvb_error err;
};

static void start_snapshot(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct snapshot_job *job = opaque;

        drive_driver(drive)->snapshot_create(drive_image(drive), request, &job->info, 0,
                                             &job->err);
}

static int take_snapshot(struct drive_thread *thread, const char *name, struct snapshot_job *job)
{
        const struct drive_control control = { .start = start_snapshot, .opaque = job };

        *job = (struct snapshot_job) {
                .info.struct_bytes = sizeof(job->info),
                .err = ERROR_INIT,
        };
        g_strlcpy(job->info.name, name, sizeof(job->info.name));
        return drive_thread_run(thread, &control);
}

static int call_count_snapshots(struct drive *drive, void *opaque)
{
        (void) opaque;
        return drive_driver(drive)->snapshot_list(drive_image(drive), 0, NULL, 0);
}

static void *snapshots_of_thread(void *opaque)
{
        struct bed *bed = opaque;

        for (unsigned i = 0; i < 10; i++) {
                g_autofree char *name = g_strdup_printf("%p-%u", (void *) &i, i);
                struct snapshot_job job;

                g_assert_cmpint(take_snapshot(bed->thread, name, &job), ==, 0);
                g_assert_cmpuint(strlen(job.info.id_str), >, 0);
        }
        return NULL;
}

/* Three threads take snapshots at once while a writer writes without pause. */
static void test_run(struct bed *bed, gconstpointer unused)
{
        struct writer writer = { 0 };
        pthread_t threads[3];
        uint64_t before;

        (void) unused;
        drive_thread_call(bed->thread, call_start_writer, &writer);
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                g_assert_cmpint(pthread_create(&threads[i], NULL, snapshots_of_thread, bed), ==,
                                0);
        for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
                pthread_join(threads[i], NULL);
        g_assert_cmpint(drive_thread_call(bed->thread, call_count_snapshots, NULL), ==, 30);
        g_atomic_int_set(&writer.stop, 1);
        drive_thread_drain(bed->thread);
        before = writer.count;
        drive_thread_call(bed->thread, call_free_writer, &writer);
        g_assert_cmpuint(before, >, 10);
        g_test_message("%u writes beside 30 snapshots", (unsigned) before);
}

/* ---- A snapshot in phases ---------------------------------------------------------------- */

static void start_prepare(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct snapshot_job *job = opaque;

        drive_driver(drive)->snapshot_prepare(drive_image(drive), request, &job->info, 0,
                                              &job->err);
}

static void start_switch(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct snapshot_job *job = opaque;

        drive_driver(drive)->snapshot_switch(drive_image(drive), request, &job->err);
}

static void start_publish(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct snapshot_job *job = opaque;

        drive_driver(drive)->snapshot_publish(drive_image(drive), request, &job->info, &job->err);
}

static bool is_cancelled(void *opaque)
{
        (void) opaque;
        return true;
}

static int run_phase(struct bed *bed, struct snapshot_job *job,
                     void (*start)(struct drive *drive, struct hvb_request *request, void *opaque))
{
        const struct drive_control control = { .start = start, .opaque = job };

        return drive_thread_run(bed->thread, &control);
}

/* What waits for the end of a prepared snapshot can be called off. */
static void test_phases(struct bed *bed, gconstpointer unused)
{
        struct snapshot_job job = {
                .info = { .struct_bytes = sizeof(job.info), .name = "a" },
                .err = ERROR_INIT,
        };
        struct snapshot_job other = {
                .info = { .struct_bytes = sizeof(other.info), .name = "b" },
                .err = ERROR_INIT,
        };
        const struct drive_control cancelled = {
                .start = start_snapshot, .opaque = &other, .is_cancelled = is_cancelled,
        };

        (void) unused;
        g_assert_cmpint(run_phase(bed, &job, start_prepare), ==, 0);
        g_assert_cmpint(drive_thread_run(bed->thread, &cancelled), ==, -ECANCELED);
        g_assert_cmpint(run_phase(bed, &job, start_switch), ==, 0);
        g_assert_cmpint(run_phase(bed, &job, start_publish), ==, 0);
        g_assert_cmpstr(job.info.id_str, ==, "1");
        g_assert_cmpint(drive_thread_call(bed->thread, call_count_snapshots, NULL), ==, 1);
}

static void test_run_fails(struct bed *bed, gconstpointer unused)
{
        struct snapshot_job job;

        (void) unused;
        g_assert_cmpint(take_snapshot(bed->thread, "twice", &job), ==, 0);
        g_assert_cmpint(take_snapshot(bed->thread, "twice", &job), <, 0);
        g_assert_cmpstr(job.err.text, !=, "");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
#define ADD(name, test) g_test_add("/drive-thread/" name, struct bed, NULL, set_up, test, tear_down)
        ADD("call", test_call);
        ADD("open-fails", test_open_fails);
        ADD("watch", test_watch);
        ADD("run", test_run);
        ADD("phases", test_phases);
        ADD("run-fails", test_run_fails);
#undef ADD
        return g_test_run();
}
