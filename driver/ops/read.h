/*
 * read.h - reading guest data.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_READ_H
#define OPS_READ_H

#include "ops/chain.h"
#include "ops/pieces.h"

/* The walk over a range.  It works in a window that the caller lends. */
struct fetch {
        struct co co;
        struct chain_find find;
        struct content content;
        struct iov_cursor at;
        uint64_t position;              /* bytes of the range dealt with */
        uint64_t begun_bytes;
        struct iovec one;
};

/*
 * Coroutine: fills the buffers with guest-visible content.  -ENOMEDIUM: it lies in a backing file
 * that was not opened; -EIO: corrupt mapping or compressed data.  The window is empty
 * afterwards, also of what the caller had begun in it.
 */
int fetch_range(struct fetch *s, struct pieces *w, struct image *img, struct l1_table *l1,
                uint64_t offset, uint64_t length_bytes, const struct iovec *iov,
                unsigned iov_count);

/* The same into one buffer. */
int fetch_buffer(struct fetch *s, struct pieces *w, struct image *img, struct l1_table *l1,
                 uint64_t offset, void *buffer, uint64_t length_bytes);

struct read {
        struct fetch fetch;
        struct pieces pieces;
};

/* Coroutine: as fetch_range, for requests: -EINVAL if the image's file does not take their
 * alignment.  Whole trees of VM state may be read past their end: zeros. */
int read_range(struct read *s, struct image *img, struct l1_table *l1, uint64_t offset,
               uint64_t length_bytes, const struct iovec *iov, unsigned iov_count);

/* Coroutine: any range, one buffer. */
int read_simple(struct read *s, struct image *img, struct l1_table *l1, uint64_t offset,
                void *buffer, uint64_t length_bytes);

#endif
