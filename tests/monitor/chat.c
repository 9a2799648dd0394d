/*
 * chat.c - any bytes at all to a monitor, and what must hold of what comes back.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/chat.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/session.h"

enum { PATIENCE_SEC = 60, OUTPUT_BASE = 64 << 10, OUTPUT_FACTOR = 1024 };
enum { FLAG_QMP = 1, FLAG_UNNEGOTIATED = 2, FLAG_HANGS_UP = 4 };

const char *const chat_hmp_texts[] = {
        "info status\n", "savevm\n", "savevm \"a \\\"b\\\"\\n\"\n", "savevm -c\n", "loadvm a\n",
        "delvm a\n", "info snapshots\ninfo block\n", "info block virtio0\n", "help\n? info\n",
        "help info block\n", "stop\ncont\nc\ns\nsystem_reset\n", "quit\nq\n", "info nix\nnix\n",
        "savevm a\x7f\x7f\b b\025stop\r\n", "\x1b[A\x1b[1;5Dstop\003\n", "info version\r", NULL,
};

#define CALL(name, arguments) "{\"execute\": \"" name "\", \"arguments\": {" arguments "}}\n"

const char *const chat_qmp_texts[] = {
        "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": []}}\n",
        "{\"execute\": \"query-status\", \"id\": [1, 2.5, \"\\u00e9\\ud83d\\ude00\", null]}\n",
        "{'execute': 'stop', 'id': 'a\"b\\'c'}{\"execute\": \"cont\"}\n",
        CALL("query-block", ""), CALL("query-named-block-nodes", "\"flat\": true"),
        CALL("query-commands", ""), CALL("query-version", ""), CALL("system_reset", ""),
        CALL("human-monitor-command", "\"command-line\": \"info snapshots\""),
        CALL("human-monitor-command", "\"command-line\": \"savevm a\", \"cpu-index\": 0"),
        CALL("snapshot-save", "\"job-id\": \"j\", \"tag\": \"t\", \"vmstate\": \"virtio0\", "
             "\"devices\": [\"virtio0\"]"),
        CALL("snapshot-load", "\"job-id\": \"k\", \"tag\": \"t\", \"vmstate\": \"virtio0\", "
             "\"devices\": [\"virtio0\"]"),
        CALL("snapshot-delete", "\"job-id\": \"l\", \"tag\": \"t\", \"devices\": [\"virtio0\"]"),
        CALL("query-jobs", ""), CALL("job-cancel", "\"id\": \"j\""),
        CALL("job-dismiss", "\"id\": \"j\""), CALL("quit", ""),
        CALL("blockdev-snapshot-internal-sync", "\"device\": \"virtio0\", \"name\": \"n\""),
        CALL("blockdev-snapshot-delete-internal-sync", "\"device\": \"virtio0\", \"name\": \"n\""),
        NULL,
};

void chat_decode(struct chat *chat, const uint8_t *bytes, size_t count)
{
        uint8_t flags = count > 0 ? bytes[0] : 0, piece = count > 1 ? bytes[1] : 0;

        *chat = (struct chat) {
                .is_qmp = flags & FLAG_QMP,
                .negotiates = !(flags & FLAG_UNNEGOTIATED),
                .hangs_up = flags & FLAG_HANGS_UP,
                .piece_bytes = piece == 0 ? 4096 : piece,
                .input = count > 2 ? bytes + 2 : NULL,
                .input_bytes = count > 2 ? count - 2 : 0,
        };
}

/* ---- Judging ------------------------------------------------------------------------- */

static void judge_qmp_line(const char *line)
{
        static const char *const kinds[] = { "QMP", "event", "return", "error" };
        g_autoptr(GError) error = NULL;
        g_autoptr(JsonNode) node = json_from_string(line, &error);
        unsigned kind_count = 0;

        if (node == NULL || !JSON_NODE_HOLDS_OBJECT(node))
                g_error("no JSON object: %s", line);
        for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
                kind_count += json_object_has_member(json_node_get_object(node), kinds[i]);
        if (kind_count != 1)
                g_error("neither event nor reply: %s", line);
}

static void judge_qmp(const char *output)
{
        g_auto(GStrv) lines = g_strsplit(output, "\r\n", 0);
        unsigned count = g_strv_length(lines);

        g_assert_cmpuint(count, >, 1);
        g_assert_cmpstr(lines[count - 1], ==, "");
        for (unsigned i = 0; i < count - 1; i++)
                judge_qmp_line(lines[i]);
}

static void judge_hmp(const char *output)
{
        g_assert_true(g_str_has_prefix(output, "hv "));
        for (const char *p = output; *p != '\0'; p++)
                if (((uint8_t) *p < ' ' && strchr("\r\n\b", *p) == NULL) || *p == 0x7f)
                        g_error("control character %d after: %.*s", *p, (int) (p - output),
                                output);
}

/* ---- Talking ------------------------------------------------------------------------- */

struct talk {
        struct monitors *monitors;
        struct hmp_session *hmp;
        struct qmp_session *qmp;
        int fd;                         /* ours */
        int their_fd;
        GString *output;
        bool closed;
};

static void session_closed(void *opaque)
{
        struct talk *talk = opaque;

        talk->closed = true;
        if (talk->hmp != NULL)
                hmp_session_free(talk->hmp);
        if (talk->qmp != NULL)
                qmp_session_free(talk->qmp);
        /* As in life: events of what goes on do not reach it any more. */
        g_ptr_array_set_size(talk->monitors->qmps, 0);
        g_ptr_array_set_size(talk->monitors->hmps, 0);
        close(talk->their_fd);
}

static void quit(void *opaque)
{
        (void) opaque;
}

static void begin(struct talk *talk, struct machine *machine, const struct chat *chat)
{
        const struct monitor_host host = { .version = "1.2.3", .quit = quit };
        int fds[2];

        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
                        ==, 0);
        *talk = (struct talk) {
                .monitors = monitors_new(machine, &host), .fd = fds[0], .their_fd = fds[1],
                .output = g_string_new(NULL),
        };
        machine->monitors = talk->monitors;
        if (chat->is_qmp) {
                talk->qmp = qmp_session_new(talk->monitors, fds[1], session_closed, talk);
                g_ptr_array_add(talk->monitors->qmps, talk->qmp);
        } else {
                talk->hmp = hmp_session_new(talk->monitors, fds[1], fds[1], false, session_closed,
                                            talk);
                g_ptr_array_add(talk->monitors->hmps, talk->hmp);
        }
}

static void read_output(struct talk *talk)
{
        char bytes[4096];
        ssize_t count;

        while ((count = read(talk->fd, bytes, sizeof(bytes))) > 0) {
                /* NUL would hide the rest. */
                g_assert_null(memchr(bytes, '\0', (size_t) count));
                g_string_append_len(talk->output, bytes, count);
        }
}

static void send_bytes(struct talk *talk, const void *bytes, size_t count, size_t piece_bytes)
{
        const char *next = bytes;

        while (count > 0 && !talk->closed) {
                ssize_t sent = send(talk->fd, next, MIN(count, piece_bytes), MSG_NOSIGNAL);

                if (sent > 0) {
                        next += sent;
                        count -= (size_t) sent;
                }
                g_main_context_iteration(NULL, FALSE);
                read_output(talk);
        }
}

static gboolean hung(gpointer unused)
{
        (void) unused;
        g_error("the session does not end");
        return G_SOURCE_REMOVE;
}

/* ---- The whole ----------------------------------------------------------------------- */

struct machine *chat_machine_new(unsigned disk_count)
{
        g_assert_cmpuint(disk_count, <=, 1);
        return fake_machine_new(disk_count, NULL);
}

/* A snapshot that goes, any; -ENOENT when there is none. */
static int find_snapshot(struct drive *drive, void *opaque)
{
        struct hvb_snapshot_info *info = opaque;

        info->struct_bytes = sizeof(*info);
        return drive_driver(drive)->snapshot_list(drive_image(drive), 0, info, 1) == 0 ? -ENOENT
                : 0;
}

static void start_delete(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct hvb_snapshot_info *info = opaque;

        drive_driver(drive)->snapshot_delete(drive_image(drive), request, info->id_str, NULL,
                                             NULL);
}

static void clean_machine(struct machine *machine)
{
        struct drive_thread *thread = machine->disks[0].thread;
        struct hvb_snapshot_info info;
        const struct drive_control control = { .start = start_delete, .opaque = &info };

        machine->monitors = NULL;
        machine->state = RUN_STATE_PRELAUNCH;
        g_string_truncate(machine->log, 0);
        while (machine->disk_count > 0
               && drive_thread_call(thread, find_snapshot, &info) == 0)
                g_assert_cmpint(drive_thread_run(thread, &control), ==, 0);
        while (g_main_context_iteration(NULL, FALSE))
                ;
}

char *chat_run(struct machine *machine, const struct chat *chat)
{
        static const char negotiation[] = "{\"execute\": \"qmp_capabilities\"}";
        struct talk talk;
        guint guard;
        size_t limit_bytes = OUTPUT_BASE + OUTPUT_FACTOR * chat->input_bytes;

        begin(&talk, machine, chat);
        guard = g_timeout_add_seconds(PATIENCE_SEC, hung, NULL);
        if (chat->is_qmp && chat->negotiates)
                send_bytes(&talk, negotiation, strlen(negotiation), sizeof(negotiation));
        send_bytes(&talk, chat->input, chat->input_bytes, chat->piece_bytes);
        if (chat->hangs_up)
                close(talk.fd);
        else
                shutdown(talk.fd, SHUT_WR);
        while (!talk.closed) {
                g_main_context_iteration(NULL, TRUE);
                if (!chat->hangs_up)
                        read_output(&talk);
        }
        if (!chat->hangs_up) {
                read_output(&talk);
                close(talk.fd);
                g_assert_cmpuint(talk.output->len, <=, limit_bytes);
                if (chat->is_qmp)
                        judge_qmp(talk.output->str);
                else
                        judge_hmp(talk.output->str);
        }
        g_source_remove(guard);
        monitors_free(talk.monitors);
        clean_machine(machine);
        return g_string_free(talk.output, FALSE);
}
