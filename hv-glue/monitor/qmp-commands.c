/*
 * qmp-commands.c - QMP's commands; those of disks and snapshots have files of their own.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdlib.h>

#include "host/error.h"
#include "monitor/session.h"

JsonNode *qmp_version(const struct monitors *monitors)
{
        g_autoptr(JsonBuilder) builder = json_builder_new();
        g_auto(GStrv) parts = g_strsplit(monitors->host.version, ".", 3);
        static const char *const names[] = { "major", "minor", "micro" };
        bool more = true;

        json_builder_begin_object(builder);
        /* The name is the protocol's; the numbers are our own. */
        json_builder_set_member_name(builder, "qemu");
        json_builder_begin_object(builder);
        for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
                more = more && parts[i] != NULL;
                json_builder_set_member_name(builder, names[i]);
                json_builder_add_int_value(builder, more ? atoi(parts[i]) : 0);
        }
        json_builder_end_object(builder);
        json_builder_set_member_name(builder, "package");
        json_builder_add_string_value(builder, "hv");
        json_builder_end_object(builder);
        return json_builder_get_root(builder);
}

/* ---- The machine -------------------------------------------------------------------- */

static void machine_called(void *opaque, int result, const struct hvb_error *err)
{
        if (result < 0)
                qmp_call_fail(opaque, error_text(err, result));
        else
                qmp_call_return(opaque, NULL);
}

static void run_stop(struct qmp_call *call)
{
        monitors_call_machine(call->monitors, machine_stop, machine_called, call);
}

static void run_cont(struct qmp_call *call)
{
        monitors_call_machine(call->monitors, machine_cont, machine_called, call);
}

static void run_system_reset(struct qmp_call *call)
{
        monitors_call_machine(call->monitors, machine_reset, machine_called, call);
}

static void run_quit(struct qmp_call *call)
{
        monitors_quit(call->monitors);
        qmp_call_return(call, NULL);
}

static void run_query_status(struct qmp_call *call)
{
        enum run_state state = machine_run_state(call->monitors->machine);
        JsonObject *status = json_object_new();

        json_object_set_string_member(status, "status", run_state_name(state));
        json_object_set_boolean_member(status, "running", state == RUN_STATE_RUNNING);
        qmp_call_return(call, qmp_object(status));
}

static void run_query_version(struct qmp_call *call)
{
        qmp_call_return(call, qmp_version(call->monitors));
}

static void run_query_name(struct qmp_call *call)
{
        qmp_call_return(call, NULL);
}

static void run_query_kvm(struct qmp_call *call)
{
        JsonObject *kvm = json_object_new();

        json_object_set_boolean_member(kvm, "enabled", true);
        json_object_set_boolean_member(kvm, "present", true);
        qmp_call_return(call, qmp_object(kvm));
}

static void run_query_commands(struct qmp_call *call)
{
        JsonArray *commands = json_array_new();

        for (const struct qmp_command *command = qmp_commands; command->name != NULL;
             command++) {
                JsonObject *object = json_object_new();

                json_object_set_string_member(object, "name", command->name);
                json_array_add_object_element(commands, object);
        }
        qmp_call_return(call, qmp_array(commands));
}

/* ---- HMP within QMP ----------------------------------------------------------------- */

static void hmp_done(void *opaque, struct hmp_call *hmp_call)
{
        g_autofree char *text = hmp_wire_text(hmp_call->output->str);
        JsonNode *node = json_node_new(JSON_NODE_VALUE);

        json_node_set_string(node, text);
        qmp_call_return(opaque, node);
}

static void run_human_monitor_command(struct qmp_call *call)
{
        hmp_call_start(call->monitors, qmp_arg_string(call, "command-line"), hmp_done, call);
}

const struct qmp_command qmp_commands[] = {
        { "blockdev-snapshot-delete-internal-sync", qmp_blockdev_snapshot_delete,
          { { "device", QMP_STRING, false }, { "id", QMP_STRING, true },
            { "name", QMP_STRING, true } } },
        { "blockdev-snapshot-internal-sync", qmp_blockdev_snapshot,
          { { "device", QMP_STRING, false }, { "name", QMP_STRING, false } } },
        { "cont", run_cont, { { 0 } } },
        { "human-monitor-command", run_human_monitor_command,
          { { "command-line", QMP_STRING, false }, { "cpu-index", QMP_INT, true } } },
        { "job-cancel", qmp_job_cancel, { { "id", QMP_STRING, false } } },
        { "job-dismiss", qmp_job_dismiss, { { "id", QMP_STRING, false } } },
        { "query-block", qmp_query_block, { { 0 } } },
        { "query-commands", run_query_commands, { { 0 } } },
        { "query-jobs", qmp_query_jobs, { { 0 } } },
        { "query-kvm", run_query_kvm, { { 0 } } },
        { "query-name", run_query_name, { { 0 } } },
        { "query-named-block-nodes", qmp_query_named_block_nodes,
          { { "flat", QMP_BOOL, true } } },
        { "query-status", run_query_status, { { 0 } } },
        { "query-version", run_query_version, { { 0 } } },
        { "quit", run_quit, { { 0 } } },
        { "snapshot-backup", qmp_snapshot_backup,
          { { "job-id", QMP_STRING, false }, { "device", QMP_STRING, false },
            { "tag", QMP_STRING, false }, { "target", QMP_STRING, false },
            { "format", QMP_STRING, true } } },
        { "snapshot-delete", qmp_snapshot_delete,
          { { "job-id", QMP_STRING, false }, { "tag", QMP_STRING, false },
            { "devices", QMP_STRINGS, false } } },
        { "snapshot-load", qmp_snapshot_load,
          { { "job-id", QMP_STRING, false }, { "tag", QMP_STRING, false },
            { "vmstate", QMP_STRING, false }, { "devices", QMP_STRINGS, false } } },
        { "snapshot-save", qmp_snapshot_save,
          { { "job-id", QMP_STRING, false }, { "tag", QMP_STRING, false },
            { "vmstate", QMP_STRING, false }, { "devices", QMP_STRINGS, false } } },
        { "stop", run_stop, { { 0 } } },
        { "system_reset", run_system_reset, { { 0 } } },
        { 0 },
};
