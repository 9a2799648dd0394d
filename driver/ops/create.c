/*
 * create.c - an empty image.
 *
 *   cluster 0      header, extensions, backing file name
 *           1..    refcount table
 *           ..     refcount blocks, as many as count all this
 *           ..     L1 table, zeros
 *
 * Order on disk: the old content goes (a file is emptied; of a block device cluster 0 is
 * zeroed, durably), then everything but the first sector is written; fsync; then the
 * first sector, which makes it a qcow2 image; fsync.  Old bytes of a block device
 * are never trusted: tables are written in full.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "disk/error.h"
#include "disk/refcount.h"
#include "ops/create.h"
#include "ops/iov.h"

enum {
        DEFAULT_CLUSTER_BYTES = 65536,
        DEFAULT_REFCOUNT_BITS = 16,
        SECTOR_BYTES = 512,
};

/* ---- what is asked for ---- */

static int check_version(const struct hvb_create_args *args, unsigned version,
                         struct hvb_error *err)
{
        if (version != 2 && version != 3)
                return error_set(err, -EINVAL, "Unsupported qcow2 version %u: 2 (compat=0.10) or "
                                 "3 (compat=1.1)", version);
        if (version == 2 && args->lazy_refcounts)
                return error_set(err, -EINVAL, "Lazy refcounts only supported with compatibility "
                                 "level 1.1 and above (use version 3, compat=1.1)");
        if (args->compression > HVB_COMPRESSION_ZSTD)
                return error_set(err, -EINVAL, "Unknown compression type %u, known are 0 to %d",
                                 args->compression, HVB_COMPRESSION_ZSTD);
        if (version == 2 && args->compression != HVB_COMPRESSION_ZLIB)
                return error_set(err, -EINVAL, "Non-zlib compression type is only supported with "
                                 "compatibility level 1.1 and above (use version 3, compat=1.1)");
#ifndef HAVE_ZSTD
        if (args->compression == HVB_COMPRESSION_ZSTD)
                return error_set(err, -ENOTSUP, "This driver was built without zstd");
#endif
        return 0;
}

static int check_refcount_bits(uint32_t bits, unsigned version, struct hvb_error *err)
{
        if (!is_power_of_two(bits) || bits > 64)
                return error_set(err, -EINVAL, "Refcount width must be a power of two and may not "
                                 "exceed 64 bits, not %u", bits);
        if (version == 2 && bits != DEFAULT_REFCOUNT_BITS)
                return error_set(err, -EINVAL, "Refcount widths other than 16 bits, as %u, require "
                                 "compatibility level 1.1 or above (use version 3, compat=1.1)",
                                 bits);
        return 0;
}

static unsigned log2_of(uint64_t power)
{
        return (unsigned)__builtin_ctzll(power);
}

static int take_geometry(struct create *s, const struct hvb_create_args *args,
                         struct hvb_error *err)
{
        uint64_t cluster_bytes = args->cluster_bytes ? args->cluster_bytes : DEFAULT_CLUSTER_BYTES;
        uint32_t bits = args->refcount_bits ? args->refcount_bits : DEFAULT_REFCOUNT_BITS;
        unsigned version = args->version ? args->version : 3;
        int ret;

        if (!is_power_of_two(cluster_bytes) || cluster_bytes < 1u << MIN_CLUSTER_BITS ||
            cluster_bytes > 1u << MAX_CLUSTER_BITS)
                return error_set(err, -EINVAL, "Cluster size must be a power of two between %u and "
                                 "%uk, not %" PRIu64, 1u << MIN_CLUSTER_BITS,
                                 1u << (MAX_CLUSTER_BITS - 10), cluster_bytes);
        if (cluster_bytes < s->file->alignment)
                return error_set(err, -EINVAL, "Clusters of %" PRIu64 " bytes are smaller than the "
                                 "blocks of %u bytes in which the file must be written (O_DIRECT)",
                                 cluster_bytes, s->file->alignment);
        if (args->preallocation > HVB_PREALLOC_FULL)
                return error_set(err, -EINVAL, "Unknown preallocation mode %u",
                                 args->preallocation);
        ret = check_version(args, version, err);
        if (ret == 0)
                ret = check_refcount_bits(bits, version, err);
        if (ret < 0)
                return ret;
        geometry_init(&s->header.geometry, version, log2_of(cluster_bytes), log2_of(bits));
        s->header.version = version;
        return 0;
}

static int check_backing(const struct hvb_create_args *args, struct hvb_error *err)
{
        bool has_name = args->backing_name && *args->backing_name;
        bool has_format = args->backing_format && *args->backing_format;

        if (has_name && !has_format)
                return error_set(err, -EINVAL, "Backing file specified without backing format");
        if (!has_name && has_format)
                return error_set(err, -EINVAL, "Backing format '%s' cannot be used without backing "
                                 "file", args->backing_format);
        if (has_name && args->preallocation != HVB_PREALLOC_OFF)
                return error_set(err, -EINVAL, "Backing file and preallocation cannot be used at "
                                 "the same time: preallocated clusters would hide the file");
        return 0;
}

/* The smallest cluster size at which the L1 table is within its limit, or 0. */
static uint64_t cluster_bytes_for(uint64_t size_bytes)
{
        struct geometry g;
        unsigned bits;

        for (bits = MIN_CLUSTER_BITS; bits <= MAX_CLUSTER_BITS; bits++) {
                geometry_init(&g, 3, bits, 4);
                if (geometry_l1_entries(&g, size_bytes) <= MAX_L1_BYTES / 8)
                        return g.cluster_bytes;
        }
        return 0;
}

int create_check_size(const struct geometry *g, uint64_t size_bytes, struct hvb_error *err)
{
        uint64_t limit = MAX_L1_BYTES / 8 * g->l2_span_bytes;
        uint64_t would_do = cluster_bytes_for(size_bytes);

        if (size_bytes % SECTOR_BYTES != 0)
                return error_set(err, -EINVAL, "Image size %" PRIu64 " is not a multiple of %d",
                                 size_bytes, SECTOR_BYTES);
        if (size_bytes <= limit)
                return 0;
        if (would_do == 0)
                return error_set(err, -EFBIG, "Image size %" PRIu64 " is too large: the limit is "
                                 "%" PRIu64 " with clusters of %" PRIu64 " bytes, and larger "
                                 "clusters do not help", size_bytes, limit, g->cluster_bytes);
        return error_set(err, -EFBIG, "Image size %" PRIu64 " is too large for clusters of "
                         "%" PRIu64 " bytes (limit %" PRIu64 "); a cluster size of %" PRIu64
                         " would do", size_bytes, g->cluster_bytes, limit, would_do);
}

/* ---- layout ---- */

static void lay_out(struct create_layout *l, const struct geometry *g, uint64_t size_bytes)
{
        l->l1_entries = geometry_l1_entries(g, size_bytes);
        l->l1_clusters = div_up(l->l1_entries * 8, g->cluster_bytes);
        l->block_count = 1;
        for (;;) {
                l->reftable_clusters = div_up(l->block_count * 8, g->cluster_bytes);
                l->cluster_count = 1 + l->reftable_clusters + l->block_count + l->l1_clusters;
                if (l->block_count * g->refblock_entries >= l->cluster_count)
                        return;
                l->block_count++;
        }
}

static uint64_t cluster_offset(const struct create *s, uint64_t cluster)
{
        return cluster << s->header.geometry.cluster_bits;
}

static void fill_header(struct create *s, const struct hvb_create_args *args)
{
        struct header *h = &s->header;
        const struct create_layout *l = &s->layout;

        h->size_bytes = args->size_bytes;
        h->reftable_offset = cluster_offset(s, 1);
        h->reftable_clusters = (uint32_t)l->reftable_clusters;
        h->l1_entries = (uint32_t)l->l1_entries;
        if (l->l1_entries > 0)
                h->l1_offset = cluster_offset(s, 1 + l->reftable_clusters + l->block_count);
        if (args->lazy_refcounts)
                h->compatible |= COMPAT_LAZY_REFCOUNTS;
        h->compression = (uint8_t)args->compression;
        if (args->compression != HVB_COMPRESSION_ZLIB)
                h->incompatible |= INCOMPAT_COMPRESSION;
        if (args->backing_name && *args->backing_name) {
                h->backing_name = g_strdup(args->backing_name);
                h->backing_format = g_strdup(args->backing_format);
        }
}

static int check_room(const struct create *s, struct hvb_error *err)
{
        uint64_t needed = cluster_offset(s, s->layout.cluster_count);
        int64_t length;

        if (!s->file->is_block_device)
                return 0;
        length = io_file_length(s->file);
        if (length < 0)
                return error_set(err, (int)length, "Could not get the size of the device: %s",
                                 g_strerror((int)-length));
        if ((uint64_t)length < needed)
                return error_set(err, -ENOSPC, "The device has %" PRId64 " bytes, the image's "
                                 "tables alone need %" PRIu64, length, needed);
        return 0;
}

static int prepare(struct create *s, struct io_file *file, const struct hvb_create_args *args,
                   struct hvb_error *err)
{
        const struct geometry *g = &s->header.geometry;
        int ret;

        s->file = file;
        s->header = (struct header) { .version = 0 };
        ret = take_geometry(s, args, err);
        if (ret == 0)
                ret = check_backing(args, err);
        if (ret == 0)
                ret = create_check_size(g, args->size_bytes, err);
        if (ret < 0)
                return ret;
        lay_out(&s->layout, g, args->size_bytes);
        fill_header(s, args);
        ret = check_room(s, err);
        if (ret < 0)
                return ret;
        s->root_bytes = u64_max(ROOT_SECTOR_BYTES, file->alignment);
        s->cluster = io_buffer_try_new(g->cluster_bytes);
        s->buffer = io_buffer_try_new(g->cluster_bytes);
        if (!s->cluster || !s->buffer)
                return error_set(err, -ENOMEM, "No memory for two clusters of %" PRIu64 " bytes",
                                 g->cluster_bytes);
        return header_build(&s->header, s->cluster, err);
}

/* ---- writing ---- */

static int write_zeros(struct create *s, uint64_t first, uint64_t end)
{
        CO_BEGIN(&s->zero);
        s->end = end;
        for (s->position = first; s->position < s->end;
             s->position += u64_min(ZEROS_BYTES, s->end - s->position))
                CO_TRY(&s->zero, out, io_write(&s->io, s->file, s->position, iov_zeros(),
                                               u64_min(ZEROS_BYTES, s->end - s->position)));
out:
        CO_END(&s->zero);
}

static int truncate_to(struct create *s, uint64_t length)
{
        if (s->io.state == IO_IDLE)
                io_prepare(&s->io, IO_TRUNCATE, s->file, length, NULL, 0);
        return io_await(&s->io);
}

/* Afterwards no crash shows the old content as an image, and a file reads as zeros. */
static int remove_old(struct create *s)
{
        CO_BEGIN(&s->tables);
        if (s->file->is_block_device) {
                CO_TRY(&s->tables, out, write_zeros(s, 0, s->header.geometry.cluster_bytes));
                CO_TRY(&s->tables, out, io_fsync(&s->io, s->file));
        } else {
                CO_TRY(&s->tables, out, truncate_to(s, 0));
                CO_TRY(&s->tables, out, truncate_to(s, cluster_offset(s, s->layout.cluster_count)));
        }
out:
        CO_END(&s->tables);
}

static void fill_reftable(struct create *s, uint64_t index)
{
        uint64_t entries = s->header.geometry.cluster_bytes / 8;
        uint64_t i;

        memset(s->buffer, 0, s->header.geometry.cluster_bytes);
        for (i = 0; i < entries && index * entries + i < s->layout.block_count; i++)
                be64_store(s->buffer + i * 8,
                           cluster_offset(s, 1 + s->layout.reftable_clusters +
                                             index * entries + i));
}

static void fill_block(struct create *s, uint64_t index)
{
        const struct geometry *g = &s->header.geometry;
        uint64_t first = index * g->refblock_entries;
        uint64_t i;

        memset(s->buffer, 0, g->cluster_bytes);
        for (i = 0; i < g->refblock_entries && first + i < s->layout.cluster_count; i++)
                refcount_set(s->buffer, g->refcount_order, i, 1);
}

/* Cluster 1 + index: a part of the refcount table, or a block. */
static void fill_cluster(struct create *s, uint64_t index)
{
        if (index < s->layout.reftable_clusters)
                fill_reftable(s, index);
        else
                fill_block(s, index - s->layout.reftable_clusters);
}

static int write_tables(struct create *s)
{
        const struct create_layout *l = &s->layout;
        const struct geometry *g = &s->header.geometry;

        CO_BEGIN(&s->tables);
        for (s->position = 0; s->position < l->reftable_clusters + l->block_count;
             s->position++) {
                fill_cluster(s, s->position);
                CO_TRY(&s->tables, out, io_write(&s->io, s->file,
                                                 cluster_offset(s, 1 + s->position), s->buffer,
                                                 g->cluster_bytes));
        }
        if (s->file->is_block_device)
                CO_TRY(&s->tables, out, write_zeros(s, cluster_offset(s, 1 + s->position),
                                                    cluster_offset(s, l->cluster_count)));
        if (g->cluster_bytes > s->root_bytes)
                CO_TRY(&s->tables, out, io_write(&s->io, s->file, s->root_bytes,
                                                 s->cluster + s->root_bytes,
                                                 g->cluster_bytes - s->root_bytes));
out:
        CO_END(&s->tables);
}

int create_file(struct create *s, struct loop *loop, struct io_file *file,
                const struct hvb_create_args *args, struct hvb_error *err)
{
        (void)loop;
        CO_BEGIN(s);
        CO_TRY(s, out, prepare(s, file, args, err));
        CO_TRY(s, failed, remove_old(s));
        CO_TRY(s, failed, write_tables(s));
        CO_TRY(s, failed, io_fsync(&s->io, s->file));
        CO_TRY(s, failed, io_write(&s->io, s->file, 0, s->cluster, s->root_bytes));
        CO_TRY(s, failed, io_fsync(&s->io, s->file));
        goto out;
failed:
        error_set(err, s->co.err, "Could not write the new image: %s", g_strerror(-s->co.err));
out:
        free(s->cluster);
        free(s->buffer);
        s->cluster = NULL;
        s->buffer = NULL;
        header_clear(&s->header);
        CO_END(s);
}
