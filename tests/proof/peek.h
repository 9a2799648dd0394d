/*
 * peek.h - a small reader of qcow2 images, written from the format and from nothing of
 * driver/, so that the two can be held against each other.
 *
 * It reads what a crash may have left: bytes beyond the end of the file are zeros, and what
 * makes no sense is told, not asserted.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_PEEK_H
#define PROOF_PEEK_H

#include <glib.h>

#include "lib/simdisk-image.h"

enum {
        PEEK_DIRTY = 1 << 0,            /* of incompatible */
        PEEK_LAZY = 1 << 0,             /* of compatible */
};

struct peek_snapshot {
        char id[32];
        char name[64];
        uint64_t l1_offset;
        uint32_t l1_entries;
        uint64_t disk_bytes;
        uint64_t vm_state_bytes;
};

/* An image; the fields are those of the header.  peek_clear() it. */
struct peek {
        const struct sim_image *file;
        GBytes *backing;                /* borrowed; NULL: none */
        unsigned version;
        unsigned cluster_bits;
        uint64_t disk_bytes;
        uint64_t l1_offset;
        uint32_t l1_entries;
        uint64_t reftable_offset;
        uint32_t reftable_clusters;
        uint64_t snapshots_offset;
        uint64_t snapshots_bytes;
        uint32_t snapshot_count;
        uint64_t incompatible;
        uint64_t compatible;
        unsigned refcount_order;
        struct peek_snapshot *snapshots;
};

/* NULL, or what makes no sense (owned by the caller; p is to be cleared all the same). */
char *peek_open(struct peek *p, const struct sim_image *file, GBytes *backing);
void peek_clear(struct peek *p);

/* The disk that an L1 maps; a VM state that lies behind a disk of disk_bytes. */
GBytes *peek_disk(const struct peek *p, uint64_t l1_offset, uint32_t l1_entries,
                  uint64_t disk_bytes);
GBytes *peek_vm_state(const struct peek *p, const struct peek_snapshot *snapshot);

/* Counts held against references.  first_* say where the first of them is. */
struct peek_counts {
        unsigned below;                 /* clusters with fewer counts than references */
        unsigned leaked;
        unsigned copied_shared;         /* COPIED set in the active tree, more than one reference */
        unsigned copied_high;           /* COPIED set, one reference, count above it */
        unsigned copied_clear;          /* COPIED clear in the active tree, count 1 */
        uint64_t first_below;           /* host offsets */
        uint64_t first_shared;
        uint64_t first_clear;
};

struct peek_counts peek_counts(const struct peek *p);

#endif
