/*
 * blk-guest.c - a guest made of function calls.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/blk-guest.h"

#include <glib/gstdio.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { WAIT_SECONDS = 20 };

/* ---- Life ---------------------------------------------------------------------------- */

static void count_stop(void *opaque)
{
        struct blk_guest *g = opaque;

        g_atomic_int_inc(&g->stops);
}

static enum hvb_error_action io_error(void *opaque, const struct hvb_io_error *what)
{
        struct blk_guest *g = opaque;

        return virtio_blk_io_error(g->blk, what);
}

static void make_image(const char *path, const char *format)
{
        const struct hvb_create_args args = { .size_bytes = GUEST_DISK_BYTES };
        const struct drive_options options = { .format = format, .flags = HVB_OPEN_RDWR };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;
        int ret = drive_create(path, &args, &options, &drive, &err);

        g_assert_cmpstr(err.text, ==, "");
        g_assert_cmpint(ret, ==, 0);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
}

struct blk_guest *guest_new(const char *format, const struct virtio_blk_options *options)
{
        struct virtio_blk_options filled = options != NULL ? *options
                : (struct virtio_blk_options) { .serial = "serial-of-the-disk", .discard = true };
        struct blk_guest *g = g_new0(struct blk_guest, 1);
        g_autofree char *directory = g_dir_make_tmp("blk-XXXXXX", NULL);
        struct hvb_error err = ERROR_INIT;
        const char *const discard[] = { "discard=unmap", NULL };
        struct drive_options how = {
                .format = format,
                .flags = filled.read_only ? 0 : HVB_OPEN_RDWR,
                .options = strcmp(format, "qcow2") == 0 ? discard : NULL,
                .watch = &g->watch,
        };

        filled.queue_size = GUEST_QUEUE;
        filled.stopped = count_stop;
        filled.opaque = g;
        g->watch = (struct drive_watch) { .opaque = g, .io_error = io_error };
        g->path = g_build_filename(directory, "image", NULL);
        make_image(g->path, format);
        g_assert_cmpint(guest_memory_init(&g->mem, GUEST_RAM_BYTES, false, &err), ==, 0);
        g_assert_cmpint(virtio_blk_new(&g->mem, &filled, &g->blk, &err), ==, 0);
        g_assert_cmpint(drive_thread_open(g->path, &how, &g->thread, &err), ==, 0);
        g_assert_cmpint(virtio_blk_attach(g->blk, g->thread, &err), ==, 0);
        g->mmio = virtio_blk_mmio(g->blk);
        return g;
}

void guest_free(struct blk_guest *g)
{
        g_autofree char *directory = g_path_get_dirname(g->path);
        struct hvb_error err = ERROR_INIT;

        virtio_blk_free(g->blk);
        g_assert_cmpint(drive_thread_close(g->thread, &err), ==, 0);
        guest_memory_clear(&g->mem);
        g_remove(g->path);
        g_rmdir(directory);
        g_free(g->path);
        g_free(g);
}

/* ---- Registers ------------------------------------------------------------------------ */

uint32_t guest_read(struct blk_guest *g, uint64_t offset)
{
        uint32_t value;

        virtio_mmio_read(g->mmio, offset, &value, sizeof(value));
        return GUINT32_FROM_LE(value);
}

void guest_write(struct blk_guest *g, uint64_t offset, uint32_t value)
{
        value = GUINT32_TO_LE(value);
        virtio_mmio_write(g->mmio, offset, &value, sizeof(value));
}

uint64_t guest_features(struct blk_guest *g)
{
        uint64_t low;

        guest_write(g, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
        low = guest_read(g, VIRTIO_MMIO_DEVICE_FEATURES);
        guest_write(g, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        return low | (uint64_t) guest_read(g, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
}

static void set_features(struct blk_guest *g, uint64_t features)
{
        guest_write(g, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
        guest_write(g, VIRTIO_MMIO_DRIVER_FEATURES, features);
        guest_write(g, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        guest_write(g, VIRTIO_MMIO_DRIVER_FEATURES, features >> 32);
}

void guest_start(struct blk_guest *g, uint64_t features)
{
        uint32_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

        guest_write(g, VIRTIO_MMIO_STATUS, 0);
        guest_write(g, VIRTIO_MMIO_STATUS, status);
        set_features(g, features | 1ull << VIRTIO_F_VERSION_1);
        status |= VIRTIO_CONFIG_S_FEATURES_OK;
        guest_write(g, VIRTIO_MMIO_STATUS, status);
        g_assert_cmphex(guest_read(g, VIRTIO_MMIO_STATUS), ==, status);
        guest_write(g, VIRTIO_MMIO_QUEUE_SEL, 0);
        guest_write(g, VIRTIO_MMIO_QUEUE_NUM, GUEST_QUEUE);
        guest_write(g, VIRTIO_MMIO_QUEUE_DESC_LOW, GUEST_DESC);
        guest_write(g, VIRTIO_MMIO_QUEUE_DESC_HIGH, 0);
        guest_write(g, VIRTIO_MMIO_QUEUE_AVAIL_LOW, GUEST_AVAIL);
        guest_write(g, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 0);
        guest_write(g, VIRTIO_MMIO_QUEUE_USED_LOW, GUEST_USED);
        guest_write(g, VIRTIO_MMIO_QUEUE_USED_HIGH, 0);
        memset(guest_at(g, GUEST_DESC, 0x30000), 0, 0x30000);
        guest_write(g, VIRTIO_MMIO_QUEUE_READY, 1);
        guest_write(g, VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_DRIVER_OK);
        g->avail_index = g->used_seen = 0;
}

bool guest_needs_reset(struct blk_guest *g)
{
        return guest_read(g, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* ---- Requests ------------------------------------------------------------------------- */

void *guest_at(struct blk_guest *g, uint64_t address, uint64_t length)
{
        void *memory = guest_memory_at(&g->mem, address, length);

        g_assert_nonnull(memory);
        return memory;
}

void guest_set_desc(struct blk_guest *g, uint64_t table, unsigned index, uint64_t address,
                    uint32_t length, uint16_t flags, uint16_t next)
{
        const struct vring_desc desc = {
                .addr = GUINT64_TO_LE(address),
                .len = GUINT32_TO_LE(length),
                .flags = GUINT16_TO_LE(flags),
                .next = GUINT16_TO_LE(next),
        };

        memcpy(guest_at(g, table + index * sizeof(desc), sizeof(desc)), &desc, sizeof(desc));
}

uint64_t guest_status_address(unsigned index)
{
        return GUEST_HEADERS + 32 * index + 31;
}

uint64_t guest_set_header(struct blk_guest *g, unsigned index, uint32_t type, uint64_t sector)
{
        uint64_t address = GUEST_HEADERS + 32 * index;
        const struct virtio_blk_outhdr header = {
                .type = GUINT32_TO_LE(type),
                .sector = GUINT64_TO_LE(sector),
        };

        memcpy(guest_at(g, address, sizeof(header)), &header, sizeof(header));
        *(uint8_t *) guest_at(g, guest_status_address(index), 1) = GUEST_NO_STATUS;
        return address;
}

uint8_t guest_status(struct blk_guest *g, unsigned index)
{
        return *(volatile uint8_t *) guest_at(g, guest_status_address(index), 1);
}

void guest_offer(struct blk_guest *g, uint16_t head)
{
        uint16_t *avail = guest_at(g, GUEST_AVAIL, 4 + 2 * GUEST_QUEUE);

        avail[2 + g->avail_index % GUEST_QUEUE] = GUINT16_TO_LE(head);
        g->avail_index++;
        __atomic_store_n(&avail[1], GUINT16_TO_LE(g->avail_index), __ATOMIC_SEQ_CST);
}

void guest_ring(struct blk_guest *g)
{
        guest_write(g, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
}

bool guest_wait_used(struct blk_guest *g, unsigned count)
{
        gint64 deadline = g_get_monotonic_time() + WAIT_SECONDS * G_USEC_PER_SEC;
        const uint16_t *used = guest_at(g, GUEST_USED, 4);

        while ((uint16_t) (GUINT16_FROM_LE(__atomic_load_n(&used[1], __ATOMIC_SEQ_CST))
                           - g->used_seen) < count) {
                struct pollfd irq = { g->mmio->irq_fd, POLLIN, 0 };
                uint64_t rings;

                if (guest_needs_reset(g))
                        return false;
                g_assert_cmpint(g_get_monotonic_time(), <, deadline);
                if (poll(&irq, 1, 10) > 0)
                        g_assert_cmpint(read(irq.fd, &rings, sizeof(rings)), ==, sizeof(rings));
        }
        g->used_seen += count;
        return true;
}

static int call_nothing(struct drive *drive, void *opaque)
{
        (void) drive;
        (void) opaque;
        return 0;
}

/* The first call ends after the bell was heard or before; the loop then serves it before
 * it takes the next letter. */
void guest_settle(struct blk_guest *g)
{
        for (unsigned i = 0; i < 2; i++)
                drive_thread_call(g->thread, call_nothing, NULL);
        drive_thread_drain(g->thread);
}

void guest_build(struct blk_guest *g, unsigned slot, uint32_t type, uint64_t sector,
                 uint64_t data_address, uint32_t data_bytes)
{
        unsigned first = 3 * slot;
        bool reads = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
        uint64_t header = guest_set_header(g, first, type, sector);

        guest_set_desc(g, GUEST_DESC, first, header, 16, VRING_DESC_F_NEXT,
                       data_bytes > 0 ? first + 1 : first + 2);
        guest_set_desc(g, GUEST_DESC, first + 1, data_address, data_bytes,
                       VRING_DESC_F_NEXT | (reads ? VRING_DESC_F_WRITE : 0), first + 2);
        guest_set_desc(g, GUEST_DESC, first + 2, guest_status_address(first), 1,
                       VRING_DESC_F_WRITE, 0);
}

uint8_t guest_request(struct blk_guest *g, uint32_t type, uint64_t sector,
                      uint64_t data_address, uint32_t data_bytes)
{
        guest_build(g, 0, type, sector, data_address, data_bytes);
        guest_offer(g, 0);
        guest_ring(g);
        if (!guest_wait_used(g, 1))
                return GUEST_NO_STATUS;
        return guest_status(g, 0);
}
