/*
 * uffd.h - userfaultfd(2): pages of ours that the kernel asks about.
 *
 * Ranges are whole pages of one mapping that was registered.  0 or -errno.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_UFFD_H
#define SNAPSHOT_UFFD_H

#include <stdbool.h>
#include <stdint.h>

#include "hv-block.h"

/*
 * *ret_fd is a descriptor whose reads do not wait.  It needs /dev/userfaultfd, or a process that
 * may have the kernel's own faults handled (root, or vm.unprivileged_userfaultfd): KVM touches
 * guest memory from inside the kernel.  -ENOTSUP and others, with what to do in err.
 */
int uffd_open(int *ret_fd, struct hvb_error *err);

/* Write protection can be had, and with missing set touching absent pages asks, too. */
int uffd_register(int fd, void *at, uint64_t bytes, bool missing);
/* As if it had never been registered; those who wait go on. */
int uffd_unregister(int fd, void *at, uint64_t bytes);

/* unprotect wakes who waits. */
int uffd_protect(int fd, void *at, uint64_t bytes);
int uffd_unprotect(int fd, void *at, uint64_t bytes);

/* Fill absent pages, protected or with zeros, and wake who waits.  fill_zeros leaves pages that are
 * there as they are. */
int uffd_fill(int fd, void *at, const void *from, uint64_t bytes);
int uffd_fill_zeros(int fd, void *at, uint64_t bytes);

struct uffd_fault {
        void *at;                       /* somewhere in the page */
        bool is_missing;                /* else it is protected, and somebody writes */
};

/* The next fault; 1, or 0: there is none just now. */
int uffd_next(int fd, struct uffd_fault *ret_fault);

#endif
