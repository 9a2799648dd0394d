/*
 * buffers.c - see buffers.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "async/buffers.h"

#include <glib.h>
#include <stdlib.h>

#include "async/io.h"

enum { ALIGNMENT = 4096 };

/* A sanitizer shall see when one is used that was given back. */
#ifdef SANITIZED
static const bool keeps = false;
#else
static const bool keeps = true;
#endif

void buffers_init(struct buffers *b, size_t buffer_bytes)
{
        *b = (struct buffers) { .buffer_bytes = MAX(buffer_bytes, ALIGNMENT) };
        if (keeps)
                b->count = MIN(BUFFERS_MAX_BYTES / b->buffer_bytes, BUFFERS_MAX);
}

void buffers_clear(struct buffers *b)
{
        g_assert(!b->memory || b->free_count == b->count);
        free(b->memory);
        *b = (struct buffers) { .buffer_bytes = b->buffer_bytes };
}

static void take_memory(struct buffers *b)
{
        b->memory = io_buffer_try_new(b->count * b->buffer_bytes);
        if (!b->memory)
                return;
        for (; b->free_count < b->count; b->free_count++)
                b->free[b->free_count] = (uint8_t)(b->count - 1 - b->free_count);
}

void *buffers_get(struct buffers *b, size_t byte_count)
{
        if (b->count > 0 && !b->memory)
                take_memory(b);
        if (b->free_count == 0 || byte_count > b->buffer_bytes)
                return io_buffer_try_new(byte_count);
        return b->memory + b->free[--b->free_count] * b->buffer_bytes;
}

static bool is_kept(const struct buffers *b, const void *buffer)
{
        uintptr_t at = (uintptr_t)buffer - (uintptr_t)b->memory;

        return b->memory && at < b->count * b->buffer_bytes;
}

void buffers_put(struct buffers *b, void *buffer)
{
        if (!is_kept(b, buffer)) {
                free(buffer);
                return;
        }
        b->free[b->free_count++] = (uint8_t)(((uint8_t *)buffer - b->memory) / b->buffer_bytes);
}
