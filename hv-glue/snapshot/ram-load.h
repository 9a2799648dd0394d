/*
 * ram-load.h - pages of RAM on their way out of a VM state.
 *
 * As with ram-save.h a stream of page ranges, in any order.  A page that was read is
 * trusted only after its sum was checked, which happens as requests land.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_RAM_LOAD_H
#define SNAPSHOT_RAM_LOAD_H

#include "snapshot/page-map.h"
#include "snapshot/vm-snapshot.h"
#include "snapshot/vmstate-io.h"

struct ram_load {
        const struct guest_memory *memory;
        struct vmstate_io *io;          /* made with ram_load_landed and this */
        const struct page_map *map;
        struct vm_job *job;             /* done_bytes and written_bytes go up */
        uint64_t ram_offset;            /* in the VM state */
        struct hvb_error *err;          /* filled when a sum is wrong */
};

/*
 * Starts to read the stored pages of the range into RAM and makes the others zero.  What was
 * read is there when vmstate_io_wait has returned 0.
 */
int ram_load_range(struct ram_load *s, uint64_t first_page, uint64_t page_count);

/* For struct vmstate_landing, with a struct ram_load: -EIO when a page's sum is wrong. */
int ram_load_landed(void *opaque, const struct vmstate_span *span);

#endif
