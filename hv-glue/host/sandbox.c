/*
 * sandbox.c - containment of a process that serves untrusted images: plan, order.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/sandbox.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "host/error.h"
#include "host/sandbox-layers.h"

/* Why a kernel has no io_uring; the driver says so in its log. */
static const char why_no_io_uring[] = "/proc/sys/kernel/io_uring_disabled";

struct sandbox_plan {
        GArray *paths;                  /* of struct sandbox_path */
        bool with_sockets;
};

static void path_clear(gpointer item)
{
        g_free(((struct sandbox_path *) item)->path);
}

struct sandbox_plan *sandbox_plan_new(void)
{
        struct sandbox_plan *plan = g_new0(struct sandbox_plan, 1);

        plan->paths = g_array_new(FALSE, TRUE, sizeof(struct sandbox_path));
        g_array_set_clear_func(plan->paths, path_clear);
        sandbox_plan_read(plan, why_no_io_uring);
        return plan;
}

void sandbox_plan_free(struct sandbox_plan *plan)
{
        if (plan == NULL)
                return;
        g_array_free(plan->paths, TRUE);
        g_free(plan);
}

/* False: there is no such path. */
static bool plan_add(struct sandbox_plan *plan, const char *path, bool is_writable)
{
        char *resolved = realpath(path, NULL);
        struct sandbox_path entry = { .is_writable = is_writable };

        if (resolved == NULL)
                return false;
        entry.path = g_strdup(resolved);
        free(resolved);
        g_array_append_val(plan->paths, entry);
        return true;
}

void sandbox_plan_read(struct sandbox_plan *plan, const char *path)
{
        plan_add(plan, path, false);
}

void sandbox_plan_write(struct sandbox_plan *plan, const char *path)
{
        g_autofree char *directory = g_path_get_dirname(path);

        if (!plan_add(plan, path, true) && errno == ENOENT)
                plan_add(plan, directory, true);
}

void sandbox_plan_image(struct sandbox_plan *plan, const char *path, bool is_writable)
{
        g_autofree char *directory = g_path_get_dirname(path);
        struct stat st;

        if (is_writable)
                sandbox_plan_write(plan, path);
        else
                sandbox_plan_read(plan, path);
        if (stat(path, &st) < 0 || S_ISREG(st.st_mode))
                sandbox_plan_read(plan, directory);
}

void sandbox_plan_sockets(struct sandbox_plan *plan)
{
        plan->with_sockets = true;
}

struct policy *sandbox_plan_policy(const struct sandbox_plan *plan)
{
        struct policy *policy = policy_new();

        for (guint i = 0; i < plan->paths->len; i++) {
                const char *path = g_array_index(plan->paths, struct sandbox_path, i).path;

                if (g_file_test(path, G_FILE_TEST_IS_DIR))
                        policy_allow_directory(policy, path, NULL);
        }
        return policy;
}

/* ---- Entering ------------------------------------------------------------------------- */

unsigned sandbox_layers(void)
{
        return (sandbox_files_abi() > 0 ? SANDBOX_FILES : 0)
                | (sandbox_calls_exist() ? SANDBOX_CALLS : 0);
}

char *sandbox_describe(void)
{
        int abi = sandbox_files_abi();
        g_autofree char *files = abi > 0 ? g_strdup_printf("Landlock (ABI %d)", abi) : NULL;

        if (files == NULL)
                return g_strdup(sandbox_calls_exist() ? "seccomp" : "none");
        return g_strconcat(files, sandbox_calls_exist() ? ", seccomp" : "", NULL);
}

/* What the libraries read once, from places that the plan does not have. */
static void read_what_is_read_late(void)
{
        static GTimeZone *zone;         /* GLib keeps the local one while somebody has it */

        if (zone == NULL)
                zone = g_time_zone_new_local();
}

/* The kernel's own workers, of rings that were closed, do nothing of ours. */
static bool is_kernel_worker(const char *task)
{
        g_autofree char *path = g_build_filename("/proc/self/task", task, "comm", NULL);
        g_autofree char *name = NULL;

        return !g_file_get_contents(path, &name, NULL, NULL) || g_str_has_prefix(name, "iou-");
}

static unsigned thread_count(void)
{
        GDir *tasks = g_dir_open("/proc/self/task", 0, NULL);
        unsigned count = 0;
        const char *task;

        if (tasks == NULL)
                return 1;
        while ((task = g_dir_read_name(tasks)) != NULL)
                count += !is_kernel_worker(task);
        g_dir_close(tasks);
        return count;
}

int sandbox_enter(const struct sandbox_plan *plan, struct hvb_error *err)
{
        unsigned layers = sandbox_layers();
        unsigned threads = thread_count();
        int ret = 0;

        if (threads > 1)
                return error_set(err, -EBUSY, "sandbox: the process has %u threads already",
                                 threads);
        read_what_is_read_late();
        if (layers != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
                ret = -errno;
                return error_set(err, ret, "sandbox: no_new_privs: %s", g_strerror(-ret));
        }
        if (layers & SANDBOX_FILES)
                ret = sandbox_files_enter(plan->paths, err);
        if (ret == 0 && layers & SANDBOX_CALLS)
                ret = sandbox_calls_enter(plan->with_sockets, err);
        return ret;
}

int sandbox_seal(struct hvb_error *err)
{
        return sandbox_calls_exist() ? sandbox_calls_seal(err) : 0;
}
