/*
 * test-boot.c - kernels that are loaded and kernels that are refused; guest memory's edges.
 *
 * SPDX-License-Identifier: MIT
 */
#include <elf.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#include "host/error.h"
#include "vm/boot-parts.h"

enum { RAM_BYTES = 32 << 20, SETUP_SECTORS = 4, PAYLOAD_BYTES = 5000, KERNEL_BYTES = 1 << 20 };

/* ---- Guest memory --------------------------------------------------------------------- */

/* Two pieces around the hole; the pointers are only compared. */
static void test_memory(void)
{
        const uint64_t gib = 1ull << 30;
        static uint8_t ram[1];
        const struct guest_memory mem = {
                .ram = ram,
                .ram_bytes = 5 * gib,
                .below_hole_bytes = 3 * gib,
        };
        const struct {
                uint64_t address;
                uint64_t length;
                int64_t ram_offset;     /* -1: refused */
        } cases[] = {
                { 0, 1, 0 },
                { 0, 0, -1 },
                { 0, 3 * gib, 0 },
                { 0, 3 * gib + 1, -1 },
                { 3 * gib - 1, 1, 3 * gib - 1 },
                { 3 * gib - 1, 2, -1 },
                { 3 * gib, 1, -1 },
                { 4 * gib - 1, 1, -1 },
                { 4 * gib - 1, 2, -1 },
                { 4 * gib, 2 * gib, 3 * gib },
                { 4 * gib, 2 * gib + 1, -1 },
                { 6 * gib - 1, 1, 5 * gib - 1 },
                { 6 * gib, 1, -1 },
                { UINT64_MAX, 1, -1 },
                { UINT64_MAX, UINT64_MAX, -1 },
                { 1, UINT64_MAX, -1 },
                { 4 * gib + 1, UINT64_MAX, -1 },
        };

        for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
                const uint8_t *at = guest_memory_at(&mem, cases[i].address, cases[i].length);

                if (cases[i].ram_offset < 0)
                        g_assert_null(at);
                else
                        g_assert_true(at == ram + cases[i].ram_offset);
        }
}

static void test_memory_sizes(void)
{
        const uint64_t refused[] = {
                0, 1 << 20, 7 << 20, (8 << 20) + 4096, (1ull << 40) + (1 << 20),
        };
        struct guest_memory mem;
        struct hvb_error err = ERROR_INIT;

        for (unsigned i = 0; i < G_N_ELEMENTS(refused); i++)
                g_assert_cmpint(guest_memory_init(&mem, refused[i], false, &err), ==, -EINVAL);
        g_assert_cmpint(guest_memory_init(&mem, 8 << 20, true, &err), ==, 0);
        g_assert_cmpuint((uintptr_t) mem.ram % (2 << 20), ==, 0);
        guest_memory_clear(&mem);
}

/* ---- Kernels -------------------------------------------------------------------------- */

struct bed {
        struct guest_memory mem;
        uint8_t *bytes;                 /* of a good kernel, to be spoilt */
        gsize count;
};

static void set_up(struct bed *bed, gconstpointer unused)
{
        struct hvb_error err = ERROR_INIT;

        (void) unused;
        g_assert_cmpint(guest_memory_init(&bed->mem, RAM_BYTES, false, &err), ==, 0);
        bed->count = (SETUP_SECTORS + 1) * 512 + PAYLOAD_BYTES;
        bed->bytes = g_malloc0(KERNEL_BYTES);
}

static void tear_down(struct bed *bed, gconstpointer unused)
{
        (void) unused;
        guest_memory_clear(&bed->mem);
        g_free(bed->bytes);
}

/* A kernel from bytes: boot_new's result.  Loads it if it is good. */
static int boot(struct bed *bed, const char *append, struct boot_entry *ret_entry)
{
        g_autofree char *directory = g_dir_make_tmp("boot-XXXXXX", NULL);
        g_autofree char *path = g_build_filename(directory, "kernel", NULL);
        const struct boot_config config = {
                .kernel_path = path,
                .append = append,
                .cpu_count = 2,
        };
        struct hvb_error err = ERROR_INIT;
        struct boot *boot;
        int ret;

        g_assert_true(g_file_set_contents(path, (char *) bed->bytes, bed->count, NULL));
        ret = boot_new(&config, &bed->mem, &boot, &err);
        g_assert_cmpint(err.code, ==, ret);
        if (ret == 0) {
                boot_load(boot, &bed->mem, ret_entry);
                boot_free(boot);
        }
        g_remove(path);
        g_rmdir(directory);
        return ret;
}

/* A bzImage laid by hand from Documentation/x86/boot.rst. */
static void make_bzimage(struct bed *bed)
{
        uint8_t *b = bed->bytes;

        b[0x1f1] = SETUP_SECTORS;
        b[0x1fe] = 0x55;
        b[0x1ff] = 0xaa;
        b[0x200] = 0xeb;
        b[0x201] = 0x6a;                /* the header ends at 0x26c */
        memcpy(b + 0x202, "HdrS", 4);
        b[0x207] = 0x02;                /* protocol 2.0f */
        b[0x206] = 0x0f;
        b[0x211] = 0x01;                /* loaded high */
        b[0x22c] = b[0x22d] = b[0x22e] = 0xff;          /* initrd_addr_max */
        b[0x22f] = 0x7f;
        b[0x239] = 0x08;                /* cmdline_size 2048 */
        b[0x25b] = 0x01;                /* pref_address 0x1000000 */
        b[0x262] = 0x40;                /* init_size 4 MiB */
        for (unsigned i = 0; i < PAYLOAD_BYTES; i++)
                b[(SETUP_SECTORS + 1) * 512 + i] = i * 7;
}

static void test_bzimage(struct bed *bed, gconstpointer unused)
{
        struct boot_entry entry;
        const struct boot_params *params;

        (void) unused;
        make_bzimage(bed);
        g_assert_cmpint(boot(bed, "console=ttyS0 quiet", &entry), ==, 0);
        g_assert_false(entry.long_mode);
        g_assert_cmphex(entry.rip, ==, 0x100000);
        g_assert_cmpmem(guest_memory_at(&bed->mem, 0x100000, PAYLOAD_BYTES), PAYLOAD_BYTES,
                        bed->bytes + (SETUP_SECTORS + 1) * 512, PAYLOAD_BYTES);
        params = guest_memory_at(&bed->mem, entry.rsi, sizeof(*params));
        g_assert_cmpint(params->hdr.type_of_loader, ==, 0xff);
        g_assert_cmpstr(guest_memory_at(&bed->mem, params->hdr.cmd_line_ptr, 1), ==,
                        "console=ttyS0 quiet");
        g_assert_cmpint(params->e820_entries, ==, 3);
        g_assert_cmpuint(params->e820_table[2].addr + params->e820_table[2].size, ==, RAM_BYTES);
        g_assert_cmpint(params->e820_table[2].type, ==, 1);
        g_assert_cmpmem(guest_memory_at(&bed->mem, params->acpi_rsdp_addr, 8), 8, "RSD PTR ", 8);
}

static void test_bzimage_refused(struct bed *bed, gconstpointer unused)
{
        const struct {
                unsigned at;
                uint8_t value;
                int expected;
        } cases[] = {
                { 0x1fe, 0x54, -ENOEXEC },      /* boot flag */
                { 0x202, 'h', -ENOEXEC },       /* magic */
                { 0x206, 0x05, -ENOEXEC },      /* protocol 2.05 */
                { 0x207, 0x01, -ENOEXEC },
                { 0x211, 0x00, -ENOEXEC },      /* loaded low */
                { 0x1f1, 0xff, -ENOEXEC },      /* more setup than there is */
                { 0x25c, 0x01, -ENOMEM },       /* pref_address 4 GiB and more */
                { 0x25b, 0x02, -ENOMEM },       /* 32 MiB: no RAM beyond */
                { 0x263, 0xff, -ENOMEM },       /* init_size */
        };
        struct boot_entry entry;

        (void) unused;
        for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
                memset(bed->bytes, 0, KERNEL_BYTES);
                make_bzimage(bed);
                bed->bytes[cases[i].at] = cases[i].value;
                g_assert_cmpint(boot(bed, NULL, &entry), ==, cases[i].expected);
        }
}

/* What is a kernel to no loader. */
static void test_no_kernel(struct bed *bed, gconstpointer unused)
{
        struct boot_entry entry;

        (void) unused;
        for (bed->count = 0; bed->count < 2048; bed->count += 171)
                g_assert_cmpint(boot(bed, NULL, &entry), ==, -ENOEXEC);
        memcpy(bed->bytes, ELFMAG, SELFMAG);
        for (bed->count = 0; bed->count < 128; bed->count++)
                g_assert_cmpint(boot(bed, NULL, &entry), ==, -ENOEXEC);
}

static void test_command_line(struct bed *bed, gconstpointer unused)
{
        struct boot_entry entry;
        char line[2050];

        (void) unused;
        make_bzimage(bed);
        memset(line, 'x', sizeof(line));
        line[2048] = '\0';
        g_assert_cmpint(boot(bed, line, &entry), ==, 0);
        line[2048] = 'x';
        line[2049] = '\0';
        g_assert_cmpint(boot(bed, line, &entry), ==, -E2BIG);
}

/* ---- ELF ------------------------------------------------------------------------------ */

struct elf {
        Elf64_Ehdr head;
        Elf64_Phdr segments[2];
        uint8_t code[64];
};

static struct elf *make_elf(struct bed *bed)
{
        struct elf *elf = (struct elf *) (void *) bed->bytes;

        memset(elf, 0, sizeof(*elf));
        bed->count = sizeof(*elf);
        memcpy(elf->head.e_ident, ELFMAG, SELFMAG);
        elf->head.e_ident[EI_CLASS] = ELFCLASS64;
        elf->head.e_ident[EI_DATA] = ELFDATA2LSB;
        elf->head.e_type = ET_EXEC;
        elf->head.e_machine = EM_X86_64;
        elf->head.e_entry = 0x200010;
        elf->head.e_phoff = offsetof(struct elf, segments);
        elf->head.e_phentsize = sizeof(Elf64_Phdr);
        elf->head.e_phnum = 2;
        elf->segments[0] = (Elf64_Phdr) {
                .p_type = PT_LOAD,
                .p_offset = offsetof(struct elf, code),
                .p_paddr = 0x200000,
                .p_filesz = sizeof(elf->code),
                .p_memsz = 8192,
        };
        elf->segments[1] = (Elf64_Phdr) { .p_type = PT_NOTE, .p_paddr = 1, .p_memsz = UINT64_MAX };
        memset(elf->code, 0x90, sizeof(elf->code));
        return elf;
}

static void test_elf(struct bed *bed, gconstpointer unused)
{
        const struct elf *elf = make_elf(bed);
        struct boot_entry entry;
        uint8_t *memory = guest_memory_at(&bed->mem, 0x200000, 8192);

        (void) unused;
        memset(memory, 0xff, 8192);
        g_assert_cmpint(boot(bed, NULL, &entry), ==, 0);
        g_assert_true(entry.long_mode);
        g_assert_cmphex(entry.rip, ==, 0x200010);
        g_assert_cmpmem(memory, sizeof(elf->code), elf->code, sizeof(elf->code));
        for (unsigned i = sizeof(elf->code); i < 8192; i++)
                g_assert_cmphex(memory[i], ==, 0);
}

static void test_elf_refused(struct bed *bed, gconstpointer unused)
{
        struct elf *elf = make_elf(bed);
        struct boot_entry entry;

        (void) unused;
#define REFUSED(change, code) \
        elf = make_elf(bed); \
        elf->change; \
        g_assert_cmpint(boot(bed, NULL, &entry), ==, code)

        REFUSED(head.e_ident[EI_CLASS] = ELFCLASS32, -ENOEXEC);
        REFUSED(head.e_ident[EI_DATA] = ELFDATA2MSB, -ENOEXEC);
        REFUSED(head.e_machine = EM_AARCH64, -ENOEXEC);
        REFUSED(head.e_type = ET_DYN, -ENOEXEC);
        REFUSED(head.e_phentsize = 32, -ENOEXEC);
        REFUSED(head.e_phnum = 0, -ENOEXEC);
        REFUSED(head.e_phnum = 4, -ENOEXEC);            /* the fourth is not in the file */
        REFUSED(head.e_phnum = 65, -ENOEXEC);
        REFUSED(head.e_phnum = 0xffff, -ENOEXEC);
        REFUSED(head.e_phoff = sizeof(*elf), -ENOEXEC);
        REFUSED(head.e_phoff = UINT64_MAX - 8, -ENOEXEC);
        REFUSED(head.e_entry = 0x1fffff, -ENOEXEC);
        REFUSED(head.e_entry = 0x200040, -ENOEXEC);
        REFUSED(segments[0].p_type = PT_NOTE, -ENOEXEC);
        REFUSED(segments[0].p_offset++, -ENOEXEC);
        REFUSED(segments[0].p_offset = UINT64_MAX, -ENOEXEC);
        REFUSED(segments[0].p_filesz = UINT64_MAX, -ENOEXEC);
        REFUSED(segments[0].p_memsz = sizeof(elf->code) - 1, -ENOEXEC);
        REFUSED(segments[0].p_memsz = RAM_BYTES, -ENOMEM);
        REFUSED(segments[0].p_memsz = UINT64_MAX, -ENOMEM);
        REFUSED(segments[0].p_paddr = 0xff000, -ENOMEM);
        REFUSED(segments[0].p_paddr = RAM_BYTES - 4096, -ENOMEM);
        REFUSED(segments[0].p_paddr = UINT64_MAX - 4096, -ENOMEM);
#undef REFUSED
}

/* Any bytes at all are loaded or refused. */
static void test_mutants(struct bed *bed, gconstpointer make)
{
        unsigned refused = 0;

        for (unsigned i = 0; i < 1000; i++) {
                struct boot_entry entry;

                memset(bed->bytes, 0, KERNEL_BYTES);
                bed->count = (SETUP_SECTORS + 1) * 512 + PAYLOAD_BYTES;
                if (make == NULL)
                        make_bzimage(bed);
                else
                        make_elf(bed);
                for (int changes = g_test_rand_int_range(1, 4); changes > 0; changes--)
                        bed->bytes[make == NULL ? g_test_rand_int_range(0x1f1, 0x270)
                                   : g_test_rand_int_range(0, 180)] = g_test_rand_int();
                refused += boot(bed, NULL, &entry) < 0;
        }
        g_assert_cmpuint(refused, >, 10);
}

/* ---- What is built in ------------------------------------------------------------------- */

static void test_builtin(struct bed *bed, gconstpointer unused)
{
        const struct boot_device device = { 0xd0000000, 4096, 5 };
        const struct boot_config config = {
                .append = "rounds=3",
                .devices = &device,
                .device_count = 1,
                .cpu_count = 1,
        };
        struct hvb_error err = ERROR_INIT;
        struct boot_entry entry;
        struct boot *boot;

        (void) unused;
        g_assert_cmpint(boot_new(&config, &bed->mem, &boot, &err), ==, 0);
        boot_load(boot, &bed->mem, &entry);
        boot_free(boot);
        g_assert_true(entry.long_mode);
        g_assert_cmphex(entry.rip, ==, 0x100000);
        g_assert_cmpstr(guest_memory_at(&bed->mem, BOOT_CMDLINE_ADDRESS, 1), ==,
                        "rounds=3 virtio_mmio.device=4K@0xd0000000:5");
}

static uint8_t sum(const uint8_t *bytes, size_t count)
{
        uint8_t total = 0;

        while (count-- > 0)
                total += *bytes++;
        return total;
}

/* The table at an address, its checksum verified. */
static const uint8_t *table_at(struct bed *bed, uint64_t address, const char *signature)
{
        const uint8_t *table = guest_memory_at(&bed->mem, address, 36);
        uint32_t length;

        g_assert_nonnull(table);
        memcpy(&length, table + 4, sizeof(length));
        g_assert_cmpmem(table, 4, signature, 4);
        g_assert_cmpint(sum(table, length), ==, 0);
        return table;
}

static uint64_t u64_at(const uint8_t *bytes)
{
        uint64_t value;

        memcpy(&value, bytes, sizeof(value));
        return value;
}

static void test_acpi(struct bed *bed, gconstpointer unused)
{
        struct boot_device devices[16];
        const uint8_t *pointer = guest_memory_at(&bed->mem, BOOT_ACPI_ADDRESS, 36);
        const uint8_t *xsdt;
        const uint8_t *fadt;
        const uint8_t *madt;

        (void) unused;
        for (unsigned i = 0; i < G_N_ELEMENTS(devices); i++)
                devices[i] = (struct boot_device) { 0xd0000000 + 4096 * i, 4096, 5 + i };
        boot_write_acpi(&bed->mem, 64, devices, G_N_ELEMENTS(devices));
        g_assert_cmpmem(pointer, 8, "RSD PTR ", 8);
        g_assert_cmpint(sum(pointer, 20), ==, 0);
        g_assert_cmpint(sum(pointer, 36), ==, 0);
        xsdt = table_at(bed, u64_at(pointer + 24), "XSDT");
        fadt = table_at(bed, u64_at(xsdt + 36), "FACP");
        madt = table_at(bed, u64_at(xsdt + 44), "APIC");
        table_at(bed, u64_at(fadt + 140), "DSDT");
        g_assert_cmpint(madt[44], ==, 0);               /* a local APIC, the first of 64 */
        g_assert_cmpint(madt[44 + 63 * 8 + 3], ==, 63);
        g_assert_cmpint(madt[44 + 64 * 8], ==, 1);      /* the IOAPIC */
}

int main(int argc, char **argv)
{
        static int elf;

        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/boot/memory", test_memory);
        g_test_add_func("/boot/memory-sizes", test_memory_sizes);
#define ADD(name, argument, test) \
        g_test_add("/boot/" name, struct bed, argument, set_up, test, tear_down)
        ADD("bzimage", NULL, test_bzimage);
        ADD("bzimage-refused", NULL, test_bzimage_refused);
        ADD("bzimage-mutants", NULL, test_mutants);
        ADD("no-kernel", NULL, test_no_kernel);
        ADD("command-line", NULL, test_command_line);
        ADD("elf", NULL, test_elf);
        ADD("elf-refused", NULL, test_elf_refused);
        ADD("elf-mutants", &elf, test_mutants);
        ADD("builtin", NULL, test_builtin);
        ADD("acpi", NULL, test_acpi);
#undef ADD
        return g_test_run();
}
