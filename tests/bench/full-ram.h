/*
 * full-ram.h - what measurements of savevm begin with: an image, and RAM that is full.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_FULL_RAM_H
#define BENCH_FULL_RAM_H

#include "snapshot/fake-machine.h"

/* A small qcow2 image at path.  Whatever fails ends the process. */
void make_image(const char *path);

/* Fills the first bytes of RAM: no page is zero, like another, or like that of another seed. */
void fill_ram(struct machine *m, uint64_t bytes, uint64_t seed);

#endif
