/*
 * uffd.c - userfaultfd(2): pages of ours that the kernel asks about.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/error.h"

/* linux/userfaultfd.h has it from 6.1 on. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xaa, 0)
#endif

enum { FD_FLAGS = O_CLOEXEC | O_NONBLOCK, PAGE_BYTES = 4096 };

/* ---- Opening ------------------------------------------------------------------------- */

/* An fd or -errno: of the device, whose permissions say who may; else of the call. */
static int new_fd(void)
{
        int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
        long fd;

        if (device >= 0) {
                fd = ioctl(device, USERFAULTFD_IOC_NEW, FD_FLAGS);
                if (fd < 0)
                        fd = -errno;
                close(device);
                if (fd >= 0)
                        return (int) fd;
        }
        fd = syscall(SYS_userfaultfd, FD_FLAGS);
        return fd < 0 ? -errno : (int) fd;
}

int uffd_open(int *ret_fd, struct hvb_error *err)
{
        struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
        int fd = new_fd();

        if (fd < 0)
                return error_set(err, fd, "userfaultfd: %s (access to /dev/userfaultfd is needed, "
                                 "or vm.unprivileged_userfaultfd = 1)", g_strerror(-fd));
        if (ioctl(fd, UFFDIO_API, &api) < 0) {
                close(fd);
                return error_set(err, -ENOTSUP, "userfaultfd: this kernel has no write protection "
                                 "(5.7 or later is needed)");
        }
        *ret_fd = fd;
        return 0;
}

/* ---- Ranges -------------------------------------------------------------------------- */

/* EAGAIN: the process is changing its mappings just now. */
static int ask(int fd, unsigned long request, void *argument)
{
        while (ioctl(fd, request, argument) < 0)
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
        return 0;
}

static struct uffdio_range range_of(void *at, uint64_t bytes)
{
        return (struct uffdio_range) { (uintptr_t) at, bytes };
}

int uffd_register(int fd, void *at, uint64_t bytes, bool missing)
{
        struct uffdio_register args = {
                .range = range_of(at, bytes),
                .mode = UFFDIO_REGISTER_MODE_WP | (missing ? UFFDIO_REGISTER_MODE_MISSING : 0),
        };

        return ask(fd, UFFDIO_REGISTER, &args);
}

int uffd_unregister(int fd, void *at, uint64_t bytes)
{
        struct uffdio_range range = range_of(at, bytes);

        return ask(fd, UFFDIO_UNREGISTER, &range);
}

static int write_protect(int fd, void *at, uint64_t bytes, uint64_t mode)
{
        struct uffdio_writeprotect args = { range_of(at, bytes), mode };

        return ask(fd, UFFDIO_WRITEPROTECT, &args);
}

int uffd_protect(int fd, void *at, uint64_t bytes)
{
        return write_protect(fd, at, bytes, UFFDIO_WRITEPROTECT_MODE_WP);
}

int uffd_unprotect(int fd, void *at, uint64_t bytes)
{
        return write_protect(fd, at, bytes, 0);
}

/* The kernel may stop in the middle, and says where. */
int uffd_fill(int fd, void *at, const void *from, uint64_t bytes)
{
        uint64_t done = 0;

        while (done < bytes) {
                struct uffdio_copy args = {
                        .dst = (uintptr_t) at + done,
                        .src = (uintptr_t) from + done,
                        .len = bytes - done,
                        .mode = UFFDIO_COPY_MODE_WP,
                };

                if (ioctl(fd, UFFDIO_COPY, &args) < 0 && errno != EAGAIN)
                        return -errno;
                if (args.copy > 0)
                        done += (uint64_t) args.copy;
        }
        return 0;
}

/* A fill that failed in the middle has left pages. */
int uffd_fill_zeros(int fd, void *at, uint64_t bytes)
{
        uint64_t done = 0;

        while (done < bytes) {
                struct uffdio_zeropage args = {
                        .range = range_of((uint8_t *) at + done, bytes - done),
                };

                if (ioctl(fd, UFFDIO_ZEROPAGE, &args) < 0 && errno != EAGAIN && errno != EEXIST)
                        return -errno;
                if (args.zeropage > 0)
                        done += (uint64_t) args.zeropage;
                else if (args.zeropage == -EEXIST)
                        done += PAGE_BYTES;
        }
        return 0;
}

/* ---- Faults -------------------------------------------------------------------------- */

int uffd_next(int fd, struct uffd_fault *ret_fault)
{
        struct uffd_msg msg;
        ssize_t count = read(fd, &msg, sizeof(msg));

        if (count < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        if (count != sizeof(msg) || msg.event != UFFD_EVENT_PAGEFAULT)
                return -EPROTO;
        *ret_fault = (struct uffd_fault) {
                .at = (void *) (uintptr_t) msg.arg.pagefault.address,
                .is_missing = !(msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP),
        };
        return 1;
}
