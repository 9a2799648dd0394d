/*
 * drive-cache.c - QEMU's cache modes by name.
 *
 * SPDX-License-Identifier: MIT
 */
#include <glib.h>
#include <string.h>

#include "host/drive.h"

bool drive_cache_parse(const char *mode, struct drive_cache *ret_cache)
{
        static const struct {
                const char *name;
                struct drive_cache cache;
        } modes[] = {
                { "writeback",    { false, false, false } },
                { "none",         { true,  false, false } },
                { "off",          { true,  false, false } },
                { "writethrough", { false, true,  false } },
                { "directsync",   { true,  true,  false } },
                { "unsafe",       { false, false, true  } },
        };

        for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
                if (strcmp(mode, modes[i].name) == 0) {
                        *ret_cache = modes[i].cache;
                        return true;
                }
        }
        return false;
}
