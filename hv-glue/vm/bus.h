/*
 * bus.h - which device answers at an address: of I/O ports, or of memory that is no RAM.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_BUS_H
#define VM_BUS_H

#include <stdint.h>

enum { BUS_REGIONS_MAX = 32 };

struct bus_region {
        uint64_t base;
        uint64_t length;
        void *opaque;
        /* offset from base; count 1, 2, 4 or 8 bytes, all within the region.  On a vcpu's
         * thread. */
        void (*read)(void *opaque, uint64_t offset, void *bytes, unsigned count);
        void (*write)(void *opaque, uint64_t offset, const void *bytes, unsigned count);
};

struct bus {
        struct bus_region regions[BUS_REGIONS_MAX];
        unsigned count;
};

/* Regions are added before vcpus run, and do not overlap. */
void bus_add(struct bus *bus, const struct bus_region *region);

/* Where nobody answers, reads are all ones and writes are lost. */
void bus_read(const struct bus *bus, uint64_t address, void *bytes, unsigned count);
void bus_write(const struct bus *bus, uint64_t address, const void *bytes, unsigned count);

#endif
