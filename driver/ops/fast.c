/*
 * fast.c - requests that need no coroutine: metadata in memory, one I/O or none.
 *
 * Invariant: FAST_NO leaves no trace; FAST_STARTED holds the grace of the image
 * whose file is touched, and for writes a place inside the gate, until
 * fast_finish.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/data.h"

#include "ops/chain.h"
#include "ops/iov.h"
#include "ops/pieces.h"

static void start(struct fast *f, enum io_op op, struct image *img, uint64_t host_offset,
                  const struct iovec *iov, unsigned iov_count)
{
        void (*done)(struct io *io) = f->io.done;

        io_prepare_vec(&f->io, op, &img->file, host_offset, iov, iov_count);
        f->io.done = done;
        f->img = img;
        f->is_write = op == IO_WRITE;
        f->generation = grace_enter(img);
        io_start(&f->io);
}

enum fast_result read_fast(struct fast *f, struct image *img, struct l1_table *l1,
                           uint64_t offset, uint64_t length_bytes, const struct iovec *iov,
                           unsigned iov_count)
{
        struct content content;
        struct iov_cursor at;

        if (length_bytes == 0 || !file_takes(img, offset, length_bytes) ||
            chain_find_cached(img, l1, offset, length_bytes, &content) < 0 ||
            content.length_bytes < length_bytes)
                return FAST_NO;
        if (content.kind == CONTENT_ZERO) {
                iov_start(&at, iov, iov_count);
                iov_zero(&at, length_bytes);
                return FAST_DONE;
        }
        if (content.kind != CONTENT_DATA ||
            !file_takes(content.layer, content.host_offset, length_bytes))
                return FAST_NO;
        start(f, IO_READ, content.layer, content.host_offset, iov, iov_count);
        return FAST_STARTED;
}

enum fast_result write_fast(struct fast *f, struct image *img, uint64_t offset,
                            uint64_t length_bytes, const struct iovec *iov, unsigned iov_count)
{
        struct mapping map;

        if (length_bytes == 0 || !file_takes(img, offset, length_bytes) ||
            image_check_writable(img) < 0 ||
            map_lookup_cached(img, &img->active, offset, length_bytes, &map) < 0 ||
            map.length_bytes < length_bytes || map.kind != CLUSTER_NORMAL || !map.copied ||
            !gate_try_enter(&img->writes))
                return FAST_NO;
        start(f, IO_WRITE, img, map.host_offset, iov, iov_count);
        return FAST_STARTED;
}

int fast_finish(struct fast *f)
{
        if (f->is_write)
                f->img->data_written = true;
        grace_leave(f->img, f->generation);
        if (f->is_write)
                gate_leave(&f->img->writes);
        return f->io.result;
}
