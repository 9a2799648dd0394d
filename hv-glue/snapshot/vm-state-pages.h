/*
 * vm-state-pages.h - memory for pieces of a VM state, and what is said when one is not
 * transferred.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_VM_STATE_PAGES_H
#define SNAPSHOT_VM_STATE_PAGES_H

#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/vm-state.h"

static inline uint64_t round_up(uint64_t value, uint64_t unit)
{
        return (value + unit - 1) / unit * unit;
}

/* Zeroed, in whole pages, aligned for O_DIRECT; free() frees.  NULL: no memory. */
static inline uint8_t *pages_new(size_t count)
{
        void *pages;

        count = round_up(MAX(count, 1), VM_STATE_PAGE_BYTES);
        if (posix_memalign(&pages, VM_STATE_PAGE_BYTES, count) != 0)
                return NULL;
        return memset(pages, 0, count);
}

static inline int vm_state_io_failed(struct hvb_error *err, int ret, const char *what)
{
        if (ret == -ECANCELED)
                return error_set(err, ret, "cancelled");
        if (err->code < 0)
                return err->code;
        return error_set(err, ret, "%s: %s", what, g_strerror(-ret));
}

#endif
