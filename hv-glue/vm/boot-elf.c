/*
 * boot-elf.c - a kernel as an ELF file: vmlinux, or the built-in guest.
 *
 * Segments go to their physical addresses, at 1 MiB or above.
 *
 * SPDX-License-Identifier: MIT
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "vm/boot-parts.h"

enum { SEGMENTS_MAX = 64 };

bool boot_is_elf(GBytes *file)
{
        gsize bytes;
        const void *data = g_bytes_get_data(file, &bytes);

        return bytes >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0;
}

static int read_header(GBytes *file, Elf64_Ehdr *ret_header, struct hvb_error *err)
{
        gsize bytes;
        const void *data = g_bytes_get_data(file, &bytes);

        if (bytes < sizeof(*ret_header))
                return error_set(err, -ENOEXEC, "an ELF file of %zu bytes", bytes);
        memcpy(ret_header, data, sizeof(*ret_header));
        if (ret_header->e_ident[EI_CLASS] != ELFCLASS64
            || ret_header->e_ident[EI_DATA] != ELFDATA2LSB || ret_header->e_machine != EM_X86_64
            || ret_header->e_type != ET_EXEC)
                return error_set(err, -ENOEXEC, "not an executable ELF file for x86-64");
        if (ret_header->e_phentsize != sizeof(Elf64_Phdr) || ret_header->e_phnum == 0
            || ret_header->e_phnum > SEGMENTS_MAX || ret_header->e_phoff > bytes
            || ret_header->e_phnum * sizeof(Elf64_Phdr) > bytes - ret_header->e_phoff)
                return error_set(err, -ENOEXEC, "an ELF file with %u segments of %u bytes at 0x%"
                                 G_GINT64_MODIFIER "x: at most %d, within the file",
                                 ret_header->e_phnum, ret_header->e_phentsize,
                                 ret_header->e_phoff, SEGMENTS_MAX);
        return 0;
}

static Elf64_Phdr segment_at(GBytes *file, const Elf64_Ehdr *header, unsigned index)
{
        const uint8_t *data = g_bytes_get_data(file, NULL);
        Elf64_Phdr segment;

        memcpy(&segment, data + header->e_phoff + index * sizeof(segment), sizeof(segment));
        return segment;
}

static bool is_loaded(const Elf64_Phdr *segment)
{
        return segment->p_type == PT_LOAD && segment->p_memsz > 0;
}

static int judge_segment(GBytes *file, const Elf64_Phdr *segment, unsigned index,
                         const struct guest_memory *mem, struct hvb_error *err)
{
        uint64_t file_bytes = g_bytes_get_size(file);

        if (segment->p_filesz > segment->p_memsz || segment->p_offset > file_bytes
            || segment->p_filesz > file_bytes - segment->p_offset)
                return error_set(err, -ENOEXEC, "segment %u of the ELF file lies outside it",
                                 index);
        if (segment->p_paddr < BOOT_KERNEL_ADDRESS
            || segment->p_memsz > mem->below_hole_bytes
            || segment->p_paddr > mem->below_hole_bytes - segment->p_memsz)
                return error_set(err, -ENOMEM, "segment %u of the ELF file wants 0x%"
                                 G_GINT64_MODIFIER "x bytes at 0x%" G_GINT64_MODIFIER "x: RAM is "
                                 "from 0x100000 to 0x%" G_GINT64_MODIFIER "x", index,
                                 segment->p_memsz, segment->p_paddr, mem->below_hole_bytes);
        return 0;
}

int boot_judge_elf(GBytes *file, const struct guest_memory *mem, struct boot_kernel *ret_kernel,
                   struct hvb_error *err)
{
        struct boot_kernel kernel = { .file = file, .is_elf = true, .initrd_max = UINT32_MAX };
        Elf64_Ehdr header;
        int ret = read_header(file, &header, err);
        bool entry_is_loaded = false;

        if (ret < 0)
                return ret;
        for (unsigned i = 0; i < header.e_phnum; i++) {
                Elf64_Phdr segment = segment_at(file, &header, i);

                if (!is_loaded(&segment))
                        continue;
                ret = judge_segment(file, &segment, i, mem, err);
                if (ret < 0)
                        return ret;
                kernel.end_address = MAX(kernel.end_address, segment.p_paddr + segment.p_memsz);
                entry_is_loaded |= header.e_entry >= segment.p_paddr
                        && header.e_entry - segment.p_paddr < segment.p_filesz;
        }
        if (!entry_is_loaded)
                return error_set(err, -ENOEXEC, "the ELF file's entry 0x%" G_GINT64_MODIFIER "x "
                                 "lies in none of its segments (by physical address)",
                                 header.e_entry);
        kernel.entry = header.e_entry;
        *ret_kernel = kernel;
        return 0;
}

void boot_load_elf(const struct boot_kernel *kernel, const struct guest_memory *mem)
{
        const uint8_t *data = g_bytes_get_data(kernel->file, NULL);
        Elf64_Ehdr header;

        memcpy(&header, data, sizeof(header));
        for (unsigned i = 0; i < header.e_phnum; i++) {
                Elf64_Phdr segment = segment_at(kernel->file, &header, i);
                uint8_t *memory;

                if (!is_loaded(&segment))
                        continue;
                memory = guest_memory_at(mem, segment.p_paddr, segment.p_memsz);
                memcpy(memory, data + segment.p_offset, segment.p_filesz);
                memset(memory + segment.p_filesz, 0, segment.p_memsz - segment.p_filesz);
        }
}
