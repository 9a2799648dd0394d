/*
 * boot-acpi.c - ACPI tables: which processors and interrupts there are, how to power off.
 *
 * ACPI specification 5.0, chapter 5; 5.2.9 (FADT), 5.2.12 (MADT).  Found by the pointer in
 * boot_params, or by its signature below 1 MiB.
 *
 *   pointer -> XSDT -> FADT -> FACS, DSDT
 *                   -> MADT
 *
 * Interrupt n of the ISA comes to pin n of the IOAPIC, 0 too, as KVM wires it.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "vm/boot-parts.h"
#include "vm/ports.h"

struct acpi_pointer {
        char signature[8];
        uint8_t checksum;               /* of the first 20 bytes */
        char oem[6];
        uint8_t revision;
        uint32_t rsdt_address;
        uint32_t length;
        uint64_t xsdt_address;
        uint8_t long_checksum;
        uint8_t reserved[3];
} __attribute__((packed));

struct acpi_header {
        char signature[4];
        uint32_t length;
        uint8_t revision;
        uint8_t checksum;
        char oem[6];
        char oem_table[8];
        uint32_t oem_revision;
        char creator[4];
        uint32_t creator_revision;
} __attribute__((packed));

struct acpi_address {
        uint8_t space;                  /* 1: I/O ports */
        uint8_t bits;
        uint8_t bit_offset;
        uint8_t access;                 /* 1 byte, 2 words */
        uint64_t address;
} __attribute__((packed));

struct acpi_fadt {
        struct acpi_header header;
        uint32_t facs_address;
        uint32_t dsdt_address;
        uint8_t reserved;
        uint8_t profile;
        uint16_t sci_irq;
        uint32_t smi_command;           /* 0: always in ACPI mode */
        uint8_t smi_values[4];
        uint32_t pm1a_event;
        uint32_t pm1b_event;
        uint32_t pm1a_control;
        uint32_t pm1b_control;
        uint32_t pm2_control;
        uint32_t pm_timer;
        uint32_t gpe0;
        uint32_t gpe1;
        uint8_t pm1_event_length;
        uint8_t pm1_control_length;
        uint8_t other_lengths[6];
        uint16_t c2_latency;
        uint16_t c3_latency;
        uint16_t flush[2];
        uint8_t duty[2];
        uint8_t alarms[3];
        uint16_t boot_flags;
        uint8_t reserved2;
        uint32_t flags;
        struct acpi_address reset;
        uint8_t reset_value;
        uint8_t reserved3[3];
        uint64_t x_facs_address;
        uint64_t x_dsdt_address;
        struct acpi_address x_pm1a_event;
        struct acpi_address x_pm1b_event;
        struct acpi_address x_pm1a_control;
        struct acpi_address x_others[5];
        struct acpi_address sleep_control;
        struct acpi_address sleep_status;
} __attribute__((packed));

_Static_assert(sizeof(struct acpi_fadt) == 268, "as in revision 5");

struct acpi_facs {
        char signature[4];
        uint32_t length;
        uint32_t fields[14];
} __attribute__((packed));

struct acpi_madt {
        struct acpi_header header;
        uint32_t local_apic;
        uint32_t flags;                 /* 1: there are PICs, too */
} __attribute__((packed));

struct acpi_cpu {
        uint8_t type;                   /* 0 */
        uint8_t length;
        uint8_t cpu_id;
        uint8_t apic_id;
        uint32_t flags;                 /* 1: enabled */
} __attribute__((packed));

struct acpi_ioapic {
        uint8_t type;                   /* 1 */
        uint8_t length;
        uint8_t id;
        uint8_t reserved;
        uint32_t address;
        uint32_t first_irq;
} __attribute__((packed));

enum {
        AREA_BYTES = 16 << 10,
        FADT_REVISION = 5,
        MADT_REVISION = 3,
        LATENCY_NONE = 0xffff,          /* C2, C3: there are none */
        BOOT_NO_VGA = 1 << 2,
        BOOT_NO_CMOS_CLOCK = 1 << 5,
        FLAG_WBINVD = 1 << 0,
        FLAG_NO_POWER_BUTTON = 1 << 4,
        FLAG_NO_SLEEP_BUTTON = 1 << 5,
        FLAG_RESET = 1 << 10,
};

/* Where the next table goes. */
struct acpi_area {
        uint8_t *memory;
        uint64_t address;               /* of memory in the guest */
        size_t used;
};

static uint8_t checksum(const void *bytes, size_t count)
{
        uint8_t sum = 0;

        for (size_t i = 0; i < count; i++)
                sum += ((const uint8_t *) bytes)[i];
        return -sum;
}

/* Copies a table; its guest address. */
static uint64_t put(struct acpi_area *area, const void *table, size_t bytes)
{
        uint64_t address = area->address + area->used;

        g_assert(area->used + bytes <= AREA_BYTES);
        memcpy(area->memory + area->used, table, bytes);
        area->used = (area->used + bytes + 63) & ~(size_t) 63;
        return address;
}

/* Fills the header, then as put. */
static uint64_t put_table(struct acpi_area *area, void *table, size_t bytes,
                          const char *signature, uint8_t revision)
{
        struct acpi_header *header = table;

        *header = (struct acpi_header) {
                .length = bytes,
                .revision = revision,
                .oem = { 'H', 'V', 'B', 'L', 'K', ' ' },
                .oem_table = { 'H', 'V', ' ', ' ', ' ', ' ', ' ', ' ' },
                .oem_revision = 1,
                .creator = { 'H', 'V', ' ', ' ' },
                .creator_revision = 1,
        };
        memcpy(header->signature, signature, sizeof(header->signature));
        header->checksum = checksum(table, bytes);
        return put(area, table, bytes);
}

static uint64_t put_dsdt(struct acpi_area *area, const struct boot_device *devices,
                         unsigned device_count)
{
        GByteArray *code = boot_aml(devices, device_count);
        size_t bytes = sizeof(struct acpi_header) + code->len;
        g_autofree struct acpi_header *dsdt = g_malloc0(bytes);

        memcpy(dsdt + 1, code->data, code->len);
        g_byte_array_unref(code);
        return put_table(area, dsdt, bytes, "DSDT", 2);
}

static struct acpi_address port_address(uint16_t port, uint8_t bytes)
{
        return (struct acpi_address) {
                .space = 1,
                .bits = 8 * bytes,
                .access = bytes == 1 ? 1 : 2,
                .address = port,
        };
}

static uint64_t put_fadt(struct acpi_area *area, uint64_t dsdt_address)
{
        const struct acpi_facs facs = { .signature = "FACS", .length = sizeof(facs) };
        struct acpi_fadt fadt = {
                .sci_irq = PORTS_SCI_IRQ,
                .pm1a_event = PORTS_PM_EVENT,
                .pm1a_control = PORTS_PM_CONTROL,
                .pm1_event_length = PORTS_PM_EVENT_BYTES,
                .pm1_control_length = PORTS_PM_CONTROL_BYTES,
                .c2_latency = LATENCY_NONE,
                .c3_latency = LATENCY_NONE,
                .boot_flags = BOOT_NO_VGA | BOOT_NO_CMOS_CLOCK,
                .flags = FLAG_WBINVD | FLAG_NO_POWER_BUTTON | FLAG_NO_SLEEP_BUTTON | FLAG_RESET,
                .reset = port_address(PORTS_RESET, 1),
                .reset_value = PORTS_RESET_VALUE,
                .x_pm1a_event = port_address(PORTS_PM_EVENT, PORTS_PM_EVENT_BYTES),
                .x_pm1a_control = port_address(PORTS_PM_CONTROL, PORTS_PM_CONTROL_BYTES),
        };

        fadt.x_facs_address = put(area, &facs, sizeof(facs));
        fadt.x_dsdt_address = dsdt_address;
        fadt.facs_address = fadt.x_facs_address;
        fadt.dsdt_address = fadt.x_dsdt_address;
        return put_table(area, &fadt, sizeof(fadt), "FACP", FADT_REVISION);
}

static uint64_t put_madt(struct acpi_area *area, unsigned cpu_count)
{
        size_t bytes = sizeof(struct acpi_madt) + cpu_count * sizeof(struct acpi_cpu)
                       + sizeof(struct acpi_ioapic);
        g_autofree struct acpi_madt *madt = g_malloc0(bytes);
        struct acpi_cpu *cpus = (struct acpi_cpu *) (madt + 1);
        struct acpi_ioapic *ioapic = (struct acpi_ioapic *) (cpus + cpu_count);

        madt->local_apic = 0xfee00000;
        madt->flags = 1;
        for (unsigned i = 0; i < cpu_count; i++)
                cpus[i] = (struct acpi_cpu) {
                        .length = sizeof(cpus[i]),
                        .cpu_id = i,
                        .apic_id = i,
                        .flags = 1,
                };
        *ioapic = (struct acpi_ioapic) {
                .type = 1,
                .length = sizeof(*ioapic),
                .id = cpu_count,
                .address = 0xfec00000,
        };
        return put_table(area, madt, bytes, "APIC", MADT_REVISION);
}

void boot_write_acpi(const struct guest_memory *mem, unsigned cpu_count,
                     const struct boot_device *devices, unsigned device_count)
{
        struct acpi_area area = {
                .memory = guest_memory_at(mem, BOOT_ACPI_ADDRESS, AREA_BYTES),
                .address = BOOT_ACPI_ADDRESS,
        };
        struct acpi_pointer pointer = {
                .signature = { 'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ' },
                .oem = { 'H', 'V', 'B', 'L', 'K', ' ' },
                .revision = 2,
                .length = sizeof(pointer),
        };
        struct {
                struct acpi_header header;
                uint64_t tables[2];
        } __attribute__((packed)) xsdt;

        memset(area.memory, 0, AREA_BYTES);
        put(&area, &pointer, sizeof(pointer));  /* its place is the first */
        xsdt.tables[0] = put_fadt(&area, put_dsdt(&area, devices, device_count));
        xsdt.tables[1] = put_madt(&area, cpu_count);
        pointer.xsdt_address = put_table(&area, &xsdt, sizeof(xsdt), "XSDT", 1);
        pointer.checksum = checksum(&pointer, offsetof(struct acpi_pointer, length));
        pointer.long_checksum = checksum(&pointer, sizeof(pointer));
        memcpy(area.memory, &pointer, sizeof(pointer));
}
