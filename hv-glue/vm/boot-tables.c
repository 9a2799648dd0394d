/*
 * boot-tables.c - the tables that a kernel begins with: descriptors and pages.
 *
 * Formats: Intel SDM volume 3.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "vm/boot-parts.h"

static void *low_memory(const struct guest_memory *mem, uint64_t address, uint64_t bytes)
{
        void *memory = guest_memory_at(mem, address, bytes);

        g_assert(memory != NULL);
        return memset(memory, 0, bytes);
}

/* Flat segments. */
void boot_write_gdt(const struct guest_memory *mem, bool long_mode)
{
        const uint64_t gdt[BOOT_GDT_ENTRIES] = {
                [BOOT_CODE_SELECTOR / 8] = long_mode ? 0x00af9b000000ffff : 0x00cf9b000000ffff,
                [BOOT_DATA_SELECTOR / 8] = 0x00cf93000000ffff,
        };

        memcpy(low_memory(mem, BOOT_GDT_ADDRESS, sizeof(gdt)), gdt, sizeof(gdt));
}

/* 4 GiB, one to one, in pages of 2 MiB: root, directory of 1 GiB entries, four of 2 MiB. */
void boot_write_page_tables(const struct guest_memory *mem)
{
        enum { PAGE = GUEST_PAGE_BYTES, PRESENT_WRITABLE = 3, LARGE = 1 << 7, GIBS = 4 };
        enum { ENTRIES = PAGE / sizeof(uint64_t) };
        uint64_t base = BOOT_PAGE_TABLES_ADDRESS;
        uint64_t *tables = low_memory(mem, base, (2 + GIBS) * PAGE);

        tables[0] = (base + PAGE) | PRESENT_WRITABLE;
        for (uint64_t gib = 0; gib < GIBS; gib++) {
                tables[ENTRIES + gib] = (base + (2 + gib) * PAGE) | PRESENT_WRITABLE;
                for (uint64_t i = 0; i < ENTRIES; i++)
                        tables[(2 + gib) * ENTRIES + i] = (gib << 30 | i << 21) | LARGE
                                | PRESENT_WRITABLE;
        }
}
