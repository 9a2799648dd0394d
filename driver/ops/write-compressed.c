/*
 * write-compressed.c - storing a cluster compressed.
 *
 *      deflate on a worker -> lock the guest range -> place the stream -> write it
 *        -> set the entry -> unlock
 *
 * Streams are packed one behind the other, in bytes.  A host cluster has one
 * count (or two, see map_weight) for each stream that touches it, as entries refer to it.
 *
 * Invariants:
 *  1. compressed_next is 0, or lies inside (not at the border of) a cluster with at
 *     least one count; everything behind it in that cluster is unused.  It is reset
 *     when that count reaches 0 (refs.c).
 *  2. Placing and writing a stream happen under compressed_lock: neighbours
 *     may share a block of the file.
 *  3. A stream's counts are raised in the step that takes compressed_next.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/write.h"

#include <errno.h>
#include <stdlib.h>

#include "ops/inflate.h"

struct deflate_work {
        struct work work;
        enum hvb_compression method;
        uint64_t cluster_bytes;
        uint8_t *plain;                 /* owned; one cluster */
        uint8_t *packed;                /* in plain's memory; one cluster and one block */
        size_t packed_bytes;
};

static int run_deflate(struct work *work)
{
        struct deflate_work *d = (struct deflate_work *)((char *)work -
                                                         offsetof(struct deflate_work, work));

        return deflate_cluster(d->method, d->plain, d->cluster_bytes, d->packed,
                               d->cluster_bytes - 1, &d->packed_bytes);
}

/* Takes a copy of the data: the worker must not see it change. */
static struct deflate_work *deflate_new(struct image *img, uint64_t length_bytes,
                                        const struct iovec *iov, unsigned iov_count)
{
        uint64_t cluster_bytes = image_geometry(img)->cluster_bytes;
        struct deflate_work *d = g_try_new0(struct deflate_work, 1);
        struct iov_cursor at;

        if (!d)
                return NULL;
        d->plain = io_buffer_try_new(2 * cluster_bytes + img->file.alignment);
        if (!d->plain) {
                g_free(d);
                return NULL;
        }
        d->packed = d->plain + cluster_bytes;
        d->cluster_bytes = cluster_bytes;
        d->method = img->header.compression;
        d->work.run = run_deflate;
        iov_start(&at, iov, iov_count);
        iov_load(&at, d->plain, length_bytes);
        memset(d->plain + length_bytes, 0, cluster_bytes - length_bytes);
        return d;
}

static void deflate_free(struct deflate_work *d)
{
        g_assert(d->work.state == WORK_IDLE);
        free(d->plain);
        g_free(d);
}

/* ---- placing ---- */

static uint64_t in_cluster(const struct image *img, uint64_t host_offset)
{
        return host_offset & (image_geometry(img)->cluster_bytes - 1);
}

/* Bytes left behind compressed_next in its cluster. */
static uint64_t room_left(const struct image *img)
{
        if (img->compressed_next == 0)
                return 0;
        return image_geometry(img)->cluster_bytes - in_cluster(img, img->compressed_next);
}

/* One more stream in the open cluster.  -ENOSPC: it takes no more; -EAGAIN: not in memory. */
static int share_open_cluster(struct image *img, unsigned weight)
{
        uint64_t index = img->compressed_next >> image_geometry(img)->cluster_bits;
        uint64_t count;
        int ret;

        ret = refs_get_cached(img, index, &count);
        if (ret < 0)
                return ret;
        if (count == 0 || count + weight > image_geometry(img)->refcount_max)
                return -ENOSPC;
        while (weight-- > 0)
                if (refs_add_cached(img, index, 1, +1, &ret) == 0)
                        return ret;     /* cannot be: there is room, and the count is here */
        return 0;
}

static void take_place(struct pack *s, struct image *img, uint64_t host_offset,
                       uint64_t stream_bytes)
{
        s->host_offset = host_offset;
        img->compressed_next = host_offset + stream_bytes;
        if (in_cluster(img, img->compressed_next) == 0)
                img->compressed_next = 0;
}

/* In one step.  -ENOSPC: a (further) cluster is needed; -EAGAIN: a count is. */
static int try_place(struct pack *s, struct image *img, uint64_t stream_bytes)
{
        uint64_t next = img->compressed_next;
        uint64_t room = room_left(img);
        int ret = -ENOSPC;

        if (next != 0 && (stream_bytes <= room || s->new_cluster == next + room))
                ret = share_open_cluster(img, s->weight);
        if (ret == 0)
                take_place(s, img, next, stream_bytes);
        if (ret != -ENOSPC || s->new_cluster == 0)
                return ret;
        take_place(s, img, s->new_cluster, stream_bytes);
        return 0;
}

/* Where a new cluster would go on from the open one; 0: none is open. */
static uint64_t cluster_behind(const struct pack *s, const struct image *img)
{
        return s->open_cluster == 0 ? 0
                : (s->open_cluster + 1) << image_geometry(img)->cluster_bits;
}

/* Coroutine: a place for the stream, counted. */
static int pack_place(struct pack *s, struct image *img, uint64_t stream_bytes)
{
        CO_BEGIN(s);
        s->new_cluster = 0;
        while ((s->why = try_place(s, img, stream_bytes)) != 0) {
                s->open_cluster = img->compressed_next >> image_geometry(img)->cluster_bits;
                if (s->why == -EAGAIN)
                        CO_TRY(s, give_back, refs_get(&s->get, img, s->open_cluster, &s->count));
                else if (s->why == -ENOSPC)
                        CO_TRY(s, out, clusters_alloc_run(&s->alloc, img, 1, s->weight,
                                                          cluster_behind(s, img),
                                                          &s->new_cluster, &s->count));
                else
                        CO_FAIL(s, give_back, s->why);
        }
        goto out;
give_back:
        if (s->new_cluster != 0)
                CO_UNDO(s, clusters_free(&s->free, img, s->new_cluster, 1, s->weight));
out:
        CO_END(s);
}

/* ---- writing ---- */

/* Where the stream's first block begins. */
static uint64_t block_offset(const struct write_compressed *s, const struct image *img)
{
        return round_down(s->host_offset, img->file.alignment);
}

/* The blocks that the stream touches, whole: neighbours' bytes before it, zeros behind it. */
static uint64_t complete_blocks(struct write_compressed *s, const struct image *img)
{
        struct deflate_work *d = s->deflate;
        uint64_t lead_bytes = s->host_offset - block_offset(s, img);
        uint64_t end = round_up(lead_bytes + d->packed_bytes, img->file.alignment);

        memmove(d->packed + lead_bytes, d->packed, d->packed_bytes);
        memcpy(d->packed, d->plain, lead_bytes);
        memset(d->packed + lead_bytes + d->packed_bytes, 0,
               end - lead_bytes - d->packed_bytes);
        return end;
}

/* How many bytes from the first cluster's begin on hold counts for the stream. */
static uint64_t counted_bytes(const struct write_compressed *s, const struct image *img)
{
        return in_cluster(img, s->host_offset) + s->deflate->packed_bytes;
}

static int give_back(struct write_compressed *s, struct image *img)
{
        return clusters_free(&s->u.free, img, s->host_offset - in_cluster(img, s->host_offset),
                             counted_bytes(s, img), s->weight);
}

/* Coroutine: places and writes the stream; plain's memory is used up. */
static int store(struct write_compressed *s, struct image *img)
{
        CO_BEGIN(&s->store);
        CO_TRY(&s->store, out, co_lock_acquire(&img->compressed_lock, &s->pack_waiter));
        memset(&s->u.pack, 0, sizeof(s->u.pack));
        s->u.pack.weight = s->weight;
        CO_TRY(&s->store, unlock, pack_place(&s->u.pack, img, s->deflate->packed_bytes));
        s->host_offset = s->u.pack.host_offset;
        memset(&s->u.free, 0, sizeof(s->u.free));
        if (s->host_offset >> image_geometry(img)->compressed_shift != 0)
                CO_FAIL(&s->store, give_back, -EFBIG);
        if (block_offset(s, img) != s->host_offset)
                CO_TRY(&s->store, give_back, io_read(&s->io, &img->file, block_offset(s, img),
                                                     s->deflate->plain, img->file.alignment,
                                                     false));
        s->block_bytes = complete_blocks(s, img);
        CO_TRY(&s->store, give_back, io_write(&s->io, &img->file, block_offset(s, img),
                                              s->deflate->packed, s->block_bytes));
        img->data_written = true;
        goto unlock;
give_back:
        img->compressed_next = 0;
        CO_UNDO(&s->store, give_back(s, img));
unlock:
        co_lock_release(&img->compressed_lock);
out:
        CO_END(&s->store);
}

/* Coroutine: the guest's cluster is the stream from now on. */
static int link_stream(struct write_compressed *s, struct image *img, uint64_t offset)
{
        const struct geometry *g = image_geometry(img);

        CO_BEGIN(&s->link);
        memset(&s->u.prepare, 0, sizeof(s->u.prepare));
        CO_TRY(&s->link, out, map_prepare(&s->u.prepare, img, &img->active, offset, &s->slice));
        map_set(img, s->slice, map_index(img, offset),
                entry_compressed_make(g, s->host_offset, s->deflate->packed_bytes), s->weight,
                false);
        slice_unpin(&img->l2, s->slice);
out:
        CO_END(&s->link);
}

static int check_cluster(const struct image *img, uint64_t offset, uint64_t length_bytes)
{
        uint64_t cluster_bytes = image_geometry(img)->cluster_bytes;

        if (offset % cluster_bytes != 0 || length_bytes == 0 || length_bytes > cluster_bytes)
                return -EINVAL;
        if (length_bytes < cluster_bytes && offset + length_bytes != image_size(img))
                return -EINVAL;
        return image_check_change(img, &img->active, offset, length_bytes);
}

/* Coroutine: deflated already. */
static int put_stream(struct write_compressed *s, struct image *img, uint64_t offset)
{
        CO_BEGIN(&s->put);
        if (commit_needed(img))
                CO_TRY(&s->put, out, meta_commit(&s->commit, img));
        CO_TRY(&s->put, out, range_lock(&s->lock, img, false, offset,
                                        offset + image_geometry(img)->cluster_bytes));
        s->weight = map_weight(img, &img->active, offset);
        CO_TRY(&s->put, unlock, store(s, img));
        CO_TRY(&s->put, free_stream, link_stream(s, img, offset));
        commit_kick(img);
        goto unlock;
free_stream:
        memset(&s->u.free, 0, sizeof(s->u.free));
        CO_UNDO(&s->put, give_back(s, img));
unlock:
        range_unlock(&s->lock, img);
out:
        CO_END(&s->put);
}

int write_compressed(struct write_compressed *s, struct image *img, uint64_t offset,
                     uint64_t length_bytes, const struct iovec *iov, unsigned iov_count)
{
        CO_BEGIN(s);
        CO_TRY(s, out, gate_enter(&img->writes, &s->gate_waiter));
        CO_TRY(s, leave, check_cluster(img, offset, length_bytes));
        s->deflate = deflate_new(img, length_bytes, iov, iov_count);
        if (!s->deflate)
                CO_FAIL(s, leave, -ENOMEM);
        CO_AWAIT(s, work_await(img->loop, &s->deflate->work));
        if (s->co.ret == -ENOSPC) {
                memset(&s->u.plain, 0, sizeof(s->u.plain));
                CO_TRY(s, free_deflate, write_inside(&s->u.plain, img, &img->active, offset,
                                                     length_bytes, iov, iov_count));
        } else if (s->co.ret < 0) {
                CO_FAIL(s, free_deflate, s->co.ret);
        } else {
                CO_TRY(s, free_deflate, put_stream(s, img, offset));
        }
free_deflate:
        deflate_free(s->deflate);
        s->deflate = NULL;
leave:
        gate_leave(&img->writes);
out:
        CO_END(s);
}
