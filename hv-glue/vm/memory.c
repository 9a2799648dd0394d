/*
 * memory.c - the guest's RAM: one anonymous mapping.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/memory.h"

#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/mman.h>

#include "host/error.h"

#define MIB             (1ull << 20)
#define ALIGNMENT       (2 * MIB)
#define FREE_BYTES      (16 * MIB)
#define RAM_MIN         (8 * MIB)
#define RAM_MAX         (1ull << 40)

/* Maps more than is wanted and cuts off what lies around the aligned piece. */
static uint8_t *map_aligned(uint64_t bytes)
{
        uint64_t mapped_bytes = bytes + ALIGNMENT;
        uint8_t *mapped = mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        uint64_t before;

        if (mapped == MAP_FAILED)
                return NULL;
        before = -(uintptr_t) mapped & (ALIGNMENT - 1);
        if (before > 0)
                munmap(mapped, before);
        if (before < ALIGNMENT)
                munmap(mapped + before + bytes, ALIGNMENT - before);
        return mapped + before;
}

int guest_memory_init(struct guest_memory *mem, uint64_t ram_bytes, bool huge_pages,
                      struct hvb_error *err)
{
        if (ram_bytes % MIB != 0 || ram_bytes < RAM_MIN || ram_bytes > RAM_MAX)
                return error_set(err, -EINVAL, "RAM of %" G_GUINT64_FORMAT " bytes: must be whole "
                                 "MiB, from 8 MiB to 1 TiB", ram_bytes);
        *mem = (struct guest_memory) {
                .ram = map_aligned(ram_bytes),
                .ram_bytes = ram_bytes,
                .below_hole_bytes = MIN(ram_bytes, GUEST_HOLE_BEGIN),
                .huge_pages = huge_pages,
        };
        if (mem->ram == NULL)
                return error_set(err, -ENOMEM, "no address space for %" G_GUINT64_FORMAT " bytes "
                                 "of RAM", ram_bytes);
        /* Advice: a kernel without them goes on with small pages. */
        madvise(mem->ram, ram_bytes, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        madvise(mem->ram, ram_bytes, MADV_DONTFORK);
        return 0;
}

/*
 * In pieces, before anything that keeps the process's other mappings waiting while it walks
 * all pages (unmapping, the end of a watch): a guest may be running in other memory.
 */
static void give_pages_back(struct guest_memory *mem)
{
        for (uint64_t at = 0; at < mem->ram_bytes; at += FREE_BYTES)
                madvise(mem->ram + at, MIN(FREE_BYTES, mem->ram_bytes - at), MADV_DONTNEED);
}

void guest_memory_clear(struct guest_memory *mem)
{
        if (mem->ram != NULL)
                give_pages_back(mem);
        guest_memory_unwatch(mem);
        if (mem->ram != NULL)
                munmap(mem->ram, mem->ram_bytes);
        *mem = (struct guest_memory) { 0 };
}

/* ---- Watching ------------------------------------------------------------------------- */

static struct guest_memory_watch *watch_of(const struct guest_memory *mem)
{
        return __atomic_load_n(&mem->watch, __ATOMIC_ACQUIRE);
}

void guest_memory_set_watch(struct guest_memory *mem, struct guest_memory_watch *watch)
{
        g_assert(watch_of(mem) == NULL);
        __atomic_store_n(&mem->watch, watch, __ATOMIC_RELEASE);
}

void guest_memory_unwatch(struct guest_memory *mem)
{
        struct guest_memory_watch *watch = watch_of(mem);

        __atomic_store_n(&mem->watch, NULL, __ATOMIC_RELEASE);
        if (watch != NULL)
                watch->free(watch);
}

bool guest_memory_touch(const struct guest_memory *mem, const void *at, uint64_t length_bytes,
                        bool for_write)
{
        struct guest_memory_watch *watch = watch_of(mem);

        if (watch == NULL)
                return true;
        return watch->touch(watch, (uint64_t) ((const uint8_t *) at - mem->ram), length_bytes,
                            for_write);
}

bool guest_memory_is_tight(const struct guest_memory *mem)
{
        struct guest_memory_watch *watch = watch_of(mem);

        return watch != NULL && watch->is_tight(watch);
}

void guest_memory_renew(const struct guest_memory *mem)
{
        struct guest_memory_watch *watch = watch_of(mem);

        if (watch != NULL)
                watch->renew(watch);
}

/* ---- Addresses ------------------------------------------------------------------------ */

/* Is [begin, begin + bytes) within [0, limit)?  begin + bytes may overflow. */
static bool is_within(uint64_t begin, uint64_t bytes, uint64_t limit)
{
        return bytes <= limit && begin <= limit - bytes;
}

void *guest_memory_at(const struct guest_memory *mem, uint64_t address, uint64_t length_bytes)
{
        uint64_t above_bytes = mem->ram_bytes - mem->below_hole_bytes;

        if (length_bytes == 0)
                return NULL;
        if (is_within(address, length_bytes, mem->below_hole_bytes))
                return mem->ram + address;
        if (address >= GUEST_HOLE_END
            && is_within(address - GUEST_HOLE_END, length_bytes, above_bytes))
                return mem->ram + mem->below_hole_bytes + (address - GUEST_HOLE_END);
        return NULL;
}
