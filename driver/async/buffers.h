/*
 * buffers.h - memory for copies of whole clusters, kept to be used again.
 *
 * After a snapshot every write copies a table and a cluster at first, and as many at once as the
 * guest has requests.  Memory that is new costs a page fault each 4096 bytes, of
 * microseconds in a virtual machine: for such a burst that is milliseconds.  What has been
 * used once costs nothing, and in huge pages, where the kernel has them, little the first time.
 *
 * A pool belongs to an image and to its thread.  It takes BUFFERS_MAX_BYTES at most, when the
 * first buffer is asked for, and keeps them; what it cannot serve comes from malloc.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef ASYNC_BUFFERS_H
#define ASYNC_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

enum { BUFFERS_MAX = 64, BUFFERS_MAX_BYTES = 4 << 20 };

struct buffers {
        size_t buffer_bytes;
        unsigned count;
        uint8_t *memory;                /* owned; of count buffers.  NULL: not needed yet */
        unsigned free_count;
        uint8_t free[BUFFERS_MAX];      /* those not in use; the last one given back is the next */
};

/* buffer_bytes: what is asked for most, a power of two. */
void buffers_init(struct buffers *b, size_t buffer_bytes);
/* All were given back. */
void buffers_clear(struct buffers *b);

/* Aligned to 4096, content undefined; NULL: no memory. */
void *buffers_get(struct buffers *b, size_t byte_count);
/* NULL may be given. */
void buffers_put(struct buffers *b, void *buffer);

#endif
