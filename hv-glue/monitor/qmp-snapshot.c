/*
 * qmp-snapshot.c - snapshot jobs, and snapshots of one disk.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "monitor/block-facts.h"
#include "monitor/session.h"

/* ---- Jobs --------------------------------------------------------------------------- */

static void start(struct qmp_call *call, const struct job_request *request)
{
        struct hvb_error err = ERROR_INIT;

        if (jobs_start(call->monitors->jobs, request, &err) == NULL)
                qmp_call_fail(call, err.text);
        else
                qmp_call_return(call, NULL);
}

static void start_job(struct qmp_call *call, enum job_kind kind)
{
        g_auto(GStrv) disks = qmp_arg_strings(call, "devices");
        const struct job_request request = {
                .kind = kind,
                .id = qmp_arg_string(call, "job-id"),
                .tag = qmp_arg_string(call, "tag"),
                .vmstate_disk = qmp_arg_string(call, "vmstate"),
                .disks = (const char *const *) disks,
        };

        start(call, &request);
}

void qmp_snapshot_save(struct qmp_call *call)
{
        start_job(call, JOB_SAVE);
}

void qmp_snapshot_load(struct qmp_call *call)
{
        start_job(call, JOB_LOAD);
}

void qmp_snapshot_delete(struct qmp_call *call)
{
        start_job(call, JOB_DELETE);
}

void qmp_snapshot_backup(struct qmp_call *call)
{
        const struct job_request request = {
                .kind = JOB_BACKUP,
                .id = qmp_arg_string(call, "job-id"),
                .disk = qmp_arg_string(call, "device"),
                .tag = qmp_arg_string(call, "tag"),
                .target = qmp_arg_string(call, "target"),
                .format = qmp_arg_string(call, "format"),
        };

        start(call, &request);
}

static JsonObject *job_info(const struct job *job)
{
        JsonObject *info = json_object_new();
        uint64_t done_bytes, total_bytes;

        job_bytes(job, &done_bytes, &total_bytes);
        /* Where nobody counts, a job is one unit of work, as QEMU's are. */
        if (total_bytes == 0)
                total_bytes = 1;
        if (job->status == JOB_CONCLUDED)
                done_bytes = total_bytes;
        json_object_set_string_member(info, "id", job->request.id);
        json_object_set_string_member(info, "type", job_kind_name(job->request.kind));
        json_object_set_string_member(info, "status", job_status_name(job->status));
        json_object_set_int_member(info, "current-progress",
                                   (gint64) MIN(done_bytes, total_bytes));
        json_object_set_int_member(info, "total-progress", (gint64) total_bytes);
        if (job->status == JOB_CONCLUDED && job->result < 0)
                json_object_set_string_member(info, "error", job->err.text);
        return info;
}

void qmp_query_jobs(struct qmp_call *call)
{
        const GPtrArray *jobs = jobs_list(call->monitors->jobs);
        JsonArray *infos = json_array_new();

        for (guint i = 0; i < jobs->len; i++)
                json_array_add_object_element(infos, job_info(g_ptr_array_index(jobs, i)));
        qmp_call_return(call, qmp_array(infos));
}

static void order_job(struct qmp_call *call,
                      int (*order)(struct jobs *jobs, const char *id, struct hvb_error *err))
{
        struct hvb_error err = ERROR_INIT;

        if (order(call->monitors->jobs, qmp_arg_string(call, "id"), &err) < 0)
                qmp_call_fail(call, err.text);
        else
                qmp_call_return(call, NULL);
}

void qmp_job_cancel(struct qmp_call *call)
{
        order_job(call, jobs_cancel);
}

void qmp_job_dismiss(struct qmp_call *call)
{
        order_job(call, jobs_dismiss);
}

/* ---- Snapshots of one disk ---------------------------------------------------------- */

/* Strings are the call's arguments. */
struct disk_task {
        struct task task;
        struct qmp_call *call;
        const struct machine_disk *disk;
        const char *id, *name;
        struct hvb_snapshot_info info;  /* the new one, or the one deleted */
        int result;
        struct hvb_error err;
};

static void start_create(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct disk_task *t = opaque;

        drive_driver(drive)->snapshot_create(drive_image(drive), request, &t->info, 0, &t->err);
}

static void start_delete(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct disk_task *t = opaque;

        drive_driver(drive)->snapshot_delete(drive_image(drive), request, t->info.id_str,
                                             t->info.name, &t->err);
}

/* The snapshot that is meant, as it was a moment ago; -ENOENT. */
static int find_snapshot(struct disk_task *t)
{
        const struct hvb_snapshot_info *found;
        struct block_facts facts;

        block_facts_read(t->disk, &facts);
        found = block_facts_snapshot(&facts, t->id, t->name);
        if (found != NULL)
                t->info = *found;
        block_facts_clear(&facts);
        return found == NULL ? -ENOENT : 0;
}

static void create_run(struct task *task)
{
        struct disk_task *t = (struct disk_task *) task;
        const struct drive_control control = { .start = start_create, .opaque = t };
        gint64 now_usec = g_get_real_time();

        if (find_snapshot(t) == 0) {
                t->result = error_set(&t->err, -EEXIST, "Snapshot with name '%s' already exists "
                                      "on device '%s'", t->name, t->disk->id);
                return;
        }
        t->info = (struct hvb_snapshot_info) {
                .struct_bytes = sizeof(t->info),
                .date_sec = (uint32_t) (now_usec / G_USEC_PER_SEC),
                .date_nsec = (uint32_t) (now_usec % G_USEC_PER_SEC * 1000),
                .vm_clock_nsec = machine_clock_nsec(t->call->monitors->machine),
                .icount = UINT64_MAX,
        };
        if (g_strlcpy(t->info.name, t->name, sizeof(t->info.name)) >= sizeof(t->info.name))
                t->result = error_set(&t->err, -ENAMETOOLONG,
                                      "The name is longer than %zu bytes",
                                      sizeof(t->info.name) - 1);
        else
                t->result = drive_thread_run(t->disk->thread, &control);
}

static void delete_run(struct task *task)
{
        struct disk_task *t = (struct disk_task *) task;
        const struct drive_control control = { .start = start_delete, .opaque = t };

        if (find_snapshot(t) < 0)
                t->result = error_set(&t->err, -ENOENT, "Snapshot with id '%s' and name '%s' "
                                      "does not exist on device '%s'",
                                      t->id == NULL ? "null" : t->id,
                                      t->name == NULL ? "null" : t->name, t->disk->id);
        else
                t->result = drive_thread_run(t->disk->thread, &control);
}

static void disk_done(struct task *task)
{
        struct disk_task *t = (struct disk_task *) task;

        if (t->result < 0)
                qmp_call_fail(t->call, error_text(&t->err, t->result));
        else if (t->task.run == delete_run)
                qmp_call_return(t->call, qmp_object(qmp_snapshot_info(&t->info)));
        else
                qmp_call_return(t->call, NULL);
        g_free(t);
}

/* The disk with that id; NULL: there is none, and the call has failed. */
static const struct machine_disk *find_disk(struct qmp_call *call)
{
        const char *id = qmp_arg_string(call, "device");
        const struct machine_disk *disk = machine_find_disk(call->monitors->machine, id);
        g_autofree char *text = NULL;

        if (disk != NULL)
                return disk;
        text = g_strdup_printf("Cannot find device='%s' nor node-name='%s'", id, id);
        qmp_call_fail(call, text);
        return NULL;
}

static void start_disk_task(struct qmp_call *call, const struct machine_disk *disk,
                            void (*run)(struct task *task))
{
        struct disk_task *t = g_new0(struct disk_task, 1);

        *t = (struct disk_task) {
                .task = { .run = run, .done = disk_done },
                .call = call, .disk = disk, .err = ERROR_INIT,
                .id = qmp_arg_string(call, "id"),
                .name = qmp_arg_string(call, "name"),
        };
        tasks_push(call->monitors->tasks, TASK_LANE_SNAPSHOTS, &t->task);
}

void qmp_blockdev_snapshot(struct qmp_call *call)
{
        const struct machine_disk *disk = find_disk(call);

        if (disk == NULL)
                return;
        if (qmp_arg_string(call, "name")[0] == '\0')
                qmp_call_fail(call, "Name is empty");
        else
                start_disk_task(call, disk, create_run);
}

void qmp_blockdev_snapshot_delete(struct qmp_call *call)
{
        const struct machine_disk *disk = find_disk(call);

        if (disk == NULL)
                return;
        if (qmp_arg_string(call, "id") == NULL && qmp_arg_string(call, "name") == NULL)
                qmp_call_fail(call, "Name or id must be provided");
        else
                start_disk_task(call, disk, delete_run);
}
