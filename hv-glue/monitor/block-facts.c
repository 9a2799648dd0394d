/*
 * block-facts.c - what is known of a disk's image, asked of the disk's thread.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/block-facts.h"

#include <string.h>
#include <sys/stat.h>

#include "host/drive-op.h"

enum { SECTOR_BYTES = 512 };            /* of st_blocks */

static int read_facts(struct drive *drive, void *opaque)
{
        struct block_facts *facts = opaque;
        struct stat st;
        int count;

        facts->info.struct_bytes = sizeof(facts->info);
        drive_get_info(drive, &facts->info);
        facts->cache = drive_cache(drive);
        count = drive_snapshot_list(drive, &facts->snapshots);
        facts->snapshot_count = count < 0 ? 0 : (unsigned) count;
        if (fstat(drive_fd(drive), &st) == 0)
                facts->actual_bytes = (uint64_t) st.st_blocks * SECTOR_BYTES;
        if (facts->info.backing_depth > 0)
                facts->backing_path = g_strdup(drive_chain_path(drive, 1));
        return 0;
}

void block_facts_read(const struct machine_disk *disk, struct block_facts *facts)
{
        *facts = (struct block_facts) { 0 };
        drive_thread_call(disk->thread, read_facts, facts);
}

void block_facts_clear(struct block_facts *facts)
{
        g_free(facts->snapshots);
        g_free(facts->backing_path);
}

const struct hvb_snapshot_info *block_facts_snapshot(const struct block_facts *facts,
                                                     const char *id, const char *name)
{
        for (unsigned i = 0; i < facts->snapshot_count; i++) {
                const struct hvb_snapshot_info *snapshot = &facts->snapshots[i];

                if ((id == NULL || strcmp(snapshot->id_str, id) == 0)
                    && (name == NULL || strcmp(snapshot->name, name) == 0))
                        return snapshot;
        }
        return NULL;
}
