/*
 * mutate.c - see mutate.h.
 *
 * Half of the changes set one number, chosen by what it is, to a value that means something
 * there: a limit, a neighbour of one, another table's place, the same with other flags.  The
 * rest move whole entries and clusters, change the file's length, or change any bytes.
 *
 * SPDX-License-Identifier: MIT
 */
#include "fuzz/mutate.h"

#include <glib.h>

#include "disk/format.h"
#include "fuzz/shape.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

enum { CHANGES_MAX = 4, SECTOR_BYTES = 512 };

/* Limits of the format and what lies beside them; others come from shifts. */
static const uint64_t limits[] = {
        0, 1, 2, 3, 8, 9, 16, 21, 22, 24, 63, 72, 104, 112, 127, 255, 512, 1023, 1024, 1025,
        65535, 65536, 65537, 4194304, 4194305, UINT64_C(1) << 32, (UINT64_C(1) << 56) - 512,
        UINT64_C(1) << 56, (UINT64_C(1) << 62) + 1, ENTRY_OFFSET_MASK, INT64_MAX, UINT64_MAX,
};

static bool chance(struct sim_random *random, unsigned one_in)
{
        return sim_random_below(random, one_in) == 0;
}

static uint64_t boundary(struct sim_random *random)
{
        uint64_t value = chance(random, 2)
                ? limits[sim_random_below(random, G_N_ELEMENTS(limits))]
                : UINT64_C(1) << sim_random_below(random, 64);

        return value + sim_random_below(random, 3) - 1;
}

/* Of an L1, L2 or refcount table: a place and flags. */
static uint64_t table_value(const struct shape *s, uint64_t old, struct sim_random *random)
{
        static const uint64_t flags[] = {
                ENTRY_COPIED, ENTRY_COMPRESSED, ENTRY_ZERO, UINT64_C(2), UINT64_C(1) << 56,
                UINT64_C(1) << 9,
        };
        unsigned shift = 62 - (s->cluster_bits - 8);
        uint64_t sectors = sim_random_below(random, s->cluster_bytes / 512);

        switch (sim_random_below(random, 6)) {
        case 0:
                return old ^ flags[sim_random_below(random, G_N_ELEMENTS(flags))];
        case 1:
                return shape_place(s, random) | (old & ~ENTRY_OFFSET_MASK);
        case 2:
                return shape_place(s, random) | ENTRY_COPIED;
        case 3:
                return shape_place(s, random);
        case 4:
                return ENTRY_COMPRESSED | sectors << shift |
                       (shape_place(s, random) + sim_random_below(random, 2048));
        default:
                return boundary(random);
        }
}

static uint64_t value_for(const struct shape *s, const struct field *f, struct sim_random *random)
{
        uint64_t old = image_load(s->image, f->offset, f->width_bytes);

        switch (sim_random_below(random, 4)) {
        case 0:
                return old + sim_random_below(random, 17) - 8;
        case 1:
                return boundary(random);
        default:
                if (f->part == PART_REFBLOCK)
                        return sim_random_below(random, 4);
                if (f->width_bytes == 8)
                        return table_value(s, old, random);
                return old ^ UINT64_C(1) << sim_random_below(random, 8 * f->width_bytes);
        }
}

/* Parts that an image does not have give way to others. */
static bool any_field(const struct shape *s, struct sim_random *random, struct field *ret)
{
        unsigned tries;

        for (tries = 0; tries < 8; tries++)
                if (shape_field(s, (enum part)sim_random_below(random, PART_COUNT), random, ret))
                        return true;
        return false;
}

/* ---- single changes ---- */

static void set_field(struct input *in, const struct shape *s, struct sim_random *random)
{
        struct field f;

        if (any_field(s, random, &f))
                image_store(&in->image, f.offset, f.width_bytes, value_for(s, &f, random));
}

/* Two numbers of one width change places, or one is copied over the other. */
static void swap_fields(struct input *in, const struct shape *s, struct sim_random *random)
{
        struct field a;
        struct field b;
        uint64_t value;

        if (!any_field(s, random, &a) || !any_field(s, random, &b) ||
            a.width_bytes != b.width_bytes)
                return;
        value = image_load(&in->image, a.offset, a.width_bytes);
        if (chance(random, 2))
                image_store(&in->image, a.offset, a.width_bytes,
                            image_load(&in->image, b.offset, b.width_bytes));
        image_store(&in->image, b.offset, b.width_bytes, value);
}

static void copy_sectors(struct input *in, const struct shape *s, struct sim_random *random)
{
        uint64_t from = shape_place(s, random);
        uint64_t to = shape_place(s, random);
        uint64_t length = MIN(s->cluster_bytes, 4096);
        uint8_t bytes[4096];

        if (to >= in->image.length_bytes || from >= in->image.length_bytes)
                return;
        sim_image_read(&in->image, from, bytes, length);
        sim_image_write(&in->image, to, bytes, MIN(length, in->image.length_bytes - to));
}

static void fill_table(struct input *in, const struct shape *s, struct sim_random *random)
{
        uint64_t count = 1 + sim_random_below(random, 64);
        struct field f;
        uint64_t value;
        uint64_t step;
        uint64_t i;

        if (!any_field(s, random, &f) || f.width_bytes != 8)
                return;
        value = image_load(&in->image, f.offset, 8);
        step = chance(random, 2) ? s->cluster_bytes : 0;
        for (i = 0; i < count; i++)
                image_store(&in->image, f.offset + i * 8, 8, value + i * step);
}

static void change_length(struct input *in, const struct shape *s, struct sim_random *random)
{
        uint64_t length = shape_place(s, random);

        if (chance(random, 2))
                length += sim_random_below(random, s->cluster_bytes);
        sim_image_set_length(&in->image, MIN(length, INPUT_FILE_BYTES_MAX));
}

static void change_bytes(struct input *in, const struct shape *s, struct sim_random *random)
{
        uint64_t offset = shape_place(s, random);
        uint8_t bytes[SECTOR_BYTES];

        if (chance(random, 4))
                offset = sim_random_below(random, 2) * SECTOR_BYTES;
        if (offset + SECTOR_BYTES > in->image.length_bytes)
                return;
        sim_image_read(&in->image, offset, bytes, sizeof(bytes));
        LLVMFuzzerMutate(bytes, sizeof(bytes), sizeof(bytes));
        sim_image_write(&in->image, offset, bytes, sizeof(bytes));
}

static void change_script(struct input *in, struct sim_random *random)
{
        if (chance(random, 2))
                LLVMFuzzerMutate(in->script, SCRIPT_BYTES, SCRIPT_BYTES);
        else
                in->script[sim_random_below(random, SCRIPT_BYTES)] =
                        (uint8_t)sim_random_next(random);
}

void input_mutate(struct input *in, struct sim_random *random)
{
        uint64_t count = 1 + sim_random_below(random, CHANGES_MAX);
        struct shape s;

        while (count-- > 0) {
                shape_read(&s, &in->image);
                switch (sim_random_below(random, 12)) {
                case 0:
                        swap_fields(in, &s, random);
                        break;
                case 1:
                        copy_sectors(in, &s, random);
                        break;
                case 2:
                        fill_table(in, &s, random);
                        break;
                case 3:
                        change_length(in, &s, random);
                        break;
                case 4:
                        change_bytes(in, &s, random);
                        break;
                case 5:
                case 6:
                        change_script(in, random);
                        break;
                default:
                        set_field(in, &s, random);
                        break;
                }
        }
}
