/*
 * lock.c - QEMU's byte-range locks, for files that no plugin locks: raw ones.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <unistd.h>

#include "host/error.h"

enum { HELD_BYTE = 100, UNSHARED_BYTE = 200, PERMISSION_COUNT = 4 };

static const char *const permission_names[PERMISSION_COUNT] = {
        "consistent read", "write", "write unchanged", "resize",
};

static int lock_call(int fd, int command, short type, off_t start, off_t length, bool *ret_free)
{
        struct flock lock = {
                .l_type = type,
                .l_whence = SEEK_SET,
                .l_start = start,
                .l_len = length,
        };

        if (fcntl(fd, command, &lock) < 0)
                return -errno;
        if (ret_free != NULL)
                *ret_free = lock.l_type == F_UNLCK;
        return 0;
}

/* Read-locks base + i for each bit i of mask. */
static int lock_bits(int fd, off_t base, unsigned mask)
{
        for (unsigned i = 0; i < PERMISSION_COUNT; i++) {
                int ret = mask & (1u << i)
                        ? lock_call(fd, F_OFD_SETLK, F_RDLCK, base + i, 1, NULL) : 0;

                if (ret < 0)
                        return ret;
        }
        return 0;
}

/* Is base + i free of others' locks for each bit i of mask?  ret_bit: the first that is not. */
static int find_conflict(int fd, off_t base, unsigned mask, unsigned *ret_bit)
{
        for (unsigned i = 0; i < PERMISSION_COUNT; i++) {
                bool is_free = true;
                int ret = mask & (1u << i)
                        ? lock_call(fd, F_OFD_GETLK, F_WRLCK, base + i, 1, &is_free) : 0;

                if (ret < 0)
                        return ret;
                if (!is_free) {
                        *ret_bit = i;
                        return -EAGAIN;
                }
        }
        return 0;
}

void lock_release(int fd)
{
        lock_call(fd, F_OFD_SETLK, F_UNLCK, HELD_BYTE, PERMISSION_COUNT, NULL);
        lock_call(fd, F_OFD_SETLK, F_UNLCK, UNSHARED_BYTE, PERMISSION_COUNT, NULL);
}

int lock_acquire(int fd, unsigned held, unsigned unshared, const char *name,
                 struct hvb_error *err)
{
        const char *shared = "";
        unsigned bit = 0;
        int ret;

        ret = lock_bits(fd, HELD_BYTE, held);
        if (ret == 0)
                ret = lock_bits(fd, UNSHARED_BYTE, unshared);
        if (ret == -EINVAL || ret == -ENOLCK || ret == -ENOSYS || ret == -EOPNOTSUPP)
                return 0;
        if (ret == 0)
                ret = find_conflict(fd, UNSHARED_BYTE, held, &bit);
        if (ret == 0) {
                ret = find_conflict(fd, HELD_BYTE, unshared, &bit);
                shared = "shared ";
        }
        if (ret == 0)
                return 0;
        lock_release(fd);
        if (ret != -EAGAIN)
                return error_set(err, ret, "locking '%s': %s", name, g_strerror(-ret));
        return error_set(err, ret, "Failed to get %s\"%s\" lock", shared, permission_names[bit]);
}
