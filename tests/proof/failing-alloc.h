/*
 * failing-alloc.h - makes the nth allocation of the driver fail.
 *
 * The program's own g_try_malloc() and the like take the place of GLib's.  Allocations
 * that GLib aborts on are small and not sized by an image; they do not fail here.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_FAILING_ALLOC_H
#define PROOF_FAILING_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

/* Counting from 1, from now on; 0: none fails. */
void alloc_fail_nth(uint64_t nth);

/* Has it failed? */
bool alloc_has_failed(void);

#endif
