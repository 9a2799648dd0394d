/*
 * locks.c - see locks.h.  Take first, then look: two that come at once see each
 * other, and at worst both give up.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>

#include "disk/error.h"
#include "meta/locks.h"

enum { HELD_BASE = 100, UNSHARED_BASE = 200, PERMISSIONS = 4 };
enum { READ = 1 << 0, WRITE = 1 << 1, WRITE_UNCHANGED = 1 << 2, RESIZE = 1 << 3 };

static const char *const permission_names[PERMISSIONS] = {
        "consistent read", "write", "write unchanged", "resize",
};

struct wish {
        unsigned held;          /* permissions we need */
        unsigned unshared;      /* permissions others may not have */
};

static struct wish wish_for(unsigned open_flags)
{
        struct wish w = { READ, WRITE | RESIZE };

        if (open_flags & HVB_OPEN_FORCE_SHARE)
                w.unshared = 0;
        else if (open_flags & HVB_OPEN_RDWR)
                w.held = READ | WRITE | RESIZE;
        return w;
}

/* 0 or -errno; type F_RDLCK, F_UNLCK. */
static int lock_byte(int fd, short type, off_t byte)
{
        struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

        return fcntl(fd, F_OFD_SETLK, &l) == 0 ? 0 : -errno;
}

static bool locked_by_other(int fd, off_t byte)
{
        struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

        return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static int refuse(struct hvb_error *err, int code, const char *shared, unsigned permission)
{
        return error_set(err, code, "Failed to get %s\"%s\" lock", shared,
                         permission_names[permission]);
}

static int take_bytes(int fd, struct wish w, const char *name, struct hvb_error *err)
{
        unsigned i;
        int ret = 0;

        for (i = 0; i < PERMISSIONS && ret == 0; i++) {
                if (w.held & (1u << i))
                        ret = lock_byte(fd, F_RDLCK, HELD_BASE + i);
                if (ret == 0 && (w.unshared & (1u << i)))
                        ret = lock_byte(fd, F_RDLCK, UNSHARED_BASE + i);
        }
        if (ret < 0)
                error_set(err, ret, "Could not lock '%s': %s", name, g_strerror(-ret));
        return ret;
}

static int look_for_conflicts(int fd, struct wish w, struct hvb_error *err)
{
        unsigned i;

        for (i = 0; i < PERMISSIONS; i++) {
                if ((w.held & (1u << i)) && locked_by_other(fd, UNSHARED_BASE + i))
                        return refuse(err, -EAGAIN, "", i);
                if ((w.unshared & (1u << i)) && locked_by_other(fd, HELD_BASE + i))
                        return refuse(err, -EAGAIN, "shared ", i);
        }
        return 0;
}

int locks_take(int fd, unsigned open_flags, const char *name, struct hvb_error *err)
{
        struct wish w = wish_for(open_flags);
        int ret;

        if (fd < 0 || (open_flags & HVB_OPEN_NO_LOCK))
                return 0;
        ret = take_bytes(fd, w, name, err);
        if (ret == 0)
                ret = look_for_conflicts(fd, w, err);
        if (ret < 0)
                locks_drop(fd, open_flags);
        return ret;
}

void locks_drop(int fd, unsigned open_flags)
{
        struct wish w = wish_for(open_flags);
        unsigned i;

        if (fd < 0 || (open_flags & HVB_OPEN_NO_LOCK))
                return;
        for (i = 0; i < PERMISSIONS; i++) {
                if (w.held & (1u << i))
                        lock_byte(fd, F_UNLCK, HELD_BASE + i);
                if (w.unshared & (1u << i))
                        lock_byte(fd, F_UNLCK, UNSHARED_BASE + i);
        }
}
