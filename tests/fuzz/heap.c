/*
 * heap.c - see heap.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "fuzz/heap.h"

#include <sanitizer/allocator_interface.h>

/* Of all threads: the driver compresses in others. */
static int64_t now_bytes;
static int64_t peak_bytes;

static void on_malloc(const volatile void *memory, size_t bytes)
{
        int64_t now = __atomic_add_fetch(&now_bytes, (int64_t)bytes, __ATOMIC_RELAXED);

        (void)memory;
        if (now > __atomic_load_n(&peak_bytes, __ATOMIC_RELAXED))
                __atomic_store_n(&peak_bytes, now, __ATOMIC_RELAXED);
}

static void on_free(const volatile void *memory)
{
        if (memory)
                __atomic_sub_fetch(&now_bytes, __sanitizer_get_allocated_size((void *)memory),
                                   __ATOMIC_RELAXED);
}

void heap_watch(void)
{
        __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
}

void heap_peak_begin(void)
{
        __atomic_store_n(&now_bytes, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&peak_bytes, 0, __ATOMIC_RELAXED);
}

uint64_t heap_peak(void)
{
        return (uint64_t)__atomic_load_n(&peak_bytes, __ATOMIC_RELAXED);
}
