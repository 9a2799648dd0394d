/*
 * sandbox.h - containment of a process that serves untrusted images.
 *
 * Whoever finds a hole in a driver by means of a crafted image has this process.  So
 * it gives up beforehand what serving images does not need, in two layers that do not
 * rely on each other:
 *
 *   Files (Landlock).  What may be opened, written, made or removed is what the plan names.
 *   Calls (seccomp).   No exec, no new process, no new socket, no ptrace, no mount, no memory
 *                      that becomes executable: only calls that reading and writing images
 *                      is made of.  Another one ends the process with a line that names it.
 *
 * A ring is a third way to the kernel, which seccomp does not see; the driver restricts
 * its rings by itself ("restrict" of hvb_driver.open_options).
 *
 *   struct sandbox_plan *plan = sandbox_plan_new();
 *
 *   sandbox_plan_image(plan, path, writable);
 *   policy = sandbox_plan_policy(plan);           the same limits, with better messages
 *   sandbox_enter(plan, &err);                    drivers are loaded, no thread exists
 *   drive_open(...);                              and whatever else opens files
 *   sandbox_seal(&err);                           from now on nothing is opened
 *
 * What was opened before stays usable, and what is loaded after it does not load.  There
 * is no way back.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_SANDBOX_H
#define HOST_SANDBOX_H

#include <stdbool.h>

#include "host/policy.h"
#include "hv-block.h"

/* Layers. */
enum {
        SANDBOX_FILES = 1 << 0,
        SANDBOX_CALLS = 1 << 1,
};

/* Those that this build and this kernel have; a sandbox is made of these.  Sanitized builds
 * have no SANDBOX_CALLS: their run-time library wants calls of its own. */
unsigned sandbox_layers(void);
/* "Landlock (ABI 7), seccomp", "none"; for people.  g_free. */
char *sandbox_describe(void);

struct sandbox_plan;

struct sandbox_plan *sandbox_plan_new(void);
void sandbox_plan_free(struct sandbox_plan *plan);      /* NULL is fine */

/*
 * Paths that the operator named.  A directory means all below it.  Writing a path that does
 * not exist means making it: its directory becomes writable.  What cannot be found is
 * left out: opening it will say why.
 */
void sandbox_plan_read(struct sandbox_plan *plan, const char *path);
void sandbox_plan_write(struct sandbox_plan *plan, const char *path);
/* An image: path itself, and reading what lies in or below its directory, where its backing
 * files are; but for block devices, whose directory is full of others. */
void sandbox_plan_image(struct sandbox_plan *plan, const char *path, bool is_writable);
/* Accepting on sockets that listen already, and talking over those that are open. */
void sandbox_plan_sockets(struct sandbox_plan *plan);

/* Allows images to name what the plan can read.  policy_free. */
struct policy *sandbox_plan_policy(const struct sandbox_plan *plan);

/*
 * Enters.  Returns 0 (sandbox_layers() are in force); -EBUSY: the process has threads, which
 * would stay outside; -errno: the kernel refused a layer that it has.  After a failure the
 * process may be half inside, so: say why and end it.
 */
int sandbox_enter(const struct sandbox_plan *plan, struct hvb_error *err);

/* Gives up opening and removing files (-EACCES) and making rings.  Needs to have entered. */
int sandbox_seal(struct hvb_error *err);

#endif
