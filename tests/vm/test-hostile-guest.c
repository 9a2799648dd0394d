/*
 * test-hostile-guest.c - a guest that breaks the rules of virtio, by name and at random.
 *
 * Whatever it sends is completed with an error or makes the device need a reset, and after a
 * reset the device works.  Run sanitized, nothing beyond guest memory is touched: RAM lies
 * between pages that nobody may touch (guard_ram).
 *
 * SPDX-License-Identifier: MIT
 */
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/mman.h>

#include "vm/blk-guest.h"

#define NEXT            VRING_DESC_F_NEXT
#define WRITE           VRING_DESC_F_WRITE
#define TABLE           VRING_DESC_F_INDIRECT
#define FEATURES        (1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX)

enum { SECTOR = 512, STATUS_AT = 2, STOP_ROUNDS = 20000, FUZZ_ROUNDS = 4000, SOAK_CHECK = 500 };

/* ---- By name -------------------------------------------------------------------------- */

/* What becomes of an honest read of 4 KiB in descriptors 0, 1, 2 of which these differ. */
struct change {
        unsigned index;                 /* of a descriptor; beyond those: in GUEST_INDIRECT */
        uint64_t address;
        uint32_t length;
        uint16_t flags;
        uint16_t next;
};

enum { NEEDS_RESET = GUEST_NO_STATUS, IN_TABLE = 1000 };

static const struct hostile {
        const char *name;
        uint16_t head;
        uint8_t outcome;                /* a status, or NEEDS_RESET */
        struct change changes[3];
} cases[] = {
        { "honest", 0, VIRTIO_BLK_S_OK, { { 1, GUEST_DATA, 4096, NEXT | WRITE, 2 } } },
        { "follows-itself", 0, NEEDS_RESET, { { 1, GUEST_DATA, 4096, NEXT | WRITE, 1 } } },
        { "loop-of-three", 0, NEEDS_RESET, { { 2, GUEST_DATA, 1, NEXT | WRITE, 1 } } },
        { "next-outside", 0, NEEDS_RESET, { { 1, GUEST_DATA, 4096, NEXT | WRITE, GUEST_QUEUE } } },
        { "head-outside", GUEST_QUEUE, NEEDS_RESET, { { 0 } } },
        { "head-far-outside", 0xffff, NEEDS_RESET, { { 0 } } },
        { "address-outside", 0, NEEDS_RESET,
          { { 1, GUEST_RAM_BYTES, 4096, NEXT | WRITE, 2 } } },
        { "end-outside", 0, NEEDS_RESET,
          { { 1, GUEST_RAM_BYTES - 4095, 4096, NEXT | WRITE, 2 } } },
        { "end-just-inside", 0, VIRTIO_BLK_S_OK,
          { { 1, GUEST_RAM_BYTES - 4096, 4096, NEXT | WRITE, 2 } } },
        { "address-wraps", 0, NEEDS_RESET, { { 1, UINT64_MAX - 4094, 4096, NEXT | WRITE, 2 } } },
        { "in-the-hole", 0, NEEDS_RESET, { { 1, 0xd0000000, 4096, NEXT | WRITE, 2 } } },
        { "length-huge", 0, NEEDS_RESET, { { 1, GUEST_DATA, UINT32_MAX, NEXT | WRITE, 2 } } },
        { "length-zero", 0, NEEDS_RESET, { { 1, GUEST_DATA, 0, NEXT | WRITE, 2 } } },
        { "header-outside", 0, NEEDS_RESET, { { 0, 1ull << 62, 16, NEXT, 1 } } },
        { "header-writable", 0, NEEDS_RESET,
          { { 0, GUEST_HEADERS, 16, NEXT | WRITE, 1 }, { 1, GUEST_DATA, 4096, NEXT, 2 } } },
        { "header-short", 0, VIRTIO_BLK_S_IOERR, { { 0, GUEST_HEADERS, 15, NEXT, 1 } } },
        { "header-alone", 0, NEEDS_RESET, { { 0, GUEST_HEADERS, 16, 0, 0 } } },
        { "status-alone", STATUS_AT, VIRTIO_BLK_S_IOERR, { { 0 } } },
        { "status-readable", 0, NEEDS_RESET, { { 2, GUEST_HEADERS + 31, 1, 0, 0 } } },
        { "wrong-direction", 0, VIRTIO_BLK_S_IOERR, { { 1, GUEST_DATA, 4096, NEXT, 2 } } },
        { "half-a-sector", 0, VIRTIO_BLK_S_IOERR, { { 1, GUEST_DATA, 256, NEXT | WRITE, 2 } } },
        { "table-of-none", 0, NEEDS_RESET, { { 0, GUEST_INDIRECT, 0, TABLE, 0 } } },
        { "table-of-a-half", 0, NEEDS_RESET, { { 0, GUEST_INDIRECT, 24, TABLE, 0 } } },
        { "table-outside", 0, NEEDS_RESET, { { 0, GUEST_RAM_BYTES - 16, 32, TABLE, 0 } } },
        { "table-huge", 0, NEEDS_RESET, { { 0, GUEST_INDIRECT, 0xfffffff0, TABLE, 0 } } },
        { "table-and-next", 0, NEEDS_RESET, { { 0, GUEST_INDIRECT, 16, TABLE | NEXT, 1 } } },
        { "table-in-a-table", 0, NEEDS_RESET,
          { { 0, GUEST_INDIRECT, 32, TABLE, 0 },
            { IN_TABLE, GUEST_INDIRECT, 32, TABLE, 0 } } },
        { "table-loop", 0, NEEDS_RESET,
          { { 0, GUEST_INDIRECT, 16, TABLE, 0 },
            { IN_TABLE, GUEST_DATA, 16, NEXT, 0 } } },
        { "table-next-outside", 0, NEEDS_RESET,
          { { 0, GUEST_INDIRECT, 16, TABLE, 0 },
            { IN_TABLE, GUEST_HEADERS, 16, NEXT, 1 } } },
};

/* Nobody may touch what lies around RAM; the mapping is moved between such pages. */
static void guard_ram(struct blk_guest *g)
{
        size_t guard = 2 << 20;
        uint8_t *around = mmap(NULL, GUEST_RAM_BYTES + 2 * guard, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        g_assert_true(around != MAP_FAILED);
        g_assert_true(mremap(g->mem.ram, GUEST_RAM_BYTES, GUEST_RAM_BYTES,
                             MREMAP_MAYMOVE | MREMAP_FIXED, around + guard) == around + guard);
        g->mem.ram = around + guard;
}

static void unguard_ram(struct blk_guest *g)
{
        size_t guard = 2 << 20;

        munmap(g->mem.ram - guard, guard);
        munmap(g->mem.ram + GUEST_RAM_BYTES, guard);
}

static void assert_works(struct blk_guest *g)
{
        guest_start(g, FEATURES);
        g_assert_false(guest_needs_reset(g));
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_IN, 0, GUEST_DATA, 4096), ==,
                         VIRTIO_BLK_S_OK);
}

static void test_case(gconstpointer opaque)
{
        const struct hostile *hostile = opaque;
        struct blk_guest *g = guest_new("qcow2", NULL);

        guard_ram(g);
        guest_start(g, FEATURES);
        guest_build(g, 0, VIRTIO_BLK_T_IN, 0, GUEST_DATA, 4096);
        for (unsigned i = 0; i < G_N_ELEMENTS(hostile->changes); i++) {
                const struct change *c = &hostile->changes[i];
                bool in_table = c->index >= IN_TABLE;

                if (c->address != 0)
                        guest_set_desc(g, in_table ? GUEST_INDIRECT : GUEST_DESC,
                                       in_table ? c->index - IN_TABLE : c->index, c->address,
                                       c->length, c->flags, c->next);
        }
        guest_offer(g, hostile->head);
        guest_ring(g);
        g_assert_cmpint(guest_wait_used(g, 1), ==, hostile->outcome != NEEDS_RESET);
        g_assert_cmpuint(guest_status(g, 0), ==, hostile->outcome);
        assert_works(g);
        unguard_ram(g);
        guest_free(g);
}

/* More chains than the queue has, by the index alone. */
static void test_index_jumps(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);

        guest_start(g, FEATURES);
        g->avail_index += GUEST_QUEUE;
        guest_offer(g, 0);
        guest_ring(g);
        g_assert_false(guest_wait_used(g, 1));
        assert_works(g);
        guest_free(g);
}

/* One chain, offered as often as the ring holds: it is done as often. */
static void test_same_chain_many_times(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);

        guest_start(g, FEATURES);
        guest_build(g, 0, VIRTIO_BLK_T_IN, 0, GUEST_DATA, 4096);
        for (unsigned i = 0; i < GUEST_QUEUE; i++)
                guest_offer(g, 0);
        guest_ring(g);
        g_assert_true(guest_wait_used(g, GUEST_QUEUE));
        guest_free(g);
}

static void set_queue(struct blk_guest *g, uint32_t size, uint64_t desc, uint64_t avail,
                      uint64_t used)
{
        guest_write(g, VIRTIO_MMIO_QUEUE_READY, 0);
        guest_write(g, VIRTIO_MMIO_QUEUE_NUM, size);
        guest_write(g, VIRTIO_MMIO_QUEUE_DESC_LOW, desc);
        guest_write(g, VIRTIO_MMIO_QUEUE_DESC_HIGH, desc >> 32);
        guest_write(g, VIRTIO_MMIO_QUEUE_AVAIL_LOW, avail);
        guest_write(g, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, avail >> 32);
        guest_write(g, VIRTIO_MMIO_QUEUE_USED_LOW, used);
        guest_write(g, VIRTIO_MMIO_QUEUE_USED_HIGH, used >> 32);
        guest_write(g, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void test_rings(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);
        const struct {
                uint32_t size;
                uint64_t desc;
                uint64_t avail;
                uint64_t used;
                bool accepted;
        } rings[] = {
                { 64, GUEST_DESC, GUEST_AVAIL, GUEST_USED, true },
                { 1, GUEST_DESC, GUEST_AVAIL, GUEST_USED, true },
                { 0, GUEST_DESC, GUEST_AVAIL, GUEST_USED, false },
                { 63, GUEST_DESC, GUEST_AVAIL, GUEST_USED, false },
                { 128, GUEST_DESC, GUEST_AVAIL, GUEST_USED, false },   /* above the maximum */
                { 0x80000000, GUEST_DESC, GUEST_AVAIL, GUEST_USED, false },
                { 64, GUEST_DESC + 8, GUEST_AVAIL, GUEST_USED, false },
                { 64, GUEST_DESC, GUEST_AVAIL + 1, GUEST_USED, false },
                { 64, GUEST_DESC, GUEST_AVAIL, GUEST_USED + 2, false },
                { 64, GUEST_RAM_BYTES - 1024, GUEST_AVAIL, GUEST_USED, true },
                { 64, GUEST_RAM_BYTES - 1008, GUEST_AVAIL, GUEST_USED, false },
                { 64, GUEST_DESC, GUEST_RAM_BYTES - 134, GUEST_USED, true },
                { 64, GUEST_DESC, GUEST_RAM_BYTES - 132, GUEST_USED, false },
                { 64, GUEST_DESC, GUEST_AVAIL, GUEST_RAM_BYTES - 520, true },
                { 64, GUEST_DESC, GUEST_AVAIL, GUEST_RAM_BYTES - 516, false },
                { 64, UINT64_MAX - 15, GUEST_AVAIL, GUEST_USED, false },
        };

        guard_ram(g);
        for (unsigned i = 0; i < G_N_ELEMENTS(rings); i++) {
                guest_start(g, 0);
                set_queue(g, rings[i].size, rings[i].desc, rings[i].avail, rings[i].used);
                g_assert_cmpuint(guest_read(g, VIRTIO_MMIO_QUEUE_READY), ==, rings[i].accepted);
                g_assert_cmpint(guest_needs_reset(g), ==, !rings[i].accepted);
        }
        unguard_ram(g);
        guest_free(g);
}

/* The device is stopped while it is just about to look at the queue. */
static void test_stopped_at_work(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);

        guard_ram(g);
        for (unsigned round = 0; round < STOP_ROUNDS; round++) {
                if (round % 2 == 0)
                        guest_start(g, 0);
                else
                        set_queue(g, GUEST_QUEUE, GUEST_DESC, GUEST_AVAIL, GUEST_USED);
                for (unsigned i = 0; i < GUEST_QUEUE / 3; i++) {
                        guest_build(g, i, VIRTIO_BLK_T_IN, i, GUEST_DATA + i * SECTOR, SECTOR);
                        guest_offer(g, 3 * i);
                }
                guest_ring(g);
                guest_write(g, round % 2 == 0 ? VIRTIO_MMIO_QUEUE_READY : VIRTIO_MMIO_STATUS, 0);
        }
        assert_works(g);
        unguard_ram(g);
        guest_free(g);
}

/* ---- At random ------------------------------------------------------------------------ */

static uint64_t random_address(void)
{
        static const uint64_t edges[] = {
                0, 1, GUEST_RAM_BYTES - 1, GUEST_RAM_BYTES, 0xd0000000, UINT32_MAX, 1ull << 32,
                UINT64_MAX, UINT64_MAX - 4095, GUEST_DESC, GUEST_AVAIL, GUEST_USED,
        };

        switch (g_test_rand_int_range(0, 8)) {
        case 0:
                return edges[g_test_rand_int_range(0, G_N_ELEMENTS(edges))];
        case 1:
                return GUEST_RAM_BYTES - g_test_rand_int_range(0, 8192);
        case 2:
                return (uint64_t) g_test_rand_int() << 32 | (uint32_t) g_test_rand_int();
        default:
                return GUEST_DATA + g_test_rand_int_range(0, 1 << 20);
        }
}

static uint32_t random_length(void)
{
        switch (g_test_rand_int_range(0, 6)) {
        case 0:
                return g_test_rand_int();
        case 1:
                return g_test_rand_int_range(0, 40);
        case 2:
                return 16 * g_test_rand_int_range(0, 80);
        default:
                return SECTOR * g_test_rand_int_range(1, 32);
        }
}

static void random_desc(struct blk_guest *g, uint64_t table, unsigned index)
{
        uint16_t flags = g_test_rand_int_range(0, 20) == 0 ? g_test_rand_int()
                : g_test_rand_int_range(0, 8);

        guest_set_desc(g, table, index, random_address(), random_length(), flags,
                       g_test_rand_int_range(0, GUEST_QUEUE + 1));
}

/* One descriptor, header, ring entry or register of an otherwise honest guest. */
static void spoil(struct blk_guest *g)
{
        uint64_t header = GUEST_HEADERS + 32 * 3 * g_test_rand_int_range(0, GUEST_QUEUE / 3);
        static const uint32_t types[] = { 0, 1, 4, 8, 11, 13, 14, 99 };

        switch (g_test_rand_int_range(0, 6)) {
        case 0:
                random_desc(g, GUEST_DESC, g_test_rand_int_range(0, GUEST_QUEUE));
                break;
        case 1:
                random_desc(g, GUEST_INDIRECT, g_test_rand_int_range(0, 80));
                break;
        case 2:
                guest_set_desc(g, GUEST_DESC, g_test_rand_int_range(0, GUEST_QUEUE),
                               GUEST_INDIRECT, 16 * g_test_rand_int_range(0, 80),
                               VRING_DESC_F_INDIRECT, 0);
                break;
        case 3:
                *(uint32_t *) guest_at(g, header, 4) =
                        types[g_test_rand_int_range(0, G_N_ELEMENTS(types))];
                *(uint64_t *) guest_at(g, header + 8, 8) = g_test_rand_int_range(0, 20000);
                break;
        case 4:
                *(uint16_t *) guest_at(g, GUEST_AVAIL + 2 * g_test_rand_int_range(0, 40), 2) =
                        g_test_rand_int();
                break;
        default:
                guest_write(g, 4 * g_test_rand_int_range(0, 80), g_test_rand_int());
                break;
        }
}

static void send_spoilt(struct blk_guest *g)
{
        unsigned requests = g_test_rand_int_range(1, GUEST_QUEUE / 3);
        unsigned spoilt = g_test_rand_int_range(0, 6);

        for (unsigned i = 0; i < requests; i++) {
                guest_build(g, i, g_test_rand_int_range(0, 2), g_test_rand_int_range(0, 16000),
                            GUEST_DATA + i * 16384, SECTOR * g_test_rand_int_range(1, 32));
                guest_offer(g, 3 * i);
        }
        while (spoilt-- > 0)
                spoil(g);
        guest_ring(g);
        /* It goes on while the device looks. */
        for (unsigned i = 0; i < 3; i++)
                spoil(g);
}

/* Until the time is up (--soak), else a fixed number of rounds. */
static bool goes_on(unsigned round, gint64 began)
{
        const char *seconds = g_getenv("TEST_SECONDS");

        if (seconds == NULL)
                return round < FUZZ_ROUNDS;
        return g_get_monotonic_time() - began < g_ascii_strtoll(seconds, NULL, 10) * 1000000;
}

static void test_random(gconstpointer format)
{
        struct blk_guest *g = guest_new(format, NULL);
        gint64 began = g_get_monotonic_time();
        unsigned refused = 0;
        unsigned round;

        guard_ram(g);
        for (round = 0; goes_on(round, began); round++) {
                if (round % 4 == 0)
                        guest_start(g, FEATURES);
                send_spoilt(g);
                if (round % 16 == 0)
                        guest_settle(g);
                refused += guest_needs_reset(g);
                if (round % SOAK_CHECK == 0)
                        assert_works(g);
        }
        assert_works(g);
        g_assert_cmpuint(refused, >, 0);
        g_test_message("%u rounds, %u ended in a device that needed a reset", round, refused);
        unguard_ram(g);
        guest_free(g);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
                g_autofree char *path = g_strconcat("/hostile-guest/", cases[i].name, NULL);

                g_test_add_data_func(path, &cases[i], test_case);
        }
        g_test_add_func("/hostile-guest/index-jumps", test_index_jumps);
        g_test_add_func("/hostile-guest/same-chain-many-times", test_same_chain_many_times);
        g_test_add_func("/hostile-guest/rings", test_rings);
        g_test_add_func("/hostile-guest/stopped-at-work", test_stopped_at_work);
        g_test_add_data_func("/hostile-guest/random/qcow2", "qcow2", test_random);
        g_test_add_data_func("/hostile-guest/random/raw", "raw", test_random);
        return g_test_run();
}
