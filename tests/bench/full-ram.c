/*
 * full-ram.c - see full-ram.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "bench/full-ram.h"

#include "host/error.h"

#define DISK_BYTES (UINT64_C(4) << 20)

void make_image(const char *path)
{
        struct hvb_create_args args = { .struct_bytes = sizeof(args), .size_bytes = DISK_BYTES };
        struct drive_options how = { .format = "qcow2", .flags = HVB_OPEN_RDWR };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;

        if (drive_create(path, &args, &how, &drive, &err) < 0)
                g_error("%s", err.text);
        drive_close(drive, &err);
}

void fill_ram(struct machine *m, uint64_t bytes, uint64_t seed)
{
        uint64_t *words = (uint64_t *) (void *) machine_memory(m)->ram;

        for (uint64_t i = 0; i < bytes / 8; i++)
                words[i] = (i + seed) * UINT64_C(0x9e3779b97f4a7c15) | 1;
}
