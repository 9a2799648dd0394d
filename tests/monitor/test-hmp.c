/*
 * test-hmp.c - a person at the monitor, over real sockets and a terminal.
 *
 * That the texts are QEMU's is test-peer's to say; here they are only what they are
 * because of the machine.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <pty.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "monitor/bed.h"

static void ask_expect(struct client *client, const char *line, const char *expected)
{
        g_autofree char *answer = hmp_ask(client, line);

        g_assert_cmpstr(answer, ==, expected);
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

static void expect_until_prompt(struct client *client, const char *expected)
{
        g_autofree char *text = client_until(client, "(qemu) ");

        g_assert_cmpstr(text, ==, expected);
}

/* ---- Commands ----------------------------------------------------------------------- */

static void test_greeting(struct bed *bed, gconstpointer unused)
{
        struct client *client = client_new(bed->hmp_path);
        struct stat st;

        (void) unused;
        expect_until_prompt(client, "hv 1.2.3 monitor - type 'help' for more information\r\n");
        g_assert_cmpint(stat(bed->hmp_path, &st), ==, 0);
        g_assert_cmpuint(st.st_mode & 0777, ==, 0600);
        client_free(client);
}

static void test_run_states(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        ask_expect(client, "info status", "VM status: paused (prelaunch)\r\n");
        ask_expect(client, "cont", "");
        ask_expect(client, "info status", "VM status: running\r\n");
        ask_expect(client, "s", "");
        ask_expect(client, "info status", "VM status: paused\r\n");
        ask_expect(client, "c", "");
        ask_expect(client, "system_reset", "");
        expect_log(bed, "cont\nstop\ncont\nreset\n");
        bed->machine->machine_result = -EPERM;
        bed->machine->machine_text = "Resetting the Virtual Machine is required";
        ask_expect(client, "cont", "Error: Resetting the Virtual Machine is required\r\n");
        client_free(client);
}

static void test_jobs(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        ask_expect(client, "savevm", "");
        ask_expect(client, "savevm  before upgrade", "savevm: extraneous characters at the end "
                   "of line\r\nTry \"help savevm\" for more information\r\n");
        ask_expect(client, "savevm \"before \\\"the\\\" upgrade\"", "");
        ask_expect(client, "loadvm a", "");
        ask_expect(client, "delvm a", "");
        expect_log(bed, "savevm (none) replace vmstate=any disks=all\n"
                   "savevm before \"the\" upgrade replace vmstate=any disks=all\n"
                   "loadvm a replace vmstate=any disks=all\n"
                   "delvm a replace vmstate=any disks=all\n");
        bed->machine->job_result = -ENOENT;
        bed->machine->job_text = "Snapshot 'a' does not exist in one or more devices";
        ask_expect(client, "loadvm a",
                   "Error: Snapshot 'a' does not exist in one or more devices\r\n");
        ask_expect(client, "delvm a",
                   "Error: Snapshot 'a' does not exist in one or more devices\r\n");
        client_free(client);
}

static void test_no_list(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        g_clear_pointer(&bed->machine->rows, g_ptr_array_unref);
        ask_expect(client, "info snapshots", "Error: The list cannot be read\r\n");
        client_free(client);
}

/* Names come from images, and a terminal obeys escape sequences, in two encodings. */
static void test_names_are_harmless(struct bed *bed, gconstpointer unused)
{
        const struct hvb_snapshot_info info = {
                .struct_bytes = sizeof(info), .id_str = "1", .icount = UINT64_MAX,
                .name = "a\x1b[2J\nb\xc2\x9b" "2Jc\xc3\xa9\x7f",
        };
        struct client *client = hmp_client_new(bed);
        g_autofree char *answer = NULL;

        (void) unused;
        fake_add_row(bed->machine, &info, NULL);
        answer = hmp_ask(client, "info snapshots");
        g_assert_nonnull(strstr(answer, "a?[2J\r\nb?2Jc\xc3\xa9? "));
        client_free(client);
}

static void test_quit(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        ask_expect(client, "q", "");
        g_assert_cmpuint(bed->quit_count, ==, 1);
        ask_expect(client, "quit", "");
        g_assert_cmpuint(bed->quit_count, ==, 2);
        client_free(client);
}

static void test_message(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        send_text(client, "info sta");
        g_free(client_until(client, "info sta"));
        monitors_message(bed->monitors, "Disk 'virtio0' is full");
        expect_until_prompt(client, "\r\nDisk 'virtio0' is full\r\n");
        g_free(client_until(client, "info sta"));
        send_text(client, "tus\n");
        expect_until_prompt(client, "tus\r\nVM status: paused (prelaunch)\r\n");
        client_free(client);
}

/* ---- The line ----------------------------------------------------------------------- */

static void test_editing(struct bed *bed, gconstpointer unused)
{
        static const struct {
                const char *keys, *echo;
        } lines[] = {
                { "stopx\x7f\n", "stopx\b \b\r\n" },
                { "stopx\b\r", "stopx\b \b\r\n" },
                { "st\xc3\xa9\x7fop\r\n", "st\xc3\xa9\b \bop\r\n" },
                { "nix\025stop\n", "nix\b \b\b \b\b \bstop\r\n" },
                { "\x7f\x7fstop\n", "stop\r\n" },
                { "st\x1b[D\x1b[1;5C\x1bOPop\n", "stop\r\n" },
                { "st\x1b" "xop\n", "stop\r\n" },
                { "s\1t\2\4\top\n", "stop\r\n" },
        };
        struct client *client = hmp_client_new(bed);

        (void) unused;
        for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
                send_text(client, lines[i].keys);
                expect_until_prompt(client, lines[i].echo);
                expect_log(bed, "stop\n");
        }
        send_text(client, "nix\003stop\n");
        expect_until_prompt(client, "nix^C\r\n");
        expect_until_prompt(client, "stop\r\n");
        expect_log(bed, "stop\n");
        client_send(client, "st\0op\n", 6);
        expect_until_prompt(client, "stop\r\n");
        expect_log(bed, "stop\n");
        client_free(client);
}

/* What does not fit is not executed in part. */
static void test_long_lines(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);
        g_autofree char *tag = g_strnfill(4095 - strlen("loadvm "), 'x');
        g_autofree char *fits = g_strdup_printf("loadvm %s", tag);
        g_autofree char *beyond = g_strdup_printf("loadvm %sy\n", tag);
        g_autofree char *log = NULL, *expected = NULL, *answer = NULL;

        (void) unused;
        ask_expect(client, fits, "");
        log = fake_take_log(bed->machine);
        expected = g_strdup_printf("loadvm %s replace vmstate=any disks=all\n", tag);
        g_assert_cmpstr(log, ==, expected);
        send_text(client, beyond);
        answer = client_until(client, "(qemu) ");
        g_assert_true(g_str_has_suffix(answer, "x\r\nError: The line is too long\r\n"));
        expect_log(bed, "");
        ask_expect(client, "stop", "");
        client_free(client);
}

static void test_many_commands_at_once(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        send_text(client, "savevm a\nstop\ncont\nfoo\ndelvm a\n");
        expect_until_prompt(client, "savevm a\r\n");
        expect_until_prompt(client, "stop\r\n");
        expect_until_prompt(client, "cont\r\n");
        expect_until_prompt(client, "foo\r\nunknown command: 'foo'\r\n");
        expect_until_prompt(client, "delvm a\r\n");
        expect_log(bed, "savevm a replace vmstate=any disks=all\nstop\ncont\n"
                   "delvm a replace vmstate=any disks=all\n");
        client_free(client);
}

/* ---- Jobs that take their time ------------------------------------------------------ */

static void test_cancel_by_key(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, "savevm a\n");
        bed_wait_held(bed, 1);
        send_text(client, "typed ahead and dropped\n\003stop\n");
        expect_until_prompt(client, "savevm a\r\nError: Operation canceled\r\n");
        expect_until_prompt(client, "stop\r\n");
        expect_log(bed, "savevm a replace vmstate=any disks=all\nstop\n");
        client_free(client);
}

static void test_cancel_by_another(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed), *other = qmp_client_new(bed->qmp_path);
        g_autofree char *reply = NULL, *again = NULL;

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, "savevm a\n");
        bed_wait_held(bed, 1);
        reply = qmp_ask_text(other, "{\"execute\": \"human-monitor-command\", "
                             "\"arguments\": {\"command-line\": \"savevm -c\"}}");
        g_assert_cmpstr(reply, ==, "{\"return\": \"\"}");
        expect_until_prompt(client, "savevm a\r\nError: Operation canceled\r\n");
        again = qmp_ask_text(other, "{\"execute\": \"human-monitor-command\", "
                             "\"arguments\": {\"command-line\": \"savevm -c\"}}");
        g_assert_cmpstr(again, ==, "{\"return\": \"Error: No snapshot is being saved\\r\\n\"}");
        client_free(client);
        client_free(other);
}

/* A stop does not stand behind a savevm, and other monitors are answered meanwhile. */
static void test_stop_during_job(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed), *other = qmp_client_new(bed->qmp_path);
        g_autofree char *reply = NULL;

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, "savevm a\n");
        bed_wait_held(bed, 1);
        reply = qmp_ask_text(other, "{\"execute\": \"stop\"}");
        g_assert_cmpstr(reply, ==, "{\"return\": {}}");
        g_assert_cmpuint(fake_held(bed->machine), ==, 1);
        fake_release(bed->machine);
        expect_until_prompt(client, "savevm a\r\n");
        client_free(client);
        client_free(other);
}

/* What "info jobs" says without the time it took, which nobody knows beforehand. */
static void expect_jobs(struct client *client, const char *expected)
{
        g_autofree char *answer = hmp_ask(client, "info jobs");
        g_autoptr(GRegex) time = g_regex_new("total time: [0-9]+\\.[0-9] ms", 0, 0, NULL);
        g_autofree char *text = g_regex_replace_literal(time, answer, -1, 0, "total time: T ms", 0,
                                                        NULL);

        g_assert_cmpstr(text, ==, expected);
}

static void test_info_jobs(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        expect_jobs(client, "No snapshot operation has run\r\n");
        ask_expect(client, "savevm a", "");
        expect_jobs(client, "Last: snapshot-save, completed\r\ntotal time: T ms\r\n"
                    "downtime: 3.5 ms\r\nram: 0.977 GiB, 0 B of it written\r\n");
        bed->machine->job_result = -EIO;
        bed->machine->job_text = "broken";
        ask_expect(client, "delvm a", "Error: broken\r\n");
        expect_jobs(client, "Last: snapshot-delete, Input/output error\r\n"
                    "total time: T ms\r\n");
        client_free(client);
}

static void test_info_jobs_running(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed), *other = qmp_client_new(bed->qmp_path);
        g_autofree char *reply = NULL;

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, "loadvm a\n");
        bed_wait_held(bed, 1);
        reply = qmp_ask_text(other, "{\"execute\": \"human-monitor-command\", "
                             "\"arguments\": {\"command-line\": \"info jobs\"}}");
        g_assert_cmpstr(reply, ==, "{\"return\": \"Running: snapshot-load, 25.0% of 0.977 GiB"
                        "\\r\\n\"}");
        fake_release(bed->machine);
        expect_until_prompt(client, "loadvm a\r\n");
        client_free(client);
        client_free(other);
}

static void test_backup(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        ask_expect(client, "snapshot_backup virtio0 a",
                   "Error: device, tag and target are needed\r\n");
        ask_expect(client, "snapshot_backup -c", "Error: No snapshot is being backed up\r\n");
        ask_expect(client, "snapshot_backup -c virtio0", "Error: -c takes no words\r\n");
        ask_expect(client, "snapshot_backup virtio0 a /tmp/b", "");
        ask_expect(client, "snapshot_backup virtio0 \"a b\" /tmp/b raw", "");
        expect_log(bed, "backup of virtio0 to /tmp/b (none): a vmstate=any disks=all\n"
                   "backup of virtio0 to /tmp/b (raw): a b vmstate=any disks=all\n");
        expect_jobs(client, "Last: snapshot-backup, completed\r\ntotal time: T ms\r\n"
                    "disk: 0.977 GiB, 0 B of it written\r\n");
        client_free(client);
}

static bool is_log_complete(void *opaque)
{
        struct bed *bed = opaque;
        bool complete;

        pthread_mutex_lock(&bed->machine->lock);
        complete = strstr(bed->machine->log->str, "stop\n") != NULL;
        pthread_mutex_unlock(&bed->machine->lock);
        return complete;
}

/* The job goes on, and so does what was sent behind it; then the next client is served. */
static void test_hang_up_in_job(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, "savevm a\nstop\n");
        bed_wait_held(bed, 1);
        client_free(client);
        fake_release(bed->machine);
        bed_wait(is_log_complete, bed);
        expect_log(bed, "savevm a replace vmstate=any disks=all\nstop\n");
        client = hmp_client_new(bed);
        ask_expect(client, "info status", "VM status: paused\r\n");
        client_free(client);
}

/* "echo savevm a | nc -N -U": the answer comes after the end of input. */
static void test_half_closed(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, "savevm a\ninfo status\n");
        g_assert_cmpint(shutdown(client->fd, SHUT_WR), ==, 0);
        bed_wait_held(bed, 1);
        fake_release(bed->machine);
        expect_until_prompt(client, "savevm a\r\n");
        expect_until_prompt(client, "info status\r\nVM status: paused (prelaunch)\r\n");
        client_wait_end(client);
        client_free(client);
}

static void test_one_at_a_time(struct bed *bed, gconstpointer unused)
{
        struct client *first = hmp_client_new(bed), *second = client_new(bed->hmp_path);

        (void) unused;
        send_text(second, "stop\n");
        ask_expect(first, "cont", "");
        ask_expect(first, "info status", "VM status: running\r\n");
        expect_log(bed, "cont\n");
        g_assert_cmpuint(second->input->len, ==, 0);
        client_free(first);
        g_free(client_until(second, "(qemu) "));
        expect_until_prompt(second, "stop\r\n");
        expect_log(bed, "stop\n");
        client_free(second);
}

/* Who does not read is not read from, and what it causes does not grow without end. */
static void test_slow_reader(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);
        g_autofree char *text = g_strnfill(10000, 'm');

        (void) unused;
        for (unsigned i = 0; i < 200; i++) {
                monitors_message(bed->monitors, text);
                g_main_context_iteration(NULL, FALSE);
        }
        client_wait_end(client);
        g_assert_cmpuint(client->input->len, <, 2 << 20);
        client_free(client);
        client = hmp_client_new(bed);
        ask_expect(client, "stop", "");
        client_free(client);
}

static void test_ended_with_job(struct bed *bed, gconstpointer unused)
{
        struct client *client = hmp_client_new(bed);

        (void) unused;
        fake_hold(bed->machine, true, false);
        send_text(client, "savevm a\n");
        bed_wait_held(bed, 1);
        bed_end_monitors(bed);
        g_assert_cmpuint(fake_held(bed->machine), ==, 0);
        expect_until_prompt(client, "savevm a\r\nError: Operation canceled\r\n");
        client_wait_end(client);
        g_assert_false(g_file_test(bed->hmp_path, G_FILE_TEST_EXISTS));
        client_free(client);
}

/* ---- A terminal --------------------------------------------------------------------- */

static void test_terminal(struct bed *bed, gconstpointer unused)
{
        struct hvb_error err = ERROR_INIT;
        struct termios before, during, after;
        struct client *client;
        int master_fd, slave_fd;
        g_autofree char *rest = NULL;

        (void) unused;
        g_assert_cmpint(openpty(&master_fd, &slave_fd, NULL, NULL, NULL), ==, 0);
        g_assert_cmpint(tcgetattr(slave_fd, &before), ==, 0);
        g_assert_cmpint(monitors_add_hmp(bed->monitors, slave_fd, slave_fd, false, &err), ==, 0);
        g_assert_cmpint(tcgetattr(slave_fd, &during), ==, 0);
        g_assert_cmpuint(during.c_lflag & (ICANON | ECHO), ==, 0);
        g_assert_cmpuint(during.c_lflag & ISIG, ==, ISIG);
        client = client_new_fd(master_fd);
        g_free(client_until(client, "(qemu) "));
        fake_hold(bed->machine, true, false);
        send_text(client, "savevm a\r");
        g_free(client_until(client, "\r25.0% of 0.977 GiB, "));
        fake_release(bed->machine);
        rest = client_until(client, "(qemu) ");
        g_assert_true(g_str_has_suffix(rest, "/s), guest stopped for 3.5 ms\r\r\n"));
        g_assert_nonnull(strstr(rest, "\r\x1b[K0.977 GiB in "));
        bed_end_monitors(bed);
        g_assert_cmpint(tcgetattr(slave_fd, &after), ==, 0);
        g_assert_cmpuint(after.c_lflag, ==, before.c_lflag);
        g_assert_cmpuint(after.c_iflag, ==, before.c_iflag);
        close(slave_fd);
        client_free(client);
}

/* No progress for a script, whose input ends while hv goes on. */
static void test_pipe(struct bed *bed, gconstpointer unused)
{
        struct hvb_error err = ERROR_INIT;
        int in_fds[2], out_fds[2];
        struct client *client;

        (void) unused;
        g_assert_cmpint(pipe(in_fds), ==, 0);
        g_assert_cmpint(pipe(out_fds), ==, 0);
        g_assert_cmpint(write(in_fds[1], "savevm a\ninfo status\n", 21), ==, 21);
        close(in_fds[1]);
        g_assert_cmpint(monitors_add_hmp(bed->monitors, in_fds[0], out_fds[1], false, &err), ==,
                        0);
        client = client_new_fd(out_fds[0]);
        g_free(client_until(client, "(qemu) "));
        expect_until_prompt(client, "savevm a\r\n");
        expect_until_prompt(client, "info status\r\nVM status: paused (prelaunch)\r\n");
        bed_end_monitors(bed);
        close(in_fds[0]);
        close(out_fds[1]);
        client_free(client);
}

/* ---- Sockets ------------------------------------------------------------------------ */

static void test_socket_in_use(struct bed *bed, gconstpointer unused)
{
        g_autofree char *dead = g_build_filename(bed->machine->directory, "dead", NULL);
        g_autofree char *nowhere = g_build_filename(bed->machine->directory, "nix", "hmp", NULL);
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct hvb_error err = ERROR_INIT;
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        (void) unused;
        g_strlcpy(address.sun_path, dead, sizeof(address.sun_path));
        g_assert_cmpint(bind(fd, (struct sockaddr *) &address, sizeof(address)), ==, 0);
        close(fd);
        g_assert_cmpint(monitors_add_hmp_socket(bed->monitors, dead, &err), ==, 0);
        g_assert_cmpint(monitors_add_hmp_socket(bed->monitors, dead, &err), ==, -EADDRINUSE);
        g_assert_nonnull(strstr(err.text, dead));
        g_assert_cmpint(monitors_add_hmp_socket(bed->monitors, bed->qmp_path, &err), ==,
                        -EADDRINUSE);
        g_assert_cmpint(monitors_add_hmp_socket(bed->monitors, nowhere, &err), ==, -ENOENT);
        /* A disk's image given by mistake is not removed. */
        g_assert_cmpint(monitors_add_hmp_socket(bed->monitors, bed->machine->disks[0].path, &err),
                        ==, -EADDRINUSE);
        g_assert_true(g_file_test(bed->machine->disks[0].path, G_FILE_TEST_IS_REGULAR));
}

int main(int argc, char **argv)
{
        static const struct {
                const char *path;
                void (*run)(struct bed *bed, gconstpointer unused);
        } tests[] = {
                { "/hmp/greeting", test_greeting },
                { "/hmp/run-states", test_run_states },
                { "/hmp/jobs", test_jobs },
                { "/hmp/no-list", test_no_list },
                { "/hmp/names-are-harmless", test_names_are_harmless },
                { "/hmp/quit", test_quit },
                { "/hmp/message", test_message },
                { "/hmp/editing", test_editing },
                { "/hmp/long-lines", test_long_lines },
                { "/hmp/many-commands-at-once", test_many_commands_at_once },
                { "/hmp/cancel-by-key", test_cancel_by_key },
                { "/hmp/cancel-by-another", test_cancel_by_another },
                { "/hmp/info-jobs", test_info_jobs },
                { "/hmp/info-jobs-running", test_info_jobs_running },
                { "/hmp/backup", test_backup },
                { "/hmp/stop-during-job", test_stop_during_job },
                { "/hmp/hang-up-in-job", test_hang_up_in_job },
                { "/hmp/half-closed", test_half_closed },
                { "/hmp/one-at-a-time", test_one_at_a_time },
                { "/hmp/slow-reader", test_slow_reader },
                { "/hmp/ended-with-job", test_ended_with_job },
                { "/hmp/terminal", test_terminal },
                { "/hmp/pipe", test_pipe },
                { "/hmp/socket-in-use", test_socket_in_use },
        };

        g_test_init(&argc, &argv, NULL);
        for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++)
                g_test_add(tests[i].path, struct bed, NULL, bed_set_up, tests[i].run,
                           bed_tear_down);
        return g_test_run();
}
