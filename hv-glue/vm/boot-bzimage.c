/*
 * boot-bzimage.c - Linux's bzImage (Documentation/x86/boot.rst).
 *
 * A bzImage is sectors of real-mode code, whose header says how to load the rest: we leave
 * the former out, load the latter at 1 MiB, and enter it in 32-bit protected mode.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "host/error.h"
#include "vm/boot-parts.h"

enum {
        HEADER_OFFSET = offsetof(struct boot_params, hdr),
        HEADER_MAGIC = 0x53726448,              /* "HdrS" */
        BOOT_FLAG = 0xaa55,
        PROTOCOL_MIN = 0x0206,                  /* a command line of more than 255 bytes */
        PROTOCOL_INIT_SIZE = 0x020a,
        SECTOR_BYTES = 512,
        SETUP_SECTORS_DEFAULT = 4,
        JUMP_OFFSET = 0x201,                    /* of the byte that says where the header ends */
        JUMP_FROM = 0x202,
};

static bool read_header(GBytes *file, struct setup_header *ret_header)
{
        gsize bytes;
        const uint8_t *data = g_bytes_get_data(file, &bytes);

        if (bytes < HEADER_OFFSET + sizeof(*ret_header))
                return false;
        memcpy(ret_header, data + HEADER_OFFSET, sizeof(*ret_header));
        return ret_header->boot_flag == BOOT_FLAG && ret_header->header == HEADER_MAGIC;
}

bool boot_is_bzimage(GBytes *file)
{
        struct setup_header header;

        return read_header(file, &header);
}

/* Older kernels' headers are shorter: what lies beyond is code. */
static void trim_header(GBytes *file, struct setup_header *header)
{
        const uint8_t *data = g_bytes_get_data(file, NULL);
        size_t end = JUMP_FROM + data[JUMP_OFFSET];
        size_t bytes = end > HEADER_OFFSET ? end - HEADER_OFFSET : 0;

        if (bytes < sizeof(*header))
                memset((uint8_t *) header + bytes, 0, sizeof(*header) - bytes);
}

/* Where the kernel's memory ends while it unpacks itself. */
static uint64_t end_address(const struct setup_header *header, uint64_t payload_bytes)
{
        uint64_t begin = BOOT_KERNEL_ADDRESS;

        if (header->version < PROTOCOL_INIT_SIZE)
                return begin + 4 * payload_bytes;
        if (header->pref_address > begin)
                begin = header->pref_address;
        return begin < GUEST_HOLE_BEGIN ? begin + header->init_size : UINT64_MAX;
}

int boot_judge_bzimage(GBytes *file, const struct guest_memory *mem,
                       struct boot_kernel *ret_kernel, struct hvb_error *err)
{
        struct boot_kernel kernel = { .file = file };
        struct setup_header *header = &kernel.header;
        uint64_t bytes = g_bytes_get_size(file);
        unsigned sectors;

        if (!read_header(file, header))
                return error_set(err, -ENOEXEC, "not a bzImage");
        trim_header(file, header);
        if (header->version < PROTOCOL_MIN || !(header->loadflags & LOADED_HIGH))
                return error_set(err, -ENOEXEC, "a bzImage of boot protocol %u.%02u%s: 2.06 is "
                                 "needed", header->version >> 8, header->version & 0xff,
                                 header->loadflags & LOADED_HIGH ? "" : " that is loaded low");
        sectors = header->setup_sects == 0 ? SETUP_SECTORS_DEFAULT : header->setup_sects;
        kernel.payload_offset = (sectors + 1) * SECTOR_BYTES;
        if (kernel.payload_offset >= bytes)
                return error_set(err, -ENOEXEC, "a bzImage of %" G_GUINT64_FORMAT " bytes that "
                                 "should begin with %u sectors of setup code", bytes, sectors);
        kernel.end_address = end_address(header, bytes - kernel.payload_offset);
        kernel.initrd_max = header->initrd_addr_max;
        if (kernel.end_address > mem->below_hole_bytes
            || bytes - kernel.payload_offset > mem->below_hole_bytes - BOOT_KERNEL_ADDRESS)
                return error_set(err, -ENOMEM, "the kernel needs %" G_GUINT64_FORMAT " MiB of RAM "
                                 "to unpack itself, there are %" G_GUINT64_FORMAT,
                                 kernel.end_address >> 20, mem->below_hole_bytes >> 20);
        *ret_kernel = kernel;
        return 0;
}

void boot_load_bzimage(const struct boot_kernel *kernel, const struct guest_memory *mem)
{
        gsize bytes;
        const uint8_t *data = g_bytes_get_data(kernel->file, &bytes);
        uint64_t payload_bytes = bytes - kernel->payload_offset;

        memcpy(guest_memory_at(mem, BOOT_KERNEL_ADDRESS, payload_bytes),
               data + kernel->payload_offset, payload_bytes);
}
