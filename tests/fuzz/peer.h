/*
 * peer.h - what qemu-img says of an image, and whether we say the same.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef FUZZ_PEER_H
#define FUZZ_PEER_H

#include "fuzz/input.h"

/*
 * Shows the image to `qemu-img info` and `qemu-img check`.  Aborts where they take what we
 * refuse, refuse what we take, or call clean what we do not or the other way round, unless
 * the table in peer.c has the reason.  Images that would make QEMU open other files are left out.
 */
void peer_compare(const struct input *in);

#endif
