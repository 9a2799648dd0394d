/*
 * vm-state.h - the bytes of a VM state, format 1.  No I/O here.
 *
 * A VM state lies in the VM-state area of one disk's snapshot.  Offsets count from its
 * start, numbers are big-endian, sums are crc32 (zlib's).
 *
 *   0            header, one page; written last
 *   ram_offset   RAM: page p lies at ram_offset + p * 4096, always.  2 MiB-aligned, so that
 *                a cluster of any size holds the same pages in each state of a machine.
 *                Pages of zeros are not stored: holes
 *   map_offset   page map: one bit a page, set if it is stored (the lowest bit of a byte
 *                first), then the sum of each page, 4 bytes, 0 for holes
 *   table_offset section table, then the sections: each device's state
 *   state_bytes  the end, at most what the snapshot's vm_state_size says
 *
 * Behind the end, where vm_state_size does not reach and no sum, at the next multiple of 2 MiB:
 * a touch record (touch-record.h), the one thing that is ever written again.
 *
 * Header: offset, bytes, field
 *
 *   0  8 magic "hvvmstat"              48  4 page_bytes: 4096
 *   8  4 format                        52  4 cpu_count
 *  12  4 oldest_reader                 56  8 map_offset
 *  16  4 header_bytes: 112 or more     64  8 map_bytes
 *  20  4 sum of header_bytes bytes,    72  4 map_sum
 *        this field taken as 0         76  4 section_count
 *  24  8 state_bytes                   80  8 table_offset
 *  32  8 ram_bytes                     88  4 entry_bytes: 64 or more
 *  40  8 ram_offset                    92  4 table_sum
 *                                      96  8 clock_nsec: guest time
 *                                     104  8 stored_pages
 *
 * Section table entry: 0 name[32], NUL-padded; 32 instance; 36 version; 40 flags (bit 0:
 * optional); 44 sum; 48 offset (8); 56 bytes (8).
 *
 * What is promised: a reader of format N reads every state whose oldest_reader is at most
 * N, and so all that earlier versions wrote.  Formats grow by header fields and entry
 * fields appended, and by sections: one that a reader does not know is skipped if it is
 * optional, else the state is refused by the section's name.  Each device's section has
 * a version of its own, and the device says which it reads.
 *
 * Every byte may be hostile: nothing is believed that these functions have not judged.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_VM_STATE_H
#define SNAPSHOT_VM_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "hv-block.h"

#define VM_STATE_MAGIC          "hvvmstat"
#define VM_STATE_FORMAT         1u      /* what is written */
#define VM_STATE_OLDEST_READER  1u      /* what reads that */

#define VM_STATE_ALIGNMENT      (UINT64_C(2) << 20)
#define VM_STATE_RAM_OFFSET     VM_STATE_ALIGNMENT      /* as written; a reader asks the header */
#define VM_STATE_MAX_RAM_BYTES  (UINT64_C(16) << 40)

enum {
        VM_STATE_PAGE_BYTES = 4096,
        VM_STATE_HEADER_BYTES = 112,    /* of format 1, out of one page */
        VM_STATE_ENTRY_BYTES = 64,
        VM_STATE_MAX_ENTRY_BYTES = 256,
        VM_STATE_NAME_BYTES = 32,       /* at most 31 bytes and a NUL */
        VM_STATE_MAX_SECTIONS = 8192,
        VM_STATE_MAX_SECTION_BYTES = 16 << 20,
        VM_STATE_MAX_SECTIONS_BYTES = 64 << 20,        /* all of them */
        VM_STATE_MAX_CPUS = 4096,
};

struct vm_state_header {
        uint32_t format;
        uint32_t oldest_reader;
        uint64_t state_bytes;
        uint64_t ram_bytes;
        uint64_t ram_offset;
        uint32_t cpu_count;
        uint64_t map_offset;
        uint64_t map_bytes;
        uint32_t map_sum;
        uint32_t section_count;
        uint64_t table_offset;
        uint32_t entry_bytes;
        uint32_t table_sum;
        uint64_t clock_nsec;
        uint64_t stored_pages;
};

enum { VM_STATE_OPTIONAL = 1 << 0 };

struct vm_state_section {
        char name[VM_STATE_NAME_BYTES];
        uint32_t instance;
        uint32_t version;
        uint32_t flags;                 /* VM_STATE_OPTIONAL */
        uint32_t sum;
        uint64_t offset;
        uint64_t bytes;
};

uint32_t vm_state_sum(const void *bytes, size_t count);

/* One page; what lies behind the header's fields is zero. */
void vm_state_header_encode(const struct vm_state_header *h, uint8_t page[VM_STATE_PAGE_BYTES]);

/*
 * Judges the first page of a VM state of limit_bytes (the snapshot's vm_state_size).
 * -EINVAL: no VM state of this kind, truncated or damaged; -ENOTSUP: of QEMU, or of a
 * newer format.  On success header, RAM, map and table lie within state_bytes and apart.
 */
int vm_state_header_decode(const uint8_t page[VM_STATE_PAGE_BYTES], uint64_t limit_bytes,
                           struct vm_state_header *ret_header, struct hvb_error *err);

/* Where the touch record is. */
uint64_t vm_state_touch_offset(const struct vm_state_header *h);

/* Bytes of the section table of a judged header. */
uint64_t vm_state_table_bytes(const struct vm_state_header *h);

void vm_state_section_encode(const struct vm_state_section *s,
                             uint8_t entry[VM_STATE_ENTRY_BYTES]);

/*
 * Judges the table (vm_state_table_bytes of them): its sum, every entry, that no two
 * sections have one name and instance, that nothing overlaps anything.  *ret_sections has
 * h->section_count elements (g_free).  -ENOMEM, -EINVAL.
 */
int vm_state_sections_decode(const struct vm_state_header *h, const uint8_t *table,
                             struct vm_state_section **ret_sections, struct hvb_error *err);

/* Judges the bytes of a section by its sum. */
int vm_state_section_check(const struct vm_state_section *s, const uint8_t *bytes,
                           struct hvb_error *err);

#endif
