/*
 * snapshot-table.h - entries of the snapshot table, on disk and in memory.
 *
 * Ids and names of any on-disk length are kept; extra data that we do not know
 * is kept and written back.  Source: format section "Snapshots".
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef DISK_SNAPSHOT_TABLE_H
#define DISK_SNAPSHOT_TABLE_H

#include "disk/format.h"
#include "hv-block.h"

struct snapshot {
        char *id;                       /* owned; NUL-terminated copy of the bytes */
        char *name;                     /* owned */
        uint64_t l1_offset;
        uint32_t l1_entries;
        uint32_t date_sec;
        uint32_t date_nsec;
        uint64_t vm_clock_nsec;
        uint64_t vm_state_bytes;
        uint64_t disk_bytes;
        uint64_t icount;                /* UINT64_MAX: none */
        uint32_t extra_bytes;           /* as read; what we write is at least 24 */
        uint8_t *unknown_extra;         /* owned; bytes beyond the first 24, or NULL */
};

void snapshot_clear(struct snapshot *s);
int snapshot_copy(struct snapshot *ret, const struct snapshot *from);   /* -ENOMEM */

/*
 * Decodes one entry.  current_disk_bytes stands in where the entry records no
 * disk size.  index: for the error text.  Returns 0 with *ret_used, -EAGAIN if
 * available is too short (nothing is filled), or -errno.  *ret_used is a multiple
 * of 8 and may exceed available by up to 7: a file can end before the padding of
 * its last entry.
 */
int snapshot_decode(struct snapshot *ret, const uint8_t *bytes, size_t available,
                    unsigned version, uint64_t current_disk_bytes, unsigned index,
                    size_t *ret_used, struct hvb_error *err);

size_t snapshot_encoded_bytes(const struct snapshot *s);                /* a multiple of 8 */
/* Writes snapshot_encoded_bytes(s) bytes; padding zeroed. */
void snapshot_encode(const struct snapshot *s, uint8_t *bytes);

/* Fills info (struct_bytes is the caller's); long ids and names are cut. */
void snapshot_describe(const struct snapshot *s, struct hvb_snapshot_info *info);

/* Checks a snapshot's L1 against limits: alignment, MAX_L1_BYTES, host offset. */
int snapshot_validate_l1(const struct snapshot *s, const struct geometry *g,
                         uint64_t file_bytes, struct hvb_error *err);

#endif
