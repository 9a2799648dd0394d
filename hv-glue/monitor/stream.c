/*
 * stream.c - one peer of a monitor: bytes in, bytes out, both bounded.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/stream.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { CONTROL_C = 3 };

enum stream_state { OPEN, ENDING, DEAD };

/* A tag is NULL while nothing is waited for: a hang-up that nobody reads would wake
 * the loop for ever. */
struct watch {
        int fd;
        GIOCondition condition;
        gpointer tag;
};

struct stream {
        GSource source;                 /* first: GLib allocates and dispatches it */
        const struct stream_ops *ops;
        void *opaque;
        enum stream_state state;
        unsigned holds;
        struct watch in, out;
        uint8_t chunk[STREAM_CHUNK_BYTES];
        size_t chunk_used, chunk_filled;
        bool input_ended;
        GByteArray *output;
        size_t output_written;
        bool nobody_reads;              /* a write failed: answers are thrown away */
};

static size_t waiting_bytes(const struct stream *s)
{
        return s->output->len - s->output_written;
}

static bool is_chunk_used(const struct stream *s)
{
        return s->chunk_used == s->chunk_filled;
}

/* ---- Output ------------------------------------------------------------------------- */

static void flush(struct stream *s)
{
        while (waiting_bytes(s) > 0) {
                ssize_t count = write(s->out.fd, s->output->data + s->output_written,
                                      waiting_bytes(s));

                if (count < 0 && errno == EINTR)
                        continue;
                if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
                        return;
                if (count < 0) {
                        s->nobody_reads = true;
                        break;
                }
                s->output_written += (size_t) count;
        }
        s->output_written = 0;
        g_byte_array_set_size(s->output, 0);
}

void stream_write(struct stream *s, const char *bytes, size_t length_bytes)
{
        if (s->nobody_reads || s->state == DEAD)
                return;
        if (waiting_bytes(s) > STREAM_LIMIT_BYTES) {
                s->state = DEAD;
        } else {
                g_byte_array_remove_range(s->output, 0, (guint) s->output_written);
                s->output_written = 0;
                g_byte_array_append(s->output, (const guint8 *) bytes, (guint) length_bytes);
        }
        g_source_set_ready_time(&s->source, 0);
}

/* ---- Input -------------------------------------------------------------------------- */

/* Control-C among bytes that nobody has taken yet. */
static void look_for_interrupt(struct stream *s)
{
        const uint8_t *begin = s->chunk + s->chunk_used;
        size_t count = s->chunk_filled - s->chunk_used;
        const uint8_t *found = s->ops->interrupt == NULL || s->holds == 0 ? NULL
                : memchr(begin, CONTROL_C, count);

        if (found == NULL)
                return;
        s->chunk_used = (size_t) (found + 1 - s->chunk);
        s->ops->interrupt(s->opaque);
}

/* May be called with a part of the chunk unused: what comes is put behind it. */
static void fill_chunk(struct stream *s)
{
        ssize_t count;

        memmove(s->chunk, s->chunk + s->chunk_used, s->chunk_filled - s->chunk_used);
        s->chunk_filled -= s->chunk_used;
        s->chunk_used = 0;
        count = read(s->in.fd, s->chunk + s->chunk_filled, sizeof(s->chunk) - s->chunk_filled);
        if (count > 0)
                s->chunk_filled += (size_t) count;
        else if (count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
                s->input_ended = true;
}

static bool takes_bytes(const struct stream *s)
{
        return s->state == OPEN && s->holds == 0 && waiting_bytes(s) <= STREAM_BUSY_BYTES;
}

static bool wants_input(const struct stream *s)
{
        if (s->state != OPEN || s->input_ended)
                return false;
        if (s->holds > 0 && s->ops->interrupt != NULL)
                return s->chunk_filled - s->chunk_used < sizeof(s->chunk);
        return takes_bytes(s) && is_chunk_used(s);
}

static void serve_input(struct stream *s)
{
        while (takes_bytes(s) && !is_chunk_used(s))
                s->ops->byte(s->opaque, s->chunk[s->chunk_used++]);
        if (s->state == OPEN && s->input_ended && is_chunk_used(s) && s->holds == 0)
                s->state = ENDING;
}

/* ---- The source --------------------------------------------------------------------- */

static void watch_set(struct stream *s, struct watch *watch, bool wanted)
{
        if (wanted && watch->tag == NULL) {
                watch->tag = g_source_add_unix_fd(&s->source, watch->fd, watch->condition);
        } else if (!wanted && watch->tag != NULL) {
                g_source_remove_unix_fd(&s->source, watch->tag);
                watch->tag = NULL;
        }
}

static bool is_ready(struct stream *s, const struct watch *watch)
{
        return watch->tag != NULL && g_source_query_unix_fd(&s->source, watch->tag) != 0;
}

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer data)
{
        struct stream *s = (struct stream *) source;

        (void) callback;
        (void) data;
        g_source_set_ready_time(source, -1);
        if (is_ready(s, &s->in))
                fill_chunk(s);
        serve_input(s);
        look_for_interrupt(s);
        flush(s);
        /* What was held back by waiting output goes on. */
        if (takes_bytes(s) && !is_chunk_used(s))
                g_source_set_ready_time(source, 0);
        if (s->state == DEAD || (s->state == ENDING && waiting_bytes(s) == 0)) {
                s->ops->closed(s->opaque);
                return G_SOURCE_REMOVE;
        }
        watch_set(s, &s->in, wants_input(s));
        watch_set(s, &s->out, waiting_bytes(s) > 0);
        return G_SOURCE_CONTINUE;
}

static void finalize(GSource *source)
{
        struct stream *s = (struct stream *) source;

        g_byte_array_unref(s->output);
}

struct stream *stream_new(int in_fd, int out_fd, const struct stream_ops *ops, void *opaque)
{
        static GSourceFuncs funcs = { .dispatch = dispatch, .finalize = finalize };
        GSource *source = g_source_new(&funcs, sizeof(struct stream));
        struct stream *s = (struct stream *) source;

        s->ops = ops;
        s->opaque = opaque;
        s->in = (struct watch) { .fd = in_fd, .condition = G_IO_IN | G_IO_HUP | G_IO_ERR };
        s->out = (struct watch) { .fd = out_fd, .condition = G_IO_OUT | G_IO_HUP | G_IO_ERR };
        s->output = g_byte_array_new();
        g_source_set_ready_time(source, 0);
        g_source_attach(source, NULL);
        return s;
}

void stream_free(struct stream *s)
{
        flush(s);
        g_source_destroy(&s->source);
        g_source_unref(&s->source);
}

void stream_hold(struct stream *s)
{
        s->holds++;
}

void stream_release(struct stream *s)
{
        g_assert(s->holds > 0);
        s->holds--;
        g_source_set_ready_time(&s->source, 0);
}

void stream_end(struct stream *s)
{
        if (s->state == OPEN)
                s->state = ENDING;
        g_source_set_ready_time(&s->source, 0);
}
