/*
 * unpack.c - reads through memory of our own.
 *
 *      raw_bytes, aligned for the file                  plain_bytes, one cluster
 *      |..skip..|stream or plain bytes......|.pad.|     |..wanted_skip..|wanted..|..|
 *
 * Both buffers are one piece of memory, whose size the cluster size bounds: an
 * entry can claim at most two clusters of compressed sectors.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/unpack.h"

#include <errno.h>
#include <stdlib.h>

#include "ops/inflate.h"

struct unpack {
        struct work work;
        uint8_t *raw;                   /* owned */
        uint64_t raw_bytes;
        uint64_t skip_bytes;            /* in raw, to the first byte asked for */
        uint64_t received_bytes;        /* in raw */
        uint64_t stream_bytes;          /* compressed: at most so many from skip_bytes on */
        uint8_t *plain;                 /* in raw's memory; NULL: raw is plain already */
        uint64_t plain_bytes;
        enum hvb_compression method;
        uint64_t wanted_skip;           /* in plain, or behind skip_bytes in raw */
        uint64_t wanted_bytes;
        struct iov_cursor to;
};

static int inflate_work(struct work *work)
{
        struct unpack *u = (struct unpack *)((char *)work - offsetof(struct unpack, work));
        uint64_t there = u->received_bytes > u->skip_bytes ? u->received_bytes - u->skip_bytes : 0;

        return inflate_cluster(u->method, u->raw + u->skip_bytes,
                               u64_min(there, u->stream_bytes), u->plain, u->plain_bytes);
}

static struct unpack *unpack_new(struct image *img, uint64_t host_offset, uint64_t byte_count,
                                 uint64_t plain_bytes, const struct iov_cursor *to)
{
        uint64_t first = round_down(host_offset, img->file.alignment);
        uint64_t end = round_up(host_offset + byte_count, img->file.alignment);
        struct unpack *u = g_try_new0(struct unpack, 1);

        if (!u)
                return NULL;
        u->raw_bytes = end - first;
        u->raw = io_buffer_try_new(u->raw_bytes + plain_bytes);
        if (!u->raw) {
                g_free(u);
                return NULL;
        }
        u->skip_bytes = host_offset - first;
        u->plain_bytes = plain_bytes;
        u->to = *to;
        return u;
}

struct unpack *unpack_new_plain(struct image *img, uint64_t host_offset, uint64_t byte_count,
                                const struct iov_cursor *to)
{
        struct unpack *u = unpack_new(img, host_offset, byte_count, 0, to);

        if (u)
                u->wanted_bytes = byte_count;
        return u;
}

struct unpack *unpack_new_compressed(struct image *img, const struct compressed_place *place,
                                     uint64_t skip_bytes, uint64_t byte_count,
                                     const struct iov_cursor *to)
{
        uint64_t cluster_bytes = image_geometry(img)->cluster_bytes;
        struct unpack *u;

        g_assert(place->length_bytes <= 2 * cluster_bytes);
        g_assert(skip_bytes + byte_count <= cluster_bytes);
        u = unpack_new(img, place->host_offset, place->length_bytes, cluster_bytes, to);
        if (!u)
                return NULL;
        u->stream_bytes = place->length_bytes;
        u->plain = u->raw + u->raw_bytes;
        u->method = img->header.compression;
        u->work.run = inflate_work;
        u->wanted_skip = skip_bytes;
        u->wanted_bytes = byte_count;
        return u;
}

void unpack_free(struct unpack *u)
{
        g_assert(u->work.state == WORK_IDLE);
        free(u->raw);
        g_free(u);
}

uint8_t *unpack_buffer(struct unpack *u, uint64_t *ret_length)
{
        *ret_length = u->raw_bytes;
        return u->raw;
}

void unpack_received(struct unpack *u, uint64_t byte_count)
{
        g_assert(byte_count <= u->raw_bytes);
        u->received_bytes = byte_count;
}

int unpack_work(struct unpack *u, struct loop *loop)
{
        return u->plain ? work_await(loop, &u->work) : 0;
}

/* What lies behind the end of the file was filled with zeros by the I/O. */
void unpack_deliver(struct unpack *u)
{
        const uint8_t *from = u->plain ? u->plain : u->raw + u->skip_bytes;

        iov_store(&u->to, from + u->wanted_skip, u->wanted_bytes);
}
