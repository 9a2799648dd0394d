/*
 * iov.c - cursors over scatter lists.
 *
 * Invariant: a cursor stands inside an element or at the end; empty elements and
 * used-up ones are stepped over at once, so that whoever looks at the first
 * element finds at least one byte there.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/iov.h"

#include <assert.h>
#include <string.h>

#include "disk/bytes.h"

enum { LIST_MAX = 1024 };        /* readv(2), "NOTES": IOV_MAX */

/* In .bss and only read: all of it is the kernel's one page of zeros. */
static uint8_t zeros[ZEROS_BYTES] __attribute__((aligned(4096)));

void *iov_zeros(void)
{
        return zeros;
}

static void settle(struct iov_cursor *at)
{
        while (at->count > 0 && at->skip_bytes == at->iov->iov_len) {
                at->iov++;
                at->count--;
                at->skip_bytes = 0;
        }
}

void iov_start(struct iov_cursor *at, const struct iovec *iov, unsigned count)
{
        *at = (struct iov_cursor){ .iov = iov, .count = count };
        settle(at);
}

/* The next bytes that lie together, at most max_bytes; moves behind them. */
static struct iovec next_bytes(struct iov_cursor *at, uint64_t max_bytes)
{
        struct iovec part;

        assert(at->count > 0 && at->skip_bytes < at->iov->iov_len);
        part.iov_base = (uint8_t *)at->iov->iov_base + at->skip_bytes;
        part.iov_len = u64_min(at->iov->iov_len - at->skip_bytes, max_bytes);
        at->skip_bytes += part.iov_len;
        settle(at);
        return part;
}

void iov_advance(struct iov_cursor *at, uint64_t byte_count)
{
        while (byte_count > 0)
                byte_count -= next_bytes(at, byte_count).iov_len;
}

void iov_zero(struct iov_cursor *at, uint64_t byte_count)
{
        while (byte_count > 0) {
                struct iovec part = next_bytes(at, byte_count);

                memset(part.iov_base, 0, part.iov_len);
                byte_count -= part.iov_len;
        }
}

void iov_store(struct iov_cursor *at, const void *from, uint64_t byte_count)
{
        const uint8_t *source = from;

        while (byte_count > 0) {
                struct iovec part = next_bytes(at, byte_count);

                memcpy(part.iov_base, source, part.iov_len);
                source += part.iov_len;
                byte_count -= part.iov_len;
        }
}

void iov_load(struct iov_cursor *at, void *to, uint64_t byte_count)
{
        uint8_t *target = to;

        while (byte_count > 0) {
                struct iovec part = next_bytes(at, byte_count);

                memcpy(target, part.iov_base, part.iov_len);
                target += part.iov_len;
                byte_count -= part.iov_len;
        }
}

/* How many whole elements from the cursor on make up exactly byte_count; 0: none do. */
static unsigned whole_elements(const struct iov_cursor *at, uint64_t byte_count)
{
        unsigned count;

        if (at->skip_bytes != 0)
                return 0;
        for (count = 0; byte_count > 0 && count < at->count && count < LIST_MAX; count++) {
                if (at->iov[count].iov_len > byte_count)
                        return 0;
                byte_count -= at->iov[count].iov_len;
        }
        return byte_count == 0 ? count : 0;
}

uint64_t iov_slice(const struct iov_cursor *at, uint64_t max_bytes, struct iovec *room,
                   unsigned room_count, const struct iovec **ret_iov, unsigned *ret_count)
{
        unsigned count = whole_elements(at, max_bytes);
        struct iov_cursor walk = *at;
        uint64_t covered = 0;

        assert(room_count > 0 && max_bytes > 0);
        if (count > 0) {
                *ret_iov = at->iov;
                *ret_count = count;
                return max_bytes;
        }
        while (covered < max_bytes && count < room_count) {
                room[count] = next_bytes(&walk, max_bytes - covered);
                covered += room[count++].iov_len;
        }
        *ret_iov = room;
        *ret_count = count;
        return covered;
}

uint64_t iov_total(const struct iovec *iov, unsigned count)
{
        uint64_t total = 0;
        unsigned i;

        for (i = 0; i < count; i++)
                total += iov[i].iov_len;
        return total;
}
