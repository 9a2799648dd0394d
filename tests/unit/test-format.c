/*
 * test-format.c - geometry and table entries, against the format's own words:
 * each expectation is computed by another way than format.h does it.
 *
 * SPDX-License-Identifier: MIT
 */
#include <glib.h>

#include "disk/format.h"

static void geometry_of_the_default(void)
{
        struct geometry g;

        geometry_init(&g, 3, 16, 4);
        g_assert_cmpuint(g.cluster_bytes, ==, 65536);
        g_assert_cmpuint(g.l2_entries, ==, 8192);
        g_assert_cmpuint(g.l2_span_bytes, ==, 512u << 20);
        g_assert_cmpuint(g.refcount_max, ==, 65535);
        g_assert_cmpuint(g.refblock_entries, ==, 32768);
        g_assert_cmpuint(g.slice_bytes, ==, 4096);
        g_assert_cmpuint(g.compressed_shift, ==, 54);
        g_assert_cmpuint(geometry_l1_entries(&g, 0), ==, 0);
        g_assert_cmpuint(geometry_l1_entries(&g, 1), ==, 1);
        g_assert_cmpuint(geometry_l1_entries(&g, 512u << 20), ==, 1);
        g_assert_cmpuint(geometry_l1_entries(&g, (512u << 20) + 1), ==, 2);
        g_assert_cmpuint(geometry_l1_entries(&g, UINT64_MAX), ==, UINT64_C(1) << 35);
}

static void geometry_of_every_size(void)
{
        for (unsigned bits = 9; bits <= 21; bits++) {
                for (unsigned order = 0; order <= 6; order++) {
                        uint64_t cluster = 1;
                        struct geometry g;

                        for (unsigned i = 0; i < bits; i++)
                                cluster *= 2;
                        geometry_init(&g, 3, bits, order);
                        g_assert_cmpuint(g.cluster_bytes, ==, cluster);
                        g_assert_cmpuint(g.l2_entries, ==, cluster / 8);
                        g_assert_cmpuint(1u << g.l2_bits, ==, g.l2_entries);
                        g_assert_cmpuint(g.l2_span_bytes, ==, cluster / 8 * cluster);
                        g_assert_cmpuint(g.refblock_entries, ==, cluster * 8 / (1u << order));
                        g_assert_cmpuint(1u << g.refblock_bits, ==, g.refblock_entries);
                        g_assert_cmpuint(g.slice_bytes, ==, cluster < 4096 ? cluster : 4096);
                }
        }
}

static void geometry_refcount_max(void)
{
        static const uint64_t max[] = { 1, 3, 15, 255, 65535, UINT32_MAX, UINT64_MAX };

        for (unsigned order = 0; order <= 6; order++) {
                struct geometry g;

                geometry_init(&g, 3, 16, order);
                g_assert_cmpuint(g.refcount_max, ==, max[order]);
        }
}

static void entry_kinds(void)
{
        const uint64_t host = 0x50000;
        struct geometry v2;
        struct geometry v3;

        geometry_init(&v2, 2, 16, 4);
        geometry_init(&v3, 3, 16, 4);

        g_assert_cmpint(entry_kind(&v3, 0), ==, CLUSTER_UNALLOCATED);
        g_assert_cmpint(entry_kind(&v3, 1), ==, CLUSTER_ZERO_PLAIN);
        g_assert_cmpint(entry_kind(&v3, host | 1), ==, CLUSTER_ZERO_ALLOCATED);
        g_assert_cmpint(entry_kind(&v3, host | UINT64_C(1) << 63), ==, CLUSTER_NORMAL);
        g_assert_cmpint(entry_kind(&v3, UINT64_C(1) << 62), ==, CLUSTER_COMPRESSED);
        /* A compressed cluster may begin at an odd byte: that is no zero flag. */
        g_assert_cmpint(entry_kind(&v3, UINT64_C(1) << 62 | 1), ==, CLUSTER_COMPRESSED);

        g_assert_cmpint(entry_kind(&v2, 1), ==, CLUSTER_UNALLOCATED);
        g_assert_cmpint(entry_kind(&v2, host | 1), ==, CLUSTER_NORMAL);
        g_assert_cmphex(entry_host_offset(UINT64_C(0x8000000000050001)), ==, host);
}

/* Worked by hand: 64 KiB clusters, x = 62 - (16 - 8) = 54. */
static void compressed_by_hand(void)
{
        struct compressed_place place;
        struct geometry g;

        geometry_init(&g, 3, 16, 4);
        place = entry_compressed_place(&g, UINT64_C(0x40c0000000012345));
        g_assert_cmphex(place.host_offset, ==, 0x12345);
        /* Three sectors after the first; 0x145 bytes of the first are another's. */
        g_assert_cmpuint(place.length_bytes, ==, 4 * 512 - 0x145);
        g_assert_cmphex(entry_compressed_make(&g, 0x12345, 4 * 512 - 0x145), ==,
                        UINT64_C(0x40c0000000012345));
}

/* Whatever is stored, what is found covers it, in less than a sector more. */
static void compressed_roundtrip(void)
{
        for (unsigned i = 0; i < 100000; i++) {
                unsigned bits = (unsigned)g_test_rand_int_range(9, 22);
                uint64_t random = (uint64_t)(uint32_t)g_test_rand_int() << 32 |
                                  (uint32_t)g_test_rand_int();
                struct compressed_place place;
                uint64_t length_bytes;
                uint64_t host_offset;
                struct geometry g;
                uint64_t entry;

                geometry_init(&g, 3, bits, 4);
                host_offset = random % MIN(UINT64_C(1) << g.compressed_shift, MAX_HOST_OFFSET);
                length_bytes = 1 + (uint32_t)g_test_rand_int() % g.cluster_bytes;
                entry = entry_compressed_make(&g, host_offset, length_bytes);
                place = entry_compressed_place(&g, entry);

                g_assert_cmpint(entry_kind(&g, entry), ==, CLUSTER_COMPRESSED);
                g_assert_cmphex(entry & ENTRY_COPIED, ==, 0);
                g_assert_cmphex(place.host_offset, ==, host_offset);
                g_assert_cmpuint(place.length_bytes, >=, length_bytes);
                g_assert_cmpuint(place.length_bytes, <, length_bytes + 512);
                g_assert_cmpuint((place.host_offset + place.length_bytes) % 512, ==, 0);
        }
}

static void checked_arithmetic(void)
{
        uint64_t v = 7;

        g_assert_false(u64_add(UINT64_MAX, 1, &v));
        g_assert_false(u64_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
        g_assert_cmpuint(v, ==, 7);
        g_assert_true(u64_add(UINT64_MAX - 1, 1, &v));
        g_assert_cmpuint(v, ==, UINT64_MAX);
        g_assert_true(u64_mul(3, 5, &v));
        g_assert_cmpuint(v, ==, 15);
}

static void big_endian(void)
{
        uint8_t bytes[9] = { 0xff, 1, 2, 3, 4, 5, 6, 7, 8 };

        g_assert_cmphex(be16_load(bytes + 1), ==, 0x0102);
        g_assert_cmphex(be32_load(bytes + 1), ==, 0x01020304);
        g_assert_cmphex(be64_load(bytes + 1), ==, UINT64_C(0x0102030405060708));
        be32_store(bytes + 3, 0xa0b0c0d0);
        g_assert_cmphex(be64_load(bytes + 1), ==, UINT64_C(0x0102a0b0c0d00708));
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/format/geometry-of-the-default", geometry_of_the_default);
        g_test_add_func("/format/geometry-of-every-size", geometry_of_every_size);
        g_test_add_func("/format/geometry-refcount-max", geometry_refcount_max);
        g_test_add_func("/format/entry-kinds", entry_kinds);
        g_test_add_func("/format/compressed-by-hand", compressed_by_hand);
        g_test_add_func("/format/compressed-roundtrip", compressed_roundtrip);
        g_test_add_func("/format/checked-arithmetic", checked_arithmetic);
        g_test_add_func("/format/big-endian", big_endian);
        return g_test_run();
}
