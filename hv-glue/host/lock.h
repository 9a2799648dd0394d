/*
 * lock.h - QEMU's byte-range locks, for files that no plugin locks: raw ones.
 *
 * Each permission that one holds is a read lock on byte 100+i, each that one does
 * not grant to others a read lock on byte 200+i.  A conflict is found by asking
 * whether the opposite byte could be write-locked.  The locks belong to the open
 * file description and go with its last fd.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_LOCK_H
#define HOST_LOCK_H

#include "hv-block.h"

enum {
        PERM_CONSISTENT_READ    = 1 << 0,
        PERM_WRITE              = 1 << 1,
        PERM_WRITE_UNCHANGED    = 1 << 2,
        PERM_RESIZE             = 1 << 3,
};

/*
 * held: permissions wanted; unshared: those nobody else may hold.  Returns 0,
 * -EAGAIN when another process is in the way, or what fcntl(2) says.  On failure
 * nothing is locked.  File systems without such locks are no failure.
 */
int lock_acquire(int fd, unsigned held, unsigned unshared, const char *name,
                 struct hvb_error *err);
void lock_release(int fd);

#endif
