/*
 * format.c - the geometry of an image: everything that follows from the cluster
 * size and the refcount width.
 *
 * The static asserts below are promises that the inline functions of format.h
 * rely on for every cluster size within the limits.
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>

#include "disk/format.h"

/* An entry is flags, offset and reserved bits, without overlap and without gap. */
static_assert((ENTRY_COPIED ^ L1_RESERVED_MASK ^ ENTRY_OFFSET_MASK) == UINT64_MAX, "L1 entry");
static_assert((ENTRY_COPIED ^ ENTRY_COMPRESSED ^ ENTRY_ZERO ^ L2_RESERVED_MASK ^
               ENTRY_OFFSET_MASK) == UINT64_MAX, "L2 entry");
static_assert((REFTABLE_OFFSET_MASK ^ REFTABLE_RESERVED_MASK) == UINT64_MAX, "reftable entry");
static_assert((ENTRY_OFFSET_MASK | 511) == MAX_HOST_OFFSET - 1, "host offsets below 2^56");

/* What the largest L1 of the largest clusters maps, so that sums of guest offsets fit. */
static_assert(MAX_L1_BYTES / 8 <= MAX_GUEST_BYTES >> (2 * MAX_CLUSTER_BITS - 3), "guest size");
/* A compressed cluster may take as many sectors as the cluster has, and one more for
 * a start in the middle of a sector: 2^(cluster_bits - 8) says so with a bit to spare. */
static_assert((1u << (MIN_CLUSTER_BITS - 8)) >= (1u << (MIN_CLUSTER_BITS - 9)) + 1, "sectors");
/* A refcount block holds at least one 64-bit word of counts. */
static_assert(MIN_CLUSTER_BITS + 3 > MAX_REFCOUNT_ORDER, "refcount block");

void geometry_init(struct geometry *g, unsigned version, unsigned cluster_bits,
                   unsigned refcount_order)
{
        assert(version == 2 || version == 3);
        assert(cluster_bits >= MIN_CLUSTER_BITS && cluster_bits <= MAX_CLUSTER_BITS);
        assert(refcount_order <= MAX_REFCOUNT_ORDER);

        *g = (struct geometry){
                .version = version,
                .cluster_bits = cluster_bits,
                .cluster_bytes = UINT64_C(1) << cluster_bits,
                .l2_bits = cluster_bits - 3,
                .l2_entries = UINT64_C(1) << (cluster_bits - 3),
                .l2_span_bytes = UINT64_C(1) << (2 * cluster_bits - 3),
                .refcount_order = refcount_order,
                .refcount_max = UINT64_MAX >> (64 - (1u << refcount_order)),
                .refblock_bits = cluster_bits + 3 - refcount_order,
                .refblock_entries = UINT64_C(1) << (cluster_bits + 3 - refcount_order),
                .slice_bytes = u64_min(UINT64_C(1) << cluster_bits, 4096),
                .compressed_shift = 62 - (cluster_bits - 8),
        };
}
