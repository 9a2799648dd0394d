/*
 * state.c - bytes of a device's state, written and read field by field.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/state.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

struct state_writer {
        uint8_t *bytes;
        size_t count;
        size_t capacity;
        int error;
};

enum { FIRST_CAPACITY = 256 };

/* ---- Writing ------------------------------------------------------------------------ */

struct state_writer *state_writer_new(void)
{
        return g_try_new0(struct state_writer, 1);
}

void state_writer_free(struct state_writer *w)
{
        if (w == NULL)
                return;
        g_free(w->bytes);
        g_free(w);
}

const uint8_t *state_writer_bytes(const struct state_writer *w, size_t *ret_count)
{
        *ret_count = w->count;
        return w->bytes;
}

int state_writer_error(const struct state_writer *w)
{
        return w->error;
}

/* Room for count more bytes, or NULL and the error is kept. */
static uint8_t *make_room(struct state_writer *w, size_t count)
{
        size_t capacity = MAX(w->capacity, FIRST_CAPACITY);
        uint8_t *bytes;

        if (w->error < 0)
                return NULL;
        if (count > STATE_WRITER_MAX_BYTES - w->count) {
                w->error = -EFBIG;
                return NULL;
        }
        while (capacity < w->count + count)
                capacity *= 2;
        if (capacity > w->capacity) {
                bytes = g_try_realloc(w->bytes, capacity);
                if (bytes == NULL) {
                        w->error = -ENOMEM;
                        return NULL;
                }
                w->bytes = bytes;
                w->capacity = capacity;
        }
        w->count += count;
        return w->bytes + w->count - count;
}

void state_put_bytes(struct state_writer *w, const void *bytes, size_t count)
{
        uint8_t *room = make_room(w, count);

        if (room != NULL && count > 0)
                memcpy(room, bytes, count);
}

void state_put_u8(struct state_writer *w, uint8_t value)
{
        state_put_bytes(w, &value, sizeof(value));
}

void state_put_u16(struct state_writer *w, uint16_t value)
{
        value = GUINT16_TO_BE(value);
        state_put_bytes(w, &value, sizeof(value));
}

void state_put_u32(struct state_writer *w, uint32_t value)
{
        value = GUINT32_TO_BE(value);
        state_put_bytes(w, &value, sizeof(value));
}

void state_put_u64(struct state_writer *w, uint64_t value)
{
        value = GUINT64_TO_BE(value);
        state_put_bytes(w, &value, sizeof(value));
}

/* ---- Reading ------------------------------------------------------------------------ */

void state_get_bytes(struct state_reader *r, void *bytes, size_t count)
{
        size_t there = MIN(count, r->left_bytes);

        if (there < count)
                r->short_read = true;
        if (there > 0)
                memcpy(bytes, r->bytes, there);
        if (there < count)
                memset((uint8_t *) bytes + there, 0, count - there);
        r->bytes += there;
        r->left_bytes -= there;
}

/* A number that is not whole reads as 0. */
static void get_number(struct state_reader *r, void *bytes, size_t count)
{
        size_t there = r->left_bytes;

        state_get_bytes(r, bytes, count);
        if (there < count)
                memset(bytes, 0, count);
}

uint8_t state_get_u8(struct state_reader *r)
{
        uint8_t value;

        get_number(r, &value, sizeof(value));
        return value;
}

uint16_t state_get_u16(struct state_reader *r)
{
        uint16_t value;

        get_number(r, &value, sizeof(value));
        return GUINT16_FROM_BE(value);
}

uint32_t state_get_u32(struct state_reader *r)
{
        uint32_t value;

        get_number(r, &value, sizeof(value));
        return GUINT32_FROM_BE(value);
}

uint64_t state_get_u64(struct state_reader *r)
{
        uint64_t value;

        get_number(r, &value, sizeof(value));
        return GUINT64_FROM_BE(value);
}

int state_reader_end(const struct state_reader *r)
{
        return r->short_read || r->left_bytes > 0 ? -EINVAL : 0;
}
