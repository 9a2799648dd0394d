/*
 * fake-machine.c - a machine that does what a test tells it, and vm_savevm() and its sisters.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/fake-machine.h"

#include <errno.h>
#include <glib/gstdio.h>

#include "snapshot/backup.h"

enum { JOB_BYTES = 1000 << 20, CLOCK_NSEC = 1500000000 };

/* ---- The script --------------------------------------------------------------------- */

/* job is NULL for calls of the machine.  Returns -ECANCELED when it was. */
static int wait_while_held(struct machine *m, const bool *hold, struct vm_job *job)
{
        bool cancelled = false;

        m->held++;
        pthread_cond_broadcast(&m->changed);
        while (*hold && !cancelled) {
                struct timespec soon;

                clock_gettime(CLOCK_REALTIME, &soon);
                soon.tv_nsec += 1000000;
                if (soon.tv_nsec >= 1000000000) {
                        soon.tv_nsec -= 1000000000;
                        soon.tv_sec++;
                }
                pthread_cond_timedwait(&m->changed, &m->lock, &soon);
                cancelled = job != NULL && g_atomic_int_get(&job->cancelled);
        }
        m->held--;
        return cancelled ? -ECANCELED : 0;
}

void fake_hold(struct machine *m, bool jobs, bool machine_calls)
{
        pthread_mutex_lock(&m->lock);
        m->hold_jobs = jobs;
        m->hold_machine = machine_calls;
        pthread_mutex_unlock(&m->lock);
}

void fake_release(struct machine *m)
{
        fake_hold(m, false, false);
        pthread_cond_broadcast(&m->changed);
}

unsigned fake_held(struct machine *m)
{
        unsigned held;

        pthread_mutex_lock(&m->lock);
        held = m->held;
        pthread_mutex_unlock(&m->lock);
        return held;
}

char *fake_take_log(struct machine *m)
{
        char *log;

        pthread_mutex_lock(&m->lock);
        log = g_strdup(m->log->str);
        g_string_truncate(m->log, 0);
        pthread_mutex_unlock(&m->lock);
        return log;
}

/* ---- machine.h ---------------------------------------------------------------------- */

static gboolean tell(gpointer data)
{
        struct machine *m = data;
        enum run_state state;

        pthread_mutex_lock(&m->lock);
        state = GPOINTER_TO_INT(g_queue_pop_head(&m->untold));
        pthread_mutex_unlock(&m->lock);
        if (m->monitors != NULL)
                monitors_run_state(m->monitors, state);
        return G_SOURCE_REMOVE;
}

static int change_state(struct machine *m, const char *name, enum run_state state,
                        struct hvb_error *err)
{
        int ret;

        pthread_mutex_lock(&m->lock);
        g_string_append_printf(m->log, "%s\n", name);
        wait_while_held(m, &m->hold_machine, NULL);
        ret = m->machine_result < 0 ? error_set(err, m->machine_result, "%s", m->machine_text)
                : 0;
        if (ret == 0) {
                m->state = state;
                g_queue_push_tail(&m->untold, GINT_TO_POINTER(state));
                g_idle_add_full(G_PRIORITY_DEFAULT, tell, m, NULL);
        }
        pthread_mutex_unlock(&m->lock);
        return ret;
}

int machine_cont(struct machine *m, struct hvb_error *err)
{
        return change_state(m, "cont", RUN_STATE_RUNNING, err);
}

int machine_stop(struct machine *m, struct hvb_error *err)
{
        return change_state(m, "stop", RUN_STATE_PAUSED, err);
}

int machine_reset(struct machine *m, struct hvb_error *err)
{
        return change_state(m, "reset", machine_run_state(m), err);
}

enum run_state machine_run_state(struct machine *m)
{
        enum run_state state;

        pthread_mutex_lock(&m->lock);
        state = m->state;
        pthread_mutex_unlock(&m->lock);
        return state;
}

const char *run_state_name(enum run_state state)
{
        static const char *const names[] = {
                [RUN_STATE_PRELAUNCH] = "prelaunch",
                [RUN_STATE_RUNNING] = "running",
                [RUN_STATE_PAUSED] = "paused",
                [RUN_STATE_SAVE_VM] = "save-vm",
                [RUN_STATE_RESTORE_VM] = "restore-vm",
                [RUN_STATE_IO_ERROR] = "io-error",
                [RUN_STATE_INTERNAL_ERROR] = "internal-error",
                [RUN_STATE_SHUTDOWN] = "shutdown",
        };

        return names[state];
}

struct machine_disk *machine_disks(struct machine *m, unsigned *ret_count)
{
        *ret_count = m->disk_count;
        return m->disks;
}

uint64_t machine_clock_nsec(struct machine *m)
{
        (void) m;
        return CLOCK_NSEC;
}

/* ---- vm-snapshot.h ------------------------------------------------------------------ */

static int do_job(struct machine *m, const char *name, const struct vm_snapshot_options *options,
                  struct vm_job *job, struct hvb_error *err)
{
        g_autofree char *disks = options->disks == NULL ? g_strdup("all")
                : g_strjoinv(",", (char **) options->disks);
        int ret;

        pthread_mutex_lock(&m->lock);
        g_string_append_printf(m->log, "%s %s%s vmstate=%s disks=%s\n", name,
                               options->tag == NULL ? "(none)" : options->tag,
                               options->replace ? " replace" : "",
                               options->vmstate_disk == NULL ? "any" : options->vmstate_disk,
                               disks);
        __atomic_store_n(&job->total_bytes, JOB_BYTES, __ATOMIC_RELAXED);
        __atomic_store_n(&job->done_bytes, JOB_BYTES / 4, __ATOMIC_RELAXED);
        ret = wait_while_held(m, &m->hold_jobs, job);
        if (ret == 0 && m->job_result < 0)
                ret = error_set(err, m->job_result, "%s", m->job_text);
        if (ret == 0) {
                __atomic_store_n(&job->done_bytes, JOB_BYTES, __ATOMIC_RELAXED);
                job->pause_nsec = 3500000;
        }
        pthread_mutex_unlock(&m->lock);
        return ret;
}

int vm_savevm(struct machine *m, const struct vm_snapshot_options *options, struct vm_job *job,
              struct hvb_error *err)
{
        return do_job(m, "savevm", options, job, err);
}

int vm_loadvm(struct machine *m, const struct vm_snapshot_options *options, struct vm_job *job,
              struct hvb_error *err)
{
        return do_job(m, "loadvm", options, job, err);
}

int vm_delvm(struct machine *m, const struct vm_snapshot_options *options, struct vm_job *job,
             struct hvb_error *err)
{
        return do_job(m, "delvm", options, job, err);
}

int vm_backup(struct machine *m, const struct vm_backup_options *options, struct vm_job *job,
              struct hvb_error *err)
{
        g_autofree char *name = g_strdup_printf("backup of %s to %s (%s):", options->disk,
                                                options->target, options->format == NULL
                                                ? "none" : options->format);
        const struct vm_snapshot_options all = { .tag = options->tag };

        return do_job(m, name, &all, job, err);
}

GPtrArray *vm_snapshots(struct machine *m, struct hvb_error *err)
{
        if (m->rows == NULL)
                error_set(err, -EIO, "The list cannot be read");
        return m->rows == NULL ? NULL : g_ptr_array_ref(m->rows);
}

static void row_free(gpointer data)
{
        struct vm_snapshot_row *row = data;

        g_free(row->disk_id);
        g_free(row);
}

void fake_add_row(struct machine *m, const struct hvb_snapshot_info *info, const char *disk_id)
{
        struct vm_snapshot_row *row = g_new0(struct vm_snapshot_row, 1);

        *row = (struct vm_snapshot_row) {
                .info = *info, .on_all_disks = disk_id == NULL, .disk_id = g_strdup(disk_id),
        };
        g_ptr_array_add(m->rows, row);
}

/* ---- Beginning and end -------------------------------------------------------------- */

static const char *const ids[FAKE_DISKS] = { "virtio0", "virtio1" };

static void open_disk(struct machine *m, unsigned index, const char *path)
{
        const char *engine = g_getenv("TEST_ENGINE");
        g_autofree char *option = engine == NULL ? NULL : g_strconcat("engine=", engine, NULL);
        const char *const options[] = { option, NULL };
        const struct drive_options qcow2 = {
                .format = "qcow2", .flags = HVB_OPEN_RDWR, .options = options,
        };
        const struct hvb_create_args args = { .size_bytes = FAKE_DISK_BYTES };
        struct machine_disk *disk = &m->disks[index];
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;

        *disk = (struct machine_disk) { .id = ids[index], .format = "qcow2" };
        if (path != NULL) {
                disk->path = g_strdup(path);
        } else {
                disk->path = g_build_filename(m->directory, ids[index], NULL);
                g_assert_cmpint(drive_create(disk->path, &args, &qcow2, &drive, &err), ==, 0);
                g_assert_cmpint(drive_close(drive, &err), ==, 0);
        }
        g_assert_cmpint(drive_thread_open(disk->path, &qcow2, &disk->thread, &err), ==, 0);
}

struct machine *fake_machine_new(unsigned disk_count, const char *const *paths)
{
        struct machine *m = g_new0(struct machine, 1);

        g_assert_cmpuint(disk_count, <=, FAKE_DISKS);
        pthread_mutex_init(&m->lock, NULL);
        pthread_cond_init(&m->changed, NULL);
        m->state = RUN_STATE_PRELAUNCH;
        m->directory = g_dir_make_tmp("monitor-XXXXXX", NULL);
        m->rows = g_ptr_array_new_with_free_func(row_free);
        m->log = g_string_new(NULL);
        g_queue_init(&m->untold);
        m->disk_count = disk_count;
        for (unsigned i = 0; i < disk_count; i++)
                open_disk(m, i, paths == NULL ? NULL : paths[i]);
        return m;
}

void fake_machine_free(struct machine *m)
{
        struct hvb_error err = ERROR_INIT;

        for (unsigned i = 0; i < m->disk_count; i++) {
                g_assert_cmpint(drive_thread_close(m->disks[i].thread, &err), ==, 0);
                if (g_str_has_prefix(m->disks[i].path, m->directory))
                        g_assert_cmpint(g_remove(m->disks[i].path), ==, 0);
                g_free((char *) m->disks[i].path);
        }
        g_assert_cmpint(g_rmdir(m->directory), ==, 0);
        g_free(m->directory);
        if (m->rows != NULL)
                g_ptr_array_unref(m->rows);
        g_string_free(m->log, TRUE);
        g_queue_clear(&m->untold);
        pthread_cond_destroy(&m->changed);
        pthread_mutex_destroy(&m->lock);
        g_free(m);
}
