/*
 * boot.c - putting a kernel into memory, as a boot loader does.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/boot.h"

#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "vm/boot-parts.h"

enum {
        LOADER_UNKNOWN = 0xff,
        HEADER_MAGIC = 0x53726448,
        BOOT_FLAG = 0xaa55,
        PROTOCOL_OF_ELF = 0x020c,
        E820_RAM = 1,
        E820_RESERVED = 2,
};

#define FILE_BYTES_MAX  (1ull << 30)

struct boot {
        struct boot_kernel kernel;
        GBytes *initrd;                 /* or NULL */
        uint64_t initrd_address;
        char *cmdline;
        struct boot_device *devices;
        unsigned device_count;
        unsigned cpu_count;
};

/* guest/embed.S. */
extern const uint8_t boot_builtin_begin[];
extern const uint8_t boot_builtin_end[];

static GBytes *builtin_guest(void)
{
        return g_bytes_new_static(boot_builtin_begin, boot_builtin_end - boot_builtin_begin);
}

/* ---- Reading -------------------------------------------------------------------------- */

static int read_file(const char *path, const char *what, GBytes **ret_file,
                     struct hvb_error *err)
{
        g_autoptr(GError) error = NULL;
        char *bytes;
        gsize count;

        if (!g_file_get_contents(path, &bytes, &count, &error))
                return error_set(err, -ENOENT, "%s: %s", what, error->message);
        *ret_file = g_bytes_new_take(bytes, count);
        if (count > FILE_BYTES_MAX)
                return error_set(err, -EFBIG, "%s '%s' is larger than 1 GiB", what, path);
        return 0;
}

static int read_kernel(struct boot *boot, const struct boot_config *config,
                       const struct guest_memory *mem, struct hvb_error *err)
{
        const char *path = config->kernel_path;
        int ret = 0;

        if (path == NULL)
                boot->kernel.file = builtin_guest();
        else
                ret = read_file(path, "kernel", &boot->kernel.file, err);
        if (ret < 0)
                return ret;
        if (boot_is_bzimage(boot->kernel.file))
                ret = boot_judge_bzimage(boot->kernel.file, mem, &boot->kernel, err);
        else if (boot_is_elf(boot->kernel.file))
                ret = boot_judge_elf(boot->kernel.file, mem, &boot->kernel, err);
        else
                ret = error_set(err, -ENOEXEC, "neither a bzImage nor an ELF file");
        if (ret < 0)
                error_prepend(err, "kernel '%s': ", path == NULL ? "(built in)" : path);
        return ret;
}

/* As high as possible, where the kernel does not unpack itself to. */
static int place_initrd(struct boot *boot, const struct guest_memory *mem, struct hvb_error *err)
{
        uint64_t bytes = g_bytes_get_size(boot->initrd);
        uint64_t limit = MIN(mem->below_hole_bytes, boot->kernel.initrd_max + 1);

        if (bytes > limit || bytes == 0)
                return error_set(err, -ENOMEM, "an initrd of %" G_GUINT64_FORMAT " bytes does not "
                                 "fit into RAM", bytes);
        boot->initrd_address = (limit - bytes) & ~(uint64_t) (GUEST_PAGE_BYTES - 1);
        if (boot->initrd_address < boot->kernel.end_address)
                return error_set(err, -ENOMEM, "kernel and initrd need more than %"
                                 G_GUINT64_FORMAT " MiB of RAM", limit >> 20);
        return 0;
}

/* What the user wants; for the built-in guest, which knows no ACPI, then the devices. */
static int make_cmdline(struct boot *boot, const struct boot_config *config,
                        struct hvb_error *err)
{
        GString *line = g_string_new(config->append);
        size_t limit = BOOT_CMDLINE_BYTES_MAX - 1;

        for (unsigned i = 0; i < config->device_count && config->kernel_path == NULL; i++) {
                const struct boot_device *device = &config->devices[i];

                g_string_append_printf(line, "%svirtio_mmio.device=%" G_GUINT64_FORMAT "K@0x%"
                                       G_GINT64_MODIFIER "x:%u", line->len > 0 ? " " : "",
                                       device->length >> 10, device->address, device->irq);
        }
        if (!boot->kernel.is_elf)
                limit = MIN(limit, boot->kernel.header.cmdline_size);
        boot->cmdline = g_string_free(line, FALSE);
        if (strlen(boot->cmdline) > limit)
                return error_set(err, -E2BIG, "a command line of %zu bytes: at most %zu are "
                                 "possible", strlen(boot->cmdline), limit);
        return 0;
}

int boot_new(const struct boot_config *config, const struct guest_memory *mem,
             struct boot **ret_boot, struct hvb_error *err)
{
        struct boot *boot = g_new0(struct boot, 1);
        int ret = read_kernel(boot, config, mem, err);

        boot->cpu_count = config->cpu_count;
        boot->device_count = config->device_count;
        boot->devices = g_memdup2(config->devices,
                                  config->device_count * sizeof(config->devices[0]));
        if (ret == 0 && config->initrd_path != NULL) {
                ret = read_file(config->initrd_path, "initrd", &boot->initrd, err);
                if (ret == 0)
                        ret = place_initrd(boot, mem, err);
        }
        if (ret == 0)
                ret = make_cmdline(boot, config, err);
        if (ret < 0) {
                boot_free(boot);
                return ret;
        }
        *ret_boot = boot;
        return 0;
}

void boot_free(struct boot *boot)
{
        if (boot == NULL)
                return;
        g_clear_pointer(&boot->kernel.file, g_bytes_unref);
        g_clear_pointer(&boot->initrd, g_bytes_unref);
        g_free(boot->cmdline);
        g_free(boot->devices);
        g_free(boot);
}

/* ---- Loading -------------------------------------------------------------------------- */

static void add_e820(struct boot_params *params, uint64_t begin, uint64_t end, uint32_t type)
{
        if (begin < end)
                params->e820_table[params->e820_entries++] = (struct boot_e820_entry) {
                        .addr = begin,
                        .size = end - begin,
                        .type = type,
                };
}

static void fill_header(const struct boot *boot, struct setup_header *header)
{
        *header = boot->kernel.header;
        if (boot->kernel.is_elf) {
                header->boot_flag = BOOT_FLAG;
                header->header = HEADER_MAGIC;
                header->version = PROTOCOL_OF_ELF;
                header->kernel_alignment = 1 << 24;
                header->cmdline_size = BOOT_CMDLINE_BYTES_MAX - 1;
        }
        header->type_of_loader = LOADER_UNKNOWN;
        header->cmd_line_ptr = BOOT_CMDLINE_ADDRESS;
        if (boot->initrd != NULL) {
                header->ramdisk_image = boot->initrd_address;
                header->ramdisk_size = g_bytes_get_size(boot->initrd);
        }
}

static void write_params(const struct boot *boot, const struct guest_memory *mem)
{
        struct boot_params *params = guest_memory_at(mem, BOOT_PARAMS_ADDRESS, sizeof(*params));
        uint64_t above_bytes = mem->ram_bytes - mem->below_hole_bytes;

        *params = (struct boot_params) { 0 };
        fill_header(boot, &params->hdr);
        params->acpi_rsdp_addr = BOOT_ACPI_ADDRESS;
        add_e820(params, 0, BOOT_LOW_RAM_END, E820_RAM);
        add_e820(params, BOOT_LOW_RAM_END, BOOT_KERNEL_ADDRESS, E820_RESERVED);
        add_e820(params, BOOT_KERNEL_ADDRESS, mem->below_hole_bytes, E820_RAM);
        add_e820(params, GUEST_HOLE_END, GUEST_HOLE_END + above_bytes, E820_RAM);
}

void boot_load(const struct boot *boot, const struct guest_memory *mem,
               struct boot_entry *ret_entry)
{
        size_t cmdline_bytes = strlen(boot->cmdline) + 1;

        boot_write_gdt(mem, boot->kernel.is_elf);
        boot_write_page_tables(mem);
        boot_write_acpi(mem, boot->cpu_count, boot->devices, boot->device_count);
        write_params(boot, mem);
        memcpy(guest_memory_at(mem, BOOT_CMDLINE_ADDRESS, cmdline_bytes), boot->cmdline,
               cmdline_bytes);
        if (boot->kernel.is_elf)
                boot_load_elf(&boot->kernel, mem);
        else
                boot_load_bzimage(&boot->kernel, mem);
        if (boot->initrd != NULL) {
                gsize bytes;
                const void *data = g_bytes_get_data(boot->initrd, &bytes);

                memcpy(guest_memory_at(mem, boot->initrd_address, bytes), data, bytes);
        }
        *ret_entry = (struct boot_entry) {
                .long_mode = boot->kernel.is_elf,
                .rip = boot->kernel.is_elf ? boot->kernel.entry : BOOT_KERNEL_ADDRESS,
                .rsi = BOOT_PARAMS_ADDRESS,
                .gdt = BOOT_GDT_ADDRESS,
                .page_tables = BOOT_PAGE_TABLES_ADDRESS,
        };
}
