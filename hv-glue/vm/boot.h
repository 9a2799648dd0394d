/*
 * boot.h - putting a kernel into memory, as a boot loader does.
 *
 *   0x00000500  descriptor table           0x00007000  boot_params ("zero page")
 *   0x00009000  page tables: 0..4 GiB      0x00020000  command line
 *   0x000e0000  ACPI tables: processors, interrupts, power
 *   0x00100000  kernel                     below 3 GiB or the end of RAM: initrd
 *
 * A kernel is a Linux bzImage (entered in 32-bit protected mode, x86/boot protocol 2.06 and
 * later) or an ELF file for x86-64 (entered in long mode with memory mapped one to one, RSI =
 * boot_params).  Without one it is the built-in guest, an ELF file too.
 *
 * Files are read once, and judged; a reset loads them again from memory.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_BOOT_H
#define VM_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#include "vm/memory.h"

/* How the first vcpu begins. */
struct boot_entry {
        bool long_mode;                 /* else 32-bit protected mode, no paging */
        uint64_t rip;
        uint64_t rsi;                   /* boot_params */
        uint64_t gdt;                   /* BOOT_GDT_ENTRIES of them */
        uint64_t page_tables;           /* the root; long mode only */
};
enum { BOOT_GDT_ENTRIES = 4, BOOT_CODE_SELECTOR = 0x10, BOOT_DATA_SELECTOR = 0x18 };

struct boot;

/* A virtio-mmio device to tell the kernel of: in ACPI's tables; the built-in guest reads
 * "virtio_mmio.device=" in its command line. */
struct boot_device {
        uint64_t address;
        uint64_t length;
        unsigned irq;
};

struct boot_config {
        const char *kernel_path;        /* NULL: the built-in guest */
        const char *initrd_path;        /* or NULL */
        const char *append;             /* or NULL */
        const struct boot_device *devices;
        unsigned device_count;
        unsigned cpu_count;
};

/* Reads the files and makes sure that they fit into mem. */
int boot_new(const struct boot_config *config, const struct guest_memory *mem,
             struct boot **ret_boot, struct hvb_error *err);
void boot_free(struct boot *boot);      /* NULL is fine */
/* Writes all of it into guest memory; vcpus are stopped. */
void boot_load(const struct boot *boot, const struct guest_memory *mem,
               struct boot_entry *ret_entry);

#endif
