/*
 * bus.c - which device answers at an address.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/bus.h"

#include <glib.h>
#include <string.h>

void bus_add(struct bus *bus, const struct bus_region *region)
{
        g_assert(bus->count < BUS_REGIONS_MAX && region->length > 0);
        bus->regions[bus->count++] = *region;
}

static const struct bus_region *find(const struct bus *bus, uint64_t address, unsigned count)
{
        for (unsigned i = 0; i < bus->count; i++) {
                const struct bus_region *region = &bus->regions[i];

                if (address >= region->base && address - region->base < region->length)
                        return count <= region->length - (address - region->base) ? region : NULL;
        }
        return NULL;
}

void bus_read(const struct bus *bus, uint64_t address, void *bytes, unsigned count)
{
        const struct bus_region *region = find(bus, address, count);

        if (region == NULL)
                memset(bytes, 0xff, count);
        else
                region->read(region->opaque, address - region->base, bytes, count);
}

void bus_write(const struct bus *bus, uint64_t address, const void *bytes, unsigned count)
{
        const struct bus_region *region = find(bus, address, count);

        if (region != NULL)
                region->write(region->opaque, address - region->base, bytes, count);
}
