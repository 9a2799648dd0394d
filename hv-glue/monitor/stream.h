/*
 * stream.h - one peer of a monitor: bytes in, bytes out, both bounded.
 *
 *  1. Input is taken a chunk at a time, and a chunk only when the one before is used up.
 *     The user gets it byte by byte and may stop it after any of them (hold): what a peer
 *     sends beyond that waits in the kernel.
 *  2. Output is queued and written when the kernel takes it.  Who lets much of it
 *     wait is not read from; who lets too much wait is dropped.
 *  3. A peer that has gone is not noticed by what it asked for: input that came is
 *     served to its end, answers to nobody are thrown away.  So hanging up cancels
 *     nothing.
 *  4. Callbacks come from the stream's own source only, never from within a call, and
 *     the stream ends there only.
 *
 *   OPEN  -end of input, all of it served->  ENDING  -output written->  closed()
 *   OPEN/ENDING  -too much output, or read error->  closed()
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_STREAM_H
#define MONITOR_STREAM_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        STREAM_CHUNK_BYTES = 4096,
        STREAM_BUSY_BYTES = 64 << 10,   /* so much output waits: no more input */
        STREAM_LIMIT_BYTES = 1 << 20,   /* so much waits, and more comes: the peer is dropped */
};

struct stream_ops {
        void (*byte)(void *opaque, uint8_t byte);
        /* Control-C while held; the input before it is forgotten.  NULL: it has no meaning. */
        void (*interrupt)(void *opaque);
        /* The stream is over; free it here. */
        void (*closed)(void *opaque);
};

struct stream;

/* The descriptors are non-blocking and stay the caller's; they may be the same. */
struct stream *stream_new(int in_fd, int out_fd, const struct stream_ops *ops, void *opaque);
/* Writes what the kernel takes at once. */
void stream_free(struct stream *stream);

/* No byte() from now on, until released as often. */
void stream_hold(struct stream *stream);
void stream_release(struct stream *stream);

void stream_write(struct stream *stream, const char *bytes, size_t length_bytes);
/* Ends when the output is written, whatever input there is. */
void stream_end(struct stream *stream);

#endif
