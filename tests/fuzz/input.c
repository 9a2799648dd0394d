/*
 * input.c - see input.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "fuzz/input.h"

#include <glib.h>
#include <string.h>

#include "disk/bytes.h"

enum {
        SECTOR_BYTES = 512,
        LENGTH_BYTES = 8,
        RECORD_BYTES = 4 + SECTOR_BYTES,
};

static bool is_zero(const uint8_t *bytes, size_t count)
{
        return bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

static void take_sector(struct sim_image *image, uint64_t sector, const uint8_t *bytes)
{
        uint64_t offset = sector * SECTOR_BYTES;

        if (offset < image->length_bytes && !is_zero(bytes, SECTOR_BYTES))
                sim_image_write(image, offset, bytes,
                                MIN(SECTOR_BYTES, image->length_bytes - offset));
}

void input_decode(struct input *ret, const uint8_t *bytes, size_t byte_count)
{
        uint64_t length;

        *ret = (struct input){ .image = { .root = NULL } };
        memcpy(ret->script, bytes, MIN(byte_count, SCRIPT_BYTES));
        if (byte_count < SCRIPT_BYTES + LENGTH_BYTES)
                return;
        length = be64_load(bytes + SCRIPT_BYTES);
        sim_image_set_length(&ret->image, MIN(length, INPUT_FILE_BYTES_MAX));
        bytes += SCRIPT_BYTES + LENGTH_BYTES;
        byte_count -= SCRIPT_BYTES + LENGTH_BYTES;
        for (; byte_count >= RECORD_BYTES; bytes += RECORD_BYTES, byte_count -= RECORD_BYTES)
                take_sector(&ret->image, be32_load(bytes), bytes + 4);
}

void input_clear(struct input *in)
{
        sim_image_clear(&in->image);
}

size_t input_encode(const struct input *in, uint8_t *bytes, size_t capacity)
{
        const struct sim_image *image = &in->image;
        size_t used = SCRIPT_BYTES + LENGTH_BYTES;
        uint8_t sector[SECTOR_BYTES];
        uint64_t page;
        uint64_t at;

        if (capacity < used)
                return 0;
        memcpy(bytes, in->script, SCRIPT_BYTES);
        be64_store(bytes + SCRIPT_BYTES, image->length_bytes);
        for (page = sim_image_next_data(image, 0); page < image->length_bytes;
             page = sim_image_next_data(image, page + SIM_PAGE_BYTES))
                for (at = page; at < page + SIM_PAGE_BYTES; at += SECTOR_BYTES) {
                        sim_image_read(image, at, sector, sizeof(sector));
                        if (is_zero(sector, sizeof(sector)) || capacity - used < RECORD_BYTES)
                                continue;
                        be32_store(bytes + used, at / SECTOR_BYTES);
                        memcpy(bytes + used + 4, sector, sizeof(sector));
                        used += RECORD_BYTES;
                }
        return used;
}

uint64_t image_load(const struct sim_image *image, uint64_t offset, unsigned width_bytes)
{
        uint8_t bytes[8] = { 0 };

        if (offset < image->length_bytes)
                sim_image_read(image, offset, bytes + 8 - width_bytes, width_bytes);
        return be64_load(bytes);
}

void image_store(struct sim_image *image, uint64_t offset, unsigned width_bytes, uint64_t value)
{
        uint8_t bytes[8];

        be64_store(bytes, value);
        if (offset < image->length_bytes && image->length_bytes - offset >= width_bytes)
                sim_image_write(image, offset, bytes + 8 - width_bytes, width_bytes);
}

uint64_t image_data_bytes(const struct sim_image *image)
{
        uint64_t bytes = 0;
        uint64_t page;

        for (page = sim_image_next_data(image, 0); page != UINT64_MAX;
             page = sim_image_next_data(image, page + SIM_PAGE_BYTES))
                bytes += SIM_PAGE_BYTES;
        return bytes;
}
