/*
 * ram-save.h - pages of RAM on their way into a VM state.
 *
 * A stream of page ranges, in any order, each page at most once: stopped, all of RAM in
 * one range; live, copies of what pages held.  Pages are written from where they are: they
 * must not change before the last of their writes has landed (vmstate_io_wait).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_RAM_SAVE_H
#define SNAPSHOT_RAM_SAVE_H

#include "snapshot/page-map.h"
#include "snapshot/vm-snapshot.h"
#include "snapshot/vmstate-io.h"

struct ram_save {
        const struct guest_memory *memory;
        struct vmstate_io *io;
        struct page_map *map;           /* what was stored is entered here */
        struct vm_job *job;             /* done_bytes and written_bytes go up */
        uint64_t ram_offset;            /* in the VM state */
};

/* Pages of zeros stay holes, the others are written in runs.  0, -ECANCELED, or the error of a
 * write. */
int ram_save_range(struct ram_save *s, uint64_t first_page, uint64_t page_count);

/* What the pages hold lies at bytes.  Counts in *writes those that were started, whose spans
 * bear opaque. */
int ram_save_copy(struct ram_save *s, uint64_t first_page, uint64_t page_count, uint8_t *bytes,
                  unsigned *writes, void *opaque);

/* Do count bytes (a multiple of 64, at a multiple of 8) hold nothing but zeros? */
bool memory_is_zero(const void *bytes, size_t count);

#endif
