/*
 * test-peer.c - the same lines to QEMU's monitor and to ours: the same answers.
 *
 * What is expected comes from a running qemu-system-x86_64, not from us.  Texts and
 * objects are compared whole, up to what is known to differ and stands in the lists
 * below.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "monitor/bed.h"

/* The same two images twice: each side opens its own. */
struct pair {
        char *directory;
        char *theirs[FAKE_DISKS], *ours[FAKE_DISKS];
        char *their_nodes[FAKE_DISKS];  /* QEMU's nodes have names of their own */
        GPid pid;
        struct client *qemu, *hv;
        struct bed bed;
};

/* ---- Both sides --------------------------------------------------------------------- */

static void run(const char *format, ...)
{
        g_autofree char *line = NULL;
        g_autoptr(GError) error = NULL;
        va_list args;
        int status;

        va_start(args, format);
        line = g_strdup_vprintf(format, args);
        va_end(args);
        g_spawn_command_line_sync(line, NULL, NULL, &status, &error);
        g_assert_no_error(error);
        g_spawn_check_wait_status(status, &error);
        g_assert_no_error(error);
}

static void make_images(struct pair *pair)
{
        for (unsigned i = 0; i < FAKE_DISKS; i++) {
                g_autofree char *name = g_strdup_printf("disk%u", i);

                pair->theirs[i] = g_build_filename(pair->directory, "theirs", name, NULL);
                pair->ours[i] = g_build_filename(pair->directory, "ours", name, NULL);
                run("qemu-img create -q -f qcow2 %s 64M", pair->theirs[i]);
                run("qemu-img snapshot -c both %s", pair->theirs[i]);
                run("qemu-img snapshot -c alone%u %s", i, pair->theirs[i]);
                run("cp %s %s", pair->theirs[i], pair->ours[i]);
        }
}

/* In the child: a failed test leaves no QEMU behind. */
static void die_with_parent(gpointer unused)
{
        (void) unused;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void start_qemu(struct pair *pair)
{
        g_autofree char *socket = g_build_filename(pair->directory, "qemu", NULL);
        g_autofree char *line = g_strdup_printf(
                "qemu-system-x86_64 -machine pc -m 16 -accel tcg -display none -nodefaults -S"
                " -qmp unix:%s,server=on,wait=off"
                " -drive if=virtio,id=virtio0,format=qcow2,file=%s"
                " -drive if=virtio,id=virtio1,format=qcow2,file=%s",
                socket, pair->theirs[0], pair->theirs[1]);
        g_auto(GStrv) argv = NULL;
        g_autoptr(GError) error = NULL;

        g_shell_parse_argv(line, NULL, &argv, &error);
        g_assert_no_error(error);
        g_spawn_async(NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                      die_with_parent, NULL, &pair->pid, &error);
        g_assert_no_error(error);
        pair->qemu = qmp_client_new(socket);
}

static void find_nodes(struct pair *pair)
{
        g_autoptr(JsonObject) reply = qmp_ask(pair->qemu, "{\"execute\": \"query-block\"}");
        JsonArray *devices = json_object_get_array_member(reply, "return");

        for (unsigned i = 0; i < FAKE_DISKS; i++) {
                JsonObject *device = json_array_get_object_element(devices, i);
                JsonObject *node = json_object_get_object_member(device, "inserted");

                pair->their_nodes[i] = g_strdup(json_object_get_string_member(node,
                                                                              "node-name"));
        }
}

static void set_up(struct pair *pair, gconstpointer unused)
{
        g_autofree char *qemu = g_find_program_in_path("qemu-system-x86_64");

        (void) unused;
        if (qemu == NULL) {
                g_test_skip("qemu-system-x86_64 is not installed");
                return;
        }
        pair->directory = g_dir_make_tmp("peer-XXXXXX", NULL);
        run("mkdir %s/theirs %s/ours", pair->directory, pair->directory);
        make_images(pair);
        start_qemu(pair);
        find_nodes(pair);
        bed_set_up(&pair->bed, pair->ours);
        pair->hv = qmp_client_new(pair->bed.qmp_path);
}

static void tear_down(struct pair *pair, gconstpointer unused)
{
        int status;

        if (pair->directory == NULL)
                return;
        client_free(pair->hv);
        bed_tear_down(&pair->bed, unused);
        client_free(pair->qemu);
        kill(pair->pid, SIGKILL);
        g_assert_cmpint(waitpid(pair->pid, &status, 0), ==, pair->pid);
        run("rm -r %s", pair->directory);
        for (unsigned i = 0; i < FAKE_DISKS; i++) {
                g_free(pair->theirs[i]);
                g_free(pair->ours[i]);
                g_free(pair->their_nodes[i]);
        }
        g_free(pair->directory);
}

/* ---- Comparing ---------------------------------------------------------------------- */

static char *replace(const char *text, const char *from, const char *to)
{
        g_auto(GStrv) parts = g_strsplit(text, from, 0);

        return g_strjoinv(to, parts);
}

/* One side's names become those that both have. */
static char *neutral(const struct pair *pair, const char *text)
{
        char *result = g_strdup(text);

        for (unsigned i = 0; i < FAKE_DISKS; i++) {
                g_autofree char *name = g_strdup_printf("virtio%u", i);
                const char *const from[] = { pair->theirs[i], pair->ours[i],
                                             pair->their_nodes[i] };

                for (unsigned j = 0; j < G_N_ELEMENTS(from); j++) {
                        char *next = replace(result, from[j], name);

                        g_free(result);
                        result = next;
                }
        }
        return result;
}

/* Only one side has these, and may. */
static const char *const optional_members[] = {
        "singlestep",                   /* until QEMU 8 */
        "active", "children",           /* since QEMU 10 */
        "io-status", "qdev",            /* optional by its schema */
};

/* Their values are the moment's. */
static const char *const free_members[] = {
        "actual-size", "date-sec", "date-nsec", "vm-clock-sec", "vm-clock-nsec",
        "seconds", "microseconds",
        "current-progress", "total-progress",           /* the unit is anybody's */
};

static bool is_among(const char *name, const char *const *names, unsigned count)
{
        for (unsigned i = 0; i < count; i++)
                if (strcmp(names[i], name) == 0)
                        return true;
        return false;
}

static void compare(const char *name, JsonNode *theirs, JsonNode *ours);

static void compare_objects(const char *name, JsonObject *theirs, JsonObject *ours)
{
        JsonObjectIter iter;
        const char *member;
        JsonNode *node;

        json_object_iter_init(&iter, theirs);
        while (json_object_iter_next(&iter, &member, &node)) {
                if (json_object_has_member(ours, member))
                        compare(member, node, json_object_get_member(ours, member));
                else if (!is_among(member, optional_members, G_N_ELEMENTS(optional_members)))
                        g_error("%s: only QEMU has '%s'", name, member);
        }
        json_object_iter_init(&iter, ours);
        while (json_object_iter_next(&iter, &member, &node))
                if (!json_object_has_member(theirs, member)
                    && !is_among(member, optional_members, G_N_ELEMENTS(optional_members)))
                        g_error("%s: only we have '%s'", name, member);
}

static void compare(const char *name, JsonNode *theirs, JsonNode *ours)
{
        g_autofree char *their_text = json_to_string(theirs, FALSE);
        g_autofree char *our_text = json_to_string(ours, FALSE);

        if (json_node_get_node_type(theirs) != json_node_get_node_type(ours)
            || json_node_get_value_type(theirs) != json_node_get_value_type(ours))
                g_error("%s: QEMU has %s, we have %s", name, their_text, our_text);
        if (JSON_NODE_HOLDS_OBJECT(theirs)) {
                compare_objects(name, json_node_get_object(theirs), json_node_get_object(ours));
        } else if (JSON_NODE_HOLDS_ARRAY(theirs)) {
                JsonArray *their_array = json_node_get_array(theirs);
                JsonArray *our_array = json_node_get_array(ours);

                if (json_array_get_length(their_array) != json_array_get_length(our_array))
                        g_error("%s: QEMU has %s, we have %s", name, their_text, our_text);
                for (guint i = 0; i < json_array_get_length(their_array); i++)
                        compare(name, json_array_get_element(their_array, i),
                                json_array_get_element(our_array, i));
        } else if (!is_among(name, free_members, G_N_ELEMENTS(free_members))) {
                if (strcmp(their_text, our_text) != 0)
                        g_error("%s: QEMU has %s, we have %s", name, their_text, our_text);
        }
}

static void compare_texts(const struct pair *pair, const char *what, const char *theirs,
                          const char *ours)
{
        g_autofree char *their_text = neutral(pair, theirs);
        g_autofree char *our_text = neutral(pair, ours);
        g_autoptr(JsonNode) their_node = json_from_string(their_text, NULL);
        g_autoptr(JsonNode) our_node = json_from_string(our_text, NULL);

        g_assert_nonnull(their_node);
        g_assert_nonnull(our_node);
        compare(what, their_node, our_node);
}

/* A line for one side: "$0" and "$1" are its disks' nodes. */
static char *line_for(const char *line, const char *first, const char *second)
{
        g_autofree char *half = replace(line, "$0", first);

        return replace(half, "$1", second);
}

static void ask_both(struct pair *pair, const char *line)
{
        g_autofree char *for_qemu = line_for(line, pair->their_nodes[0], pair->their_nodes[1]);
        g_autofree char *for_hv = line_for(line, "virtio0", "virtio1");
        g_autofree char *theirs = qmp_ask_text(pair->qemu, for_qemu);
        g_autofree char *ours = qmp_ask_text(pair->hv, for_hv);

        compare_texts(pair, line, theirs, ours);
}

/* ---- HMP ---------------------------------------------------------------------------- */

static char *hmp(struct client *client, const char *line)
{
        g_autofree char *escaped = g_strescape(line, NULL);
        g_autofree char *request = g_strdup_printf(
                "{\"execute\": \"human-monitor-command\", \"arguments\": "
                "{\"command-line\": \"%s\"}}", escaped);
        g_autoptr(JsonObject) reply = qmp_ask(client, request);

        return g_strdup(json_object_get_string_member(reply, "return"));
}

static void test_hmp_texts(struct pair *pair, gconstpointer unused)
{
        static const char *const lines[] = {
                "", "   ", "foo", "foo bar", "INFO", "help foo", "? foo bar", "info foo",
                "info   foo bar", "\"info\" status", "info \"status\"", "help info foo",
                "loadvm", "loadvm   ", "loadvm a b", "loadvm \"a", "loadvm \"a\" b",
                "loadvm a\"b c\"", "loadvm \"a\\q\"", "delvm", "delvm a b", "savevm a b",
                "savevm \"a", "stop x", "s x", "cont x", "c x", "quit x", "q now", "info status x",
                "info snapshots x", "info block virtio0 x", "info block -x", "info block nix",
                "system_reset x", "help cont", "help c", "? stop", "help quit", "help loadvm",
                "help delvm", "help info snapshots", "help info status", "help help", "help ?",
                "help system_reset", "help c c", "info status", "cont", "info status", "stop",
                "info status", "  stop  ", "stop\t", "c", "s", "info status", "helpx",
        };

        (void) unused;
        if (pair->directory == NULL)
                return;
        for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
                g_autofree char *theirs = hmp(pair->qemu, lines[i]);
                g_autofree char *ours = hmp(pair->hv, lines[i]);

                g_test_message("%s", lines[i]);
                g_assert_cmpstr(ours, ==, theirs);
        }
}

/* Where our disks are attached, QEMU says in terms of its object tree. */
static void test_hmp_info_block(struct pair *pair, gconstpointer unused)
{
        static const char *const lines[] = { "info block", "info block virtio1" };
        g_autoptr(GRegex) attached = g_regex_new("    Attached to: .*\r\n", 0, 0, NULL);

        (void) unused;
        if (pair->directory == NULL)
                return;
        for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
                g_autofree char *theirs = hmp(pair->qemu, lines[i]);
                g_autofree char *ours = hmp(pair->hv, lines[i]);
                g_autofree char *unattached = g_regex_replace_literal(attached, theirs, -1, 0, "",
                                                                      0, NULL);
                g_autofree char *their_text = neutral(pair, unattached);
                g_autofree char *our_text = neutral(pair, ours);

                g_assert_cmpstr(our_text, ==, their_text);
        }
}

static int read_list(struct drive *drive, void *opaque)
{
        return drive_snapshot_list(drive, opaque);
}

/* What vm_snapshots() would find: the first is on both disks, the second on one. */
static void add_rows(struct machine *machine)
{
        struct hvb_snapshot_info *infos[FAKE_DISKS] = { NULL };

        for (unsigned i = 0; i < FAKE_DISKS; i++)
                g_assert_cmpint(drive_thread_call(machine->disks[i].thread, read_list, &infos[i]),
                                ==, 2);
        fake_add_row(machine, &infos[0][0], NULL);
        for (unsigned i = 0; i < FAKE_DISKS; i++) {
                fake_add_row(machine, &infos[i][1], machine->disks[i].id);
                g_free(infos[i]);
        }
}

/* QEMU before 10 has other titles and widths. */
static char *old_style(const char *text)
{
        g_autoptr(GRegex) spaces = g_regex_new(" +", 0, 0, NULL);
        g_autoptr(GRegex) hours = g_regex_new(" 00(00:00:00[.])", 0, 0, NULL);
        g_autofree char *sizes = replace(text, "VM_SIZE", "VM SIZE");
        g_autofree char *clocks = replace(sizes, "VM_CLOCK", "VM CLOCK");
        g_autofree char *squeezed = g_regex_replace_literal(spaces, clocks, -1, 0, " ", 0, NULL);

        return g_regex_replace(hours, squeezed, -1, 0, " \\1", 0, NULL);
}

static void expect_same_table(struct pair *pair)
{
        g_autofree char *theirs = hmp(pair->qemu, "info snapshots");
        g_autofree char *ours = hmp(pair->hv, "info snapshots");
        bool is_old = strstr(theirs, "VM SIZE") != NULL;
        g_autofree char *their_text = is_old ? old_style(theirs) : g_strdup(theirs);
        g_autofree char *our_text = is_old ? old_style(ours) : g_strdup(ours);

        g_assert_cmpstr(our_text, ==, their_text);
}

static void test_hmp_info_snapshots(struct pair *pair, gconstpointer unused)
{
        static const char *const tags[] = { "alone0", "both", "alone1" };
        static const guint rows[] = { 1, 0, 0 };        /* of those that are left */

        (void) unused;
        if (pair->directory == NULL)
                return;
        add_rows(pair->bed.machine);
        expect_same_table(pair);
        for (unsigned i = 0; i < G_N_ELEMENTS(tags); i++) {
                g_autofree char *line = g_strdup_printf("delvm %s", tags[i]);

                g_free(hmp(pair->qemu, line));
                g_ptr_array_remove_index(pair->bed.machine->rows, rows[i]);
                expect_same_table(pair);
        }
}

/* ---- QMP ---------------------------------------------------------------------------- */

#define JOB_ARGUMENTS(rest) "{\"execute\": \"snapshot-save\", \"arguments\": {" rest "}}"

static void test_qmp_errors(struct pair *pair, gconstpointer unused)
{
        static const char *const lines[] = {
                "[]", "5 ", "\"x\"", "{}", "{\"execut\": \"stop\"}", "{\"execute\": 5}",
                "{\"execute\": {}}", "{\"execute\": null, \"id\": 3}",
                "{\"execute\": \"nix\", \"id\": [7]}", "{\"execute\": \"\"}",
                "{\"execute\": \"qmp_capabilities\"}", "{\"exec-oob\": \"stop\"}",
                "{\"execute\": \"stop\", \"x\": 1}",
                "{\"execute\": \"stop\", \"id\": 1, \"id\": 2}",
                "{\"execute\": \"stop\", \"arguments\": 5}",
                "{\"execute\": \"stop\", \"arguments\": {\"a\": 1}}",
                "{\"execute\": \"stop\",}",
                JOB_ARGUMENTS(""), JOB_ARGUMENTS("\"tag\": 5"), JOB_ARGUMENTS("\"job-id\": 5"),
                JOB_ARGUMENTS("\"job-id\": \"j\""),
                JOB_ARGUMENTS("\"job-id\": \"j\", \"tag\": \"t\""),
                JOB_ARGUMENTS("\"job-id\": \"j\", \"tag\": null"),
                JOB_ARGUMENTS("\"job-id\": \"j\", \"tag\": \"t\", \"vmstate\": \"$0\""),
                JOB_ARGUMENTS("\"job-id\": \"j\", \"tag\": \"t\", \"vmstate\": \"$0\", "
                              "\"devices\": \"$0\""),
                JOB_ARGUMENTS("\"job-id\": \"j\", \"tag\": \"t\", \"vmstate\": \"$0\", "
                              "\"devices\": [\"$0\", 5]"),
                JOB_ARGUMENTS("\"job-id\": \"j\", \"tag\": \"t\", \"vmstate\": \"$0\", "
                              "\"devices\": [\"$0\"], \"z\": 5"),
                JOB_ARGUMENTS("\"job-id\": \"1j\", \"tag\": \"t\", \"vmstate\": \"$0\", "
                              "\"devices\": [\"$0\"]"),
                JOB_ARGUMENTS("\"job-id\": \"\", \"tag\": \"t\", \"vmstate\": \"$0\", "
                              "\"devices\": [\"$0\"]"),
                JOB_ARGUMENTS("\"job-id\": \"j/\", \"tag\": \"t\", \"vmstate\": \"$0\", "
                              "\"devices\": [\"$0\"]"),
                "{\"execute\": \"query-jobs\"}",
                "{\"execute\": \"job-cancel\"}", "{\"execute\": \"job-dismiss\"}",
                "{\"execute\": \"job-cancel\", \"arguments\": {\"id\": \"nix\"}}",
                "{\"execute\": \"job-dismiss\", \"arguments\": {\"id\": \"nix\"}}",
                "{\"execute\": \"human-monitor-command\"}",
                "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": 1}}",
                "{\"execute\": \"human-monitor-command\", \"arguments\": "
                "{\"command-line\": \"stop\", \"cpu-index\": \"x\"}}",
        };

        (void) unused;
        if (pair->directory == NULL)
                return;
        for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++)
                ask_both(pair, lines[i]);
}

/* The next event of each side, time apart, is the same. */
static void expect_same_event(struct pair *pair)
{
        g_autofree char *theirs = client_until(pair->qemu, "\r\n");
        g_autofree char *ours = client_until(pair->hv, "\r\n");

        compare_texts(pair, "event", theirs, ours);
}

static void send_both(struct pair *pair, const char *line)
{
        g_autofree char *for_qemu = line_for(line, pair->their_nodes[0], pair->their_nodes[1]);
        g_autofree char *for_hv = line_for(line, "virtio0", "virtio1");

        client_send(pair->qemu, for_qemu, strlen(for_qemu));
        client_send(pair->hv, for_hv, strlen(for_hv));
}

static void test_qmp_status(struct pair *pair, gconstpointer unused)
{
        static const char *const lines[] = { "cont", "stop", "stop", "query-name" };

        (void) unused;
        if (pair->directory == NULL)
                return;
        ask_both(pair, "{\"execute\": \"query-status\"}");
        for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
                g_autofree char *line = g_strdup_printf("{\"execute\": \"%s\"}", lines[i]);

                ask_both(pair, line);
                ask_both(pair, "{\"execute\": \"query-status\"}");
        }
}

/* Created, running, ..., and what is to be seen of it: what succeeds and what fails. */
static void test_qmp_jobs(struct pair *pair, gconstpointer unused)
{
        static const struct {
                const char *line;
                unsigned event_count;
        } jobs[] = {
                { "{\"execute\": \"snapshot-delete\", \"arguments\": {\"job-id\": \"a\", "
                  "\"tag\": \"both\", \"devices\": [\"$0\", \"$1\"]}}", 5 },
                { "{\"execute\": \"snapshot-delete\", \"arguments\": {\"job-id\": \"a\", "
                  "\"tag\": \"t\", \"devices\": []}}", 4 },
                { "{\"execute\": \"snapshot-delete\", \"arguments\": {\"job-id\": \"a\", "
                  "\"tag\": \"t\", \"devices\": [\"$0\", \"nix\"]}}", 4 },
                { "{\"execute\": \"snapshot-save\", \"arguments\": {\"job-id\": \"a\", "
                  "\"tag\": \"t\", \"vmstate\": \"$1\", \"devices\": [\"$0\"]}}", 4 },
                { "{\"execute\": \"snapshot-load\", \"arguments\": {\"job-id\": \"a\", "
                  "\"tag\": \"t\", \"vmstate\": \"$0\", \"devices\": []}}", 4 },
        };

        (void) unused;
        if (pair->directory == NULL)
                return;
        for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++) {
                send_both(pair, jobs[i].line);
                /* The reply comes among the events. */
                for (unsigned j = 0; j < jobs[i].event_count + 1; j++)
                        expect_same_event(pair);
                ask_both(pair, jobs[i].line);           /* the id is in use */
                ask_both(pair, "{\"execute\": \"job-cancel\", \"arguments\": {\"id\": \"a\"}}");
                ask_both(pair, "{\"execute\": \"query-jobs\"}");
                send_both(pair, "{\"execute\": \"job-dismiss\", \"arguments\": {\"id\": \"a\"}}");
                expect_same_event(pair);
                expect_same_event(pair);
                ask_both(pair, "{\"execute\": \"query-jobs\"}");
        }
}

#define BLOCKDEV(command, rest) "{\"execute\": \"blockdev-snapshot-" command "internal-sync\", " \
        "\"arguments\": {" rest "}}"

static void test_qmp_block(struct pair *pair, gconstpointer unused)
{
        static const char *const lines[] = {
                "{\"execute\": \"query-block\"}",
                BLOCKDEV("", "\"device\": \"virtio0\", \"name\": \"n\""),
                BLOCKDEV("", "\"device\": \"virtio0\", \"name\": \"n\""),
                BLOCKDEV("", "\"device\": \"nix\", \"name\": \"n\""),
                BLOCKDEV("", "\"device\": \"virtio0\", \"name\": \"\""),
                BLOCKDEV("", "\"device\": \"virtio0\""), BLOCKDEV("", "\"name\": \"n\""),
                "{\"execute\": \"query-block\"}",
                BLOCKDEV("delete-", "\"device\": \"virtio0\""),
                BLOCKDEV("delete-", "\"device\": \"virtio0\", \"name\": \"nix\""),
                BLOCKDEV("delete-", "\"device\": \"virtio0\", \"name\": \"n\", \"id\": \"7\""),
                BLOCKDEV("delete-", "\"device\": \"virtio0\", \"id\": \"nix\""),
                BLOCKDEV("delete-", "\"device\": \"nix\", \"name\": \"n\""),
                BLOCKDEV("delete-", "\"device\": \"virtio0\", \"name\": \"n\", \"id\": \"3\""),
                BLOCKDEV("delete-", "\"device\": \"virtio1\", \"name\": \"both\""),
                "{\"execute\": \"query-block\"}",
        };

        (void) unused;
        if (pair->directory == NULL)
                return;
        for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++)
                ask_both(pair, lines[i]);
}

int main(int argc, char **argv)
{
        static const struct {
                const char *path;
                void (*run)(struct pair *pair, gconstpointer unused);
        } tests[] = {
                { "/peer/hmp-texts", test_hmp_texts },
                { "/peer/hmp-info-block", test_hmp_info_block },
                { "/peer/hmp-info-snapshots", test_hmp_info_snapshots },
                { "/peer/qmp-errors", test_qmp_errors },
                { "/peer/qmp-status", test_qmp_status },
                { "/peer/qmp-jobs", test_qmp_jobs },
                { "/peer/qmp-block", test_qmp_block },
        };

        g_test_init(&argc, &argv, NULL);
        for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++)
                g_test_add(tests[i].path, struct pair, NULL, set_up, tests[i].run, tear_down);
        return g_test_run();
}
