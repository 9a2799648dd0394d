/*
 * pieces.h - the I/Os that one request has in flight.
 *
 * A request for a guest range falls into pieces: runs that lie together in one
 * file.  Up to PIECES_MAX of them are on their way at a time; the coroutine that
 * owns the window begins a piece when there is room, and drains the window
 * before it returns, whatever happened.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_PIECES_H
#define OPS_PIECES_H

#include "meta/map.h"
#include "ops/iov.h"

enum { PIECES_MAX = 8, PIECE_IOVECS = 4 };

struct unpack;

struct piece {
        struct io io;
        struct iovec room[PIECE_IOVECS];
        struct iovec *many;             /* owned; instead of room when that is too small */
        struct image *img;              /* in whose grace the I/O is */
        unsigned generation;
        enum { PIECE_IDLE, PIECE_IO, PIECE_WORK } state;
        struct task *task;
        struct unpack *unpack;          /* owned; NULL: straight into the caller's buffers */
};

/* Zeroed at start; reusable once drained. */
struct pieces {
        struct piece piece[PIECES_MAX];
        int err;                        /* of the first piece that failed */
};

/* Leaf: 0 when a piece can be begun, CO_PENDING, or the error of a piece that failed. */
int pieces_room(struct pieces *w);

/* Leaf: waits for all.  0 or the first piece's error, once. */
int pieces_drain(struct pieces *w);

/*
 * These begin a piece; there must be room.  Called in the step that looked up host_offset,
 * for the cluster may be given back by the next.  0, or -ENOMEM with nothing begun.
 *
 * transfer: IO_READ or IO_WRITE between img's file and the buffers at *at, which moves on by
 * *ret_bytes: at most max_bytes, fewer where the scatter list is too fragmented.
 * host_offset and max_bytes are multiples of the file's alignment.
 */
int pieces_transfer(struct pieces *w, enum io_op op, struct image *img, uint64_t host_offset,
                    uint64_t max_bytes, struct iov_cursor *at, uint64_t *ret_bytes);

/* Reads any range of img's file, through memory of our own. */
int pieces_read_unaligned(struct pieces *w, struct image *img, uint64_t host_offset,
                          uint64_t max_bytes, struct iov_cursor *at, uint64_t *ret_bytes);

/* Decodes the compressed cluster at place and delivers its bytes
 * [skip_bytes, skip_bytes + byte_count). */
int pieces_read_compressed(struct pieces *w, struct image *img,
                           const struct compressed_place *place, uint64_t skip_bytes,
                           uint64_t byte_count, struct iov_cursor *at);

static inline bool file_takes(const struct image *img, uint64_t host_offset, uint64_t byte_count)
{
        return ((host_offset | byte_count) & (img->file.alignment - 1)) == 0;
}

#endif
