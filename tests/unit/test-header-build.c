/*
 * test-header-build.c - cluster 0 as the driver makes it and changes it, and as qemu-img does.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "unit/header-image.h"
#include "unit/qemu-img.h"

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
int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        for (unsigned i = 0; i < G_N_ELEMENTS(qemu_options); i++) {
                g_autofree char *path = g_strdup_printf("/header-build/qemu/%s", qemu_options[i]);

                g_test_add_data_func(path, qemu_options[i], qemu_roundtrip);
        }
        g_test_add_func("/header-build/roundtrip", build_roundtrip);
        g_test_add_func("/header-build/names-features", build_names_features);
        g_test_add_func("/header-build/keeps-the-images-names", build_keeps_the_images_names);
        g_test_add_func("/header-build/v2", build_v2);
        g_test_add_func("/header-build/smallest-cluster", build_in_the_smallest_cluster);
        g_test_add_func("/header-build/refuses-long-names", build_refuses_long_names);
        g_test_add_func("/header-build/extension-list", extension_list);
        g_test_add_func("/header-build/patch-root/v3", patch_root);
        g_test_add_func("/header-build/patch-root/v2", patch_root_v2);
        g_test_add_func("/header-build/qemu/reads-ours", qemu_reads_ours);
        return g_test_run();
}
