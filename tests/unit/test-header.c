/*
 * test-header.c - cluster 0, as the driver reads it.
 *
 * What decoding promises, checked for every image here that it accepts, damaged
 * ones among them: tables are aligned, behind the header, within their limits and
 * begin inside the file; rebuilding and decoding again gives the same header.
 * What it refuses, it refuses with a text that names the field, the value and the
 * limit.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "unit/header-image.h"

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
static void add_tables(void)
{
        for (unsigned i = 0; i < G_N_ELEMENTS(refused_fields); i++) {
                g_autofree char *path = g_strconcat("/header/refuse/", refused_fields[i].name,
                                                    NULL);

                g_test_add_data_func(path, GUINT_TO_POINTER(i), refuse_field);
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
        return g_test_run();
}
