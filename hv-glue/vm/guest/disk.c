/*
 * disk.c - the built-in guest's virtio-blk driver.
 *
 * Slot n owns descriptors 3n, 3n+1, 3n+2: header, data, status.
 *
 * SPDX-License-Identifier: MIT
 */
#include "guest.h"

enum {
        MAGIC_VALUE = 0x00,
        DEVICE_ID = 0x08,
        DRIVER_FEATURES = 0x20,
        DRIVER_FEATURES_SEL = 0x24,
        QUEUE_SEL = 0x30,
        QUEUE_NUM = 0x38,
        QUEUE_READY = 0x44,
        QUEUE_NOTIFY = 0x50,
        STATUS = 0x70,
        QUEUE_DESC = 0x80,
        QUEUE_AVAIL = 0x90,
        QUEUE_USED = 0xa0,
        CONFIG = 0x100,
        MAGIC = 0x74726976,
        ID_BLOCK = 2,
        FEATURE_FLUSH = 1 << 9,
        FEATURE_VERSION_1 = 1,          /* of the high word */
        STATUS_FEATURES = 1 | 2 | 8,
        STATUS_RUNNING = STATUS_FEATURES | 4,
        QUEUE_SIZE = 64,
        DESC_NEXT = 1,
        DESC_WRITE = 2,
        STATUS_OK = 0,
        STATUS_NONE = 0xff,
};

struct desc {
        uint64_t address;
        uint32_t length;
        uint16_t flags;
        uint16_t next;
};

static struct desc descs[QUEUE_SIZE] __attribute__((aligned(4096)));
static struct {
        uint16_t flags;
        uint16_t index;
        uint16_t ring[QUEUE_SIZE];
} volatile avail __attribute__((aligned(4096)));
static struct {
        uint16_t flags;
        uint16_t index;
        struct {
                uint32_t id;
                uint32_t length;
        } ring[QUEUE_SIZE];
} volatile used __attribute__((aligned(4096)));

static struct {
        struct {
                uint32_t type;
                uint32_t reserved;
                uint64_t sector;
        } header;
        volatile uint8_t status;
        bool busy;
        uint64_t started;
} slots[DISK_REQUESTS];

static uintptr_t base;
static uint16_t used_seen;
static uint64_t longest;

uint32_t disk_read_register(unsigned at)
{
        return *(volatile uint32_t *)(base + at);
}

void disk_write_register(unsigned at, uint32_t value)
{
        *(volatile uint32_t *)(base + at) = value;
}

static void write_address(unsigned at, const volatile void *memory)
{
        disk_write_register(at, (uint32_t)(uintptr_t)memory);
        disk_write_register(at + 4, (uint32_t)((uintptr_t)memory >> 32));
}

void disk_start_device(void)
{
        disk_write_register(STATUS, 0);
        disk_write_register(STATUS, 1 | 2);
        disk_write_register(DRIVER_FEATURES_SEL, 0);
        disk_write_register(DRIVER_FEATURES, FEATURE_FLUSH);
        disk_write_register(DRIVER_FEATURES_SEL, 1);
        disk_write_register(DRIVER_FEATURES, FEATURE_VERSION_1);
        disk_write_register(STATUS, STATUS_FEATURES);
        if (disk_read_register(STATUS) != STATUS_FEATURES)
                stop_with("FAILED: the disk refuses VERSION_1 and FLUSH");
        avail.index = used.index = used_seen = 0;
        disk_write_register(QUEUE_SEL, 0);
        disk_write_register(QUEUE_NUM, QUEUE_SIZE);
        write_address(QUEUE_DESC, descs);
        write_address(QUEUE_AVAIL, &avail);
        write_address(QUEUE_USED, &used);
        disk_write_register(QUEUE_READY, 1);
        disk_write_register(STATUS, STATUS_RUNNING);
}

/* A number in line at *at, with its base's prefix; *at goes on behind it. */
static uint64_t number(const char **at)
{
        uint64_t value = 0;
        unsigned radix = 10;

        if ((*at)[0] == '0' && (*at)[1] == 'x') {
                radix = 16;
                *at += 2;
        }
        for (;; (*at)++) {
                char c = **at;

                if (c >= '0' && c <= '9')
                        value = value * radix + (c - '0');
                else if (radix == 16 && c >= 'a' && c <= 'f')
                        value = value * radix + (c - 'a' + 10);
                else
                        return value;
        }
}

/* "virtio_mmio.device=4K@0xADDRESS:IRQ" */
static bool find_device(const char *line, unsigned *ret_irq)
{
        static const char name[] = "virtio_mmio.device=";

        for (; *line != '\0'; line++) {
                unsigned i = 0;

                while (name[i] != '\0' && line[i] == name[i])
                        i++;
                if (name[i] != '\0')
                        continue;
                while (*line != '@' && *line != '\0')
                        line++;
                if (*line++ != '@')
                        return false;
                base = number(&line);
                if (*line++ != ':')
                        return false;
                *ret_irq = (unsigned)number(&line);
                return true;
        }
        return false;
}

uint64_t disk_init(const char *line)
{
        unsigned irq;

        if (!find_device(line, &irq))
                return 0;
        if (disk_read_register(MAGIC_VALUE) != MAGIC || disk_read_register(DEVICE_ID) != ID_BLOCK)
                stop_with("FAILED: no virtio-blk where there should be one");
        interrupts_init(irq);
        disk_start_device();
        return *(volatile uint64_t *)(base + CONFIG) * SECTOR_BYTES / BLOCK_BYTES;
}

void disk_start(unsigned slot, enum disk_what what, uint64_t block, void *data)
{
        struct desc *desc = &descs[3 * slot];

        slots[slot].header.type = what;
        slots[slot].header.sector = block * (BLOCK_BYTES / SECTOR_BYTES);
        slots[slot].status = STATUS_NONE;
        slots[slot].busy = true;
        slots[slot].started = clock_unpaused();
        desc[0] = (struct desc) { (uintptr_t)&slots[slot].header, sizeof(slots[slot].header),
                                  DESC_NEXT, 3 * slot + (what == DISK_FLUSH ? 2 : 1) };
        desc[1] = (struct desc) { (uintptr_t)data, BLOCK_BYTES,
                                  DESC_NEXT | (what == DISK_READ ? DESC_WRITE : 0), 3 * slot + 2 };
        desc[2] = (struct desc) { (uintptr_t)&slots[slot].status, 1, DESC_WRITE, 0 };
        avail.ring[avail.index % QUEUE_SIZE] = 3 * slot;
        barrier();
        avail.index++;
}

void disk_submit(void)
{
        barrier();
        disk_write_register(QUEUE_NOTIFY, 0);
}

static void take_used(void)
{
        while (used_seen != used.index) {
                unsigned slot = used.ring[used_seen % QUEUE_SIZE].id / 3;
                uint64_t took;

                barrier();
                if (slot >= DISK_REQUESTS || !slots[slot].busy)
                        stop_with("FAILED: the disk completed what was not sent");
                if (slots[slot].status != STATUS_OK)
                        stop_with("FAILED: the disk reports an I/O error");
                took = clock_unpaused() - slots[slot].started;
                if (took > longest)
                        longest = took;
                slots[slot].busy = false;
                used_seen++;
        }
}

void disk_finish(unsigned slot)
{
        take_used();
        while (slots[slot].busy) {
                interrupt_wait();
                take_used();
        }
}

uint64_t disk_longest_nsec(void)
{
        uint64_t nsec = longest;

        longest = 0;
        return nsec;
}
