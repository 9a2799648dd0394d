/*
 * boot-parts.h - what boot.c and the loaders of kernels share.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_BOOT_PARTS_H
#define VM_BOOT_PARTS_H

#include <asm/bootparam.h>
#include <glib.h>

#include "vm/boot.h"

enum {
        BOOT_GDT_ADDRESS = 0x500,
        BOOT_PARAMS_ADDRESS = 0x7000,
        BOOT_PAGE_TABLES_ADDRESS = 0x9000,      /* six pages */
        BOOT_CMDLINE_ADDRESS = 0x20000,
        BOOT_CMDLINE_BYTES_MAX = 4096,          /* the NUL included */
        BOOT_LOW_RAM_END = 0x9fc00,
        BOOT_ACPI_ADDRESS = 0xe0000,
        BOOT_KERNEL_ADDRESS = 0x100000,
};

/* A kernel, judged: untrusted only until here. */
struct boot_kernel {
        GBytes *file;
        bool is_elf;
        struct setup_header header;     /* of a bzImage, or one like it */
        uint64_t payload_offset;        /* bzImage: in file, loaded at BOOT_KERNEL_ADDRESS */
        uint64_t end_address;           /* memory below is the kernel's while it unpacks */
        uint64_t initrd_max;            /* highest address of an initrd's last byte */
        uint64_t entry;                 /* ELF */
};

/* Is file one of this kind at all? */
bool boot_is_bzimage(GBytes *file);
bool boot_is_elf(GBytes *file);

/* Judge file for mem and fill *ret_kernel (which borrows file).  0, or -ENOEXEC or -ENOMEM
 * with err filled. */
int boot_judge_bzimage(GBytes *file, const struct guest_memory *mem,
                       struct boot_kernel *ret_kernel, struct hvb_error *err);
int boot_judge_elf(GBytes *file, const struct guest_memory *mem, struct boot_kernel *ret_kernel,
                   struct hvb_error *err);
/* Put a judged one into memory. */
void boot_load_bzimage(const struct boot_kernel *kernel, const struct guest_memory *mem);
void boot_load_elf(const struct boot_kernel *kernel, const struct guest_memory *mem);

/* The tables that a kernel finds.  All lie below 1 MiB, which is always RAM. */
void boot_write_gdt(const struct guest_memory *mem, bool long_mode);
void boot_write_page_tables(const struct guest_memory *mem);
void boot_write_acpi(const struct guest_memory *mem, unsigned cpu_count,
                     const struct boot_device *devices, unsigned device_count);

/* The code of ACPI's DSDT, which describes devices.  g_byte_array_unref. */
GByteArray *boot_aml(const struct boot_device *devices, unsigned count);

#endif
