/*
 * sandbox-layers.h - the two layers of a sandbox.  Private to sandbox*.c.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_SANDBOX_LAYERS_H
#define HOST_SANDBOX_LAYERS_H

#include <glib.h>
#include <stdbool.h>

#include "hv-block.h"

/* One path of a plan. */
struct sandbox_path {
        char *path;                     /* resolved */
        bool is_writable;
};

/* sandbox-files.c: Landlock.  abi: 0 when there is none. */
int sandbox_files_abi(void);
int sandbox_files_enter(const GArray *paths, struct hvb_error *err);

/* sandbox-calls.c: seccomp. */
bool sandbox_calls_exist(void);
int sandbox_calls_enter(bool with_sockets, struct hvb_error *err);
int sandbox_calls_seal(struct hvb_error *err);

#endif
