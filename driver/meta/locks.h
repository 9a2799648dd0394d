/*
 * locks.h - QEMU's byte-range locks, so that its processes and ours keep out of
 * each other's images.
 *
 * Byte 100 + i is locked (shared) for each permission that we hold, 200 + i for
 * each one that others may not hold; i: 0 consistent read, 1 write, 2 write
 * unchanged, 3 resize.  A conflict shows when the other side's byte is locked.
 * The locks belong to the open file description (fcntl(2), "Open file description locks").
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef META_LOCKS_H
#define META_LOCKS_H

#include <stdbool.h>

#include "hv-block.h"

/* Takes the locks that a user of the file with these HVB_OPEN_* flags needs.  fd -1 (simulated)
 * and HVB_OPEN_NO_LOCK: nothing to do. */
int locks_take(int fd, unsigned open_flags, const char *name, struct hvb_error *err);
void locks_drop(int fd, unsigned open_flags);

#endif
