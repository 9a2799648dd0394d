/*
 * test-sandbox.c - what a process in the sandbox can and cannot do.
 *
 * Each point is a process of its own that enters.  Properties: what serving images takes
 * goes on working, threads, rings and backing files included; files outside the plan are
 * refused though the policy allows all; calls that are not on the list end the process with
 * a line that names them, from whichever thread; sealed, nothing is opened.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "host/drive.h"
#include "host/loader.h"
#include "host/sandbox.h"

enum { DISK_BYTES = 1 << 20 };

/*
 * The scratch directory, $TMPDIR/sandbox:
 *   in/top.qcow2     on ../out/base.raw
 *   in/near.qcow2    on near.raw
 *   out/base.raw, in/near.raw
 */
static char *in_directory, *top_path, *near_path, *near_raw, *out_path, *new_path;

static struct sandbox_plan *plan_of_images(void)
{
        struct sandbox_plan *plan = sandbox_plan_new();

        sandbox_plan_image(plan, top_path, true);
        sandbox_plan_image(plan, near_path, true);
        return plan;
}

static void enter(const struct sandbox_plan *plan)
{
        const struct hvb_driver *driver;
        struct hvb_error err = ERROR_INIT;

        g_assert_cmpint(loader_load("qcow2", &driver, &err), ==, 0);
        g_assert_cmpint(sandbox_enter(plan, &err), ==, 0);
}

static void enter_for_images(void)
{
        struct sandbox_plan *plan = plan_of_images();

        enter(plan);
        sandbox_plan_free(plan);
}

static int open_error(const char *path, int flags)
{
        int fd = open(path, flags | O_CLOEXEC, 0600);

        if (fd < 0)
                return -errno;
        close(fd);
        return 0;
}

/* ---- Files ---------------------------------------------------------------------------------- */

static void files_of_plan(void)
{
        g_assert_cmpint(open_error("/etc/passwd", O_RDONLY), ==, 0);
        enter_for_images();
        g_assert_cmpint(open_error(top_path, O_RDWR), ==, 0);
        g_assert_cmpint(open_error(near_raw, O_RDONLY), ==, 0);
        g_assert_cmpint(open_error(near_raw, O_RDWR), ==, -EACCES);
        g_assert_cmpint(open_error(out_path, O_RDONLY), ==, -EACCES);
        g_assert_cmpint(open_error("/etc/passwd", O_RDONLY), ==, -EACCES);
        g_assert_cmpint(open_error(new_path, O_RDWR | O_CREAT), ==, -EACCES);
        g_assert_cmpint(unlink(near_raw), ==, -1);
        g_assert_cmpint(errno, ==, EACCES);
}

static void new_file(void)
{
        struct sandbox_plan *plan = sandbox_plan_new();

        sandbox_plan_write(plan, new_path);
        enter(plan);
        g_assert_cmpint(open_error(new_path, O_RDWR | O_CREAT | O_EXCL), ==, 0);
        g_assert_cmpint(unlink(new_path), ==, 0);
        g_assert_cmpint(open_error(out_path, O_RDONLY), ==, -EACCES);
        sandbox_plan_free(plan);
}

/* ---- Images --------------------------------------------------------------------------------- */

static void make_image(const char *path, const char *backing_name)
{
        const struct hvb_create_args args = {
                .struct_bytes = sizeof(args), .size_bytes = DISK_BYTES,
                .backing_name = backing_name, .backing_format = "raw",
        };
        const struct drive_options how = { .format = "qcow2", .flags = HVB_OPEN_RDWR };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;

        g_assert_cmpint(drive_create(path, &args, &how, &drive, &err), ==, 0);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
}

static int open_image(const char *path, const char *option, const struct policy *policy,
                      struct drive **ret_drive, struct hvb_error *err)
{
        const char *options[] = { option, NULL };
        const struct drive_options how = {
                .format = "qcow2", .flags = HVB_OPEN_RDWR, .options = options, .policy = policy,
        };

        return drive_open(path, &how, ret_drive, err);
}

/* Work on the ring or on threads, on CPU workers, and on those of the raw driver. */
static void use_image(const char *engine)
{
        struct sandbox_plan *plan = plan_of_images();
        struct policy *policy = sandbox_plan_policy(plan);
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info), .name = "one" };
        struct hvb_error err = ERROR_INIT;
        static char bytes[65536];
        struct drive *drive;

        make_image(near_path, "near.raw");
        enter(plan);
        g_assert_cmpint(open_image(near_path, engine, policy, &drive, &err), ==, 0);
        g_assert_cmpint(sandbox_seal(&err), ==, 0);
        g_assert_cmpint(drive_pread(drive, 0, bytes, sizeof(bytes)), ==, 0);
        g_assert_cmpint(bytes[100], ==, 'n');
        g_assert_cmpint(drive_pwrite(drive, 0, bytes, sizeof(bytes), HVB_REQ_COMPRESS), ==, 0);
        g_assert_cmpint(drive_pread(drive, 0, bytes, sizeof(bytes)), ==, 0);
        g_assert_cmpint(drive_pwrite(drive, 100, bytes, 512, 0), ==, 0);
        g_assert_cmpint(drive_snapshot_create(drive, &info, HVB_SNAPSHOT_REPLACE, &err), ==, 0);
        g_assert_cmpint(drive_truncate(drive, 2 * DISK_BYTES, HVB_PREALLOC_FULL, &err), ==, 0);
        g_assert_cmpint(drive_pdiscard(drive, 0, DISK_BYTES), ==, 0);
        g_assert_cmpint(drive_flush(drive), ==, 0);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
        policy_free(policy);
        sandbox_plan_free(plan);
}

static void image_on_ring(void)
{
        use_image("engine=auto");
}

static void image_on_threads(void)
{
        use_image("engine=threads");
}

/* The policy refuses a backing file outside by name; the kernel would anyway. */
static void image_outside(void)
{
        struct sandbox_plan *plan = plan_of_images();
        struct policy *policy = sandbox_plan_policy(plan);
        struct policy *lax = policy_new_all();
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;

        g_assert_cmpint(open_image(top_path, "engine=auto", lax, &drive, &err), ==, 0);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
        enter(plan);
        g_assert_cmpint(open_image(top_path, "engine=auto", policy, &drive, &err), ==, -EACCES);
        g_assert_nonnull(strstr(err.text, "in none of the allowed directories"));
        error_clear(&err);
        g_assert_cmpint(open_image(top_path, "engine=auto", lax, &drive, &err), ==, -EACCES);
        g_assert_nonnull(strstr(err.text, "Permission denied"));
        policy_free(policy);
        policy_free(lax);
        sandbox_plan_free(plan);
}

/* ---- Calls ---------------------------------------------------------------------------------- */

static void memory_that_runs(void)
{
        void *page;

        enter_for_images();
        page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        g_assert_true(page != MAP_FAILED);
        g_assert_cmpint(mprotect(page, 4096, PROT_READ | PROT_EXEC), ==, -1);
        g_assert_cmpint(errno, ==, EACCES);
        page = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        g_assert_true(page == MAP_FAILED);
        g_assert_cmpint(errno, ==, EACCES);
}

static void sealed_opens_nothing(void)
{
        struct hvb_error err = ERROR_INIT;

        enter_for_images();
        g_assert_cmpint(open_error(top_path, O_RDWR), ==, 0);
        g_assert_cmpint(sandbox_seal(&err), ==, 0);
        g_assert_cmpint(open_error(top_path, O_RDWR), ==, -EACCES);
}

static gpointer do_nothing(gpointer data)
{
        return data;
}

static void entered_with_threads(void)
{
        struct sandbox_plan *plan = plan_of_images();
        struct hvb_error err = ERROR_INIT;
        GAsyncQueue *queue = g_async_queue_new();
        GThread *thread = g_thread_new("waits", (GThreadFunc) g_async_queue_pop, queue);

        g_assert_cmpint(sandbox_enter(plan, &err), ==, -EBUSY);
        g_async_queue_push(queue, queue);
        g_thread_join(thread);
        g_async_queue_unref(queue);
        sandbox_plan_free(plan);
}

/* A listening socket made before: connections are taken, nothing new is made. */
static void accepted_sockets(void)
{
        struct sandbox_plan *plan = sandbox_plan_new();
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char byte = 'x';
        int fd;

        g_strlcpy(address.sun_path, new_path, sizeof(address.sun_path));
        g_assert_cmpint(bind(listener, (struct sockaddr *) &address, sizeof(address)), ==, 0);
        g_assert_cmpint(listen(listener, 1), ==, 0);
        g_assert_cmpint(connect(client, (struct sockaddr *) &address, sizeof(address)), ==, 0);
        unlink(new_path);
        sandbox_plan_sockets(plan);
        enter(plan);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(send(client, &byte, 1, 0), ==, 1);
        g_assert_cmpint(recv(fd, &byte, 1, 0), ==, 1);
        sandbox_plan_free(plan);
}

/* Calls that end the process, by the name that it prints. */
static void call_execve(void)
{
        execl("/bin/true", "true", NULL);
}

static void call_socket(void)
{
        socket(AF_INET, SOCK_STREAM, 0);
}

static void call_clone(void)
{
        if (fork() == 0)
                _exit(0);
}

static void call_ptrace(void)
{
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static void call_mount(void)
{
        mount("none", "/mnt", "tmpfs", 0, NULL);
}

static void call_kill(void)
{
        kill(1, 0);
}

static void call_ioctl(void)
{
        ioctl(0, TIOCSTI, "x");
}

static void call_landlock(void)
{
        syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
}

static void call_io_uring_setup(void)
{
        char params[120] = "";

        syscall(SYS_io_uring_setup, 1, params);
}

static const struct deadly {
        const char *name;
        void (*call)(void);
        bool is_sealed;                 /* only sealed is it forbidden */
} deadly[] = {
        { "execve", call_execve, false },
        { "socket", call_socket, false },
        { "clone", call_clone, false },
        { "ptrace", call_ptrace, false },
        { "mount", call_mount, false },
        { "kill", call_kill, false },
        { "ioctl", call_ioctl, false },
        { "landlock_create_ruleset", call_landlock, false },
        { "io_uring_setup", call_io_uring_setup, true },
};

static void deadly_call(gconstpointer data)
{
        const struct deadly *which = data;
        g_autofree char *line = g_strdup_printf("*does not allow the system call %s\n",
                                                which->name);
        struct hvb_error err = ERROR_INIT;

        if (g_test_subprocess()) {
                enter_for_images();
                if (which->is_sealed) {
                        which->call();
                        g_assert_cmpint(sandbox_seal(&err), ==, 0);
                }
                which->call();
                return;
        }
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_failed();
        g_test_trap_assert_stderr(line);
}

static gpointer thread_calls(gpointer data)
{
        call_socket();
        return data;
}

static void deadly_thread(void)
{
        if (g_test_subprocess()) {
                enter_for_images();
                g_thread_join(g_thread_new("works", do_nothing, NULL));
                g_thread_join(g_thread_new("calls", thread_calls, NULL));
                return;
        }
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_failed();
        g_test_trap_assert_stderr("*does not allow the system call socket\n");
}

/* ---- The list of points ------------------------------------------------------------------- */

static const struct point {
        const char *path;
        void (*run)(void);
        unsigned layers;                /* that it needs */
} points[] = {
        { "/sandbox/files/plan", files_of_plan, SANDBOX_FILES },
        { "/sandbox/files/new", new_file, SANDBOX_FILES },
        { "/sandbox/image/io_uring", image_on_ring, 0 },
        { "/sandbox/image/threads", image_on_threads, 0 },
        { "/sandbox/image/outside", image_outside, SANDBOX_FILES },
        { "/sandbox/memory", memory_that_runs, SANDBOX_CALLS },
        { "/sandbox/sealed", sealed_opens_nothing, SANDBOX_CALLS },
        { "/sandbox/threads-before", entered_with_threads, 0 },
        { "/sandbox/sockets", accepted_sockets, 0 },
};

#ifdef __SANITIZE_ADDRESS__
/* Looking for leaks when a point ends takes /proc, which is what the sandbox has closed.  The
 * sanitizer calls this when it starts. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
        return "detect_leaks=0";
}
#endif

static void point_run(gconstpointer data)
{
        const struct point *point = data;

        if ((sandbox_layers() & point->layers) != point->layers) {
                g_test_skip("this kernel or build lacks that layer");
                return;
        }
        if (g_test_subprocess()) {
                point->run();
                return;
        }
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_stderr("");
        g_test_trap_assert_passed();
}

static void scratch_make(void)
{
        g_autofree char *root = g_build_filename(g_get_tmp_dir(), "sandbox", NULL);
        g_autofree char *out_directory = g_build_filename(root, "out", NULL);
        g_autofree char *bytes = g_strnfill(DISK_BYTES, 'n');

        in_directory = g_build_filename(root, "in", NULL);
        top_path = g_build_filename(in_directory, "top.qcow2", NULL);
        near_path = g_build_filename(in_directory, "near.qcow2", NULL);
        near_raw = g_build_filename(in_directory, "near.raw", NULL);
        new_path = g_build_filename(in_directory, "new", NULL);
        out_path = g_build_filename(out_directory, "base.raw", NULL);
        if (g_test_subprocess())
                return;
        g_assert_cmpint(g_mkdir_with_parents(in_directory, 0700), ==, 0);
        g_assert_cmpint(g_mkdir_with_parents(out_directory, 0700), ==, 0);
        g_assert_true(g_file_set_contents(near_raw, bytes, DISK_BYTES, NULL));
        g_assert_true(g_file_set_contents(out_path, bytes, DISK_BYTES, NULL));
        make_image(top_path, "../out/base.raw");
        make_image(near_path, "near.raw");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        scratch_make();
        for (size_t i = 0; i < G_N_ELEMENTS(points); i++)
                g_test_add_data_func(points[i].path, &points[i], point_run);
        for (size_t i = 0; i < G_N_ELEMENTS(deadly) && sandbox_layers() & SANDBOX_CALLS; i++) {
                g_autofree char *path = g_strconcat("/sandbox/deadly/", deadly[i].name, NULL);

                g_test_add_data_func(path, &deadly[i], deadly_call);
        }
        if (sandbox_layers() & SANDBOX_CALLS)
                g_test_add_func("/sandbox/deadly/in-a-thread", deadly_thread);
        return g_test_run();
}
