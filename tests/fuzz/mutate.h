/*
 * mutate.h - changing an image as somebody would who knows the format and means ill.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef FUZZ_MUTATE_H
#define FUZZ_MUTATE_H

#include "fuzz/input.h"
#include "lib/simdisk.h"

/* One to four changes of the image, or of the script. */
void input_mutate(struct input *in, struct sim_random *random);

#endif
