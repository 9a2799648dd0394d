/*
 * hmp.c - a person's session: prompt, line editing, progress.
 *
 * The prompt is QEMU's, "(qemu) ": it is HMP's only framing, and scripts wait for
 * it.  As with QEMU, what is typed comes back, on sockets too; here plainly, without
 * cursor movements.  The greeting says who speaks.
 *
 * Keys: backspace, Control-U (drop the line), Control-C (drop the line; while a snapshot
 * command works, cancel it).  Cursor keys are ignored.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "host/size.h"
#include "monitor/session.h"

enum {
        LINE_BYTES = 4095,              /* as QEMU's */
        PROGRESS_MSEC = 200,
        KEY_INTERRUPT = 3, KEY_BACKSPACE = 8, KEY_KILL = 21, KEY_ESCAPE = 27, KEY_DELETE = 127,
};

/* Where in a key's sequence of bytes we are: ESC [ 1 ; 5 C */
enum escape_state { PLAIN, ESCAPE, SEQUENCE };

struct hmp_session {
        struct monitors *monitors;
        struct stream *stream;
        bool is_terminal;
        void (*closed)(void *opaque);
        void *opaque;
        GString *line;
        bool too_long;
        bool after_return;              /* a newline now belongs to it */
        enum escape_state escape;
        struct hmp_call *call;          /* the one that holds the stream, or NULL */
        guint progress_timer;
        gint64 begin_usec;              /* of call */
};

static void put(struct hmp_session *session, const char *text)
{
        stream_write(session->stream, text, strlen(text));
}

static void prompt(struct hmp_session *session)
{
        put(session, "(qemu) ");
}

/* ---- Calls -------------------------------------------------------------------------- */

static double seconds_since(gint64 begin_usec)
{
        return MAX(g_get_monotonic_time() - begin_usec, 1) / (double) G_USEC_PER_SEC;
}

static gboolean show_progress(gpointer data)
{
        struct hmp_session *session = data;
        const struct job *job = session->call->job;
        g_autofree char *done = NULL, *total = NULL, *speed = NULL, *text = NULL;
        uint64_t done_bytes, total_bytes;

        if (job == NULL || job->status != JOB_RUNNING)
                return G_SOURCE_CONTINUE;
        job_bytes(job, &done_bytes, &total_bytes);
        done = size_text(done_bytes);
        total = size_text(total_bytes);
        speed = size_text((uint64_t) ((double) done_bytes / seconds_since(session->begin_usec)));
        text = total_bytes == 0 ? g_strdup_printf("\r%s, %s/s\x1b[K", done, speed)
                : g_strdup_printf("\r%.1f%% of %s, %s/s\x1b[K",
                                  100.0 * (double) MIN(done_bytes, total_bytes)
                                  / (double) total_bytes, total, speed);
        put(session, text);
        return G_SOURCE_CONTINUE;
}

static void end_progress(struct hmp_session *session, const struct job *job)
{
        double seconds = seconds_since(session->begin_usec);
        g_autofree char *done = NULL, *speed = NULL, *stopped = NULL, *text = NULL;
        uint64_t done_bytes, total_bytes;

        g_source_remove(session->progress_timer);
        session->progress_timer = 0;
        put(session, "\r\x1b[K");
        if (job == NULL || job->result < 0)
                return;
        job_bytes(job, &done_bytes, &total_bytes);
        done = size_text(done_bytes);
        speed = size_text((uint64_t) ((double) done_bytes / seconds));
        if (job->progress.pause_nsec > 0)
                stopped = g_strdup_printf(", guest stopped for %.1f ms",
                                          (double) job->progress.pause_nsec / 1e6);
        text = g_strdup_printf("%s in %.1f s (%s/s)%s\r\n", done, seconds, speed,
                               stopped == NULL ? "" : stopped);
        put(session, text);
}

static void call_done(void *opaque, struct hmp_call *call)
{
        struct hmp_session *session = opaque;
        g_autofree char *text = hmp_wire_text(call->output->str);

        if (session->progress_timer != 0)
                end_progress(session, call->job);
        put(session, text);
        prompt(session);
        if (session->call != NULL) {
                session->call = NULL;
                stream_release(session->stream);
        }
}

static void execute(struct hmp_session *session)
{
        g_autofree char *line = g_strdup(session->line->str);
        bool too_long = session->too_long;

        put(session, "\r\n");
        g_string_truncate(session->line, 0);
        session->too_long = false;
        if (too_long) {
                put(session, "Error: The line is too long\r\n");
                prompt(session);
                return;
        }
        session->begin_usec = g_get_monotonic_time();
        session->call = hmp_call_start(session->monitors, line, call_done, session);
        if (session->call == NULL)
                return;
        stream_hold(session->stream);
        if (session->is_terminal && session->call->job != NULL)
                session->progress_timer = g_timeout_add(PROGRESS_MSEC, show_progress, session);
}

/* ---- The line ----------------------------------------------------------------------- */

static void erase_character(struct hmp_session *session)
{
        gsize length = session->line->len;

        if (length == 0)
                return;
        /* All bytes of one UTF-8 character. */
        do
                length--;
        while (length > 0 && (session->line->str[length] & 0xc0) == 0x80);
        g_string_truncate(session->line, length);
        put(session, "\b \b");
}

static void add_byte(struct hmp_session *session, uint8_t byte)
{
        if (session->line->len >= LINE_BYTES) {
                session->too_long = true;
                return;
        }
        g_string_append_c(session->line, (char) byte);
        stream_write(session->stream, (const char *) &byte, 1);
}

/* True: byte was part of a cursor key or the like. */
static bool is_escaped(struct hmp_session *session, uint8_t byte)
{
        enum escape_state state = session->escape;

        session->escape = PLAIN;
        if (state == PLAIN && byte == KEY_ESCAPE)
                session->escape = ESCAPE;
        else if (state == ESCAPE && (byte == '[' || byte == 'O'))
                session->escape = SEQUENCE;
        else if (state == SEQUENCE && byte >= ' ' && byte < '@')
                session->escape = SEQUENCE;
        return state != PLAIN || session->escape != PLAIN;
}

static void take_byte(void *opaque, uint8_t byte)
{
        struct hmp_session *session = opaque;
        bool after_return = session->after_return;

        session->after_return = byte == '\r';
        if (is_escaped(session, byte))
                return;
        switch (byte) {
        case '\n':
                if (!after_return)
                        execute(session);
                break;
        case '\r':
                execute(session);
                break;
        case KEY_BACKSPACE:
        case KEY_DELETE:
                erase_character(session);
                break;
        case KEY_KILL:
                while (session->line->len > 0)
                        erase_character(session);
                session->too_long = false;
                break;
        case KEY_INTERRUPT:
                g_string_truncate(session->line, 0);
                session->too_long = false;
                put(session, "^C\r\n");
                prompt(session);
                break;
        default:
                if (byte >= ' ')
                        add_byte(session, byte);
        }
}

static void interrupt(void *opaque)
{
        struct hmp_session *session = opaque;

        if (session->call->job != NULL)
                job_cancel(session->call->job);
}

/* ---- Beginning and end -------------------------------------------------------------- */

static void stream_closed(void *opaque)
{
        struct hmp_session *session = opaque;

        session->closed(session->opaque);
}

struct hmp_session *hmp_session_new(struct monitors *monitors, int in_fd, int out_fd,
                                    bool is_terminal, void (*closed)(void *opaque),
                                    void *opaque)
{
        static const struct stream_ops ops = {
                .byte = take_byte, .interrupt = interrupt, .closed = stream_closed,
        };
        struct hmp_session *session = g_new0(struct hmp_session, 1);
        g_autofree char *greeting = g_strdup_printf(
                "hv %s monitor - type 'help' for more information\r\n", monitors->host.version);

        *session = (struct hmp_session) {
                .monitors = monitors, .is_terminal = is_terminal,
                .closed = closed, .opaque = opaque,
                .line = g_string_new(NULL),
        };
        session->stream = stream_new(in_fd, out_fd, &ops, session);
        put(session, greeting);
        prompt(session);
        return session;
}

void hmp_session_free(struct hmp_session *session)
{
        if (session->call != NULL)
                session->call->done = NULL;
        if (session->progress_timer != 0)
                g_source_remove(session->progress_timer);
        stream_free(session->stream);
        g_string_free(session->line, TRUE);
        g_free(session);
}

void hmp_session_message(struct hmp_session *session, const char *text)
{
        g_autofree char *lines = g_strdup_printf("\n%s\n", text);
        g_autofree char *wire = hmp_wire_text(lines);

        put(session, wire);
        if (session->call != NULL)
                return;
        prompt(session);
        put(session, session->line->str);
}
