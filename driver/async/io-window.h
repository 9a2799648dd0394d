/*
 * io-window.h - which buffers the next transfer of an I/O uses.  Private to io.c.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef ASYNC_IO_WINDOW_H
#define ASYNC_IO_WINDOW_H

#include "async/io.h"

/* The first window of a READ or WRITE of at least one byte.  0, or -ENOMEM when
 * its buffers need a bounce buffer and there is none. */
int io_window_open(struct io *io);

/* Points next_iov and next_count at what follows done_bytes. */
void io_window_set(struct io *io);

/* byte_count bytes were read into the window at done_bytes: hands them on. */
void io_window_read(struct io *io, uint64_t byte_count);

/* Zeroes the buffers of a READ from done_bytes on. */
void io_zero_rest(struct io *io);

#endif
