/*
 * failing-alloc.c - the allocation functions that the driver calls, with a fault.
 *
 * SPDX-License-Identifier: MIT
 */
#include "proof/failing-alloc.h"

#include <errno.h>
#include <glib.h>
#include <stdlib.h>

#undef g_try_malloc
#undef g_try_malloc0
#undef g_try_malloc_n
#undef g_try_malloc0_n
#undef g_try_realloc_n

static uint64_t left;           /* calls until one fails; 0: none will */
static bool has_failed;

void alloc_fail_nth(uint64_t nth)
{
        left = nth;
        has_failed = false;
}

bool alloc_has_failed(void)
{
        return has_failed;
}

static bool fails(void)
{
        if (left == 0 || --left > 0)
                return false;
        has_failed = true;
        return true;
}

gpointer g_try_malloc(gsize n_bytes)
{
        return fails() ? NULL : malloc(n_bytes);
}

gpointer g_try_malloc0(gsize n_bytes)
{
        return fails() ? NULL : calloc(1, n_bytes);
}

gpointer g_try_malloc_n(gsize n_blocks, gsize n_block_bytes)
{
        return fails() ? NULL : reallocarray(NULL, n_blocks, n_block_bytes);
}

gpointer g_try_malloc0_n(gsize n_blocks, gsize n_block_bytes)
{
        return fails() ? NULL : calloc(n_blocks, n_block_bytes);
}

gpointer g_try_realloc_n(gpointer mem, gsize n_blocks, gsize n_block_bytes)
{
        return fails() ? NULL : reallocarray(mem, n_blocks, n_block_bytes);
}

int posix_memalign(void **ret, size_t alignment, size_t bytes)
{
        if (fails())
                return ENOMEM;
        *ret = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
        return *ret ? 0 : ENOMEM;
}
