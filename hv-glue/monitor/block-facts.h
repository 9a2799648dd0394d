/*
 * block-facts.h - what is known of a disk's image, asked of the disk's thread.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_BLOCK_FACTS_H
#define MONITOR_BLOCK_FACTS_H

#include "vm/machine.h"

struct block_facts {
        struct drive_cache cache;
        struct hvb_image_info info;
        struct hvb_snapshot_info *snapshots;
        unsigned snapshot_count;
        uint64_t actual_bytes;          /* allocated by the file system */
        char *backing_path;             /* of the backing file that is open; NULL: none */
};

/* What cannot be had (no memory for the list) is missing.  Not from the disk's thread. */
void block_facts_read(const struct machine_disk *disk, struct block_facts *facts);
void block_facts_clear(struct block_facts *facts);

/* The one with that id and name (NULL: any), or NULL. */
const struct hvb_snapshot_info *block_facts_snapshot(const struct block_facts *facts,
                                                     const char *id, const char *name);

#endif
