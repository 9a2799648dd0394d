/*
 * header-image.h - for tests of the header: cluster 0, laid by hand from the format's field table.
 *
 * Buffers are malloc()ed to the byte for the sanitizer's sake.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef UNIT_HEADER_IMAGE_H
#define UNIT_HEADER_IMAGE_H

#include <glib.h>
#include <string.h>

#include "disk/header.h"

/* Offsets of the format's table. */
enum {
        VERSION = 4, BACKING_OFFSET = 8, BACKING_SIZE = 16, CLUSTER_BITS = 20, SIZE = 24,
        CRYPT_METHOD = 32, L1_SIZE = 36, L1_OFFSET = 40, REFTABLE_OFFSET = 48,
        REFTABLE_CLUSTERS = 56, NB_SNAPSHOTS = 60, SNAPSHOTS_OFFSET = 64, INCOMPATIBLE = 72,
        COMPATIBLE = 80, AUTOCLEAR = 88, REFCOUNT_ORDER = 96, HEADER_LENGTH = 100,
        COMPRESSION = 104,
};

enum { FILE_BYTES = 0x60000, CLUSTER = 0x10000 };

/* 64 KiB clusters, 1 GiB: two L1 entries.  L1 at 0x30000, refcount table at 0x10000. */
static inline uint8_t *image_new(uint32_t version)
{
        uint8_t *b = g_malloc0(CLUSTER);

        memcpy(b, "QFI\xfb", 4);
        be32_store(b + VERSION, version);
        be32_store(b + CLUSTER_BITS, 16);
        be64_store(b + SIZE, 1u << 30);
        be32_store(b + L1_SIZE, 2);
        be64_store(b + L1_OFFSET, 0x30000);
        be64_store(b + REFTABLE_OFFSET, 0x10000);
        be32_store(b + REFTABLE_CLUSTERS, 1);
        if (version >= 3) {
                be32_store(b + REFCOUNT_ORDER, 4);
                be32_store(b + HEADER_LENGTH, 112);
        }
        return b;
}

static inline uint8_t *add_extension(uint8_t *p, uint32_t type, const void *data,
                                     uint32_t length_bytes)
{
        be32_store(p, type);
        be32_store(p + 4, length_bytes);
        memcpy(p + 8, data, length_bytes);
        return p + 8 + (length_bytes + 7) / 8 * 8;
}

static inline void set_backing(uint8_t *b, uint64_t offset, const char *name, uint32_t length_bytes)
{
        be64_store(b + BACKING_OFFSET, offset);
        be32_store(b + BACKING_SIZE, length_bytes);
        if (offset + length_bytes <= CLUSTER)
                memcpy(b + offset, name, length_bytes);
}

static inline void decode_good(struct header *h, const uint8_t *b, size_t byte_count,
                               uint64_t file_bytes)
{
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        int ret = header_decode(h, b, byte_count, file_bytes, &err);

        g_assert_cmpstr(err.text, ==, "");
        g_assert_cmpint(ret, ==, 0);
}

/* Refused with this code, with nothing left behind and a text that contains each of the
 * words, which are separated by bars. */
static inline void assert_refused(const uint8_t *b, size_t byte_count, uint64_t file_bytes,
                                  int code, const char *words)
{
        g_auto(GStrv) list = g_strsplit(words, "|", -1);
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        struct header h;

        memset(&h, 0x55, sizeof(h));
        g_assert_cmpint(header_decode(&h, b, byte_count, file_bytes, &err), ==, code);
        g_assert_cmpint(err.code, ==, code);
        g_assert_cmpuint(h.version, ==, 0);
        g_assert_cmpuint(h.l1_entries, ==, 0);
        g_assert_null(h.backing_name);
        g_assert_null(h.backing_format);
        g_assert_null(h.extensions);
        g_assert_null(h.unknown);
        for (char **word = list; *word; word++) {
                if (!strstr(err.text, *word))
                        g_error("\"%s\" does not say \"%s\"", err.text, *word);
        }
}

/* A small one with everything in it: 512-byte clusters. */
static inline uint8_t *small_image_new(void)
{
        uint8_t *b = g_malloc0(512);
        uint8_t *p;

        memcpy(b, "QFI\xfb", 4);
        be32_store(b + VERSION, 3);
        be32_store(b + CLUSTER_BITS, 9);
        be64_store(b + SIZE, 40000);
        be32_store(b + L1_SIZE, 2);
        be64_store(b + L1_OFFSET, 1024);
        be64_store(b + REFTABLE_OFFSET, 512);
        be32_store(b + REFTABLE_CLUSTERS, 1);
        be32_store(b + NB_SNAPSHOTS, 1);
        be64_store(b + SNAPSHOTS_OFFSET, 2048);
        be32_store(b + REFCOUNT_ORDER, 4);
        be32_store(b + HEADER_LENGTH, 128);
        memcpy(b + 112, "from the future", 16);
        p = add_extension(b + 128, EXT_BACKING_FORMAT, "raw", 3);
        p = add_extension(p, 0x12345678, "12345", 5);
        p = add_extension(p, EXT_END, "", 0);
        set_backing(b, (uint64_t)(p - b), "base.img", 8);
        return b;
}

static inline void assert_same_extension(const struct header *a, const struct header *b, guint i)
{
        const struct header_extension *x;
        const struct header_extension *y;

        x = &g_array_index(a->extensions, struct header_extension, i);
        y = header_extension_find(b, x->type);
        g_assert_nonnull(y);
        g_assert_cmpmem(x->data, x->length_bytes, y->data, y->length_bytes);
}

static inline void assert_same(const struct header *a, const struct header *b)
{
        g_assert_cmpuint(a->version, ==, b->version);
        g_assert_cmpuint(a->geometry.cluster_bits, ==, b->geometry.cluster_bits);
        g_assert_cmpuint(a->geometry.refcount_order, ==, b->geometry.refcount_order);
        g_assert_cmpuint(a->size_bytes, ==, b->size_bytes);
        g_assert_cmpuint(a->l1_entries, ==, b->l1_entries);
        g_assert_cmphex(a->l1_offset, ==, b->l1_offset);
        g_assert_cmphex(a->reftable_offset, ==, b->reftable_offset);
        g_assert_cmpuint(a->reftable_clusters, ==, b->reftable_clusters);
        g_assert_cmpuint(a->snapshot_count, ==, b->snapshot_count);
        g_assert_cmphex(a->snapshots_offset, ==, b->snapshots_offset);
        g_assert_cmphex(a->incompatible, ==, b->incompatible);
        g_assert_cmphex(a->compatible, ==, b->compatible);
        g_assert_cmphex(a->autoclear, ==, b->autoclear);
        g_assert_cmpuint(a->compression, ==, b->compression);
        g_assert_cmpstr(a->backing_name, ==, b->backing_name);
        g_assert_cmpstr(a->backing_format, ==, b->backing_format);
        /* A header of 104 bytes grows by a zeroed tail. */
        g_assert_cmpuint(b->unknown_bytes, >=, a->unknown_bytes);
        for (uint32_t i = 0; i < b->unknown_bytes; i++)
                g_assert_cmphex(b->unknown[i], ==, i < a->unknown_bytes ? a->unknown[i] : 0);
}

#endif
