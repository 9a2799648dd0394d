/*
 * seeds.h - the images that fuzzing starts from.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef FUZZ_SEEDS_H
#define FUZZ_SEEDS_H

/* Writes inputs into the directory; qemu-img and qemu-io make the images. */
void seeds_make(const char *directory);

#endif
