/*
 * shape.h - where in a damaged image its parts would lie.
 *
 * Nothing is judged: what makes no sense is as it is, but offsets that are handed out
 * lie within INPUT_FILE_BYTES_MAX of the file's start.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef FUZZ_SHAPE_H
#define FUZZ_SHAPE_H

#include "fuzz/input.h"
#include "lib/simdisk.h"

struct shape {
        const struct sim_image *image;
        unsigned version;
        unsigned cluster_bits;          /* within the format's limits */
        uint64_t cluster_bytes;
        unsigned refcount_order;        /* 0..6 */
        uint64_t header_bytes;
        uint64_t l1_offset;
        uint64_t l1_entries;
        uint64_t reftable_offset;
        uint64_t reftable_entries;
        uint64_t snapshots_offset;
        uint64_t snapshot_count;
};

/* A kind of number in an image. */
enum part {
        PART_HEADER, PART_EXTENSION, PART_L1, PART_L2, PART_REFTABLE, PART_REFBLOCK,
        PART_SNAPSHOT, PART_SNAPSHOT_L1, PART_SNAPSHOT_L2, PART_BITMAP,
        PART_COUNT,
};

struct field {
        uint64_t offset;                /* in the file */
        unsigned width_bytes;
        enum part part;
};

void shape_read(struct shape *ret, const struct sim_image *image);

/* A random number of that kind; false: the image has none. */
bool shape_field(const struct shape *s, enum part part, struct sim_random *random,
                 struct field *ret);

/* The offset of some table, cluster or end: what a pointer may sensibly, or badly, be. */
uint64_t shape_place(const struct shape *s, struct sim_random *random);

#endif
