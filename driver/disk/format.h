/*
 * format.h - the qcow2 format's constants, geometry and table entries.
 *
 * Source: the qcow2 image format specification; section names in comments.
 * Entries are handled as host-order numbers; be64_load/store stand at the edge.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef DISK_FORMAT_H
#define DISK_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "disk/bytes.h"

/* ---- limits (ours and QEMU's: an image beyond them is refused) ---- */

#define QCOW_MAGIC              0x514649fbu     /* "QFI\xfb" */
#define MIN_CLUSTER_BITS        9u
#define MAX_CLUSTER_BITS        21u
#define MAX_REFCOUNT_ORDER      6u
#define MAX_L1_BYTES            (32u << 20)
#define MAX_REFTABLE_BYTES      (8u << 20)
#define MAX_SNAPSHOTS           65536u
#define MAX_SNAPSHOT_TABLE_BYTES (64u << 20)
#define MAX_SNAPSHOT_EXTRA_BYTES 1024u
#define MAX_BACKING_NAME_BYTES  1023u
#define MAX_BACKING_FORMAT_BYTES 63u    /* what hvb_image_info can tell */
#define MAX_HOST_OFFSET         (UINT64_C(1) << 56)
#define MAX_GUEST_BYTES         (UINT64_C(1) << 62)

/* ---- header, section "General" ---- */

enum {
        HEADER_V2_BYTES = 72,
        HEADER_V3_MIN_BYTES = 104,
        HEADER_V3_BYTES = 112,          /* what we write */
        ROOT_SECTOR_BYTES = 512,
};

#define INCOMPAT_DIRTY          (UINT64_C(1) << 0)
#define INCOMPAT_CORRUPT        (UINT64_C(1) << 1)
#define INCOMPAT_DATA_FILE      (UINT64_C(1) << 2)
#define INCOMPAT_COMPRESSION    (UINT64_C(1) << 3)
#define INCOMPAT_EXTENDED_L2    (UINT64_C(1) << 4)
#define COMPAT_LAZY_REFCOUNTS   (UINT64_C(1) << 0)
#define AUTOCLEAR_BITMAPS       (UINT64_C(1) << 0)
#define AUTOCLEAR_RAW_DATA      (UINT64_C(1) << 1)

#define EXT_END                 0x00000000u
#define EXT_BACKING_FORMAT      0xe2792acau
#define EXT_FEATURE_NAMES       0x6803f857u
#define EXT_BITMAPS             0x23852875u
#define EXT_ENCRYPTION          0x0537be77u
#define EXT_DATA_FILE           0x44415441u

/* ---- snapshot table entry, section "Snapshots" ---- */

enum {
        SNAPSHOT_FIXED_BYTES = 40,
        SNAPSHOT_EXTRA_BYTES = 24,      /* of extra data: what we know and write */
};

/* ---- sizes that follow from the header ---- */

struct geometry {
        unsigned version;
        unsigned cluster_bits;
        uint64_t cluster_bytes;
        unsigned l2_bits;               /* log2 of the entries of an L2 table */
        uint64_t l2_entries;
        uint64_t l2_span_bytes;         /* guest bytes that one L2 table maps */
        unsigned refcount_order;        /* log2 of the width in bits */
        uint64_t refcount_max;
        unsigned refblock_bits;         /* log2 of the counts in a refcount block */
        uint64_t refblock_entries;
        uint64_t slice_bytes;           /* unit of caching: min(cluster, 4096) */
        unsigned compressed_shift;      /* section "Compressed Clusters Descriptor" */
};

/* cluster_bits and refcount_order must be within the limits. */
void geometry_init(struct geometry *g, unsigned version, unsigned cluster_bits,
                   unsigned refcount_order);

/* L1 entries needed to map guest_bytes; may exceed what MAX_L1_BYTES allows. */
static inline uint64_t geometry_l1_entries(const struct geometry *g, uint64_t guest_bytes)
{
        return div_up(guest_bytes, g->l2_span_bytes);
}

/* ---- entries, sections "L1 table", "L2 table" ---- */

#define ENTRY_COPIED            (UINT64_C(1) << 63)
#define ENTRY_COMPRESSED        (UINT64_C(1) << 62)
#define ENTRY_ZERO              (UINT64_C(1) << 0)      /* version 3 */
#define ENTRY_OFFSET_MASK       UINT64_C(0x00fffffffffffe00)
#define L1_RESERVED_MASK        UINT64_C(0x7f000000000001ff)
#define L2_RESERVED_MASK        UINT64_C(0x3f000000000001fe)
#define REFTABLE_OFFSET_MASK    UINT64_C(0xfffffffffffffe00)
#define REFTABLE_RESERVED_MASK  UINT64_C(0x00000000000001ff)

enum cluster_kind {
        CLUSTER_UNALLOCATED,            /* reads from the backing file */
        CLUSTER_ZERO_PLAIN,             /* reads as zeros, no host cluster */
        CLUSTER_ZERO_ALLOCATED,         /* reads as zeros, keeps a host cluster */
        CLUSTER_NORMAL,
        CLUSTER_COMPRESSED,
};

/* In version 2 the ZERO bit is reserved; decoding ignores it there, as QEMU does. */
static inline enum cluster_kind entry_kind(const struct geometry *g, uint64_t l2_entry)
{
        bool has_offset = (l2_entry & ENTRY_OFFSET_MASK) != 0;

        if (l2_entry & ENTRY_COMPRESSED)
                return CLUSTER_COMPRESSED;
        if ((l2_entry & ENTRY_ZERO) && g->version >= 3)
                return has_offset ? CLUSTER_ZERO_ALLOCATED : CLUSTER_ZERO_PLAIN;
        return has_offset ? CLUSTER_NORMAL : CLUSTER_UNALLOCATED;
}

static inline uint64_t entry_host_offset(uint64_t entry)
{
        return entry & ENTRY_OFFSET_MASK;
}

/* Where a compressed cluster's bytes lie.  length runs to the end of the last
 * 512-byte sector; the stream may end earlier. */
struct compressed_place {
        uint64_t host_offset;
        uint64_t length_bytes;
};

static inline struct compressed_place entry_compressed_place(const struct geometry *g,
                                                             uint64_t l2_entry)
{
        uint64_t offset_mask = (UINT64_C(1) << g->compressed_shift) - 1;
        uint64_t sector_mask = (UINT64_C(1) << (62 - g->compressed_shift)) - 1;
        uint64_t sectors = ((l2_entry >> g->compressed_shift) & sector_mask) + 1;
        struct compressed_place place;

        place.host_offset = l2_entry & offset_mask;
        place.length_bytes = sectors * 512 - (place.host_offset & 511);
        return place;
}

/* length_bytes 1..cluster_bytes; host_offset below 2^compressed_shift. */
static inline uint64_t entry_compressed_make(const struct geometry *g, uint64_t host_offset,
                                             uint64_t length_bytes)
{
        uint64_t sectors = (((host_offset & 511) + length_bytes + 511) >> 9) - 1;

        return ENTRY_COMPRESSED | (sectors << g->compressed_shift) | host_offset;
}

#endif
