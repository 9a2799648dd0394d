/*
 * header.c - the fixed header, and cluster 0 as a whole.
 *
 * The bytes are untrusted.  The fixed part is copied once into struct raw_header
 * and judged there, field by field, each check naming the field, its value and
 * the limit.  The order matters in one place: features that we do not know may
 * change the meaning of everything else, so they are refused before the tables
 * are looked at.
 *
 * What decoding promises to the floors above, about active tables: they start
 * behind cluster 0, are aligned, no larger than their limits, and begin inside
 * the file; the L1 table and the fixed parts of the snapshot table also end in
 * it.  (A refcount table may be cut by the end of the file: its last bytes were
 * never written and read as zeros.)
 *
 * Source: format section "General".  Limits: format.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "disk/error.h"
#include "disk/header-extensions.h"

/* As it lies in the file, big-endian.  A version 2 header ends before incompatible. */
struct raw_header {
        uint32_t magic;
        uint32_t version;
        uint64_t backing_offset;
        uint32_t backing_bytes;
        uint32_t cluster_bits;
        uint64_t size_bytes;
        uint32_t crypt_method;
        uint32_t l1_entries;
        uint64_t l1_offset;
        uint64_t reftable_offset;
        uint32_t reftable_clusters;
        uint32_t snapshot_count;
        uint64_t snapshots_offset;
        uint64_t incompatible;
        uint64_t compatible;
        uint64_t autoclear;
        uint32_t refcount_order;
        uint32_t header_bytes;
        uint8_t compression;
        uint8_t padding[7];
};

static_assert(offsetof(struct raw_header, backing_offset) == 8, "header layout");
static_assert(offsetof(struct raw_header, cluster_bits) == 20, "header layout");
static_assert(offsetof(struct raw_header, size_bytes) == 24, "header layout");
static_assert(offsetof(struct raw_header, l1_entries) == 36, "header layout");
static_assert(offsetof(struct raw_header, reftable_offset) == 48, "header layout");
static_assert(offsetof(struct raw_header, snapshot_count) == 60, "header layout");
static_assert(offsetof(struct raw_header, snapshots_offset) == 64, "header layout");
static_assert(offsetof(struct raw_header, incompatible) == HEADER_V2_BYTES, "header layout");
static_assert(offsetof(struct raw_header, refcount_order) == 96, "header layout");
static_assert(offsetof(struct raw_header, compression) == HEADER_V3_MIN_BYTES, "header layout");
static_assert(sizeof(struct raw_header) == HEADER_V3_BYTES, "header layout");
static_assert(HEADER_V3_BYTES <= ROOT_SECTOR_BYTES, "the root is one sector");

/* Header bytes from here on have no meaning to us and are kept. */
enum { UNKNOWN_OFFSET = HEADER_V3_MIN_BYTES + 1, V2_REFCOUNT_ORDER = 4 };

#define SERVED_FEATURES (INCOMPAT_DIRTY | INCOMPAT_CORRUPT | INCOMPAT_COMPRESSION)

/* ---- the fixed part ---- */

static int check_identity(const uint8_t *bytes, size_t byte_count, unsigned *ret_cluster_bits,
                          struct hvb_error *err)
{
        uint32_t version;
        uint32_t cluster_bits;

        if (byte_count < 8 || be32_load(bytes) != QCOW_MAGIC)
                return error_set(err, -EINVAL, "Image is not in qcow2 format");
        version = be32_load(bytes + offsetof(struct raw_header, version));
        if (version != 2 && version != 3)
                return error_set(err, -ENOTSUP, "Unsupported qcow2 version %u", version);
        if (byte_count < HEADER_V2_BYTES)
                return error_set(err, -EINVAL, "qcow2 header too short: the file has %zu bytes, a "
                                 "header at least %d", byte_count, HEADER_V2_BYTES);
        cluster_bits = be32_load(bytes + offsetof(struct raw_header, cluster_bits));
        if (cluster_bits < MIN_CLUSTER_BITS || cluster_bits > MAX_CLUSTER_BITS)
                return error_set(err, -EINVAL, "Unsupported cluster size: 2^%u bytes, limits 2^%u "
                                 "and 2^%u", cluster_bits, MIN_CLUSTER_BITS, MAX_CLUSTER_BITS);
        *ret_cluster_bits = cluster_bits;
        return 0;
}

int header_peek(const uint8_t *head, size_t head_bytes, uint64_t *ret_wanted_bytes,
                struct hvb_error *err)
{
        unsigned cluster_bits;
        int ret = check_identity(head, head_bytes, &cluster_bits, err);

        if (ret)
                return ret;
        *ret_wanted_bytes = UINT64_C(1) << cluster_bits;
        return 0;
}

static int check_header_length(uint32_t header_bytes, uint64_t cluster_bytes,
                               struct hvb_error *err)
{
        if (header_bytes < HEADER_V3_MIN_BYTES)
                return error_set(err, -EINVAL, "qcow2 header too short: header length %u, at "
                                 "least %d", header_bytes, HEADER_V3_MIN_BYTES);
        if (header_bytes > cluster_bytes)
                return error_set(err, -EINVAL, "qcow2 header exceeds cluster size: header length "
                                 "%u, cluster %" PRIu64 " bytes", header_bytes, cluster_bytes);
        if (header_bytes % 8)
                return error_set(err, -EINVAL, "Header length %u is not a multiple of 8",
                                 header_bytes);
        return 0;
}

/* Copies the fixed part, whose fields beyond the header's length are zero, as the
 * format has it.  A version 2 header comes out in the shape of version 3. */
static int raw_load(struct raw_header *raw, const uint8_t *bytes, size_t byte_count,
                    struct hvb_error *err)
{
        uint64_t cluster_bytes;
        uint32_t header_bytes = HEADER_V2_BYTES;
        unsigned cluster_bits;
        int ret;

        ret = check_identity(bytes, byte_count, &cluster_bits, err);
        if (ret)
                return ret;
        cluster_bytes = UINT64_C(1) << cluster_bits;
        if (byte_count < cluster_bytes)
                return error_set(err, -EINVAL, "Header cluster of %" PRIu64 " bytes ends beyond "
                                 "the end of the file (%zu bytes): image truncated?",
                                 cluster_bytes, byte_count);

        if (be32_load(bytes + offsetof(struct raw_header, version)) >= 3) {
                header_bytes = be32_load(bytes + offsetof(struct raw_header, header_bytes));
                ret = check_header_length(header_bytes, cluster_bytes, err);
                if (ret)
                        return ret;
        }
        memset(raw, 0, sizeof(*raw));
        memcpy(raw, bytes, MIN(header_bytes, sizeof(*raw)));
        if (header_bytes == HEADER_V2_BYTES) {
                be32_store(&raw->header_bytes, HEADER_V2_BYTES);
                be32_store(&raw->refcount_order, V2_REFCOUNT_ORDER);
        }
        return 0;
}

static void take_fields(struct header *h, const struct raw_header *raw)
{
        h->version = be32_load(&raw->version);
        h->header_bytes = be32_load(&raw->header_bytes);
        h->size_bytes = be64_load(&raw->size_bytes);
        h->crypt_method = be32_load(&raw->crypt_method);
        h->l1_entries = be32_load(&raw->l1_entries);
        h->l1_offset = be64_load(&raw->l1_offset);
        h->reftable_offset = be64_load(&raw->reftable_offset);
        h->reftable_clusters = be32_load(&raw->reftable_clusters);
        h->snapshot_count = be32_load(&raw->snapshot_count);
        h->snapshots_offset = be64_load(&raw->snapshots_offset);
        h->incompatible = be64_load(&raw->incompatible);
        h->compatible = be64_load(&raw->compatible);
        h->autoclear = be64_load(&raw->autoclear);
        h->compression = raw->compression;
}

/* ---- what the image asks for ---- */

static int check_features(const struct header *h, struct hvb_error *err)
{
        uint64_t refused = h->incompatible & ~SERVED_FEATURES;
        char *names;
        int ret;

        if (!refused)
                return 0;
        names = extensions_name_features(h, refused);
        ret = error_set(err, -ENOTSUP, "Unsupported qcow2 feature(s): %s", names);
        g_free(names);
        return ret;
}

static int check_encryption(const struct header *h, struct hvb_error *err)
{
        static const char *const names[] = { "none", "AES", "LUKS" };

        if (h->crypt_method == 0)
                return 0;
        if (h->crypt_method < G_N_ELEMENTS(names))
                return error_set(err, -ENOTSUP, "%s encryption (crypt_method %u) is not supported "
                                 "here", names[h->crypt_method], h->crypt_method);
        return error_set(err, -EINVAL, "Unsupported encryption method %u", h->crypt_method);
}

static int check_compression(const struct header *h, struct hvb_error *err)
{
        bool has_bit = (h->incompatible & INCOMPAT_COMPRESSION) != 0;

        if (h->compression > HVB_COMPRESSION_ZSTD)
                return error_set(err, -ENOTSUP, "Unknown compression type: %u, known are 0 to %d",
                                 h->compression, HVB_COMPRESSION_ZSTD);
        if (h->compression == HVB_COMPRESSION_ZLIB && has_bit)
                return error_set(err, -EINVAL, "Compression type incompatible feature bit must "
                                 "not be set with compression type 0");
        if (h->compression != HVB_COMPRESSION_ZLIB && !has_bit)
                return error_set(err, -EINVAL, "Compression type incompatible feature bit must "
                                 "be set with compression type %u", h->compression);
        return 0;
}

static int take_geometry(struct header *h, const struct raw_header *raw, struct hvb_error *err)
{
        uint32_t order = be32_load(&raw->refcount_order);

        if (order > MAX_REFCOUNT_ORDER)
                return error_set(err, -EINVAL, "Reference count entry width too large: "
                                 "refcount_order %u, limit %u (64 bits)", order,
                                 MAX_REFCOUNT_ORDER);
        geometry_init(&h->geometry, h->version, be32_load(&raw->cluster_bits), order);
        return 0;
}

/* ---- where the tables lie ---- */

/* Not in the header's cluster, aligned, and an offset that entries can hold. */
static int check_table_offset(const struct header *h, const char *what, uint64_t offset,
                              struct hvb_error *err)
{
        uint64_t cluster_bytes = h->geometry.cluster_bytes;

        if (offset % cluster_bytes)
                return error_set(err, -EINVAL, "%s offset invalid: 0x%" PRIx64 " is not a multiple "
                                 "of the cluster size %" PRIu64, what, offset, cluster_bytes);
        if (offset >= MAX_HOST_OFFSET)
                return error_set(err, -EINVAL, "%s offset invalid: 0x%" PRIx64 " is beyond the "
                                 "limit 0x%" PRIx64, what, offset, MAX_HOST_OFFSET);
        if (offset < cluster_bytes)
                return error_set(err, -EINVAL, "%s offset invalid: 0x%" PRIx64 " lies in the "
                                 "header cluster, which ends at 0x%" PRIx64, what, offset,
                                 cluster_bytes);
        return 0;
}

/* offset below 2^56 and length_bytes below 2^32: their sum fits. */
static int check_inside_file(const char *what, uint64_t offset, uint64_t length_bytes,
                             uint64_t file_bytes, struct hvb_error *err)
{
        if (offset + length_bytes <= file_bytes)
                return 0;
        return error_set(err, -EINVAL, "%s [0x%" PRIx64 ", 0x%" PRIx64 ") lies beyond the end of "
                         "the file (%" PRIu64 " bytes): image truncated?", what, offset,
                         offset + length_bytes, file_bytes);
}

static int check_l1(const struct header *h, uint64_t file_bytes, struct hvb_error *err)
{
        uint64_t needed;
        int ret;

        if (h->size_bytes > MAX_GUEST_BYTES)
                return error_set(err, -EFBIG, "Image is too big: %" PRIu64 " bytes, limit %" PRIu64,
                                 h->size_bytes, MAX_GUEST_BYTES);
        if (h->l1_entries > MAX_L1_BYTES / 8)
                return error_set(err, -EFBIG, "Active L1 table too large: %u entries, limit %u",
                                 h->l1_entries, MAX_L1_BYTES / 8);
        needed = geometry_l1_entries(&h->geometry, h->size_bytes);
        if (h->l1_entries < needed)
                return error_set(err, -EINVAL, "L1 table is too small: %u entries, a disk of "
                                 "%" PRIu64 " bytes needs %" PRIu64, h->l1_entries, h->size_bytes,
                                 needed);
        if (h->l1_entries == 0 && h->l1_offset == 0)
                return 0;
        ret = check_table_offset(h, "Active L1 table", h->l1_offset, err);
        if (ret || h->l1_entries == 0)
                return ret;
        return check_inside_file("L1 table", h->l1_offset, h->l1_entries * UINT64_C(8),
                                 file_bytes, err);
}

static int check_reftable(const struct header *h, uint64_t file_bytes, struct hvb_error *err)
{
        uint64_t limit = MAX_REFTABLE_BYTES / h->geometry.cluster_bytes;
        int ret;

        if (h->reftable_clusters == 0)
                return error_set(err, -EINVAL, "Image does not contain a reference count table: "
                                 "refcount_table_clusters is 0, at least 1");
        if (h->reftable_clusters > limit)
                return error_set(err, -EFBIG, "Refcount table too large: %u clusters, limit "
                                 "%" PRIu64 " (%u bytes)", h->reftable_clusters, limit,
                                 MAX_REFTABLE_BYTES);
        ret = check_table_offset(h, "Refcount table", h->reftable_offset, err);
        if (ret)
                return ret;
        /* The file may end inside the table, but not before it. */
        if (h->reftable_offset >= file_bytes)
                return error_set(err, -EINVAL, "Refcount table at 0x%" PRIx64 " lies beyond the "
                                 "end of the file (%" PRIu64 " bytes): image truncated?",
                                 h->reftable_offset, file_bytes);
        return 0;
}

static int check_snapshots(const struct header *h, uint64_t file_bytes, struct hvb_error *err)
{
        int ret;

        if (h->snapshot_count > MAX_SNAPSHOTS)
                return error_set(err, -EFBIG, "Snapshot table too large: %u snapshots, limit %u",
                                 h->snapshot_count, MAX_SNAPSHOTS);
        if (h->snapshot_count == 0 && h->snapshots_offset == 0)
                return 0;
        ret = check_table_offset(h, "Snapshot table", h->snapshots_offset, err);
        if (ret || h->snapshot_count == 0)
                return ret;
        return check_inside_file("Snapshot table", h->snapshots_offset,
                                 h->snapshot_count * (uint64_t)SNAPSHOT_FIXED_BYTES, file_bytes,
                                 err);
}

static int check_tables(const struct header *h, uint64_t file_bytes, struct hvb_error *err)
{
        int ret = check_l1(h, file_bytes, err);

        if (!ret)
                ret = check_reftable(h, file_bytes, err);
        if (!ret)
                ret = check_snapshots(h, file_bytes, err);
        return ret;
}

/* ---- what follows the fixed part ---- */

static int check_backing_name(const struct header *h, uint64_t offset, uint32_t length_bytes,
                              struct hvb_error *err)
{
        uint64_t cluster_bytes = h->geometry.cluster_bytes;

        if (offset < h->header_bytes || offset > cluster_bytes)
                return error_set(err, -EINVAL, "Invalid backing file offset: 0x%" PRIx64 ", must "
                                 "be between the header's end %u and the cluster's %" PRIu64,
                                 offset, h->header_bytes, cluster_bytes);
        if (length_bytes > MAX_BACKING_NAME_BYTES)
                return error_set(err, -EINVAL, "Backing file name too long: %u bytes, limit %u",
                                 length_bytes, MAX_BACKING_NAME_BYTES);
        if (length_bytes == 0)
                return error_set(err, -EINVAL, "Backing file name at 0x%" PRIx64 " is empty: 0 "
                                 "bytes, at least 1", offset);
        if (length_bytes > cluster_bytes - offset)
                return error_set(err, -EINVAL, "Backing file name too long: %u bytes at 0x%" PRIx64
                                 " end beyond the header cluster of %" PRIu64 " bytes",
                                 length_bytes, offset, cluster_bytes);
        return 0;
}

/* A name with a NUL inside would be one name to who checks it and another to who opens it. */
static int take_backing_name(struct header *h, const struct raw_header *raw, const uint8_t *bytes,
                             struct hvb_error *err)
{
        uint64_t offset = be64_load(&raw->backing_offset);
        uint32_t length_bytes = be32_load(&raw->backing_bytes);
        int ret;

        if (offset == 0)
                return 0;
        ret = check_backing_name(h, offset, length_bytes, err);
        if (ret)
                return ret;
        if (memchr(bytes + offset, 0, length_bytes))
                return error_set(err, -EINVAL, "Backing file name of %u bytes contains a NUL byte",
                                 length_bytes);
        h->backing_name = g_strndup((const char *)bytes + offset, length_bytes);
        return 0;
}

static int take_extensions(struct header *h, const struct raw_header *raw, const uint8_t *bytes,
                           struct hvb_error *err)
{
        uint64_t end = be64_load(&raw->backing_offset);
        uint64_t cluster_bytes = UINT64_C(1) << be32_load(&raw->cluster_bits);

        if (end < h->header_bytes || end > cluster_bytes)
                end = cluster_bytes;
        extensions_clear(h);
        return extensions_decode(h, bytes + h->header_bytes, end - h->header_bytes, err);
}

static int take_unknown(struct header *h, const uint8_t *bytes, struct hvb_error *err)
{
        if (h->header_bytes <= UNKNOWN_OFFSET)
                return 0;
        h->unknown_bytes = h->header_bytes - UNKNOWN_OFFSET;
        h->unknown = g_try_malloc(h->unknown_bytes);
        if (!h->unknown)
                return error_set(err, -ENOMEM, "No memory for %u unknown header bytes",
                                 h->unknown_bytes);
        memcpy(h->unknown, bytes + UNKNOWN_OFFSET, h->unknown_bytes);
        return 0;
}

static int decode(struct header *h, const uint8_t *bytes, size_t byte_count, uint64_t file_bytes,
                  struct hvb_error *err)
{
        struct raw_header raw = { 0 };
        int extensions_ret;
        int ret;

        ret = raw_load(&raw, bytes, byte_count, err);
        if (ret)
                return ret;
        take_fields(h, &raw);

        /* The image's own feature names are wanted even if a later extension is bad. */
        extensions_ret = take_extensions(h, &raw, bytes, NULL);
        ret = check_features(h, err);
        if (!ret)
                ret = check_encryption(h, err);
        if (!ret)
                ret = check_compression(h, err);
        if (!ret)
                ret = take_geometry(h, &raw, err);
        if (!ret)
                ret = check_tables(h, file_bytes, err);
        if (!ret)
                ret = take_backing_name(h, &raw, bytes, err);
        if (!ret && extensions_ret)
                ret = take_extensions(h, &raw, bytes, err);
        if (!ret)
                ret = take_unknown(h, bytes, err);
        return ret;
}

int header_decode(struct header *ret_header, const uint8_t *bytes, size_t byte_count,
                  uint64_t file_bytes, struct hvb_error *err)
{
        int ret;

        *ret_header = (struct header){ 0 };
        ret = decode(ret_header, bytes, byte_count, file_bytes, err);
        if (ret)
                header_clear(ret_header);
        return ret;
}

void header_clear(struct header *h)
{
        extensions_clear(h);
        g_free(h->backing_name);
        g_free(h->backing_format);
        g_free(h->unknown);
        *h = (struct header){ 0 };
}

/* ---- encoding ---- */

static void store_root(struct raw_header *raw, const struct header *h)
{
        be64_store(&raw->size_bytes, h->size_bytes);
        be32_store(&raw->crypt_method, h->crypt_method);
        be32_store(&raw->l1_entries, h->l1_entries);
        be64_store(&raw->l1_offset, h->l1_offset);
        be64_store(&raw->reftable_offset, h->reftable_offset);
        be32_store(&raw->reftable_clusters, h->reftable_clusters);
        be32_store(&raw->snapshot_count, h->snapshot_count);
        be64_store(&raw->snapshots_offset, h->snapshots_offset);
        if (h->version < 3)
                return;
        be64_store(&raw->incompatible, h->incompatible);
        be64_store(&raw->compatible, h->compatible);
        be64_store(&raw->autoclear, h->autoclear);
        be32_store(&raw->refcount_order, h->geometry.refcount_order);
}

void header_patch_root(const struct header *h, uint8_t sector[ROOT_SECTOR_BYTES])
{
        struct raw_header raw;

        assert(h->version == 2 || h->version == 3);
        memcpy(&raw, sector, sizeof(raw));
        store_root(&raw, h);
        memcpy(sector, &raw, sizeof(raw));
}

/* What a rewritten header is long.  unknown ends where the header did. */
static uint32_t built_header_bytes(const struct header *h)
{
        if (h->version < 3)
                return HEADER_V2_BYTES;
        return (uint32_t)MAX(HEADER_V3_BYTES, round_up(UNKNOWN_OFFSET + h->unknown_bytes, 8));
}

static int check_names(const struct header *h, size_t name_bytes, struct hvb_error *err)
{
        size_t format_bytes = h->backing_format ? strlen(h->backing_format) : 0;

        if (name_bytes > MAX_BACKING_NAME_BYTES)
                return error_set(err, -EINVAL, "Backing file name too long: %zu bytes, limit %u",
                                 name_bytes, MAX_BACKING_NAME_BYTES);
        if (format_bytes > MAX_BACKING_FORMAT_BYTES)
                return error_set(err, -EINVAL, "Backing format name too long: %zu bytes, limit %u",
                                 format_bytes, MAX_BACKING_FORMAT_BYTES);
        return 0;
}

static void store_header(const struct header *h, uint64_t name_offset, size_t name_bytes,
                         uint8_t *cluster)
{
        struct raw_header raw = { 0 };

        be32_store(&raw.magic, QCOW_MAGIC);
        be32_store(&raw.version, h->version);
        be32_store(&raw.cluster_bits, h->geometry.cluster_bits);
        if (name_bytes) {
                be64_store(&raw.backing_offset, name_offset);
                be32_store(&raw.backing_bytes, (uint32_t)name_bytes);
        }
        store_root(&raw, h);
        if (h->version < 3) {
                memcpy(cluster, &raw, HEADER_V2_BYTES);
                return;
        }
        be32_store(&raw.header_bytes, built_header_bytes(h));
        raw.compression = h->compression;
        memcpy(cluster, &raw, sizeof(raw));
        if (h->unknown_bytes)
                memcpy(cluster + UNKNOWN_OFFSET, h->unknown, h->unknown_bytes);
}

int header_build(const struct header *h, uint8_t *cluster, struct hvb_error *err)
{
        size_t name_bytes = h->backing_name ? strlen(h->backing_name) : 0;
        uint64_t cluster_bytes = h->geometry.cluster_bytes;
        uint32_t header_bytes = built_header_bytes(h);
        bool with_feature_names = true;
        uint64_t name_offset;
        int ret;

        assert(h->version == 2 || h->version == 3);
        assert(h->version == h->geometry.version);
        ret = check_names(h, name_bytes, err);
        if (ret)
                return ret;

        /* Feature names only serve error messages: they yield to what is needed. */
        name_offset = header_bytes + extensions_encoded_bytes(h, true);
        if (name_offset + name_bytes > cluster_bytes) {
                with_feature_names = false;
                name_offset = header_bytes + extensions_encoded_bytes(h, false);
        }
        if (name_offset + name_bytes > cluster_bytes)
                return error_set(err, -EINVAL, "Header too large: header, extensions and backing "
                                 "file name take %" PRIu64 " bytes, the cluster has %" PRIu64,
                                 name_offset + name_bytes, cluster_bytes);

        memset(cluster, 0, cluster_bytes);
        store_header(h, name_offset, name_bytes, cluster);
        extensions_encode(h, with_feature_names, cluster + header_bytes);
        if (name_bytes)
                memcpy(cluster + name_offset, h->backing_name, name_bytes);
        return 0;
}
