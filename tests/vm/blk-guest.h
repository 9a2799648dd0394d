/*
 * blk-guest.h - a guest made of function calls: RAM, a virtio-blk disk on a fresh image,
 * and a driver for it that does what a test says, nonsense included.
 *
 * RAM: rings from 1 MiB, request headers and statuses from 2 MiB, data from 3 MiB.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_VM_BLK_GUEST_H
#define TESTS_VM_BLK_GUEST_H

#include <glib.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "vm/virtio-blk.h"

enum {
        GUEST_RAM_BYTES = 16 << 20,
        GUEST_DISK_BYTES = 8 << 20,
        GUEST_QUEUE = 64,
        GUEST_DESC = 0x100000,
        GUEST_AVAIL = 0x110000,
        GUEST_USED = 0x120000,
        GUEST_INDIRECT = 0x130000,
        GUEST_HEADERS = 0x200000,       /* 32 bytes a descriptor: header 16, status at 31 */
        GUEST_DATA = 0x300000,
        GUEST_NO_STATUS = 0xee,         /* what lies where no status was written yet */
};

struct blk_guest {
        struct guest_memory mem;
        char *path;
        struct drive_watch watch;
        struct drive_thread *thread;
        struct virtio_blk *blk;
        struct virtio_mmio *mmio;
        gint stops;                     /* how often a request was parked; atomic */
        uint16_t avail_index;
        uint16_t used_seen;
};

/* format: "qcow2" or "raw".  options may be NULL. */
struct blk_guest *guest_new(const char *format, const struct virtio_blk_options *options);
void guest_free(struct blk_guest *g);

/* Registers. */
uint32_t guest_read(struct blk_guest *g, uint64_t offset);
void guest_write(struct blk_guest *g, uint64_t offset, uint32_t value);
/* From power-on or reset to DRIVER_OK with these features and VERSION_1. */
void guest_start(struct blk_guest *g, uint64_t features);
bool guest_needs_reset(struct blk_guest *g);
uint64_t guest_features(struct blk_guest *g);

/* The pieces of a request. */
void *guest_at(struct blk_guest *g, uint64_t address, uint64_t length);
void guest_set_desc(struct blk_guest *g, uint64_t table, unsigned index, uint64_t address,
                    uint32_t length, uint16_t flags, uint16_t next);
uint64_t guest_set_header(struct blk_guest *g, unsigned index, uint32_t type, uint64_t sector);
uint64_t guest_status_address(unsigned index);
uint8_t guest_status(struct blk_guest *g, unsigned index);
void guest_offer(struct blk_guest *g, uint16_t head);   /* into the available ring */
void guest_ring(struct blk_guest *g);                   /* the bell */
/* Waits until count chains came back since the last call, or the device needs a reset
 * (false).  Fails the test after 20 seconds. */
bool guest_wait_used(struct blk_guest *g, unsigned count);
/* Has the drive's thread served every bell by now. */
void guest_settle(struct blk_guest *g);

/* A request of three descriptors, 3*slot and following; data at data_address. */
void guest_build(struct blk_guest *g, unsigned slot, uint32_t type, uint64_t sector,
                 uint64_t data_address, uint32_t data_bytes);
/* The same, sent and waited for.  Returns its status. */
uint8_t guest_request(struct blk_guest *g, uint32_t type, uint64_t sector,
                      uint64_t data_address, uint32_t data_bytes);

#endif
