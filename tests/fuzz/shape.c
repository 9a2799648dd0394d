/*
 * shape.c - see shape.h.  Offsets of fields are the format's.
 *
 * SPDX-License-Identifier: MIT
 */
#include "fuzz/shape.h"

#include "disk/format.h"

enum { EXTENSIONS_MAX = 16, BITMAPS_OFFSET_IN_EXTENSION = 16, SKIPPED_SNAPSHOTS_MAX = 64 };

static const struct field header_fields[] = {
        { .offset = 4, .width_bytes = 4 },      /* version */
        { .offset = 8, .width_bytes = 8 },      /* backing file name: offset */
        { .offset = 16, .width_bytes = 4 },     /* ... length */
        { .offset = 20, .width_bytes = 4 },     /* cluster bits */
        { .offset = 24, .width_bytes = 8 },     /* size */
        { .offset = 32, .width_bytes = 4 },     /* encryption */
        { .offset = 36, .width_bytes = 4 },     /* L1 entries */
        { .offset = 40, .width_bytes = 8 },     /* L1 offset */
        { .offset = 48, .width_bytes = 8 },     /* refcount table: offset */
        { .offset = 56, .width_bytes = 4 },     /* ... clusters */
        { .offset = 60, .width_bytes = 4 },     /* snapshots */
        { .offset = 64, .width_bytes = 8 },     /* snapshot table: offset */
        { .offset = 72, .width_bytes = 8 },     /* incompatible */
        { .offset = 80, .width_bytes = 8 },     /* compatible */
        { .offset = 88, .width_bytes = 8 },     /* autoclear */
        { .offset = 96, .width_bytes = 4 },     /* refcount order */
        { .offset = 100, .width_bytes = 4 },    /* header length */
        { .offset = 104, .width_bytes = 1 },    /* compression type */
};

/* Of a snapshot table entry: everything that is not text. */
static const struct field snapshot_fields[] = {
        { .offset = 0, .width_bytes = 8 },      /* L1 offset */
        { .offset = 8, .width_bytes = 4 },      /* L1 entries */
        { .offset = 12, .width_bytes = 2 },     /* id length */
        { .offset = 14, .width_bytes = 2 },     /* name length */
        { .offset = 32, .width_bytes = 4 },     /* VM state */
        { .offset = 36, .width_bytes = 4 },     /* extra data */
        { .offset = 40, .width_bytes = 8 },     /* ... VM state */
        { .offset = 48, .width_bytes = 8 },     /* ... disk size */
        { .offset = 56, .width_bytes = 8 },     /* ... icount */
};

/* Of an entry of the bitmap directory. */
static const struct field bitmap_fields[] = {
        { .offset = 0, .width_bytes = 8 },      /* table offset */
        { .offset = 8, .width_bytes = 4 },      /* table entries */
        { .offset = 12, .width_bytes = 4 },     /* flags */
        { .offset = 16, .width_bytes = 1 },     /* type */
        { .offset = 17, .width_bytes = 1 },     /* granularity */
        { .offset = 18, .width_bytes = 2 },     /* name length */
        { .offset = 20, .width_bytes = 4 },     /* extra data */
};

static uint64_t field_at(const struct shape *s, uint64_t offset, unsigned width_bytes)
{
        return image_load(s->image, offset, width_bytes);
}

void shape_read(struct shape *ret, const struct sim_image *image)
{
        struct shape *s = ret;

        *s = (struct shape){ .image = image };
        s->version = (unsigned)field_at(s, 4, 4);
        s->cluster_bits = (unsigned)field_at(s, 20, 4);
        if (s->cluster_bits < MIN_CLUSTER_BITS || s->cluster_bits > MAX_CLUSTER_BITS)
                s->cluster_bits = 16;
        s->cluster_bytes = UINT64_C(1) << s->cluster_bits;
        s->refcount_order = s->version == 2 ? 4 : (unsigned)field_at(s, 96, 4) % 7;
        s->header_bytes = s->version == 2 ? HEADER_V2_BYTES : field_at(s, 100, 4) % 4096;
        s->l1_entries = field_at(s, 36, 4);
        s->l1_offset = field_at(s, 40, 8);
        s->reftable_offset = field_at(s, 48, 8);
        s->reftable_entries = field_at(s, 56, 4) * (s->cluster_bytes / 8);
        s->snapshot_count = field_at(s, 60, 4);
        s->snapshots_offset = field_at(s, 64, 8);
}

/* ---- choosing ---- */

static bool found(struct field *ret, enum part part, uint64_t offset, unsigned width_bytes)
{
        *ret = (struct field){ .offset = offset, .width_bytes = width_bytes, .part = part };
        return offset < INPUT_FILE_BYTES_MAX;
}

static bool of_struct(struct field *ret, enum part part, uint64_t offset,
                      const struct field *fields, unsigned field_count, struct sim_random *random)
{
        const struct field *f = &fields[sim_random_below(random, field_count)];

        return found(ret, part, offset + f->offset, f->width_bytes);
}

/* Mostly one of the first entries: that is where something is. */
static uint64_t some_index(uint64_t count, struct sim_random *random)
{
        if (sim_random_below(random, 4) > 0)
                count = u64_min(count, 8);
        return sim_random_below(random, count);
}

static bool table_entry(struct field *ret, enum part part, uint64_t table_offset, uint64_t count,
                        struct sim_random *random)
{
        return count > 0 && table_offset < INPUT_FILE_BYTES_MAX &&
               found(ret, part, table_offset + 8 * some_index(count, random), 8);
}

static bool second_level(const struct shape *s, enum part part, uint64_t table_offset,
                         uint64_t count, struct sim_random *random, struct field *ret)
{
        uint64_t offset;

        if (!table_entry(ret, part, table_offset, count, random))
                return false;
        offset = field_at(s, ret->offset, 8) & ENTRY_OFFSET_MASK;
        return offset > 0 && table_entry(ret, part, offset, s->cluster_bytes / 8, random);
}

/* One byte of counts where they are narrower than that. */
static bool refblock_entry(const struct shape *s, struct sim_random *random, struct field *ret)
{
        unsigned width_bytes = s->refcount_order < 3 ? 1 : 1u << (s->refcount_order - 3);
        uint64_t offset;

        if (!table_entry(ret, PART_REFBLOCK, s->reftable_offset, s->reftable_entries, random))
                return false;
        offset = field_at(s, ret->offset, 8) & ENTRY_OFFSET_MASK;
        return offset > 0 && found(ret, PART_REFBLOCK, offset + width_bytes *
                                   some_index(s->cluster_bytes / width_bytes, random), width_bytes);
}

static uint64_t snapshot_offset(const struct shape *s, uint64_t index)
{
        uint64_t offset = s->snapshots_offset;

        while (index-- > 0 && offset < INPUT_FILE_BYTES_MAX)
                offset = round_up(offset + SNAPSHOT_FIXED_BYTES + field_at(s, offset + 12, 2) +
                                  field_at(s, offset + 14, 2) + field_at(s, offset + 36, 4), 8);
        return offset;
}

static bool snapshot_entry(const struct shape *s, enum part part, struct sim_random *random,
                           struct field *ret)
{
        uint64_t count = u64_min(s->snapshot_count, SKIPPED_SNAPSHOTS_MAX);
        uint64_t entry;
        uint64_t l1_offset;
        uint64_t l1_entries;

        if (count == 0)
                return false;
        entry = snapshot_offset(s, sim_random_below(random, count));
        if (part == PART_SNAPSHOT)
                return of_struct(ret, part, entry, snapshot_fields,
                                 sizeof(snapshot_fields) / sizeof(*snapshot_fields), random);
        l1_offset = field_at(s, entry, 8);
        l1_entries = field_at(s, entry + 8, 4);
        if (part == PART_SNAPSHOT_L1)
                return table_entry(ret, part, l1_offset, l1_entries, random);
        return second_level(s, part, l1_offset, l1_entries, random, ret);
}

/* The offset of the index-th extension, or of the one of a type. */
static uint64_t extension_offset(const struct shape *s, unsigned index, uint32_t type)
{
        uint64_t offset = s->header_bytes;
        unsigned i;

        for (i = 0; i < EXTENSIONS_MAX && i != index && field_at(s, offset, 4) != type; i++)
                offset = round_up(offset + 8 + field_at(s, offset + 4, 4) % s->cluster_bytes, 8);
        return offset;
}

static bool extension_field(const struct shape *s, struct sim_random *random, struct field *ret)
{
        uint64_t offset = extension_offset(s, (unsigned)sim_random_below(random, 5), EXT_END);
        uint64_t at = sim_random_below(random, 4) * 4;

        return found(ret, PART_EXTENSION, offset + at, 4);
}

static bool bitmap_field(const struct shape *s, struct sim_random *random, struct field *ret)
{
        uint64_t extension = extension_offset(s, EXTENSIONS_MAX, EXT_BITMAPS);
        uint64_t directory = field_at(s, extension + 8 + BITMAPS_OFFSET_IN_EXTENSION, 8);
        uint64_t table = field_at(s, directory, 8);

        if (field_at(s, extension, 4) != EXT_BITMAPS)
                return false;
        switch (sim_random_below(random, 3)) {
        case 0:
                return found(ret, PART_BITMAP, extension + 8 * sim_random_below(random, 4), 8);
        case 1:
                return of_struct(ret, PART_BITMAP, directory, bitmap_fields,
                                 sizeof(bitmap_fields) / sizeof(*bitmap_fields), random);
        default:
                return table_entry(ret, PART_BITMAP, table, field_at(s, directory + 8, 4), random);
        }
}

bool shape_field(const struct shape *s, enum part part, struct sim_random *random,
                 struct field *ret)
{
        switch (part) {
        case PART_HEADER:
                return of_struct(ret, part, 0, header_fields,
                                 sizeof(header_fields) / sizeof(*header_fields), random);
        case PART_EXTENSION:
                return extension_field(s, random, ret);
        case PART_L1:
                return table_entry(ret, part, s->l1_offset, s->l1_entries, random);
        case PART_L2:
                return second_level(s, part, s->l1_offset, s->l1_entries, random, ret);
        case PART_REFTABLE:
                return table_entry(ret, part, s->reftable_offset, s->reftable_entries, random);
        case PART_REFBLOCK:
                return refblock_entry(s, random, ret);
        case PART_SNAPSHOT:
        case PART_SNAPSHOT_L1:
        case PART_SNAPSHOT_L2:
                return snapshot_entry(s, part, random, ret);
        case PART_BITMAP:
                return bitmap_field(s, random, ret);
        case PART_COUNT:
                break;
        }
        return false;
}

uint64_t shape_place(const struct shape *s, struct sim_random *random)
{
        uint64_t end = round_up(s->image->length_bytes, s->cluster_bytes);
        struct field f;

        switch (sim_random_below(random, 9)) {
        case 0:
                return 0;
        case 1:
                return s->l1_offset;
        case 2:
                return s->reftable_offset;
        case 3:
                return s->snapshots_offset;
        case 4:
                return end - s->cluster_bytes;
        case 5:
                return end + s->cluster_bytes * sim_random_below(random, 3);
        case 6:
                if (shape_field(s, PART_REFTABLE, random, &f))
                        return field_at(s, f.offset, 8) & ENTRY_OFFSET_MASK;
                return s->cluster_bytes;
        case 7:
                if (shape_field(s, (enum part)sim_random_below(random, PART_COUNT), random, &f))
                        return round_down(f.offset, s->cluster_bytes);
                return s->cluster_bytes;
        default:
                return sim_random_below(random, end / s->cluster_bytes + 1) * s->cluster_bytes;
        }
}
