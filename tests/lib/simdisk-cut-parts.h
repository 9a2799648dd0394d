/*
 * simdisk-cut-parts.h - the inside of a sim_cut.  Private to simdisk-cut*.c.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_LIB_SIMDISK_CUT_PARTS_H
#define TESTS_LIB_SIMDISK_CUT_PARTS_H

#include "lib/simdisk-cut.h"

/* In-flight writes to one sector whose combinations are tried; more are left out. */
enum { OVERLAP_MAX = 4 };

struct version {
        uint64_t order;                 /* when it completed */
        unsigned entry;
        bool shrink;                    /* by an IO_TRUNCATE */
        bool lost;                      /* an fsync failed since */
        uint8_t bytes[SIM_SECTOR_BYTES];
};

struct sector {
        int64_t index;
        GArray *versions;
};

struct length_version {
        uint64_t order;
        unsigned entry;
        uint64_t length_bytes;
};

struct cut_file {
        struct sim_image durable;
        struct sim_image newest;
        GHashTable *sectors;            /* index (in the sector) -> struct sector */
        GArray *lengths;                /* of struct length_version */
};

/* What a choice chooses from. */
struct candidate {
        const struct sector *sector;    /* NULL: no versions, or the length */
        unsigned overlap_count;
        unsigned overlap[OVERLAP_MAX];  /* entries in flight */
};

struct sim_cut {
        const struct simdisk *disk;
        uint64_t point;
        struct cut_file files[SIM_FILES_MAX];
        GArray *inflight;               /* of unsigned: entries */
        GArray *choices;                /* of struct sim_choice */
        GArray *candidates;             /* of struct candidate, one for each choice */
        bool choices_valid;
};

static inline struct version *cut_version(const struct sector *sector, unsigned index)
{
        return &g_array_index(sector->versions, struct version, index);
}

static inline struct length_version *cut_length(const struct cut_file *file, unsigned index)
{
        return &g_array_index(file->lengths, struct length_version, index);
}

static inline unsigned cut_inflight(const struct sim_cut *cut, unsigned index)
{
        return g_array_index(cut->inflight, unsigned, index);
}

/* Collects (into a GArray of int64_t) the sectors whose content the entry changes, or
 * sets again, were it to complete now. */
void cut_touched_sectors(const struct cut_file *file, const struct sim_entry *entry,
                         GArray *indexes);
void cut_sort_unique(GArray *indexes);

#endif
