/*
 * hmp-commands.c - HMP's commands.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "host/error.h"
#include "host/size.h"
#include "host/snapshot-table.h"
#include "monitor/block-facts.h"
#include "monitor/session.h"

/* ---- The machine -------------------------------------------------------------------- */

static void machine_called(void *opaque, int result, const struct hvb_error *err)
{
        if (result < 0)
                hmp_call_end_error(opaque, error_text(err, result));
        else
                hmp_call_end(opaque);
}

static void run_stop(struct hmp_call *call, char *const *args, char flag)
{
        (void) args;
        (void) flag;
        monitors_call_machine(call->monitors, machine_stop, machine_called, call);
}

static void run_cont(struct hmp_call *call, char *const *args, char flag)
{
        (void) args;
        (void) flag;
        monitors_call_machine(call->monitors, machine_cont, machine_called, call);
}

static void run_system_reset(struct hmp_call *call, char *const *args, char flag)
{
        (void) args;
        (void) flag;
        monitors_call_machine(call->monitors, machine_reset, machine_called, call);
}

static void run_quit(struct hmp_call *call, char *const *args, char flag)
{
        (void) args;
        (void) flag;
        monitors_quit(call->monitors);
        hmp_call_end(call);
}

static void run_info_status(struct hmp_call *call, char *const *args, char flag)
{
        enum run_state state = machine_run_state(call->monitors->machine);
        bool running = state == RUN_STATE_RUNNING;

        (void) args;
        (void) flag;
        g_string_append_printf(call->output, "VM status: %s", running ? "running" : "paused");
        if (!running && state != RUN_STATE_PAUSED)
                g_string_append_printf(call->output, " (%s)", run_state_name(state));
        g_string_append_c(call->output, '\n');
        hmp_call_end(call);
}

static void run_info_version(struct hmp_call *call, char *const *args, char flag)
{
        (void) args;
        (void) flag;
        g_string_append_printf(call->output, "%s\n", call->monitors->host.version);
        hmp_call_end(call);
}

/* ---- Snapshots ---------------------------------------------------------------------- */

static void job_done(void *opaque)
{
        struct hmp_call *call = opaque;

        if (call->job->result < 0)
                hmp_call_end_error(call, call->job->err.text);
        else
                hmp_call_end(call);
}

static void start(struct hmp_call *call, struct job_request *request)
{
        struct hvb_error err = ERROR_INIT;

        request->done = job_done;
        request->opaque = call;
        call->job = jobs_start(call->monitors->jobs, request, &err);
        if (call->job == NULL)
                hmp_call_end_error(call, err.text);
}

static void start_job(struct hmp_call *call, enum job_kind kind, const char *tag)
{
        struct job_request request = { .kind = kind, .tag = tag, .replace = true };

        start(call, &request);
}

static void run_savevm(struct hmp_call *call, char *const *args, char flag)
{
        if (flag == '\0')
                start_job(call, JOB_SAVE, args[0]);
        else if (args[0] != NULL)
                hmp_call_end_error(call, "-c takes no tag");
        else if (jobs_cancel_kind(call->monitors->jobs, JOB_SAVE) == 0)
                hmp_call_end_error(call, "No snapshot is being saved");
        else
                hmp_call_end(call);
}

static void run_loadvm(struct hmp_call *call, char *const *args, char flag)
{
        (void) flag;
        start_job(call, JOB_LOAD, args[0]);
}

static void run_delvm(struct hmp_call *call, char *const *args, char flag)
{
        (void) flag;
        start_job(call, JOB_DELETE, args[0]);
}

static void run_snapshot_backup(struct hmp_call *call, char *const *args, char flag)
{
        struct job_request request = {
                .kind = JOB_BACKUP, .disk = args[0], .tag = args[1], .target = args[2],
                .format = args[3],
        };

        if (flag == '\0' && args[2] != NULL)
                start(call, &request);
        else if (flag == '\0')
                hmp_call_end_error(call, "device, tag and target are needed");
        else if (args[0] != NULL)
                hmp_call_end_error(call, "-c takes no words");
        else if (jobs_cancel_kind(call->monitors->jobs, JOB_BACKUP) == 0)
                hmp_call_end_error(call, "No snapshot is being backed up");
        else
                hmp_call_end(call);
}

static void append_running(GString *text, const struct job *job)
{
        g_autofree char *total = NULL;
        uint64_t done_bytes, total_bytes;

        job_bytes(job, &done_bytes, &total_bytes);
        total = size_text(total_bytes);
        g_string_append_printf(text, "Running: %s", job_kind_name(job->request.kind));
        if (total_bytes > 0)
                g_string_append_printf(text, ", %.1f%% of %s", 100.0 * (double) done_bytes
                                       / (double) total_bytes, total);
        g_string_append_c(text, '\n');
}

/* In the words of QEMU's "info migrate". */
static void append_report(GString *text, const struct job_report *report)
{
        g_autofree char *ram = size_text(report->progress.done_bytes);
        g_autofree char *moved = size_text(report->progress.written_bytes);

        g_string_append_printf(text, "Last: %s, %s\n", job_kind_name(report->kind),
                               report->result == 0 ? "completed" : g_strerror(-report->result));
        g_string_append_printf(text, "total time: %.1f ms\n", (double) report->usec / 1e3);
        if (report->kind == JOB_DELETE)
                return;
        if (report->kind == JOB_BACKUP) {
                g_string_append_printf(text, "disk: %s, %s of it written\n", ram, moved);
                return;
        }
        g_string_append_printf(text, "downtime: %.1f ms\n",
                               (double) report->progress.pause_nsec / 1e6);
        g_string_append_printf(text, "ram: %s, %s of it %s\n", ram, moved,
                               report->kind == JOB_SAVE ? "written" : "read");
}

static void run_info_jobs(struct hmp_call *call, char *const *args, char flag)
{
        const struct job_report *last = jobs_last(call->monitors->jobs);
        const struct job *running;
        unsigned count = 0;

        (void) args;
        (void) flag;
        while ((running = jobs_running(call->monitors->jobs, count)) != NULL) {
                append_running(call->output, running);
                count++;
        }
        if (last != NULL)
                append_report(call->output, last);
        if (count == 0 && last == NULL)
                g_string_append(call->output, "No snapshot operation has run\n");
        hmp_call_end(call);
}

struct list_task {
        struct task task;
        struct hmp_call *call;
        struct machine *machine;
        GPtrArray *rows;
        struct hvb_error err;
};

static void list_run(struct task *task)
{
        struct list_task *list = (struct list_task *) task;

        list->rows = vm_snapshots(list->machine, &list->err);
}

static void append_rows(GString *text, const GPtrArray *rows)
{
        const char *disk_id = NULL;
        guint i = 0;

        if (rows->len == 0) {
                g_string_append(text, "There is no snapshot available.\n");
                return;
        }
        g_string_append(text, "List of snapshots present on all disks:\n");
        for (; i < rows->len; i++) {
                const struct vm_snapshot_row *row = g_ptr_array_index(rows, i);

                if (!row->on_all_disks)
                        break;
                if (i == 0)
                        snapshot_table_head(text);
                snapshot_table_row(text, &row->info, "--");
        }
        if (i == 0)
                g_string_append(text, "None\n");
        for (; i < rows->len; i++) {
                const struct vm_snapshot_row *row = g_ptr_array_index(rows, i);

                if (g_strcmp0(row->disk_id, disk_id) != 0) {
                        disk_id = row->disk_id;
                        g_string_append_printf(text, "\nList of partial (non-loadable) "
                                               "snapshots on '%s':\n", disk_id);
                        snapshot_table_head(text);
                }
                snapshot_table_row(text, &row->info, row->info.id_str);
        }
}

static void list_done(struct task *task)
{
        struct list_task *list = (struct list_task *) task;

        if (list->rows == NULL) {
                hmp_call_end_error(list->call, list->err.text);
        } else {
                append_rows(list->call->output, list->rows);
                hmp_call_end(list->call);
                g_ptr_array_unref(list->rows);
        }
        g_free(list);
}

static void run_info_snapshots(struct hmp_call *call, char *const *args, char flag)
{
        struct list_task *list = g_new0(struct list_task, 1);

        (void) args;
        (void) flag;
        *list = (struct list_task) {
                .task = { .run = list_run, .done = list_done },
                .call = call, .machine = call->monitors->machine, .err = ERROR_INIT,
        };
        tasks_push(call->monitors->tasks, TASK_LANE_SNAPSHOTS, &list->task);
}

/* ---- Disks -------------------------------------------------------------------------- */

static void append_disk(GString *text, const struct machine_disk *disk)
{
        struct block_facts facts;

        block_facts_read(disk, &facts);
        g_string_append_printf(text, "%s (%s): %s (%s%s)\n", disk->id, disk->id, disk->path,
                               disk->format, disk->read_only ? ", read-only" : "");
        g_string_append_printf(text, "    Cache mode:       %s%s%s\n",
                               facts.cache.writethrough ? "writethrough" : "writeback",
                               facts.cache.direct ? ", direct" : "",
                               facts.cache.no_flush ? ", ignore flushes" : "");
        if (facts.backing_path != NULL)
                g_string_append_printf(text, "    Backing file:     %s (chain depth: %u)\n",
                                       facts.backing_path, facts.info.backing_depth);
        block_facts_clear(&facts);
}

static void run_info_block(struct hmp_call *call, char *const *args, char flag)
{
        unsigned count;
        const struct machine_disk *disks = machine_disks(call->monitors->machine, &count);

        (void) flag;
        for (unsigned i = 0; i < count; i++) {
                if (args[0] != NULL && strcmp(args[0], disks[i].id) != 0)
                        continue;
                if (i > 0)              /* a single one too, as with QEMU */
                        g_string_append_c(call->output, '\n');
                append_disk(call->output, &disks[i]);
        }
        hmp_call_end(call);
}

/* ---- Help --------------------------------------------------------------------------- */

static void append_help(GString *text, const char *front, const struct hmp_command *command)
{
        g_string_append_printf(text, "%s%s %s -- %s\n", front, command->name, command->params,
                               command->help);
}

static void append_all(GString *text, const char *front, const struct hmp_command *table)
{
        for (; table->name != NULL; table++)
                append_help(text, front, table);
}

static void run_help(struct hmp_call *call, char *const *args, char flag)
{
        const struct hmp_command *command;
        bool is_info = g_strcmp0(args[0], "info") == 0;

        (void) flag;
        if (args[0] == NULL) {
                append_all(call->output, "", hmp_commands);
        } else if (is_info && args[1] == NULL) {
                append_all(call->output, "info ", hmp_info_commands);
        } else {
                command = is_info ? hmp_command_find(hmp_info_commands, args[1])
                        : hmp_command_find(hmp_commands, args[0]);
                if (command != NULL)
                        append_help(call->output, is_info ? "info " : "", command);
                else
                        g_string_append_printf(call->output, "unknown command: '%s%s'\n",
                                               is_info ? "info " : "",
                                               is_info ? args[1] : args[0]);
        }
        hmp_call_end(call);
}

static void run_info(struct hmp_call *call, char *const *args, char flag)
{
        (void) args;
        (void) flag;
        append_all(call->output, "info ", hmp_info_commands);
        hmp_call_end(call);
}

/* ---- The tables, sorted ------------------------------------------------------------- */

const struct hmp_command hmp_commands[] = {
        { "cont|c", "", "resume emulation", NULL, 0, 0, run_cont },
        { "delvm", "tag", "delete a VM snapshot from its tag", NULL, 1, 0, run_delvm },
        { "help|?", "[cmd]", "show the help", NULL, 0, 2, run_help },
        { "info", "[subcommand]", "show various information about the system state", NULL, 0, 0,
          run_info },
        { "loadvm", "tag", "restore a VM snapshot from its tag", NULL, 1, 0, run_loadvm },
        { "quit|q", "", "quit the emulator", NULL, 0, 0, run_quit },
        { "savevm", "[-c] [tag]",
          "save a VM snapshot. If no tag is provided, a new snapshot is created "
          "(-c: cancel the one that is being saved)", "c", 0, 1, run_savevm },
        { "snapshot_backup", "[-c] device tag target [format]",
          "write a disk's snapshot to a new file, qcow2 or raw, while the guest runs "
          "(-c: cancel all that are being written)", "c", 0, 4, run_snapshot_backup },
        { "stop|s", "", "stop emulation", NULL, 0, 0, run_stop },
        { "system_reset", "", "reset the system", NULL, 0, 0, run_system_reset },
        { 0 },
};

const struct hmp_command hmp_info_commands[] = {
        { "block", "[device]", "show info of one block device or all block devices", "", 0, 1,
          run_info_block },
        { "jobs", "", "show the snapshot operation at work and the last one: bytes, time, and how "
          "long the guest was stopped", NULL, 0, 0, run_info_jobs },
        { "snapshots", "", "show the currently saved VM snapshots", NULL, 0, 0,
          run_info_snapshots },
        { "status", "", "show the current VM status (running|paused)", NULL, 0, 0,
          run_info_status },
        { "version", "", "show the version of hv", NULL, 0, 0, run_info_version },
        { 0 },
};
