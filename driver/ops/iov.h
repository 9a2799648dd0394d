/*
 * iov.h - a place in the caller's scatter list, and what is done there.
 *
 * The list itself is never written to.  A cursor is copied freely: a copy is a
 * bookmark.  Nobody moves a cursor past the end of its list.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_IOV_H
#define OPS_IOV_H

#include <stdint.h>
#include <sys/uio.h>

struct iov_cursor {
        const struct iovec *iov;        /* the element we stand in */
        unsigned count;                 /* elements from there on */
        uint64_t skip_bytes;            /* into the first; below its length, or 0 at the end */
};

void iov_start(struct iov_cursor *at, const struct iovec *iov, unsigned count);
void iov_advance(struct iov_cursor *at, uint64_t byte_count);

/* Each moves at behind what it touched. */
void iov_zero(struct iov_cursor *at, uint64_t byte_count);
void iov_store(struct iov_cursor *at, const void *from, uint64_t byte_count);
void iov_load(struct iov_cursor *at, void *to, uint64_t byte_count);

/*
 * A scatter list for the next bytes: the caller's own elements where begin and end
 * agree with theirs, copies in room otherwise.  Returns how many bytes it covers:
 * max_bytes, or fewer when room_count (at least 1) elements do not reach so far.
 */
uint64_t iov_slice(const struct iov_cursor *at, uint64_t max_bytes, struct iovec *room,
                   unsigned room_count, const struct iovec **ret_iov, unsigned *ret_count);

/* Sum of all lengths. */
uint64_t iov_total(const struct iovec *iov, unsigned count);

/* Zeros to write from: ZEROS_BYTES of them, page-aligned, never written to. */
enum { ZEROS_BYTES = 2 << 20 };
void *iov_zeros(void);

#endif
