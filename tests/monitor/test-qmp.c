/*
 * test-qmp.c - a program at the monitor, over real sockets.
 *
 * What QEMU answers to the same lines is test-peer's to compare; here stand order, jobs,
 * events, limits, and what the machine was asked.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/bed.h"

#define SAVE(job, tag) "{\"execute\": \"snapshot-save\", \"arguments\": {\"job-id\": \"" job \
        "\", \"tag\": \"" tag "\", \"vmstate\": \"virtio0\", \"devices\": [\"virtio0\"]}}"
#define JOB(verb, job) "{\"execute\": \"job-" verb "\", \"arguments\": {\"id\": \"" job "\"}}"

static void ask_expect(struct client *client, const char *line, const char *expected)
{
        g_autofree char *reply = qmp_ask_text(client, line);

        g_assert_cmpstr(reply, ==, expected);
}

static void expect_error(struct client *client, const char *line, const char *text)
{
        g_autofree char *expected = g_strdup_printf(
                "{\"error\": {\"class\": \"GenericError\", \"desc\": \"%s\"}}", text);

        ask_expect(client, line, expected);
}

static void expect_line(struct client *client, const char *expected)
{
        g_autofree char *line = client_until(client, "\r\n");

        g_assert_cmpstr(line, ==, expected);
}

/* The next line that is no event. */
static void expect_reply(struct client *client, const char *expected)
{
        g_autofree char *line = NULL;

        do {
                g_free(line);
                line = client_until(client, "\r\n");
        } while (strstr(line, "\"event\": ") != NULL);
        g_assert_cmpstr(line, ==, expected);
}

static void expect_status(struct client *client, const char *id, const char *status)
{
        g_autoptr(JsonObject) data = qmp_event(client, "JOB_STATUS_CHANGE");

        g_assert_cmpstr(json_object_get_string_member(data, "id"), ==, id);
        g_assert_cmpstr(json_object_get_string_member(data, "status"), ==, status);
}

static void expect_log(struct bed *bed, const char *expected)
{
        g_autofree char *log = fake_take_log(bed->machine);

        g_assert_cmpstr(log, ==, expected);
}

static void send_text(struct client *client, const char *text)
{
        client_send(client, text, strlen(text));
}

/* ---- Sessions ----------------------------------------------------------------------- */

static void test_negotiation(struct bed *bed, gconstpointer unused)
{
        struct client *client = client_new(bed->qmp_path);

        (void) unused;
        expect_line(client, "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 1, \"minor\": 2, "
                    "\"micro\": 3}, \"package\": \"hv\"}, \"capabilities\": []}}");
        ask_expect(client, "{\"execute\": \"stop\", \"id\": 1}", "{\"error\": {\"class\": "
                   "\"CommandNotFound\", \"desc\": \"Expecting capabilities negotiation with "
                   "'qmp_capabilities'\"}, \"id\": 1}");
        expect_log(bed, "");
        expect_error(client, "{\"execute\": \"qmp_capabilities\", \"arguments\": "
                     "{\"enable\": [\"oob\"]}}", "No capability is offered");
        expect_error(client, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"x\": 1}}",
                     "Parameter 'x' is unexpected");
        /* No event reaches who has not negotiated. */
        monitors_reset(bed->monitors, true);
        send_text(client, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": []}}\n");
        expect_line(client, "{\"return\": {}}");
        monitors_reset(bed->monitors, true);
        json_object_unref(qmp_event(client, "RESET"));
        client_free(client);
}

/* Whatever JSON the id is, it comes back as it was. */
static void test_id(struct bed *bed, gconstpointer unused)
{
        static const char *const ids[] = {
                "1", "-9223372036854775808", "2.5", "1e+20", "null", "true", "false", "\"a\"",
                "\"\\u00E9\\uD83D\\uDE00 \\\" \\\\ / \\b\\f\\n\\r\\t\\u007F\"", "[]", "{}",
                "[1, [2, {\"a\": [null]}]]", "{\"b\": 1, \"a\": {\"c\": \"\"}}",
        };
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        for (unsigned i = 0; i < G_N_ELEMENTS(ids); i++) {
                g_autofree char *line = g_strdup_printf(
                        "{\"execute\": \"query-name\", \"id\": %s}", ids[i]);
                g_autofree char *expected = g_strdup_printf("{\"return\": {}, \"id\": %s}",
                                                            ids[i]);

                ask_expect(client, line, expected);
        }
        client_free(client);
}

static void test_framing(struct bed *bed, gconstpointer unused)
{
        static const char *const lines[] = {
                " { \"execute\"\n:\t\"query-name\"\r\n}",
                "{'execute':'query-name'}",
                "{\"execute\":\"query-name\",\"arguments\":{}}",
                "{\"arguments\":{},\"execute\":\"query-na\\u006de\"}",
        };
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++)
                ask_expect(client, lines[i], "{\"return\": {}}");
        /* Without anything between them, and one byte at a time. */
        send_text(client, "{\"execute\":\"query-name\",\"id\":1}{\"execute\":\"query-name\","
                  "\"id\":\"}\"}");
        expect_line(client, "{\"return\": {}, \"id\": 1}");
        expect_line(client, "{\"return\": {}, \"id\": \"}\"}");
        for (const char *p = lines[0]; *p != '\0'; p++)
                client_send(client, p, 1);
        expect_line(client, "{\"return\": {}}");
        client_free(client);
}

/* An error a line, and the next line is served. */
static void test_syntax_errors(struct bed *bed, gconstpointer unused)
{
        static const char *const lines[] = {
                "nix", "5", "[]", "\"x\"", "}", "]", ":", ",", "\xff", "\1", "'", "{]", "{\"a\"}",
                "{\"a\":}", "{\"a\":1,}", "{,}", "{\"a\" 1}", "{a:1}", "{1:2}", "{\"a\":1 2}",
                "{\"a\":[1,]}", "{\"a\":[1}}", "{\"a\":{]}", "{\"a\":01}", "{\"a\":0x10}",
                "{\"a\":+1}", "{\"a\":1.}", "{\"a\":.5}", "{\"a\":--1}", "{\"a\":1e999}",
                "{\"a\":nul}", "{\"a\":TRUE}", "{\"a\":NaN}", "{\"a\":9223372036854775808}",
                "{\"a\":\"\t\"}", "{\"a\":\"\\q\"}", "{\"a\":\"\\u12\"}", "{\"a\":\"\\u0000\"}",
                "{\"a\":\"\\ud800\"}", "{\"a\":\"\\udc00\"}", "{\"a\":\"\\ud800\\u0041\"}",
                "{\"a\":\"\\ud800\\n\"}", "{\"a\":\"\\ud800'\"}", "{\"a\":\"\\ud800\\'\"}",
                "{\"a\":\"\xff\"}", "{\"a\":\"\xc3\"}", "{\"a\":\"\xed\xa0\x80\"}",
                "{/* no */}", "{\"execute\":\"stop\" // no\n", "{\"a\":1,\"a\":2}",
                "{\"a\":{\"b\":1,\"b\":2}}", "{\"a\":\"\n",
        };
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
                g_autoptr(JsonObject) reply = qmp_ask(client, lines[i]);

                if (!json_object_has_member(reply, "error"))
                        g_error("accepted: %s", lines[i]);
                ask_expect(client, "{\"execute\": \"query-name\", \"id\": 1}",
                           "{\"return\": {}, \"id\": 1}");
        }
        expect_log(bed, "");
        client_free(client);
}

/* "{"id": [[[...]]], ...}" with so many levels in all. */
static char *deep_line(unsigned depth)
{
        g_autofree char *opening = g_strnfill(depth - 1, '[');
        g_autofree char *closing = g_strnfill(depth - 1, ']');

        return g_strdup_printf("{\"execute\": \"query-name\", \"id\": %s%s}", opening, closing);
}

/* A line of so many bytes, newline not counted. */
static char *long_line(gsize length_bytes)
{
        const char *front = "{\"execute\": \"query-name\", \"id\": \"";
        g_autofree char *fill = g_strnfill(length_bytes - strlen(front) - 2, 'x');

        return g_strdup_printf("%s%s\"}", front, fill);
}

static void test_limits(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);
        g_autofree char *deep = deep_line(64), *too_deep = deep_line(65);
        g_autofree char *long_one = long_line(65536), *too_long = long_line(65537);
        g_autoptr(JsonObject) deep_reply = qmp_ask(client, deep);
        g_autoptr(JsonObject) long_reply = qmp_ask(client, long_one);

        (void) unused;
        g_assert_true(json_object_has_member(deep_reply, "return"));
        expect_error(client, too_deep, "JSON nesting depth limit exceeded");
        g_assert_cmpuint(strlen(json_object_get_string_member(long_reply, "id")), >, 65000);
        expect_error(client, too_long, "JSON token size limit exceeded");
        ask_expect(client, "{\"execute\": \"query-name\"}", "{\"return\": {}}");
        client_free(client);
}

static void test_order(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        fake_hold(bed->machine, false, true);
        send_text(client, "{\"execute\":\"stop\",\"id\":1}{\"execute\":\"cont\",\"id\":2}"
                  "{\"execute\":\"query-status\",\"id\":3}{\"execute\":\"nix\",\"id\":4}");
        bed_wait_held(bed, 1);
        g_assert_cmpuint(client->input->len, ==, 0);
        fake_release(bed->machine);
        expect_reply(client, "{\"return\": {}, \"id\": 1}");
        expect_reply(client, "{\"return\": {}, \"id\": 2}");
        expect_reply(client, "{\"return\": {\"status\": \"running\", \"running\": true}, "
                     "\"id\": 3}");
        expect_reply(client, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": "
                     "\"The command nix has not been found\"}, \"id\": 4}");
        expect_log(bed, "stop\ncont\n");
        client_free(client);
}

/* ---- Events ------------------------------------------------------------------------- */

static void expect_reason(struct client *client, const char *event, bool guest,
                          const char *reason)
{
        g_autoptr(JsonObject) data = qmp_event(client, event);

        g_assert_cmpint(json_object_get_boolean_member(data, "guest"), ==, guest);
        g_assert_cmpstr(json_object_get_string_member(data, "reason"), ==, reason);
}

static void test_events(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);
        g_autoptr(JsonObject) first = NULL;
        JsonObject *timestamp;
        gint64 now_sec = g_get_real_time() / G_USEC_PER_SEC;

        (void) unused;
        monitors_run_state(bed->monitors, RUN_STATE_RUNNING);
        first = qmp_read(client);
        g_assert_cmpstr(json_object_get_string_member(first, "event"), ==, "RESUME");
        timestamp = json_object_get_object_member(first, "timestamp");
        g_assert_cmpint(json_object_get_int_member(timestamp, "seconds"), >=, now_sec);
        g_assert_cmpint(json_object_get_int_member(timestamp, "microseconds"), <, 1000000);
        /* Only what changes for the guest is told. */
        monitors_run_state(bed->monitors, RUN_STATE_RUNNING);
        monitors_run_state(bed->monitors, RUN_STATE_SAVE_VM);
        monitors_run_state(bed->monitors, RUN_STATE_PAUSED);
        monitors_reset(bed->monitors, false);
        g_assert_null(qmp_event(client, "STOP"));
        expect_reason(client, "RESET", false, "host-qmp-system-reset");
        monitors_reset(bed->monitors, true);
        expect_reason(client, "RESET", true, "guest-reset");
        monitors_shutdown(bed->monitors, true);
        expect_reason(client, "SHUTDOWN", true, "guest-shutdown");
        send_text(client, "{\"execute\": \"quit\"}");
        expect_reason(client, "SHUTDOWN", false, "host-qmp-quit");
        expect_line(client, "{\"return\": {}}");
        g_assert_cmpuint(bed->quit_count, ==, 1);
        client_free(client);
}

/* Nobody reads what happens: it does not pile up. */
static void test_slow_reader(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        for (unsigned i = 0; i < 20000; i++) {
                monitors_reset(bed->monitors, true);
                g_main_context_iteration(NULL, FALSE);
        }
        client_wait_end(client);
        g_assert_cmpuint(client->input->len, <, 2 << 20);
        client_free(client);
        client = qmp_client_new(bed->qmp_path);
        ask_expect(client, "{\"execute\": \"stop\"}", "{\"return\": {}}");
        client_free(client);
}

/* Asking without reading stops the asker, not us. */
static void test_asks_without_reading(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);
        const char *line = "{\"execute\": \"query-commands\"}\n";
        unsigned asked = 0, answered = 0;

        (void) unused;
        for (unsigned i = 0; i < 20000; i++) {
                if (write(client->fd, line, strlen(line)) < 0)
                        break;
                asked++;
                g_main_context_iteration(NULL, FALSE);
        }
        g_assert_cmpuint(asked, <, 20000);
        for (; answered < asked; answered++)
                g_free(client_until(client, "}]}\r\n"));
        ask_expect(client, "{\"execute\": \"query-name\"}", "{\"return\": {}}");
        client_free(client);
}

/* ---- Jobs --------------------------------------------------------------------------- */

static void test_job(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, SAVE("j", "t"));
        expect_status(client, "j", "created");
        expect_status(client, "j", "running");
        expect_line(client, "{\"return\": {}}");
        bed_wait_held(bed, 1);
        ask_expect(client, "{\"execute\": \"query-jobs\"}", "{\"return\": [{\"id\": \"j\", "
                   "\"type\": \"snapshot-save\", \"status\": \"running\", "
                   "\"current-progress\": 262144000, \"total-progress\": 1048576000}]}");
        expect_error(client, JOB("dismiss", "j"),
                     "Job 'j' in state 'running' cannot accept command verb 'dismiss'");
        expect_error(client, SAVE("j", "u"), "Job ID 'j' already in use");
        fake_release(bed->machine);
        expect_status(client, "j", "waiting");
        expect_status(client, "j", "pending");
        expect_status(client, "j", "concluded");
        ask_expect(client, "{\"execute\": \"query-jobs\"}", "{\"return\": [{\"id\": \"j\", "
                   "\"type\": \"snapshot-save\", \"status\": \"concluded\", "
                   "\"current-progress\": 1048576000, \"total-progress\": 1048576000}]}");
        send_text(client, JOB("dismiss", "j"));
        expect_status(client, "j", "null");
        expect_line(client, "{\"return\": {}}");
        ask_expect(client, "{\"execute\": \"query-jobs\"}", "{\"return\": []}");
        expect_log(bed, "savevm t vmstate=virtio0 disks=virtio0\n");
        client_free(client);
}

static void test_job_fails(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        bed->machine->job_result = -ENOSPC;
        bed->machine->job_text = "Could not save the VM state: No space left on device";
        send_text(client, SAVE("j", "t"));
        expect_status(client, "j", "created");
        expect_status(client, "j", "running");
        expect_status(client, "j", "aborting");
        expect_status(client, "j", "concluded");
        ask_expect(client, "{\"execute\": \"query-jobs\"}", "{\"return\": [{\"id\": \"j\", "
                   "\"type\": \"snapshot-save\", \"status\": \"concluded\", "
                   "\"current-progress\": 1048576000, \"total-progress\": 1048576000, "
                   "\"error\": \"Could not save the VM state: No space left on device\"}]}");
        client_free(client);
}

/* One after another; one that waits for its turn is cancelled at once. */
static void test_jobs_queue(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, SAVE("a", "t"));
        expect_status(client, "a", "created");
        expect_status(client, "a", "running");
        bed_wait_held(bed, 1);
        send_text(client, SAVE("b", "u") SAVE("c", "v"));
        expect_status(client, "b", "created");
        expect_status(client, "c", "created");
        send_text(client, JOB("cancel", "b"));
        expect_status(client, "b", "aborting");
        expect_status(client, "b", "concluded");
        g_assert_cmpuint(fake_held(bed->machine), ==, 1);
        send_text(client, JOB("cancel", "a"));
        expect_status(client, "a", "aborting");
        expect_status(client, "a", "concluded");
        expect_status(client, "c", "running");
        fake_release(bed->machine);
        expect_status(client, "c", "waiting");
        expect_status(client, "c", "pending");
        expect_status(client, "c", "concluded");
        expect_error(client, JOB("cancel", "c"),
                     "Job 'c' in state 'concluded' cannot accept command verb 'cancel'");
        expect_log(bed, "savevm t vmstate=virtio0 disks=virtio0\n"
                   "savevm v vmstate=virtio0 disks=virtio0\n");
        client_free(client);
}

/* Beside a snapshot operation, not behind it. */
static void test_backup(struct bed *bed, gconstpointer unused)
{
        static const char backup[] = "{\"execute\": \"snapshot-backup\", \"arguments\": "
                "{\"job-id\": \"b\", \"device\": \"virtio0\", \"tag\": \"t\", "
                "\"target\": \"/tmp/b\", \"format\": \"raw\"}}";
        struct client *client = qmp_client_new(bed->qmp_path);
        struct client *person = hmp_client_new(bed);
        g_autofree char *jobs = NULL;

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, SAVE("a", "u"));
        expect_status(client, "a", "created");
        expect_status(client, "a", "running");
        send_text(client, backup);
        expect_status(client, "b", "created");
        expect_status(client, "b", "running");
        bed_wait_held(bed, 2);
        jobs = hmp_ask(person, "info jobs");
        g_assert_cmpstr(jobs, ==, "Running: snapshot-save, 25.0% of 0.977 GiB\r\n"
                        "Running: snapshot-backup, 25.0% of 0.977 GiB\r\n");
        send_text(client, JOB("cancel", "b"));
        expect_status(client, "b", "aborting");
        expect_status(client, "b", "concluded");
        fake_release(bed->machine);
        expect_status(client, "a", "waiting");
        expect_status(client, "a", "pending");
        expect_status(client, "a", "concluded");
        client_free(person);
        client_free(client);
}

/* The job lives on without who asked for it, and is there for the next. */
static void test_hang_up_in_job(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, SAVE("j", "t"));
        bed_wait_held(bed, 1);
        client_free(client);
        client = qmp_client_new(bed->qmp_path);
        fake_release(bed->machine);
        expect_status(client, "j", "waiting");
        expect_status(client, "j", "pending");
        expect_status(client, "j", "concluded");
        ask_expect(client, JOB("dismiss", "j"), "{\"return\": {}}");
        client_free(client);
}

/* A call that waits outlives its session, whatever kind of call it is. */
static void test_hang_up_in_call(struct bed *bed, gconstpointer unused)
{
        static const char *const lines[] = {
                "{\"execute\": \"stop\"}",
                "{\"execute\": \"human-monitor-command\", \"arguments\": "
                "{\"command-line\": \"savevm a\"}}",
                "{\"execute\": \"human-monitor-command\", \"arguments\": "
                "{\"command-line\": \"cont\"}}",
        };

        (void) unused;
        for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
                struct client *client = qmp_client_new(bed->qmp_path);

                fake_hold(bed->machine, true, true);
                send_text(client, lines[i]);
                bed_wait_held(bed, 1);
                client_free(client);
                g_main_context_iteration(NULL, FALSE);
                fake_release(bed->machine);
                bed_wait_held(bed, 0);
        }
        expect_log(bed, "stop\nsavevm a replace vmstate=any disks=all\ncont\n");
}

static void test_ended_in_calls(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, SAVE("a", "t") SAVE("b", "u")
                  "{\"execute\": \"human-monitor-command\", \"arguments\": "
                  "{\"command-line\": \"savevm a\"}}");
        bed_wait_held(bed, 1);
        bed_end_monitors(bed);
        expect_status(client, "a", "created");
        expect_status(client, "a", "running");
        expect_status(client, "b", "created");
        expect_status(client, "b", "aborting");
        expect_status(client, "b", "concluded");
        expect_status(client, "a", "aborting");
        expect_status(client, "a", "concluded");
        client_wait_end(client);
        client_free(client);
}

static void test_job_limit(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        for (unsigned i = 0; i < 1001; i++) {
                g_autofree char *line = g_strdup_printf(
                        "{\"execute\": \"snapshot-delete\", \"arguments\": {\"job-id\": \"j%u\", "
                        "\"tag\": \"t\", \"devices\": [\"virtio0\"]}}", i);

                if (i < 1000)
                        ask_expect(client, line, "{\"return\": {}}");
                else
                        expect_error(client, line, "1000 jobs are there already: dismiss some");
        }
        client_free(client);
}

/* Deleting what is not there is done, as with QEMU. */
static void test_delete_nothing(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);

        (void) unused;
        bed->machine->job_result = -ENOENT;
        bed->machine->job_text = "Snapshot 't' does not exist in one or more devices";
        send_text(client, "{\"execute\": \"snapshot-delete\", \"arguments\": {\"job-id\": \"j\", "
                  "\"tag\": \"t\", \"devices\": [\"virtio0\", \"virtio1\"]}}");
        expect_status(client, "j", "created");
        expect_status(client, "j", "running");
        expect_status(client, "j", "waiting");
        expect_log(bed, "delvm t vmstate=any disks=virtio0,virtio1\n");
        client_free(client);
}

/* ---- Disks -------------------------------------------------------------------------- */

static void test_internal_snapshots(struct bed *bed, gconstpointer unused)
{
        struct client *client = qmp_client_new(bed->qmp_path);
        g_autofree char *long_name = g_strnfill(256, 'n');
        g_autofree char *long_line = g_strdup_printf(
                "{\"execute\": \"blockdev-snapshot-internal-sync\", \"arguments\": "
                "{\"device\": \"virtio0\", \"name\": \"%s\"}}", long_name);
        g_autoptr(JsonObject) reply = NULL;
        JsonObject *info;

        (void) unused;
        ask_expect(client, "{\"execute\": \"blockdev-snapshot-internal-sync\", \"arguments\": "
                   "{\"device\": \"virtio1\", \"name\": \"n\"}}", "{\"return\": {}}");
        expect_error(client, long_line, "The name is longer than 255 bytes");
        reply = qmp_ask(client, "{\"execute\": \"blockdev-snapshot-delete-internal-sync\", "
                        "\"arguments\": {\"device\": \"virtio1\", \"id\": \"1\"}}");
        info = json_object_get_object_member(reply, "return");
        g_assert_cmpstr(json_object_get_string_member(info, "name"), ==, "n");
        g_assert_cmpint(json_object_get_int_member(info, "vm-state-size"), ==, 0);
        g_assert_cmpint(json_object_get_int_member(info, "vm-clock-sec"), ==, 1);
        g_assert_cmpint(json_object_get_int_member(info, "vm-clock-nsec"), ==, 500000000);
        client_free(client);
}

int main(int argc, char **argv)
{
        static const struct {
                const char *path;
                void (*run)(struct bed *bed, gconstpointer unused);
        } tests[] = {
                { "/qmp/negotiation", test_negotiation },
                { "/qmp/id", test_id },
                { "/qmp/framing", test_framing },
                { "/qmp/syntax-errors", test_syntax_errors },
                { "/qmp/limits", test_limits },
                { "/qmp/order", test_order },
                { "/qmp/events", test_events },
                { "/qmp/slow-reader", test_slow_reader },
                { "/qmp/asks-without-reading", test_asks_without_reading },
                { "/qmp/job", test_job },
                { "/qmp/job-fails", test_job_fails },
                { "/qmp/jobs-queue", test_jobs_queue },
                { "/qmp/backup", test_backup },
                { "/qmp/hang-up-in-job", test_hang_up_in_job },
                { "/qmp/hang-up-in-call", test_hang_up_in_call },
                { "/qmp/ended-in-calls", test_ended_in_calls },
                { "/qmp/job-limit", test_job_limit },
                { "/qmp/delete-nothing", test_delete_nothing },
                { "/qmp/internal-snapshots", test_internal_snapshots },
        };

        g_test_init(&argc, &argv, NULL);
        for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++)
                g_test_add(tests[i].path, struct bed, NULL, bed_set_up, tests[i].run,
                           bed_tear_down);
        return g_test_run();
}
