/*
 * forge.h - a qcow2 image written byte by byte from the format, for tests that spoil it.
 *
 * Whole it is sound: version 3, 4 KiB clusters, 16-bit counts, a disk of 64 clusters whose
 * first holds FORGE_DATA bytes and is in snapshot "one" too, which has no VM state.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_FORGE_H
#define PROOF_FORGE_H

#include "lib/simdisk.h"

enum {
        FORGE_CLUSTER = 4096,
        FORGE_REFTABLE = 1 * FORGE_CLUSTER,     /* where its parts lie */
        FORGE_REFBLOCK = 2 * FORGE_CLUSTER,
        FORGE_L1 = 3 * FORGE_CLUSTER,
        FORGE_L2 = 4 * FORGE_CLUSTER,
        FORGE_DATA_AT = 5 * FORGE_CLUSTER,
        FORGE_SNAPSHOTS = 6 * FORGE_CLUSTER,
        FORGE_SNAPSHOT_L1 = 7 * FORGE_CLUSTER,
        FORGE_END = 8 * FORGE_CLUSTER,
        FORGE_DISK_BYTES = 64 * FORGE_CLUSTER,
        FORGE_DATA = 0xd1,
};

/* To be cleared. */
struct sim_image forge_image(void);

/* A big-endian number. */
void forge_put(struct sim_image *image, uint64_t offset, unsigned width_bytes, uint64_t value);

#endif
