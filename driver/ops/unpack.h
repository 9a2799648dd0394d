/*
 * unpack.h - a read that goes through memory of our own: compressed clusters, and
 * ranges that a file opened with O_DIRECT does not take as they are.
 *
 * One unpack is one read: made, filled by an I/O, worked on, delivered, freed.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_UNPACK_H
#define OPS_UNPACK_H

#include "meta/map.h"
#include "ops/iov.h"

struct unpack;

/* NULL: no memory.  to: where the bytes go; its list must live until delivery. */
struct unpack *unpack_new_plain(struct image *img, uint64_t host_offset, uint64_t byte_count,
                                const struct iov_cursor *to);

/* Delivers [skip_bytes, skip_bytes + byte_count) of the decoded cluster. */
struct unpack *unpack_new_compressed(struct image *img, const struct compressed_place *place,
                                     uint64_t skip_bytes, uint64_t byte_count,
                                     const struct iov_cursor *to);
void unpack_free(struct unpack *u);

/* Read from the host offset, rounded down to the file's alignment, into this. */
uint8_t *unpack_buffer(struct unpack *u, uint64_t *ret_length);

/* So many bytes are there; the file had no more. */
void unpack_received(struct unpack *u, uint64_t byte_count);

/* Leaf: decodes, if there is anything to decode.  -EIO: not what it should be. */
int unpack_work(struct unpack *u, struct loop *loop);

void unpack_deliver(struct unpack *u);

#endif
