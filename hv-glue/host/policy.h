/*
 * policy.h - which files an image may name.
 *
 * An image's backing and data file names come from whoever wrote the image: a
 * guest's owner, in the end.  So nothing is opened by default.  A hypervisor
 * allows directories; the tools, which act for the operator who typed the name,
 * allow everything, as qemu-img does.
 *
 * What holds for every policy:
 *  - Only files are opened: "json:" and "proto:" names are refused by name.
 *  - Relative names start in the directory of the parent's name.
 *  - Only regular files and block devices; never a FIFO, socket or tty.
 * With directories allowed, moreover:
 *  - Symbolic links are resolved first, and the result must lie in one of the
 *    directories.  It is then opened component by component from that
 *    directory's fd without following any link: a swap in between fails.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_POLICY_H
#define HOST_POLICY_H

#include <stdbool.h>

#include "hv-block.h"

struct policy;

/* How an image is treated that stores no format for its backing file. */
enum policy_probe {
        POLICY_PROBE_REFUSE,            /* the default: -EINVAL */
        POLICY_PROBE_WARN,              /* raw or what a driver claims, as QEMU does; log it */
};

enum { POLICY_DEFAULT_DEPTH = 200 };

/* Allows nothing. */
struct policy *policy_new(void);
/* Allows every file. */
struct policy *policy_new_all(void);
/* NULL is fine.  No drive may use it any more. */
void policy_free(struct policy *policy);

/* Allows what lies in or below directory, which is resolved and held open now. */
int policy_allow_directory(struct policy *policy, const char *directory, struct hvb_error *err);
void policy_set_probe(struct policy *policy, enum policy_probe probe);
/* Longest chain of backing files, counted without the image itself. */
void policy_set_depth(struct policy *policy, unsigned depth);

/* What policy_open found. */
struct policy_file {
        int fd;                         /* the caller's to close */
        char *path;                     /* for messages and as parent of the next; g_free */
        const char *format;             /* "raw" or "qcow2"; static */
        bool probed;                    /* format was guessed: worth a warning */
};

/*
 * Opens the file that an image asks for.  query's strings are untrusted.
 * extra_flags (O_DIRECT, O_DSYNC or 0) go to open(2).  Returns 0, or with err filled -EACCES: not
 * allowed; -ENOTSUP: a protocol or format that is not for us; -EINVAL: no format
 * stored; -ELOOP: chain too long; or what open(2) says.
 */
int policy_open(const struct policy *policy, const struct hvb_child_query *query,
                int extra_flags, struct policy_file *ret_file, struct hvb_error *err);

/* For who opens what images name by himself: may path be opened?  0 or -errno as policy_open. */
int policy_judge_path(const struct policy *policy, const char *path, struct hvb_error *err);

/* The name of a child as a path: relative ones joined to the parent's directory.
 * NULL when name is no plain file name (see policy_protocol).  g_free. */
char *policy_join(const char *parent_name, const char *name);

/* The "proto" of "proto:rest" when name has one, else NULL.  g_free. */
char *policy_protocol(const char *name);

/*
 * Opens a path that the operator named, with the checks that hold for every
 * policy.  flags as for open(2).  Returns 0 or -errno with err filled.
 */
int policy_open_path(const char *path, int flags, int *ret_fd, struct hvb_error *err);

/* "qcow2" when its driver claims the first bytes of fd, else "raw".  -errno when
 * fd cannot be read or the driver cannot be loaded. */
int policy_probe_format(int fd, const char **ret_format, struct hvb_error *err);

#endif
