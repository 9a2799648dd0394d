/*
 * jobs.c - savevm, loadvm, delvm and backups in the background.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/jobs.h"

#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/backup.h"

struct jobs {
        struct machine *machine;
        struct tasks *tasks;
        void (*changed)(void *opaque, const struct job *job);
        void *opaque;
        GPtrArray *listed;              /* those with an id, the newest first */
        GList *live;                    /* all that have not concluded */
        struct job_report last;
        bool has_last;
        bool eager;
};

const char *job_kind_name(enum job_kind kind)
{
        static const char *const names[] = {
                [JOB_SAVE] = "snapshot-save",
                [JOB_LOAD] = "snapshot-load",
                [JOB_DELETE] = "snapshot-delete",
                [JOB_BACKUP] = "snapshot-backup",
        };

        return names[kind];
}

const char *job_status_name(enum job_status status)
{
        static const char *const names[] = {
                [JOB_CREATED] = "created",
                [JOB_RUNNING] = "running",
                [JOB_WAITING] = "waiting",
                [JOB_PENDING] = "pending",
                [JOB_ABORTING] = "aborting",
                [JOB_CONCLUDED] = "concluded",
                [JOB_NULL] = "null",
        };

        return names[status];
}

void job_bytes(const struct job *job, uint64_t *ret_done, uint64_t *ret_total)
{
        *ret_done = __atomic_load_n(&job->progress.done_bytes, __ATOMIC_RELAXED);
        *ret_total = __atomic_load_n(&job->progress.total_bytes, __ATOMIC_RELAXED);
}

static void set_status(struct job *job, enum job_status status)
{
        job->status = status;
        if (job->request.id != NULL)
                job->jobs->changed(job->jobs->opaque, job);
}

static void job_free(gpointer data)
{
        struct job *job = data;

        g_free((char *) job->request.id);
        g_free((char *) job->request.tag);
        g_free((char *) job->request.vmstate_disk);
        g_strfreev((char **) job->request.disks);
        g_free((char *) job->request.disk);
        g_free((char *) job->request.target);
        g_free((char *) job->request.format);
        g_free(job);
}

/* ---- A job's life ------------------------------------------------------------------- */

static void begin(struct task *task)
{
        struct job *job = (struct job *) task;

        job->begin_usec = g_get_monotonic_time();
        set_status(job, JOB_RUNNING);
}

static int check_disks(struct machine *machine, const char *const *ids, struct hvb_error *err)
{
        if (ids[0] == NULL)
                return error_set(err, -EINVAL, "At least one device is required for snapshot");
        for (; *ids != NULL; ids++)
                if (machine_find_disk(machine, *ids) == NULL)
                        return error_set(err, -ENODEV, "No block device node '%s'", *ids);
        return 0;
}

/* QMP's is done when the snapshot is not there, as QEMU's; people hear of a tag that never was. */
static int delete(struct job *job, const struct vm_snapshot_options *options)
{
        int ret = vm_delvm(job->jobs->machine, options, &job->progress, &job->err);

        return ret == -ENOENT && job->request.id != NULL ? 0 : ret;
}

static int back_up(struct job *job)
{
        const struct vm_backup_options options = {
                .disk = job->request.disk,
                .tag = job->request.tag,
                .target = job->request.target,
                .format = job->request.format,
        };

        return vm_backup(job->jobs->machine, &options, &job->progress, &job->err);
}

static int call(struct job *job)
{
        const struct job_request *request = &job->request;
        struct machine *machine = job->jobs->machine;
        const struct vm_snapshot_options options = {
                .tag = request->tag,
                .replace = request->replace,
                .vmstate_disk = request->vmstate_disk,
                .disks = request->disks,
                .eager = job->jobs->eager,
        };

        if (request->disks != NULL) {
                int ret = check_disks(machine, request->disks, &job->err);

                if (ret < 0)
                        return ret;
        }
        if (request->vmstate_disk != NULL && request->disks != NULL
            && !g_strv_contains(request->disks, request->vmstate_disk))
                return error_set(&job->err, -ENODEV, "vmstate block device '%s' does not exist",
                                 request->vmstate_disk);
        switch (request->kind) {
        case JOB_SAVE:
                return vm_savevm(machine, &options, &job->progress, &job->err);
        case JOB_LOAD:
                return vm_loadvm(machine, &options, &job->progress, &job->err);
        case JOB_DELETE:
                return delete(job, &options);
        case JOB_BACKUP:
                return back_up(job);
        }
        g_assert_not_reached();
}

static void run(struct task *task)
{
        struct job *job = (struct job *) task;

        if (g_atomic_int_get(&job->progress.cancelled))
                job->result = -ECANCELED;
        else
                job->result = call(job);
}

static void keep_report(struct job *job)
{
        job->jobs->has_last = true;
        job->jobs->last = (struct job_report) {
                .kind = job->request.kind,
                .result = job->result,
                .usec = job->begin_usec == 0 ? 0 : g_get_monotonic_time() - job->begin_usec,
                .progress = job->progress,
        };
}

static void done(struct task *task)
{
        struct job *job = (struct job *) task;
        struct jobs *jobs = job->jobs;

        if (job->result < 0 && job->err.text[0] == '\0')
                error_set(&job->err, job->result, "%s", g_strerror(-job->result));
        jobs->live = g_list_remove(jobs->live, job);
        keep_report(job);
        if (job->result == 0) {
                set_status(job, JOB_WAITING);
                set_status(job, JOB_PENDING);
        } else {
                set_status(job, JOB_ABORTING);
        }
        set_status(job, JOB_CONCLUDED);
        if (job->request.done != NULL)
                job->request.done(job->request.opaque);
        if (job->request.id == NULL)
                job_free(job);
}

/* ---- All of them -------------------------------------------------------------------- */

void jobs_set_eager(struct jobs *jobs, bool eager)
{
        jobs->eager = eager;
}

struct jobs *jobs_new(struct machine *machine, struct tasks *tasks,
                      void (*changed)(void *opaque, const struct job *job), void *opaque)
{
        struct jobs *jobs = g_new0(struct jobs, 1);

        *jobs = (struct jobs) {
                .machine = machine, .tasks = tasks, .changed = changed, .opaque = opaque,
                .listed = g_ptr_array_new_with_free_func(job_free),
        };
        return jobs;
}

void jobs_free(struct jobs *jobs)
{
        g_assert(jobs->live == NULL);
        g_ptr_array_unref(jobs->listed);
        g_free(jobs);
}

const GPtrArray *jobs_list(const struct jobs *jobs)
{
        return jobs->listed;
}

const struct job *jobs_running(const struct jobs *jobs, unsigned index)
{
        for (GList *item = jobs->live; item != NULL; item = item->next) {
                const struct job *job = item->data;

                if (job->status == JOB_RUNNING && index-- == 0)
                        return job;
        }
        return NULL;
}

const struct job_report *jobs_last(const struct jobs *jobs)
{
        return jobs->has_last ? &jobs->last : NULL;
}

static struct job *find(const struct jobs *jobs, const char *id, struct hvb_error *err)
{
        for (guint i = 0; i < jobs->listed->len; i++) {
                struct job *job = g_ptr_array_index(jobs->listed, i);

                if (strcmp(job->request.id, id) == 0)
                        return job;
        }
        error_set(err, -ENOENT, "Job not found");
        return NULL;
}

/* QEMU's rule: a letter, then letters, digits, and "-", ".", "_". */
static bool is_id(const char *text)
{
        if (!g_ascii_isalpha(text[0]))
                return false;
        while (g_ascii_isalnum(*text) || (*text != '\0' && strchr("-._", *text) != NULL))
                text++;
        return *text == '\0';
}

struct job *jobs_start(struct jobs *jobs, const struct job_request *request,
                       struct hvb_error *err)
{
        struct job *job;

        if (request->id != NULL && !is_id(request->id)) {
                error_set(err, -EINVAL, "Invalid job ID '%s'", request->id);
                return NULL;
        }
        if (request->id != NULL && find(jobs, request->id, NULL) != NULL) {
                error_set(err, -EEXIST, "Job ID '%s' already in use", request->id);
                return NULL;
        }
        if (request->id != NULL && jobs->listed->len >= JOBS_MAX) {
                error_set(err, -ENOSPC, "%u jobs are there already: dismiss some", JOBS_MAX);
                return NULL;
        }
        job = g_new0(struct job, 1);
        *job = (struct job) {
                .task = { .begin = begin, .run = run, .done = done },
                .jobs = jobs,
                .request = *request,
                .err = ERROR_INIT,
        };
        job->request.id = g_strdup(request->id);
        job->request.tag = g_strdup(request->tag);
        job->request.vmstate_disk = g_strdup(request->vmstate_disk);
        job->request.disks = (const char *const *) g_strdupv((char **) request->disks);
        job->request.disk = g_strdup(request->disk);
        job->request.target = g_strdup(request->target);
        job->request.format = g_strdup(request->format);
        if (job->request.id != NULL)
                g_ptr_array_insert(jobs->listed, 0, job);
        jobs->live = g_list_append(jobs->live, job);
        set_status(job, JOB_CREATED);
        tasks_push(jobs->tasks, request->kind == JOB_BACKUP ? TASK_LANE_BACKUPS
                                                            : TASK_LANE_SNAPSHOTS, &job->task);
        return job;
}

void job_cancel(struct job *job)
{
        g_atomic_int_set(&job->progress.cancelled, 1);
        if (tasks_remove(job->jobs->tasks, &job->task)) {
                job->result = -ECANCELED;
                done(&job->task);
        }
}

/* Only in some states a job takes an order.  NULL: err says why not. */
static struct job *find_for(struct jobs *jobs, const char *id, const char *verb, bool concluded,
                            struct hvb_error *err)
{
        struct job *job = find(jobs, id, err);

        if (job == NULL || (job->status == JOB_CONCLUDED) == concluded)
                return job;
        error_set(err, -EBUSY, "Job '%s' in state '%s' cannot accept command verb '%s'", id,
                  job_status_name(job->status), verb);
        return NULL;
}

int jobs_cancel(struct jobs *jobs, const char *id, struct hvb_error *err)
{
        struct job *job = find_for(jobs, id, "cancel", false, err);

        if (job == NULL)
                return err->code;
        job_cancel(job);
        return 0;
}

int jobs_dismiss(struct jobs *jobs, const char *id, struct hvb_error *err)
{
        struct job *job = find_for(jobs, id, "dismiss", true, err);

        if (job == NULL)
                return err->code;
        set_status(job, JOB_NULL);
        g_ptr_array_remove(jobs->listed, job);
        return 0;
}

/* Those of the kinds that are bits in kinds. */
static unsigned cancel(struct jobs *jobs, unsigned kinds)
{
        GList *next;
        unsigned count = 0;

        for (GList *item = jobs->live; item != NULL; item = next) {
                struct job *job = item->data;

                next = item->next;
                if ((kinds & 1u << job->request.kind) == 0)
                        continue;
                job_cancel(job);
                count++;
        }
        return count;
}

unsigned jobs_cancel_kind(struct jobs *jobs, enum job_kind kind)
{
        return cancel(jobs, 1u << kind);
}

void jobs_cancel_all(struct jobs *jobs)
{
        cancel(jobs, UINT_MAX);
}
