/*
 * test-virtio-blk.c - a guest's requests to its disk, well-formed ones.
 *
 * SPDX-License-Identifier: MIT
 */
#include <linux/virtio_config.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "vm/blk-guest.h"

#define EVENT_IDX       (1ull << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT        (1ull << VIRTIO_RING_F_INDIRECT_DESC)
#define FLUSH           (1ull << VIRTIO_BLK_F_FLUSH)
#define CONFIG_WCE      (1ull << VIRTIO_BLK_F_CONFIG_WCE)

enum { SECTOR = 512, MIB = 1 << 20, SECTORS = GUEST_DISK_BYTES / SECTOR };

static void fill(struct blk_guest *g, uint64_t address, uint8_t value, size_t bytes)
{
        memset(guest_at(g, address, bytes), value, bytes);
}

static void assert_filled(struct blk_guest *g, uint64_t address, uint8_t value, size_t bytes)
{
        const uint8_t *at = guest_at(g, address, bytes);

        for (size_t i = 0; i < bytes; i++)
                g_assert_cmphex(at[i], ==, value);
}

static void test_identity(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);
        struct virtio_blk_config config;
        uint64_t features = guest_features(g);

        g_assert_cmphex(guest_read(g, VIRTIO_MMIO_MAGIC_VALUE), ==, 0x74726976);
        g_assert_cmpuint(guest_read(g, VIRTIO_MMIO_VERSION), ==, 2);
        g_assert_cmpuint(guest_read(g, VIRTIO_MMIO_DEVICE_ID), ==, 2);
        g_assert_cmpuint(guest_read(g, VIRTIO_MMIO_QUEUE_NUM_MAX), ==, GUEST_QUEUE);
        g_assert_true(features & 1ull << VIRTIO_F_VERSION_1);
        g_assert_true(features & 1ull << VIRTIO_BLK_F_DISCARD);
        g_assert_false(features & 1ull << VIRTIO_BLK_F_RO);
        virtio_mmio_read(g->mmio, VIRTIO_MMIO_CONFIG, &config, 8);
        g_assert_cmpuint(GUINT64_FROM_LE(config.capacity), ==, SECTORS);
        /* A second queue is not there. */
        guest_write(g, VIRTIO_MMIO_QUEUE_SEL, 1);
        g_assert_cmpuint(guest_read(g, VIRTIO_MMIO_QUEUE_NUM_MAX), ==, 0);
        guest_free(g);
}

static void test_features_not_offered(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);

        guest_write(g, VIRTIO_MMIO_STATUS, 1 | 2);
        guest_write(g, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        guest_write(g, VIRTIO_MMIO_DRIVER_FEATURES, 1 | 1 << 7);        /* bit 39 */
        guest_write(g, VIRTIO_MMIO_STATUS, 1 | 2 | 8);
        g_assert_cmphex(guest_read(g, VIRTIO_MMIO_STATUS), ==, 1 | 2);
        /* Nor without VERSION_1. */
        guest_write(g, VIRTIO_MMIO_DRIVER_FEATURES, 0);
        guest_write(g, VIRTIO_MMIO_STATUS, 1 | 2 | 8);
        guest_write(g, VIRTIO_MMIO_STATUS, 1 | 2 | 4);
        g_assert_cmphex(guest_read(g, VIRTIO_MMIO_STATUS), ==, 1 | 2);
        guest_free(g);
}

static void test_write_and_read(gconstpointer format)
{
        struct blk_guest *g = guest_new(format, NULL);

        guest_start(g, FLUSH);
        fill(g, GUEST_DATA, 0xa5, MIB);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_OUT, 7, GUEST_DATA, MIB), ==, 0);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_FLUSH, 0, GUEST_DATA, 0), ==, 0);
        fill(g, GUEST_DATA, 0, MIB + SECTOR);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_IN, 7, GUEST_DATA, MIB + SECTOR), ==, 0);
        assert_filled(g, GUEST_DATA, 0xa5, MIB);
        assert_filled(g, GUEST_DATA + MIB, 0, SECTOR);
        guest_free(g);
}

/* A header in two buffers, data in three, the status at the end of the last one. */
static void test_any_layout(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);
        uint64_t header;

        guest_start(g, 0);
        fill(g, GUEST_DATA, 0x11, SECTOR);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_OUT, 3, GUEST_DATA, SECTOR), ==, 0);
        fill(g, GUEST_DATA, 0, 4096);
        header = guest_set_header(g, 0, VIRTIO_BLK_T_IN, 3);
        guest_set_desc(g, GUEST_DESC, 0, header, 5, VRING_DESC_F_NEXT, 9);
        guest_set_desc(g, GUEST_DESC, 9, header + 5, 11, VRING_DESC_F_NEXT, 2);
        guest_set_desc(g, GUEST_DESC, 2, GUEST_DATA, 100, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
                       40);
        guest_set_desc(g, GUEST_DESC, 40, GUEST_DATA + 1000, 300,
                       VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
        fill(g, GUEST_DATA + 2000, 0xff, 200);
        guest_set_desc(g, GUEST_DESC, 1, GUEST_DATA + 2000, 113, VRING_DESC_F_WRITE, 0);
        guest_offer(g, 0);
        guest_ring(g);
        g_assert_true(guest_wait_used(g, 1));
        assert_filled(g, GUEST_DATA, 0x11, 100);
        assert_filled(g, GUEST_DATA + 100, 0, 900);
        assert_filled(g, GUEST_DATA + 1000, 0x11, 300);
        assert_filled(g, GUEST_DATA + 2000, 0x11, 112);
        assert_filled(g, GUEST_DATA + 2112, VIRTIO_BLK_S_OK, 1);
        assert_filled(g, GUEST_DATA + 2113, 0xff, 87);
        guest_free(g);
}

/* 200 segments in an indirect table, after a header in a direct descriptor. */
static void test_indirect(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);
        enum { SEGMENTS = 200 };
        uint64_t header;

        guest_start(g, INDIRECT | EVENT_IDX);
        header = guest_set_header(g, 0, VIRTIO_BLK_T_OUT, 0);
        for (unsigned i = 0; i < SEGMENTS; i++) {
                fill(g, GUEST_DATA + i * 8192, i, SECTOR);
                guest_set_desc(g, GUEST_INDIRECT, i, GUEST_DATA + i * 8192, SECTOR,
                               VRING_DESC_F_NEXT, i + 1);
        }
        guest_set_desc(g, GUEST_INDIRECT, SEGMENTS, guest_status_address(0), 1,
                       VRING_DESC_F_WRITE, 0);
        guest_set_desc(g, GUEST_DESC, 0, header, 16, VRING_DESC_F_NEXT, 5);
        guest_set_desc(g, GUEST_DESC, 5, GUEST_INDIRECT, 16 * (SEGMENTS + 1),
                       VRING_DESC_F_INDIRECT, 0);
        guest_offer(g, 0);
        guest_ring(g);
        g_assert_true(guest_wait_used(g, 1));
        g_assert_cmpuint(guest_status(g, 0), ==, VIRTIO_BLK_S_OK);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_IN, 0, GUEST_DATA, SEGMENTS * SECTOR), ==,
                         VIRTIO_BLK_S_OK);
        for (unsigned i = 0; i < SEGMENTS; i++)
                assert_filled(g, GUEST_DATA + i * SECTOR, i, SECTOR);
        guest_free(g);
}

/* The queue is full of requests at once, in each of 50 rounds. */
static void test_many_in_flight(gconstpointer format)
{
        struct blk_guest *g = guest_new(format, NULL);
        enum { REQUESTS = GUEST_QUEUE / 3 };

        guest_start(g, EVENT_IDX);
        for (unsigned round = 0; round < 50; round++) {
                for (unsigned i = 0; i < REQUESTS; i++) {
                        fill(g, GUEST_DATA + i * 4096, round + i, 4096);
                        guest_build(g, i, VIRTIO_BLK_T_OUT, 64 * i, GUEST_DATA + i * 4096, 4096);
                        guest_offer(g, 3 * i);
                        guest_ring(g);
                }
                g_assert_true(guest_wait_used(g, REQUESTS));
                for (unsigned i = 0; i < REQUESTS; i++)
                        g_assert_cmpuint(guest_status(g, 3 * i), ==, VIRTIO_BLK_S_OK);
        }
        for (unsigned i = 0; i < REQUESTS; i++) {
                g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_IN, 64 * i, GUEST_DATA, 4096), ==,
                                 VIRTIO_BLK_S_OK);
                assert_filled(g, GUEST_DATA, 49 + i, 4096);
        }
        guest_free(g);
}

static void test_event_idx(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);
        uint16_t *used_event;
        uint64_t rings;

        guest_start(g, EVENT_IDX);
        used_event = guest_at(g, GUEST_AVAIL + 4 + 2 * GUEST_QUEUE, 2);
        *used_event = GUINT16_TO_LE(2);         /* interrupt when the third came back */
        for (unsigned i = 0; i < 3; i++) {
                guest_build(g, i, VIRTIO_BLK_T_IN, 0, GUEST_DATA, 4096);
                guest_offer(g, 3 * i);
                guest_ring(g);
                guest_settle(g);
                g_assert_cmpint(read(g->mmio->irq_fd, &rings, sizeof(rings)), ==, i < 2 ? -1 : 8);
        }
        g_assert_cmphex(guest_read(g, VIRTIO_MMIO_INTERRUPT_STATUS), ==, 1);
        guest_write(g, VIRTIO_MMIO_INTERRUPT_ACK, 1);
        g_assert_cmphex(guest_read(g, VIRTIO_MMIO_INTERRUPT_STATUS), ==, 0);
        guest_free(g);
}

static void test_get_id(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);

        guest_start(g, 0);
        fill(g, GUEST_DATA, 0xff, 64);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_GET_ID, 0, GUEST_DATA, 20), ==, 0);
        g_assert_cmpmem(guest_at(g, GUEST_DATA, 20), 20, "serial-of-the-disk\0\0", 20);
        assert_filled(g, GUEST_DATA + 20, 0xff, 44);
        guest_free(g);
}

static uint8_t send_ranges(struct blk_guest *g, uint32_t type, uint32_t flags, unsigned count)
{
        struct virtio_blk_discard_write_zeroes *range = guest_at(g, GUEST_DATA + MIB, 4096);

        for (unsigned i = 0; i < count; i++)
                range[i] = (struct virtio_blk_discard_write_zeroes) {
                        .sector = GUINT64_TO_LE(128 * 2 * i),
                        .num_sectors = GUINT32_TO_LE(128),
                        .flags = GUINT32_TO_LE(flags),
                };
        return guest_request(g, type, 0, GUEST_DATA + MIB, count * sizeof(*range));
}

/* Every other cluster of eight goes; those between stay. */
static void test_ranges(gconstpointer data)
{
        uint32_t type = GPOINTER_TO_UINT(data);
        struct blk_guest *g = guest_new("qcow2", NULL);

        guest_start(g, 0);
        fill(g, GUEST_DATA, 0x77, MIB);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_OUT, 0, GUEST_DATA, MIB), ==, 0);
        g_assert_cmpuint(send_ranges(g, type, type == VIRTIO_BLK_T_DISCARD ? 0 : 1, 4), ==, 0);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_IN, 0, GUEST_DATA, MIB), ==, 0);
        for (unsigned i = 0; i < 8; i++)
                assert_filled(g, GUEST_DATA + i * 65536, i % 2 == 0 ? 0 : 0x77, 65536);
        /* Flags that are none, too many ranges, half a range. */
        g_assert_cmpuint(send_ranges(g, type, 2, 1), ==, VIRTIO_BLK_S_UNSUPP);
        g_assert_cmpuint(send_ranges(g, type, 0, 17), ==, VIRTIO_BLK_S_IOERR);
        g_assert_cmpuint(guest_request(g, type, 0, GUEST_DATA + MIB, 24), ==, VIRTIO_BLK_S_IOERR);
        g_assert_false(guest_needs_reset(g));
        guest_free(g);
}

static void test_refused(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);
        const struct {
                uint32_t type;
                uint64_t sector;
                uint32_t bytes;
                uint8_t status;
        } cases[] = {
                { VIRTIO_BLK_T_IN, SECTORS, SECTOR, VIRTIO_BLK_S_IOERR },
                { VIRTIO_BLK_T_IN, SECTORS - 1, 2 * SECTOR, VIRTIO_BLK_S_IOERR },
                { VIRTIO_BLK_T_IN, UINT64_MAX, SECTOR, VIRTIO_BLK_S_IOERR },
                { VIRTIO_BLK_T_OUT, UINT64_MAX / SECTOR + 1, SECTOR, VIRTIO_BLK_S_IOERR },
                { VIRTIO_BLK_T_IN, 0, SECTOR - 1, VIRTIO_BLK_S_IOERR },
                { VIRTIO_BLK_T_OUT, 0, 1, VIRTIO_BLK_S_IOERR },
                { VIRTIO_BLK_T_IN, 0, 0, VIRTIO_BLK_S_IOERR },
                { VIRTIO_BLK_T_IN, SECTORS - 1, SECTOR, VIRTIO_BLK_S_OK },
                { 99, 0, SECTOR, VIRTIO_BLK_S_UNSUPP },
                { VIRTIO_BLK_T_SECURE_ERASE, 0, 16, VIRTIO_BLK_S_UNSUPP },
        };

        guest_start(g, 0);
        for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
                g_assert_cmpuint(guest_request(g, cases[i].type, cases[i].sector, GUEST_DATA,
                                               cases[i].bytes), ==, cases[i].status);
        g_assert_false(guest_needs_reset(g));
        guest_free(g);
}

static void test_read_only(void)
{
        const struct virtio_blk_options options = { .read_only = true, .discard = true };
        struct blk_guest *g = guest_new("qcow2", &options);

        g_assert_true(guest_features(g) & 1ull << VIRTIO_BLK_F_RO);
        g_assert_false(guest_features(g) & 1ull << VIRTIO_BLK_F_DISCARD);
        guest_start(g, 0);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_OUT, 0, GUEST_DATA, SECTOR), ==,
                         VIRTIO_BLK_S_IOERR);
        g_assert_cmpuint(send_ranges(g, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1), ==, VIRTIO_BLK_S_IOERR);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_IN, 0, GUEST_DATA, SECTOR), ==, 0);
        guest_free(g);
}

static uint8_t read_wce(struct blk_guest *g)
{
        uint8_t wce;

        virtio_mmio_read(g->mmio, VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce),
                         &wce, 1);
        return wce;
}

static void write_wce(struct blk_guest *g, uint8_t wce)
{
        virtio_mmio_write(g->mmio, VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce),
                          &wce, 1);
}

static void test_write_cache(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);

        guest_start(g, FLUSH | CONFIG_WCE);
        g_assert_cmpuint(read_wce(g), ==, 1);
        write_wce(g, 0);
        g_assert_cmpuint(read_wce(g), ==, 0);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_OUT, 0, GUEST_DATA, 4096), ==, 0);
        /* A driver that cannot flush finds it off, and power-on is on again. */
        guest_start(g, 0);
        g_assert_cmpuint(read_wce(g), ==, 0);
        guest_start(g, FLUSH);
        g_assert_cmpuint(read_wce(g), ==, 1);
        write_wce(g, 0);                        /* not negotiated */
        g_assert_cmpuint(read_wce(g), ==, 1);
        guest_free(g);
}

/* ---- Stopping ------------------------------------------------------------------------- */

static void limit_files(rlim_t bytes)
{
        struct rlimit limit;

        signal(SIGXFSZ, SIG_IGN);
        getrlimit(RLIMIT_FSIZE, &limit);
        limit.rlim_cur = bytes;
        g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
}

static void wait_stops(struct blk_guest *g, int count)
{
        while (g_atomic_int_get(&g->stops) < count)
                g_usleep(1000);
        g_assert_cmpuint(virtio_blk_parked(g->blk), ==, count);
}

static const struct virtio_blk_options stopping = { .write_error = DISK_ERROR_STOP };

/* Two writes fail, wait, and are done once there is room. */
static void test_stop_and_retry(gconstpointer format)
{
        struct blk_guest *g = guest_new(format, &stopping);
        struct device *device = virtio_blk_device(g->blk);

        guest_start(g, 0);
        fill(g, GUEST_DATA, 0x3c, 4096);
        limit_files(4096);
        for (unsigned i = 0; i < 2; i++) {
                guest_build(g, i, VIRTIO_BLK_T_OUT, 4096 + 256 * i, GUEST_DATA, 4096);
                guest_offer(g, 3 * i);
        }
        guest_ring(g);
        wait_stops(g, 2);
        /* Stopping the machine does not wait for them. */
        device->ops->quiesce(device);
        device->ops->resume(device);
        g_assert_cmpuint(guest_status(g, 0), ==, GUEST_NO_STATUS);
        limit_files(RLIM_INFINITY);
        virtio_blk_retry(g->blk);
        g_assert_true(guest_wait_used(g, 2));
        g_assert_cmpuint(guest_status(g, 0) | guest_status(g, 3), ==, VIRTIO_BLK_S_OK);
        g_assert_cmpuint(virtio_blk_parked(g->blk), ==, 0);
        fill(g, GUEST_DATA, 0, 4096);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_IN, 4096 + 256, GUEST_DATA, 4096), ==, 0);
        assert_filled(g, GUEST_DATA, 0x3c, 4096);
        guest_free(g);
}

/* What waits is given up by a reset: of the guest's, which hears of it; of the machine. */
static void test_stop_and_reset(gconstpointer format)
{
        struct blk_guest *g = guest_new(format, &stopping);
        struct device *device = virtio_blk_device(g->blk);

        limit_files(4096);
        guest_start(g, 0);
        guest_build(g, 0, VIRTIO_BLK_T_OUT, 4096, GUEST_DATA, 4096);
        guest_offer(g, 0);
        guest_ring(g);
        wait_stops(g, 1);
        guest_write(g, VIRTIO_MMIO_STATUS, 0);
        g_assert_cmpuint(guest_status(g, 0), ==, VIRTIO_BLK_S_IOERR);
        g_assert_cmpuint(virtio_blk_parked(g->blk), ==, 0);

        guest_start(g, 0);
        g_atomic_int_set(&g->stops, 0);
        guest_build(g, 0, VIRTIO_BLK_T_OUT, 4096, GUEST_DATA, 4096);
        guest_offer(g, 0);
        guest_ring(g);
        wait_stops(g, 1);
        device->ops->quiesce(device);
        device->ops->reset(device);
        g_assert_cmpuint(guest_status(g, 0), ==, GUEST_NO_STATUS);
        device->ops->resume(device);
        limit_files(RLIM_INFINITY);
        guest_start(g, 0);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_OUT, 4096, GUEST_DATA, 4096), ==, 0);
        guest_free(g);
}

/* Between quiesce and resume the disk does nothing; then it does what waited. */
static void test_quiesce(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);
        struct device *device = virtio_blk_device(g->blk);
        const uint16_t *used = guest_at(g, GUEST_USED, 4);

        guest_start(g, EVENT_IDX);
        for (unsigned i = 0; i < 20; i++) {
                guest_build(g, i, VIRTIO_BLK_T_OUT, 128 * i, GUEST_DATA, 65536);
                guest_offer(g, 3 * i);
                guest_ring(g);
                if (i == 9) {
                        uint16_t given;

                        device->ops->quiesce(device);
                        given = used[1];
                        guest_settle(g);
                        g_assert_cmpuint(used[1], ==, given);
                }
        }
        g_assert_cmpuint(used[1], <=, 10);
        device->ops->resume(device);
        g_assert_true(guest_wait_used(g, 20));
        guest_free(g);
}

/* ---- State ---------------------------------------------------------------------------- */

/* The device's state, as another one would get it.  g_free. */
static uint8_t *save(struct blk_guest *g, size_t *ret_bytes)
{
        struct device *device = virtio_blk_device(g->blk);
        struct state_writer *w = state_writer_new();
        struct hvb_error err = ERROR_INIT;
        const uint8_t *bytes;
        uint8_t *copy;

        device->ops->quiesce(device);
        g_assert_cmpint(device->ops->save(device, w, &err), ==, 0);
        device->ops->resume(device);
        bytes = state_writer_bytes(w, ret_bytes);
        copy = g_memdup2(bytes, *ret_bytes);
        state_writer_free(w);
        return copy;
}

static int load(struct blk_guest *g, const uint8_t *bytes, size_t count, bool apply)
{
        struct device *device = virtio_blk_device(g->blk);
        struct state_reader r = { .bytes = bytes, .left_bytes = count };
        struct hvb_error err = ERROR_INIT;
        int ret = device->ops->load(device, &r, device->ops->state_version, apply, &err);

        g_assert_cmpint(err.code, ==, ret);
        return ret;
}

/* RAM and device state of one guest go to another one, which carries on. */
static void test_save_and_load(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);
        struct blk_guest *other = guest_new("qcow2", NULL);
        struct device *device = virtio_blk_device(other->blk);
        g_autofree uint8_t *bytes = NULL;
        size_t count;

        guest_start(g, EVENT_IDX | FLUSH | CONFIG_WCE);
        for (unsigned i = 0; i < 100; i++)
                g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_OUT, i, GUEST_DATA, SECTOR), ==, 0);
        write_wce(g, 0);
        bytes = save(g, &count);

        guest_start(other, 0);
        g_assert_cmpint(load(other, bytes, count, false), ==, 0);
        g_assert_cmpuint(read_wce(other), ==, 0);
        device->ops->quiesce(device);
        memcpy(other->mem.ram, g->mem.ram, GUEST_RAM_BYTES);
        g_assert_cmpint(load(other, bytes, count, true), ==, 0);
        device->ops->resume(device);
        other->avail_index = g->avail_index;
        other->used_seen = g->used_seen;
        fill(other, GUEST_DATA, 0x42, 4096);
        g_assert_cmpuint(guest_request(other, VIRTIO_BLK_T_OUT, 0, GUEST_DATA, 4096), ==, 0);
        g_assert_cmpuint(guest_request(other, VIRTIO_BLK_T_IN, 0, GUEST_DATA + MIB, 4096), ==, 0);
        assert_filled(other, GUEST_DATA + MIB, 0x42, 4096);
        guest_free(other);
        guest_free(g);
}

/* Any state at all is taken or refused; a refused or merely judged one changes nothing. */
static void test_hostile_state(void)
{
        struct blk_guest *g = guest_new("qcow2", NULL);
        g_autofree uint8_t *bytes = NULL;
        unsigned refused = 0;
        size_t count;

        guest_start(g, EVENT_IDX);
        bytes = save(g, &count);
        g_assert_cmpint(load(g, bytes, count - 1, false), ==, -EINVAL);
        for (unsigned i = 0; i < 20000; i++) {
                g_autofree uint8_t *mutant = g_memdup2(bytes, count);
                unsigned changes = g_test_rand_int_range(1, 4);

                while (changes-- > 0)
                        mutant[g_test_rand_int_range(0, count)] = g_test_rand_int();
                refused += load(g, mutant, count, false) < 0;
                if (i % 100 == 0 && load(g, mutant, count, true) == 0) {
                        guest_ring(g);
                        guest_settle(g);
                        guest_start(g, EVENT_IDX);
                }
        }
        g_assert_cmpuint(refused, >, 1000);
        g_assert_cmpuint(guest_request(g, VIRTIO_BLK_T_OUT, 0, GUEST_DATA, 4096), ==, 0);
        guest_free(g);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/virtio-blk/identity", test_identity);
        g_test_add_func("/virtio-blk/features-not-offered", test_features_not_offered);
        g_test_add_data_func("/virtio-blk/write-and-read/qcow2", "qcow2", test_write_and_read);
        g_test_add_data_func("/virtio-blk/write-and-read/raw", "raw", test_write_and_read);
        g_test_add_func("/virtio-blk/any-layout", test_any_layout);
        g_test_add_func("/virtio-blk/indirect", test_indirect);
        g_test_add_data_func("/virtio-blk/many-in-flight/qcow2", "qcow2", test_many_in_flight);
        g_test_add_data_func("/virtio-blk/many-in-flight/raw", "raw", test_many_in_flight);
        g_test_add_func("/virtio-blk/event-idx", test_event_idx);
        g_test_add_func("/virtio-blk/get-id", test_get_id);
        g_test_add_data_func("/virtio-blk/discard", GUINT_TO_POINTER(VIRTIO_BLK_T_DISCARD),
                             test_ranges);
        g_test_add_data_func("/virtio-blk/write-zeroes",
                             GUINT_TO_POINTER(VIRTIO_BLK_T_WRITE_ZEROES), test_ranges);
        g_test_add_func("/virtio-blk/refused", test_refused);
        g_test_add_func("/virtio-blk/read-only", test_read_only);
        g_test_add_func("/virtio-blk/write-cache", test_write_cache);
        g_test_add_data_func("/virtio-blk/stop-and-retry/qcow2", "qcow2", test_stop_and_retry);
        g_test_add_data_func("/virtio-blk/stop-and-retry/raw", "raw", test_stop_and_retry);
        g_test_add_data_func("/virtio-blk/stop-and-reset/qcow2", "qcow2", test_stop_and_reset);
        g_test_add_data_func("/virtio-blk/stop-and-reset/raw", "raw", test_stop_and_reset);
        g_test_add_func("/virtio-blk/quiesce", test_quiesce);
        g_test_add_func("/virtio-blk/save-and-load", test_save_and_load);
        g_test_add_func("/virtio-blk/hostile-state", test_hostile_state);
        return g_test_run();
}
