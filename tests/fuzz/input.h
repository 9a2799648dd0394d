/*
 * input.h - what a fuzzer's input means: an image, sparse, and what is done to it.
 *
 * An input is SCRIPT_BYTES of script, the file's length (8 bytes), then records of a sector
 * number (4 bytes) and the sector's 512 bytes.  All numbers are big-endian.  Sectors that no
 * record names are zero.  Every sequence of bytes is an input: what is missing is zero, a rest
 * that is no record is left out, a file that would be longer than INPUT_FILE_BYTES_MAX ends there.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include "lib/simdisk-image.h"

enum {
        SCRIPT_ACTIONS = 16,
        SCRIPT_ACTION_BYTES = 4,
        SCRIPT_BYTES = SCRIPT_ACTIONS * SCRIPT_ACTION_BYTES,
        INPUT_FILE_BYTES_MAX = 4 << 20,
};

struct input {
        uint8_t script[SCRIPT_BYTES];
        struct sim_image image;
};

/* To be cleared. */
void input_decode(struct input *ret, const uint8_t *bytes, size_t byte_count);
void input_clear(struct input *in);

/* Returns how many of capacity bytes it took; sectors that do not fit are left out. */
size_t input_encode(const struct input *in, uint8_t *bytes, size_t capacity);

/* ---- numbers in the image ---- */

uint64_t image_load(const struct sim_image *image, uint64_t offset, unsigned width_bytes);
/* Where the file is too short it stays as it is. */
void image_store(struct sim_image *image, uint64_t offset, unsigned width_bytes, uint64_t value);

/* Memory pages that hold something, in bytes. */
uint64_t image_data_bytes(const struct sim_image *image);

#endif
