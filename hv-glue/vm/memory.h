/*
 * memory.h - the guest's RAM.
 *
 * guest_memory_at is the only place where a guest address becomes a pointer.
 *
 *   guest physical        what
 *   0 .. min(ram, 3 GiB)  RAM, first part
 *   3 GiB .. 4 GiB        devices (virtio-mmio from 0xd0000000, APICs)
 *   4 GiB ..              RAM beyond 3 GiB
 *
 * Page numbers count RAM from 0 without the hole ("RAM offset"), so that a VM state does
 * not know of it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_MEMORY_H
#define VM_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "hv-block.h"

enum { GUEST_PAGE_BYTES = 4096 };

/* Where RAM makes room for devices: [below, above). */
#define GUEST_HOLE_BEGIN        (3ull << 30)
#define GUEST_HOLE_END          (4ull << 30)

struct guest_memory_watch;

struct guest_memory {
        uint8_t *ram;                   /* one mapping, private anonymous, 2 MiB-aligned */
        uint64_t ram_bytes;             /* a multiple of 1 MiB */
        uint64_t below_hole_bytes;      /* of ram, from guest address 0; the rest is at 4 GiB */
        bool huge_pages;                /* transparent huge pages were asked for */
        struct guest_memory_watch *watch;       /* NULL: nobody minds */
};

/*
 * Somebody who saves or loads RAM while the guest runs (snapshot/ram-guard.h).  Vcpus that touch
 * what is not saved or not loaded yet wait in a page fault.  A disk's thread must not: it is
 * what RAM is saved with.  So it says beforehand what it will touch.
 */
struct guest_memory_watch {
        /* RAM at ram_offset is there, and may be written if it is to be.  False: it cannot be
         * loaded, and never will. */
        bool (*touch)(struct guest_memory_watch *watch, uint64_t ram_offset, uint64_t bytes,
                      bool for_write);
        /* More has been touched for writing than could be saved meanwhile: begin nothing new, the
         * machine's disks are kicked (machine_kick_disks) when it is over. */
        bool (*is_tight)(struct guest_memory_watch *watch);
        /* What RAM held does not matter any more: a reset. */
        void (*renew)(struct guest_memory_watch *watch);
        void (*free)(struct guest_memory_watch *watch);
};

/* ram_bytes: a multiple of 1 MiB, from 8 MiB to 1 TiB.  0 or -errno with err filled. */
int guest_memory_init(struct guest_memory *mem, uint64_t ram_bytes, bool huge_pages,
                      struct hvb_error *err);
void guest_memory_clear(struct guest_memory *mem);

/* From now on watch is told, until unwatch, which frees it; when nothing touches RAM. */
void guest_memory_set_watch(struct guest_memory *mem, struct guest_memory_watch *watch);
void guest_memory_unwatch(struct guest_memory *mem);

/* What watches say of memory that guest_memory_at gave.  Any thread. */
bool guest_memory_touch(const struct guest_memory *mem, const void *at, uint64_t length_bytes,
                        bool for_write);
bool guest_memory_is_tight(const struct guest_memory *mem);
void guest_memory_renew(const struct guest_memory *mem);

/* Pointer to [address, address + length_bytes) if all of it is one piece of RAM, else
 * NULL.  Length 0: NULL. */
void *guest_memory_at(const struct guest_memory *mem, uint64_t address, uint64_t length_bytes);

#endif
