/*
 * test-header.c - cluster 0, laid by hand from the format's field table, and as
 * qemu-img makes it.
 *
 * What decoding promises, checked for every image here that it accepts, damaged
 * ones among them: tables are aligned, behind the header, within their limits and
 * begin inside the file; rebuilding and decoding again gives the same header.
 * What it refuses, it refuses with a text that names the field, the value and the
 * limit.  Buffers are malloc()ed to the byte for the sanitizer's sake.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "disk/header.h"
#include "qemu-img.h"

/* ---- images laid by hand ---- */

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
static uint8_t *image_new(uint32_t version)
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

static uint8_t *add_extension(uint8_t *p, uint32_t type, const void *data, uint32_t length_bytes)
{
        be32_store(p, type);
        be32_store(p + 4, length_bytes);
        memcpy(p + 8, data, length_bytes);
        return p + 8 + (length_bytes + 7) / 8 * 8;
}

static void set_backing(uint8_t *b, uint64_t offset, const char *name, uint32_t length_bytes)
{
        be64_store(b + BACKING_OFFSET, offset);
        be32_store(b + BACKING_SIZE, length_bytes);
        if (offset + length_bytes <= CLUSTER)
                memcpy(b + offset, name, length_bytes);
}

static void decode_good(struct header *h, const uint8_t *b, size_t byte_count, uint64_t file_bytes)
{
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        int ret = header_decode(h, b, byte_count, file_bytes, &err);

        g_assert_cmpstr(err.text, ==, "");
        g_assert_cmpint(ret, ==, 0);
}

/* Refused with this code, with nothing left behind and a text that contains each of the
 * words, which are separated by bars. */
static void assert_refused(const uint8_t *b, size_t byte_count, uint64_t file_bytes, int code,
                           const char *words)
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

/* ---- what decoding takes ---- */

static void decode_v3(void)
{
        g_autofree uint8_t *b = image_new(3);
        uint64_t wanted_bytes;
        struct header h;

        be64_store(b + INCOMPATIBLE, 3);                /* dirty, corrupt: the caller's to judge */
        be64_store(b + COMPATIBLE, 0xf001);             /* unknown ones do no harm */
        be64_store(b + AUTOCLEAR, 0xf003);
        be32_store(b + REFCOUNT_ORDER, 6);
        be32_store(b + NB_SNAPSHOTS, 2);
        be64_store(b + SNAPSHOTS_OFFSET, 0x50000);
        g_assert_cmpint(header_peek(b, 104, &wanted_bytes, NULL), ==, 0);
        g_assert_cmpuint(wanted_bytes, ==, CLUSTER);

        decode_good(&h, b, CLUSTER, FILE_BYTES);
        g_assert_cmpuint(h.version, ==, 3);
        g_assert_cmpuint(h.geometry.cluster_bits, ==, 16);
        g_assert_cmpuint(h.geometry.refcount_order, ==, 6);
        g_assert_cmpuint(h.size_bytes, ==, 1u << 30);
        g_assert_cmpuint(h.l1_entries, ==, 2);
        g_assert_cmphex(h.l1_offset, ==, 0x30000);
        g_assert_cmphex(h.reftable_offset, ==, 0x10000);
        g_assert_cmpuint(h.reftable_clusters, ==, 1);
        g_assert_cmpuint(h.snapshot_count, ==, 2);
        g_assert_cmphex(h.snapshots_offset, ==, 0x50000);
        g_assert_cmphex(h.incompatible, ==, 3);
        g_assert_cmphex(h.compatible, ==, 0xf001);
        g_assert_cmphex(h.autoclear, ==, 0xf003);
        g_assert_cmpuint(h.header_bytes, ==, 112);
        g_assert_cmpuint(h.compression, ==, HVB_COMPRESSION_ZLIB);
        g_assert_null(h.backing_name);
        header_clear(&h);
}

/* Version 2 has no features and 16-bit counts, whatever follows its 72 bytes. */
static void decode_v2(void)
{
        g_autofree uint8_t *b = image_new(2);
        struct header h;

        set_backing(b, 72, "\xff\xff\xff\xff/base/with/a/name/that/passes/for/feature/bits", 50);
        decode_good(&h, b, CLUSTER, FILE_BYTES);
        g_assert_cmpuint(h.version, ==, 2);
        g_assert_cmpuint(h.header_bytes, ==, 72);
        g_assert_cmpuint(h.geometry.refcount_order, ==, 4);
        g_assert_cmphex(h.incompatible | h.compatible | h.autoclear, ==, 0);
        g_assert_cmpuint(strlen(h.backing_name), ==, 50);
        g_assert_null(h.extensions);
        header_clear(&h);
}

static void decode_zstd(void)
{
        g_autofree uint8_t *b = image_new(3);
        struct header h;

        be64_store(b + INCOMPATIBLE, 8);
        b[COMPRESSION] = 1;
        decode_good(&h, b, CLUSTER, FILE_BYTES);
        g_assert_cmpuint(h.compression, ==, HVB_COMPRESSION_ZSTD);
        header_clear(&h);
}

/* With a header of 104 bytes, the next byte is an extension's, not the compression type. */
static void decode_104_bytes(void)
{
        g_autofree uint8_t *b = image_new(3);
        struct header h;

        be32_store(b + HEADER_LENGTH, 104);
        add_extension(b + 104, 0x01020304, "abc", 3);
        decode_good(&h, b, CLUSTER, FILE_BYTES);
        g_assert_cmpuint(h.compression, ==, HVB_COMPRESSION_ZLIB);
        g_assert_cmpuint(h.extensions->len, ==, 1);
        g_assert_null(h.unknown);
        header_clear(&h);
}

static void decode_extensions(void)
{
        g_autofree uint8_t *b = image_new(3);
        struct header_extension *e;
        struct header h;
        uint8_t *p;

        p = add_extension(b + 112, 0xe2792aca, "qcow2", 5);
        p = add_extension(p, 0x12345678, "", 0);
        p = add_extension(p, 0x9abcdef0, "123456789", 9);
        p = add_extension(p, 0, "", 0);
        p = add_extension(p, 0x11111111, "behind the end", 14);
        set_backing(b, (uint64_t)(p - b), "/base.qcow2", 11);
        decode_good(&h, b, CLUSTER, FILE_BYTES);

        g_assert_cmpstr(h.backing_name, ==, "/base.qcow2");
        g_assert_cmpstr(h.backing_format, ==, "qcow2");
        g_assert_cmpuint(h.extensions->len, ==, 3);
        e = &g_array_index(h.extensions, struct header_extension, 0);
        g_assert_cmphex(e->type, ==, EXT_BACKING_FORMAT);
        e = header_extension_find(&h, 0x12345678);
        g_assert_nonnull(e);
        g_assert_cmpuint(e->length_bytes, ==, 0);
        e = header_extension_find(&h, 0x9abcdef0);
        g_assert_nonnull(e);
        g_assert_cmpmem(e->data, e->length_bytes, "123456789", 9);
        g_assert_null(header_extension_find(&h, 0x11111111));
        header_clear(&h);
}

/* The backing name ends the extensions, without END and without the last one's padding. */
static void decode_extensions_up_to_the_name(void)
{
        g_autofree uint8_t *b = image_new(3);
        struct header h;

        add_extension(b + 112, 0x12345678, "abc", 3);
        set_backing(b, 112 + 8 + 3, "base", 4);
        decode_good(&h, b, CLUSTER, FILE_BYTES);
        g_assert_cmpuint(h.extensions->len, ==, 1);
        g_assert_cmpstr(h.backing_name, ==, "base");
        header_clear(&h);
}

static void decode_backing_limits(void)
{
        g_autofree uint8_t *b = image_new(3);
        g_autofree char *name = g_strnfill(1023, 'x');
        struct header h;

        set_backing(b, CLUSTER - 1023, name, 1023);
        decode_good(&h, b, CLUSTER, FILE_BYTES);
        g_assert_cmpstr(h.backing_name, ==, name);
        header_clear(&h);
}

static void decode_empty_disk(void)
{
        g_autofree uint8_t *b = image_new(3);
        struct header h;

        be64_store(b + SIZE, 0);
        be32_store(b + L1_SIZE, 0);
        be64_store(b + L1_OFFSET, 0);
        decode_good(&h, b, CLUSTER, FILE_BYTES);
        header_clear(&h);
}

/* qemu-img leaves files that end where the last table's last entry does. */
static void decode_short_files(void)
{
        g_autofree uint8_t *b = image_new(3);
        struct header h;

        decode_good(&h, b, CLUSTER, 0x30010);
        header_clear(&h);
        be64_store(b + REFTABLE_OFFSET, 0x40000);
        decode_good(&h, b, CLUSTER, 0x40001);
        header_clear(&h);
        be32_store(b + NB_SNAPSHOTS, 1);
        be64_store(b + SNAPSHOTS_OFFSET, 0x50000);
        decode_good(&h, b, CLUSTER, 0x50028);
        header_clear(&h);
}

/* ---- what decoding refuses ---- */

static const struct {
        const char *name;
        unsigned offset;
        unsigned width_bytes;
        uint64_t value;
        int code;
        const char *words;
} refused_fields[] = {
        { "magic", 0, 4, 0x514649fa, -EINVAL, "not in qcow2 format" },
        { "version-1", VERSION, 4, 1, -ENOTSUP, "Unsupported qcow2 version 1" },
        { "version-4", VERSION, 4, 4, -ENOTSUP, "Unsupported qcow2 version 4" },
        { "cluster-bits-8", CLUSTER_BITS, 4, 8, -EINVAL, "cluster size|2^8|2^9|2^21" },
        { "cluster-bits-22", CLUSTER_BITS, 4, 22, -EINVAL, "cluster size|2^22|2^9|2^21" },
        { "cluster-bits-huge", CLUSTER_BITS, 4, UINT32_MAX, -EINVAL, "cluster size|4294967295" },
        { "header-length-96", HEADER_LENGTH, 4, 96, -EINVAL, "header length 96|104" },
        { "header-length-108", HEADER_LENGTH, 4, 108, -EINVAL, "length 108|multiple of 8" },
        { "header-length-huge", HEADER_LENGTH, 4, 0xfffffff8, -EINVAL, "4294967288|65536" },
        { "header-length-cluster", HEADER_LENGTH, 4, CLUSTER + 8, -EINVAL, "65544|65536" },
        { "refcount-order", REFCOUNT_ORDER, 4, 7, -EINVAL, "refcount_order 7|limit 6" },
        { "refcount-order-huge", REFCOUNT_ORDER, 4, UINT32_MAX, -EINVAL, "4294967295|limit 6" },
        { "aes", CRYPT_METHOD, 4, 1, -ENOTSUP, "AES|crypt_method 1" },
        { "luks", CRYPT_METHOD, 4, 2, -ENOTSUP, "LUKS|crypt_method 2" },
        { "cipher", CRYPT_METHOD, 4, 3, -EINVAL, "encryption method 3" },
        { "data-file", INCOMPATIBLE, 8, 4, -ENOTSUP, "qcow2 feature(s): external data file" },
        { "extended-l2", INCOMPATIBLE, 8, 16, -ENOTSUP, "qcow2 feature(s): extended L2 entries" },
        { "features", INCOMPATIBLE, 8, UINT64_C(0x8000000000000023), -ENOTSUP,
          "Unknown incompatible feature: 8000000000000020" },
        { "compression-type", COMPRESSION, 1, 2, -ENOTSUP, "compression type: 2|0 to 1" },
        { "compression-bit-missing", COMPRESSION, 1, 1, -EINVAL, "bit must be set|type 1" },
        { "compression-bit-alone", INCOMPATIBLE, 8, 8, -EINVAL, "bit must not be set|type 0" },
        { "size", SIZE, 8, UINT64_MAX, -EFBIG, "18446744073709551615|4611686018427387904" },
        { "size-over-l1", SIZE, 8, (1u << 30) + 1, -EINVAL,
          "L1 table is too small|2 entries|1073741825 bytes needs 3" },
        { "l1-size", L1_SIZE, 4, (4u << 20) + 1, -EFBIG, "4194305 entries|limit 4194304" },
        { "l1-size-huge", L1_SIZE, 4, UINT32_MAX, -EFBIG, "4294967295 entries|limit 4194304" },
        { "l1-size-0", L1_SIZE, 4, 0, -EINVAL, "too small|0 entries|needs 2" },
        { "l1-offset-odd", L1_OFFSET, 8, 0x30200, -EINVAL, "L1 table|0x30200|65536" },
        { "l1-offset-header", L1_OFFSET, 8, 0, -EINVAL, "L1 table|0x0|header cluster" },
        { "l1-offset-limit", L1_OFFSET, 8, UINT64_C(1) << 56, -EINVAL, "L1 table|limit" },
        { "l1-offset-wrap", L1_OFFSET, 8, UINT64_C(0xffffffffffff0000), -EINVAL, "L1 table" },
        { "l1-offset-eof", L1_OFFSET, 8, FILE_BYTES, -EINVAL,
          "L1 table [0x60000, 0x60010) lies beyond the end of the file (393216 bytes)|truncated?" },
        { "l1-end-eof", L1_SIZE, 4, 0x30000 / 8 + 1, -EINVAL, "[0x30000, 0x60008)|393216" },
        { "reftable-clusters-0", REFTABLE_CLUSTERS, 4, 0, -EINVAL, "refcount_table_clusters is 0" },
        { "reftable-clusters", REFTABLE_CLUSTERS, 4, 129, -EFBIG,
          "Refcount table too large|129 clusters|limit 128" },
        { "reftable-clusters-huge", REFTABLE_CLUSTERS, 4, UINT32_MAX, -EFBIG, "4294967295" },
        { "reftable-offset-odd", REFTABLE_OFFSET, 8, 0x10008, -EINVAL, "Refcount table|0x10008" },
        { "reftable-offset-0", REFTABLE_OFFSET, 8, 0, -EINVAL, "Refcount table|header cluster" },
        { "reftable-offset-limit", REFTABLE_OFFSET, 8, UINT64_C(1) << 56, -EINVAL,
          "Refcount table|0x100000000000000" },
        { "reftable-offset-eof", REFTABLE_OFFSET, 8, FILE_BYTES, -EINVAL,
          "Refcount table at 0x60000|beyond the end|393216" },
        { "snapshot-count", NB_SNAPSHOTS, 4, 65537, -EFBIG, "65537 snapshots|limit 65536" },
        { "snapshot-count-huge", NB_SNAPSHOTS, 4, UINT32_MAX, -EFBIG, "4294967295 snapshots" },
        { "snapshots-offset-0", NB_SNAPSHOTS, 4, 1, -EINVAL, "Snapshot table|header cluster" },
        { "snapshots-offset-odd", SNAPSHOTS_OFFSET, 8, 0x50001, -EINVAL, "Snapshot table|0x50001" },
        { "backing-offset-header", BACKING_OFFSET, 8, 104, -EINVAL, "offset: 0x68|112|65536" },
        { "backing-offset-far", BACKING_OFFSET, 8, CLUSTER + 1, -EINVAL, "offset: 0x10001|65536" },
        { "backing-offset-wrap", BACKING_OFFSET, 8, UINT64_MAX, -EINVAL, "0xffffffffffffffff" },
        { "backing-size-0", BACKING_OFFSET, 8, 112, -EINVAL, "name at 0x70 is empty" },
};

static void refuse_field(gconstpointer data)
{
        unsigned i = GPOINTER_TO_UINT(data);
        g_autofree uint8_t *b = image_new(3);

        switch (refused_fields[i].width_bytes) {
        case 1:
                b[refused_fields[i].offset] = (uint8_t)refused_fields[i].value;
                break;
        case 4:
                be32_store(b + refused_fields[i].offset, (uint32_t)refused_fields[i].value);
                break;
        default:
                be64_store(b + refused_fields[i].offset, refused_fields[i].value);
                break;
        }
        assert_refused(b, CLUSTER, FILE_BYTES, refused_fields[i].code, refused_fields[i].words);
}

static void refuse_backing_name(void)
{
        g_autofree uint8_t *b = image_new(3);
        g_autofree char *name = g_strnfill(1024, 'x');

        set_backing(b, 512, name, 1024);
        assert_refused(b, CLUSTER, FILE_BYTES, -EINVAL, "Backing file name too long|1024|1023");
        set_backing(b, CLUSTER - 8, name, 9);
        assert_refused(b, CLUSTER, FILE_BYTES, -EINVAL, "too long: 9 bytes at 0xfff8|65536");
        set_backing(b, CLUSTER, name, 1);
        assert_refused(b, CLUSTER, FILE_BYTES, -EINVAL, "too long: 1 bytes at 0x10000|65536");
        set_backing(b, 512, "/safe\0/../etc", 13);
        assert_refused(b, CLUSTER, FILE_BYTES, -EINVAL, "13 bytes|NUL");
}

static void refuse_extension(void)
{
        g_autofree uint8_t *b = image_new(3);
        g_autofree char *name = g_strnfill(64, 'x');

        be32_store(b + 112, 0x12345678);
        be32_store(b + 116, CLUSTER - 120 + 1);
        assert_refused(b, CLUSTER, FILE_BYTES, -EINVAL, "0x12345678|65417 bytes|65416 are left");
        be32_store(b + 116, UINT32_MAX);
        assert_refused(b, CLUSTER, FILE_BYTES, -EINVAL, "0x12345678|4294967295 bytes");
        add_extension(b + 112, EXT_BACKING_FORMAT, name, 64);
        assert_refused(b, CLUSTER, FILE_BYTES, -EINVAL, "format name too long|64|63");
        add_extension(b + 112, EXT_BACKING_FORMAT, "raw\0x", 5);
        assert_refused(b, CLUSTER, FILE_BYTES, -EINVAL, "format name|NUL");
}

/* The image names the feature; a row that is full has no NUL. */
static void refuse_feature_by_its_name(void)
{
        g_autofree uint8_t *b = image_new(3);
        uint8_t rows[3 * 48] = { 0 };

        rows[0] = 1;                    /* a compatible one of the same bit */
        rows[1] = 40;
        strcpy((char *)rows + 2, "not this");
        rows[48 + 1] = 40;
        memset(rows + 48 + 2, 'n', 46);
        rows[96 + 1] = 41;
        strcpy((char *)rows + 96 + 2, "time\ntravel");
        add_extension(b + 112, EXT_FEATURE_NAMES, rows, sizeof(rows));

        be64_store(b + INCOMPATIBLE, UINT64_C(1) << 40);
        assert_refused(b, CLUSTER, FILE_BYTES, -ENOTSUP,
                       "feature(s): nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn");
        be64_store(b + INCOMPATIBLE, UINT64_C(7) << 41 | 4);
        assert_refused(b, CLUSTER, FILE_BYTES, -ENOTSUP, "feature(s): external data file, "
                       "time?travel, Unknown incompatible feature: c0000000000");

        /* It is named even where the list goes wrong later on, and elsewhere too. */
        be32_store(b + 112 + 8 + sizeof(rows), 0x12345678);
        be32_store(b + 112 + 12 + sizeof(rows), UINT32_MAX);
        be32_store(b + REFTABLE_CLUSTERS, 0);
        assert_refused(b, CLUSTER, FILE_BYTES, -ENOTSUP, "time?travel");

        /* A table cut in the middle of a row names what is whole. */
        add_extension(b + 112, EXT_FEATURE_NAMES, rows, 96 + 47);
        assert_refused(b, CLUSTER, FILE_BYTES, -ENOTSUP, "feature: e0000000000");
}

/* ---- every truncation, any damage ---- */

/* A small one with everything in it: 512-byte clusters. */
static uint8_t *small_image_new(void)
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

static void truncated_anywhere(void)
{
        g_autofree uint8_t *whole = small_image_new();

        for (size_t byte_count = 0; byte_count < 512; byte_count++) {
                g_autofree uint8_t *cut = g_memdup2(whole, byte_count);
                struct hvb_error err = { .struct_bytes = sizeof(err) };
                uint64_t wanted_bytes = 1;
                int ret = header_peek(cut, byte_count, &wanted_bytes, &err);

                g_assert_cmpint(ret, ==, byte_count < 72 ? -EINVAL : 0);
                g_assert_cmpuint(wanted_bytes, ==, ret ? 1 : 512);
                assert_refused(cut, byte_count, byte_count, -EINVAL,
                               byte_count < 8 ? "not in qcow2 format" :
                               byte_count < 72 ? "too short" : "truncated?");
        }
}

static void assert_same_extension(const struct header *a, const struct header *b, guint i)
{
        const struct header_extension *x;
        const struct header_extension *y;

        x = &g_array_index(a->extensions, struct header_extension, i);
        y = header_extension_find(b, x->type);
        g_assert_nonnull(y);
        g_assert_cmpmem(x->data, x->length_bytes, y->data, y->length_bytes);
}

static void assert_same(const struct header *a, const struct header *b)
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

static void assert_table_placed(const struct header *h, uint64_t offset, uint64_t file_bytes)
{
        g_assert_cmpuint(offset % h->geometry.cluster_bytes, ==, 0);
        g_assert_cmpuint(offset, >=, h->geometry.cluster_bytes);
        g_assert_cmpuint(offset, <, file_bytes);
}

static void assert_promises(const struct header *h, uint64_t file_bytes)
{
        g_assert_cmpuint(h->l1_entries, <=, (32u << 20) / 8);
        g_assert_cmpuint(h->l1_entries, >=, geometry_l1_entries(&h->geometry, h->size_bytes));
        g_assert_cmpuint(h->reftable_clusters, >, 0);
        g_assert_cmpuint(h->reftable_clusters * h->geometry.cluster_bytes, <=, 8u << 20);
        g_assert_cmpuint(h->snapshot_count, <=, 65536);
        assert_table_placed(h, h->reftable_offset, file_bytes);
        if (h->l1_entries) {
                assert_table_placed(h, h->l1_offset, file_bytes);
                g_assert_cmpuint(h->l1_offset + 8ull * h->l1_entries, <=, file_bytes);
        }
        if (h->snapshot_count)
                assert_table_placed(h, h->snapshots_offset, file_bytes);
}

/* Returns whether it was accepted. */
static bool try_damaged(const uint8_t *b)
{
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        g_autofree uint8_t *rebuilt = g_malloc(512);
        struct header again;
        struct header h;
        int ret = header_decode(&h, b, 512, 4096, &err);

        if (ret) {
                g_assert_cmpint(ret, ==, err.code);
                g_assert_cmpstr(err.text, !=, "");
                return false;
        }
        assert_promises(&h, 4096);
        ret = header_build(&h, rebuilt, &err);
        if (ret) {
                g_assert_cmpint(ret, ==, -EINVAL);      /* what ended at the brim gets END, too */
        } else {
                decode_good(&again, rebuilt, 512, 4096);
                assert_same(&h, &again);
                header_clear(&again);
        }
        header_clear(&h);
        return true;
}

static void damaged_anywhere(void)
{
        g_autofree uint8_t *whole = small_image_new();
        unsigned accepted = 0;

        for (unsigned i = 0; i < 100000; i++) {
                g_autofree uint8_t *b = g_memdup2(whole, 512);
                int changes = g_test_rand_int_range(1, 4);

                for (int j = 0; j < changes; j++) {
                        int at = g_test_rand_int_range(0, 256);

                        b[at] = g_test_rand_int_range(0, 2) ?
                                (uint8_t)g_test_rand_int() :
                                (uint8_t)(b[at] ^ 1u << g_test_rand_int_range(0, 8));
                }
                accepted += try_damaged(b);
        }
        g_test_message("accepted %u of 100000", accepted);
        g_assert_cmpuint(accepted, >, 1000);
        g_assert_cmpuint(accepted, <, 99000);
}

/* ---- building ---- */

static struct header header_new(unsigned version, unsigned cluster_bits)
{
        uint64_t cluster_bytes = UINT64_C(1) << cluster_bits;
        struct header h = {
                .version = version,
                .size_bytes = 1u << 20,
                .l1_entries = 32,
                .l1_offset = 3 * cluster_bytes,
                .reftable_offset = cluster_bytes,
                .reftable_clusters = 1,
        };

        geometry_init(&h.geometry, version, cluster_bits, 4);
        return h;
}

static void build_roundtrip(void)
{
        g_autofree uint8_t *b = g_malloc(CLUSTER);
        struct header h = header_new(3, 16);
        struct header again;

        h.incompatible = INCOMPAT_COMPRESSION | INCOMPAT_DIRTY;
        h.compression = HVB_COMPRESSION_ZSTD;
        h.compatible = COMPAT_LAZY_REFCOUNTS;
        h.snapshot_count = 3;
        h.snapshots_offset = 5 * CLUSTER;
        h.backing_name = g_strdup("/images/base.qcow2");
        h.backing_format = g_strdup("qcow2");
        g_assert_cmpint(header_extension_set(&h, 0x12345678, "0123456789", 10), ==, 0);
        memset(b, 0x55, CLUSTER);
        g_assert_cmpint(header_build(&h, b, NULL), ==, 0);

        g_assert_cmpuint(be32_load(b + HEADER_LENGTH), ==, 112);
        decode_good(&again, b, CLUSTER, FILE_BYTES);
        assert_same(&h, &again);
        assert_same_extension(&h, &again, 0);
        header_clear(&again);
        header_clear(&h);
}

/* The table as the format defines it: eight rows of 48 bytes. */
static void build_names_features(void)
{
        static const struct {
                uint8_t kind, bit;
                const char *name;
        } rows[] = {
                { 0, 0, "dirty bit" }, { 0, 1, "corrupt bit" }, { 0, 2, "external data file" },
                { 0, 3, "compression type" }, { 0, 4, "extended L2 entries" },
                { 1, 0, "lazy refcounts" }, { 2, 0, "bitmaps" }, { 2, 1, "raw external data" },
        };
        g_autofree uint8_t *b = g_malloc(CLUSTER);
        struct header h = header_new(3, 16);

        g_assert_cmpint(header_build(&h, b, NULL), ==, 0);
        g_assert_cmphex(be32_load(b + 112), ==, EXT_FEATURE_NAMES);
        g_assert_cmpuint(be32_load(b + 116), ==, 8 * 48);
        for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
                g_assert_cmpuint(b[120 + 48 * i], ==, rows[i].kind);
                g_assert_cmpuint(b[121 + 48 * i], ==, rows[i].bit);
                g_assert_cmpstr((char *)b + 122 + 48 * i, ==, rows[i].name);
        }
        header_clear(&h);
}

static void build_keeps_the_images_names(void)
{
        g_autofree uint8_t *b = g_malloc(CLUSTER);
        struct header h = header_new(3, 16);
        struct header again;
        uint8_t row[48] = { 0, 50, 'o', 'u', 'r', 's' };

        header_extension_set(&h, EXT_FEATURE_NAMES, row, sizeof(row));
        g_assert_cmpint(header_build(&h, b, NULL), ==, 0);
        decode_good(&again, b, CLUSTER, FILE_BYTES);
        g_assert_cmpuint(again.extensions->len, ==, 1);
        assert_same_extension(&h, &again, 0);
        header_clear(&again);
        header_clear(&h);
}

static void build_v2(void)
{
        g_autofree uint8_t *b = g_malloc(CLUSTER);
        struct header h = header_new(2, 16);
        struct header again;

        h.backing_name = g_strdup("base");
        h.backing_format = g_strdup("raw");
        g_assert_cmpint(header_build(&h, b, NULL), ==, 0);
        g_assert_cmphex(be32_load(b + 72), ==, EXT_BACKING_FORMAT);
        g_assert_cmphex(be64_load(b + 72 + 16), ==, 0); /* END, and no feature names */
        g_assert_cmpuint(be64_load(b + BACKING_OFFSET), ==, 72 + 16 + 8);
        decode_good(&again, b, CLUSTER, FILE_BYTES);
        assert_same(&h, &again);
        header_clear(&again);
        header_clear(&h);
}

/* Clusters up to 4 KiB get no feature names; those that an image has yield to the
 * backing name: here 112 + 8 + 384 + 8 bytes are all of a cluster. */
static void build_in_the_smallest_cluster(void)
{
        uint8_t names[384] = { 0, 50, 'o', 'u', 'r', 's' };
        g_autofree uint8_t *b = g_malloc(512);
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        struct header h = header_new(3, 9);
        struct header again;

        g_assert_cmpint(header_build(&h, b, NULL), ==, 0);
        g_assert_cmphex(be32_load(b + 112), ==, EXT_END);
        header_extension_set(&h, EXT_FEATURE_NAMES, names, sizeof(names));
        g_assert_cmpint(header_build(&h, b, NULL), ==, 0);
        g_assert_cmphex(be32_load(b + 112), ==, EXT_FEATURE_NAMES);

        h.backing_name = g_strnfill(512 - 112 - 8, 'n');
        g_assert_cmpint(header_build(&h, b, NULL), ==, 0);
        decode_good(&again, b, 512, FILE_BYTES);
        g_assert_cmpstr(again.backing_name, ==, h.backing_name);
        g_assert_null(header_extension_find(&again, EXT_FEATURE_NAMES));
        header_clear(&again);

        g_free(h.backing_name);
        h.backing_name = g_strnfill(512 - 112 - 8 + 1, 'n');
        memset(b, 0x55, 512);
        g_assert_cmpint(header_build(&h, b, &err), ==, -EINVAL);
        g_assert_nonnull(strstr(err.text, "513 bytes"));
        g_assert_nonnull(strstr(err.text, "has 512"));
        g_assert_cmphex(b[0], ==, 0x55);
        header_clear(&h);
}

static void build_refuses_long_names(void)
{
        g_autofree uint8_t *b = g_malloc(CLUSTER);
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        struct header h = header_new(3, 16);

        h.backing_name = g_strnfill(1024, 'n');
        g_assert_cmpint(header_build(&h, b, &err), ==, -EINVAL);
        g_assert_nonnull(strstr(err.text, "too long: 1024 bytes, limit 1023"));
        header_clear(&h);
}

static void extension_list(void)
{
        struct header h = header_new(3, 16);

        header_extension_remove(&h, 1);
        g_assert_null(header_extension_find(&h, 1));
        header_extension_set(&h, 1, "one", 3);
        header_extension_set(&h, 2, "two", 3);
        header_extension_set(&h, 1, "", 0);
        g_assert_cmpuint(h.extensions->len, ==, 2);
        g_assert_cmpuint(header_extension_find(&h, 1)->length_bytes, ==, 0);
        header_extension_remove(&h, 1);
        g_assert_null(header_extension_find(&h, 1));
        g_assert_cmpmem(header_extension_find(&h, 2)->data, 3, "two", 3);
        header_clear(&h);
        g_assert_null(h.extensions);
}

/* ---- the root switch ---- */

/* Every field of the root, and not one byte more. */
static void patch_root(void)
{
        g_autofree uint8_t *b = small_image_new();
        g_autofree uint8_t *expected = g_memdup2(b, 512);
        struct header h;

        decode_good(&h, b, 512, 4096);
        header_patch_root(&h, b);
        g_assert_cmpmem(b, 512, expected, 512);

        h.size_bytes = 30000;
        h.l1_entries = 1;
        h.l1_offset = 0x1000;
        h.reftable_offset = 0x2000;
        h.reftable_clusters = 2;
        h.snapshot_count = 7;
        h.snapshots_offset = 0x3000;
        h.incompatible = INCOMPAT_DIRTY;
        h.autoclear = 0;
        header_patch_root(&h, b);
        be64_store(expected + SIZE, 30000);
        be32_store(expected + L1_SIZE, 1);
        be64_store(expected + L1_OFFSET, 0x1000);
        be64_store(expected + REFTABLE_OFFSET, 0x2000);
        be32_store(expected + REFTABLE_CLUSTERS, 2);
        be32_store(expected + NB_SNAPSHOTS, 7);
        be64_store(expected + SNAPSHOTS_OFFSET, 0x3000);
        be64_store(expected + INCOMPATIBLE, 1);
        g_assert_cmpmem(b, 512, expected, 512);
        header_clear(&h);
}

/* What follows the 72 bytes of version 2 is not ours. */
static void patch_root_v2(void)
{
        g_autofree uint8_t *b = image_new(2);
        uint8_t expected[512 - 72];
        struct header h;

        decode_good(&h, b, CLUSTER, FILE_BYTES);
        memset(b + 72, 0xaa, sizeof(expected));
        memset(expected, 0xaa, sizeof(expected));
        h.snapshot_count = 1;
        h.incompatible = INCOMPAT_DIRTY;
        header_patch_root(&h, b);
        g_assert_cmpuint(be32_load(b + NB_SNAPSHOTS), ==, 1);
        g_assert_cmpmem(b + 72, sizeof(expected), expected, sizeof(expected));
        header_clear(&h);
}

/* ---- as qemu-img has it ---- */

static const char *const qemu_options[] = {
        "compat=1.1",
        "compat=0.10",
        "compat=1.1,cluster_size=512",
        "compat=1.1,cluster_size=4k",
        "compat=1.1,cluster_size=8k",
        "compat=1.1,cluster_size=2M",
        "compat=1.1,refcount_bits=1",
        "compat=1.1,refcount_bits=64,lazy_refcounts=on",
        "compat=1.1,compression_type=zstd",
        "compat=1.1,backing_file=base.qcow2,backing_fmt=qcow2",
        "compat=0.10,backing_file=base.raw,backing_fmt=raw",
};

/* Decoded and built again, cluster 0 of qemu-img is the same to the byte, be the
 * feature names its own or ours. */
static void qemu_roundtrip(gconstpointer data)
{
        g_autofree char *arguments = NULL;
        g_autofree uint8_t *cluster = NULL;
        g_autofree uint8_t *bytes = NULL;
        struct header h;
        size_t file_bytes;
        char *path;

        if (qemu_img_missing())
                return;
        path = image_path();
        arguments = g_strdup_printf("create -q -u -f qcow2 -o %s", (const char *)data);
        g_free(qemu_img(arguments, path, "3M"));
        bytes = image_read(path, &file_bytes);
        image_remove(path);

        decode_good(&h, bytes, MIN(file_bytes, 2u << 20), file_bytes);
        g_assert_cmpuint(h.size_bytes, ==, 3u << 20);
        cluster = g_malloc(h.geometry.cluster_bytes);
        g_assert_cmpint(header_build(&h, cluster, NULL), ==, 0);
        g_assert_cmpmem(cluster, h.geometry.cluster_bytes, bytes, h.geometry.cluster_bytes);
        header_extension_remove(&h, EXT_FEATURE_NAMES);
        g_assert_cmpint(header_build(&h, cluster, NULL), ==, 0);
        g_assert_cmpmem(cluster, h.geometry.cluster_bytes, bytes, h.geometry.cluster_bytes);
        header_clear(&h);
}

static void qemu_reads_ours(void)
{
        g_autofree char *output = NULL;
        g_autofree uint8_t *bytes = NULL;
        struct header h;
        size_t file_bytes;
        char *path;

        if (qemu_img_missing())
                return;
        path = image_path();
        g_free(qemu_img("create -q -f qcow2", path, "3M"));
        bytes = image_read(path, &file_bytes);
        decode_good(&h, bytes, CLUSTER, file_bytes);
        h.backing_name = g_strdup("elsewhere/base.img");
        h.backing_format = g_strdup("raw");
        h.compatible = COMPAT_LAZY_REFCOUNTS;
        header_extension_set(&h, 0x12345678, "unknown to all", 14);
        g_assert_cmpint(header_build(&h, bytes, NULL), ==, 0);
        g_assert_true(g_file_set_contents(path, (char *)bytes, (gssize)file_bytes, NULL));
        header_clear(&h);

        output = qemu_img("info -U", path, "");
        image_remove(path);
        g_assert_nonnull(strstr(output, "backing file: elsewhere/base.img"));
        g_assert_nonnull(strstr(output, "backing file format: raw"));
        g_assert_nonnull(strstr(output, "lazy refcounts: true"));
}

/* ---- */

static void add_tables(void)
{
        for (unsigned i = 0; i < G_N_ELEMENTS(refused_fields); i++) {
                g_autofree char *path = g_strconcat("/header/refuse/", refused_fields[i].name,
                                                    NULL);

                g_test_add_data_func(path, GUINT_TO_POINTER(i), refuse_field);
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(qemu_options); i++) {
                g_autofree char *path = g_strdup_printf("/header/qemu/%s", qemu_options[i]);

                g_test_add_data_func(path, qemu_options[i], qemu_roundtrip);
        }
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/header/decode/v3", decode_v3);
        g_test_add_func("/header/decode/v2", decode_v2);
        g_test_add_func("/header/decode/zstd", decode_zstd);
        g_test_add_func("/header/decode/104-bytes", decode_104_bytes);
        g_test_add_func("/header/decode/extensions", decode_extensions);
        g_test_add_func("/header/decode/up-to-the-name", decode_extensions_up_to_the_name);
        g_test_add_func("/header/decode/backing-limits", decode_backing_limits);
        g_test_add_func("/header/decode/empty-disk", decode_empty_disk);
        g_test_add_func("/header/decode/short-files", decode_short_files);
        add_tables();
        g_test_add_func("/header/refuse/backing-name", refuse_backing_name);
        g_test_add_func("/header/refuse/extension", refuse_extension);
        g_test_add_func("/header/refuse/feature-by-its-name", refuse_feature_by_its_name);
        g_test_add_func("/header/truncated-anywhere", truncated_anywhere);
        g_test_add_func("/header/damaged-anywhere", damaged_anywhere);
        g_test_add_func("/header/build/roundtrip", build_roundtrip);
        g_test_add_func("/header/build/names-features", build_names_features);
        g_test_add_func("/header/build/keeps-the-images-names", build_keeps_the_images_names);
        g_test_add_func("/header/build/v2", build_v2);
        g_test_add_func("/header/build/smallest-cluster", build_in_the_smallest_cluster);
        g_test_add_func("/header/build/refuses-long-names", build_refuses_long_names);
        g_test_add_func("/header/extension-list", extension_list);
        g_test_add_func("/header/patch-root/v3", patch_root);
        g_test_add_func("/header/patch-root/v2", patch_root_v2);
        g_test_add_func("/header/qemu/reads-ours", qemu_reads_ours);
        return g_test_run();
}
