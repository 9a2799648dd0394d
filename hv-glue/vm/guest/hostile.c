/*
 * hostile.c - the built-in guest breaks the rules of virtio.
 *
 * Each case is a chain that no driver may send.  The device must answer with an error or
 * ask to be reset; after a reset an honest request must work.  What the machine must not do
 * is not seen from here: crash, or touch what is no memory of the guest's.
 *
 * SPDX-License-Identifier: MIT
 */
#include "guest.h"

enum {
        STATUS = 0x70,
        NEEDS_RESET = 1 << 6,
        QUEUE_NUM = 0x38,
        QUEUE_READY = 0x44,
        QUEUE_NOTIFY = 0x50,
        QUEUE_DESC = 0x80,
        QUEUE_AVAIL = 0x90,
        QUEUE_USED = 0xa0,
        SIZE = 64,
        NEXT = 1,
        WRITE = 2,
        INDIRECT = 4,
        NO_ANSWER = 0xff,
};

static struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags;
        uint16_t next;
} descs[SIZE] __attribute__((aligned(4096))), indirect[SIZE] __attribute__((aligned(4096)));
static struct {
        uint16_t flags;
        uint16_t index;
        uint16_t ring[SIZE];
} volatile avail __attribute__((aligned(4096)));
static struct {
        uint16_t flags;
        uint16_t index;
        uint64_t ring[SIZE];
} volatile used __attribute__((aligned(4096)));
static struct {
        uint32_t type;
        uint32_t reserved;
        uint64_t sector;
} header;
static volatile uint8_t status;
static uint8_t data[4096] __attribute__((aligned(4096)));

#define SET(n, what, bytes, flag_bits, following) \
        descs[n].address = (uintptr_t)(what), descs[n].length = (bytes), \
        descs[n].flags = (flag_bits), descs[n].next = (following)

static void address(unsigned at, const volatile void *memory)
{
        disk_write_register(at, (uint32_t)(uintptr_t)memory);
        disk_write_register(at + 4, 0);
}

/* The device with our own rings, and an honest read in the descriptors. */
static void start_over(void)
{
        disk_start_device();
        disk_write_register(QUEUE_READY, 0);
        disk_write_register(QUEUE_NUM, SIZE);
        address(QUEUE_DESC, descs);
        address(QUEUE_AVAIL, &avail);
        address(QUEUE_USED, &used);
        avail.index = 0;
        used.index = 0;
        disk_write_register(QUEUE_READY, 1);
        header.type = 0;
        header.sector = 0;
        status = NO_ANSWER;
        SET(0, &header, 16, NEXT, 1);
        SET(1, data, 4096, NEXT | WRITE, 2);
        SET(2, &status, 1, WRITE, 0);
}

static void send(uint16_t head)
{
        avail.ring[avail.index % SIZE] = head;
        barrier();
        avail.index++;
        barrier();
        disk_write_register(QUEUE_NOTIFY, 0);
}

/* Did the device answer OK?  Waits for one of its two ways to say no, or for that. */
static bool is_accepted(void)
{
        for (;;) {
                if (disk_read_register(STATUS) & NEEDS_RESET)
                        return false;
                if (used.index != 0)
                        return status == 0;
        }
}

/* ---- The cases --------------------------------------------------------------------------- */

static void loop(void)
{
        SET(1, data, 512, NEXT | WRITE, 1);
        send(0);
}

static void long_loop(void)
{
        for (unsigned i = 0; i < SIZE; i++)
                SET(i, data, 16, NEXT, (i + 1) % SIZE);
        send(0);
}

static void next_outside(void)
{
        descs[1].next = SIZE;
        send(0);
}

static void head_outside(void)
{
        send(0xffff);
}

static void address_outside(void)
{
        descs[1].address = 0xd0000000;
        send(0);
}

static void address_wraps(void)
{
        descs[1].address = UINT64_MAX - 100;
        send(0);
}

static void length_outside(void)
{
        descs[1].length = UINT32_MAX;
        send(0);
}

static void header_outside(void)
{
        descs[0].address = 1ull << 62;
        send(0);
}

static void empty_buffer(void)
{
        descs[1].length = 0;
        send(0);
}

static void writable_first(void)
{
        descs[0].flags = NEXT | WRITE;
        descs[1].flags = NEXT;
        send(0);
}

static void no_status(void)
{
        SET(1, data, 4096, 0, 0);
        send(0);
}

static void only_status(void)
{
        send(2);
}

static void short_header(void)
{
        descs[0].length = 15;
        send(0);
}

static void beyond_the_end(void)
{
        header.sector = UINT64_MAX / 512;
        send(0);
}

static void unknown_type(void)
{
        header.type = 0xdeadbeef;
        send(0);
}

static void wrong_direction(void)
{
        descs[1].flags = NEXT;
        send(0);
}

static void odd_length(void)
{
        descs[1].length = 513;
        send(0);
}

static void huge_index(void)
{
        avail.index = 40000;
        disk_write_register(QUEUE_NOTIFY, 0);
}

static void set_indirect(uint32_t length, uint16_t flags)
{
        indirect[0].address = (uintptr_t)indirect;
        indirect[0].length = 16 * SIZE;
        indirect[0].flags = flags;
        indirect[0].next = 0;
        SET(0, indirect, length, INDIRECT, 0);
        send(0);
}

static void indirect_empty(void)
{
        set_indirect(0, 0);
}

static void indirect_odd(void)
{
        set_indirect(17, 0);
}

static void indirect_huge(void)
{
        set_indirect(0xfffffff0, 0);
}

static void indirect_nested(void)
{
        set_indirect(16 * SIZE, INDIRECT);
}

static void indirect_loop(void)
{
        set_indirect(16 * SIZE, NEXT);
}

static void queue_outside(void)
{
        disk_write_register(QUEUE_READY, 0);
        disk_write_register(QUEUE_DESC + 4, 0x12345678);
        disk_write_register(QUEUE_READY, 1);
}

static void queue_size_odd(void)
{
        disk_write_register(QUEUE_READY, 0);
        disk_write_register(QUEUE_NUM, 63);
        disk_write_register(QUEUE_READY, 1);
}

static void queue_size_huge(void)
{
        disk_write_register(QUEUE_READY, 0);
        disk_write_register(QUEUE_NUM, 32768);
        disk_write_register(QUEUE_READY, 1);
}

static const struct {
        const char *name;
        void (*run)(void);
} cases[] = {
        { "a descriptor that follows itself", loop },
        { "a ring of descriptors", long_loop },
        { "next outside the table", next_outside },
        { "head outside the table", head_outside },
        { "address outside memory", address_outside },
        { "address that wraps", address_wraps },
        { "length outside memory", length_outside },
        { "header outside memory", header_outside },
        { "empty buffer", empty_buffer },
        { "writable before readable", writable_first },
        { "no status", no_status },
        { "only a status", only_status },
        { "short header", short_header },
        { "beyond the disk", beyond_the_end },
        { "unknown type", unknown_type },
        { "wrong direction", wrong_direction },
        { "odd length", odd_length },
        { "more available than there are", huge_index },
        { "empty indirect table", indirect_empty },
        { "odd indirect table", indirect_odd },
        { "huge indirect table", indirect_huge },
        { "nested indirect tables", indirect_nested },
        { "indirect loop", indirect_loop },
        { "queue outside memory", queue_outside },
        { "queue size no power of 2", queue_size_odd },
        { "queue size huge", queue_size_huge },
};

void hostile_run(void)
{
        unsigned count = sizeof(cases) / sizeof(cases[0]);
        unsigned accepted = 0;

        for (unsigned i = 0; i < count; i++) {
                start_over();
                cases[i].run();
                if (is_accepted()) {
                        print("guest: BAD: accepted: ");
                        print(cases[i].name);
                        print("\n");
                        accepted++;
                }
                start_over();
                send(0);
                if (!is_accepted())
                        stop_with("FAILED: the disk does not work after that");
        }
        print("guest: hostile: ");
        print_number(count);
        print(" cases, ");
        print_number(count - accepted);
        print(" refused\n");
}
