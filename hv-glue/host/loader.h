/*
 * loader.h - finding and loading block driver plugins.
 *
 * The plugin for format F is a file block-F.so.  It is looked for in
 *
 *   1. the directories of $HV_BLOCK_PATH, separated by colons (ignored in
 *      set-user-id programs),
 *   2. beside the executable: ../driver (a build tree), ../<libdir>/hv-block,
 *   3. the compiled-in plugin directory, HV_BLOCK_PLUGINDIR.
 *
 * The first file that exists is the one: if it cannot be used that is an error
 * and no other is tried.  A plugin stays loaded for the life of the process.
 * "raw" needs no plugin: it is built in (raw.h).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_LOADER_H
#define HOST_LOADER_H

#include "hv-block.h"

/*
 * Gives the driver for a format name.  Any thread; loading again is cheap.
 * Returns 0; -ENOENT: no such plugin; -ENOEXEC: it cannot be loaded or is no
 * plugin; -EPROTO: it speaks another ABI; -EINVAL: no format is called so.
 */
int loader_load(const char *format, const struct hvb_driver **ret_driver, struct hvb_error *err);

/* Judges a table that came from elsewhere (a plugin linked in, a test's double).
 * 0, or -EPROTO with the member that is missing or wrong in err. */
int loader_check_driver(const struct hvb_driver *driver, const char *format,
                        struct hvb_error *err);

#endif
