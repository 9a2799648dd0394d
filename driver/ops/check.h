/*
 * check.h - checking an image's metadata and repairing it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_CHECK_H
#define OPS_CHECK_H

#include "ops/check-parts.h"

/* One pass over everything. */
struct check_pass {
        struct co co;
        struct { struct co co; } repair;
        struct { struct co co; } list;
        struct check_context context;
        struct check_tree tree;
        struct check_counts counts;
        struct check_copied copied;
        struct entries_fix entries;
        struct counts_fix fix;
        struct check_rebuild rebuild;
        struct snapshots_fix snapshots;
        uint64_t incomplete;            /* snapshot table entries */
};

struct check {
        struct co co;
        struct waiter control;
        struct waiter gate;
        struct commit_settle settle;
        struct check_pass pass;
        struct root_switch root;
        struct root_change change;
        struct { struct co co; } guarded;
        struct hvb_check_result second;
        struct hvb_check_result own;    /* repair_dirty's */
        bool recheck;
        uint64_t *progress_done;        /* set by the caller, or NULL */
        uint64_t *progress_total;
};

/*
 * Coroutine: flags are HVB_CHECK_FIX_*; findings go to result, which means what `qemu-img check`
 * means by it (its report and opaque are the caller's and stay).  0 although there are
 * findings; -errno: the check could not be made.  After repairs all is checked once more, and
 * result has what is left.  If that is nothing, dirty and corrupt bits are cleared.
 * Guest writes wait; reads go on.
 */
int check_image(struct check *s, struct image *img, uint32_t flags,
                struct hvb_check_result *result, struct hvb_error *err);

/*
 * Coroutine: what read-write open of a dirty image owes: counts rebuilt from references,
 * COPIED refreshed, then the dirty bit cleared; the host is told.  -EIO: parts could not be read.
 */
int repair_dirty(struct check *s, struct image *img, struct hvb_error *err);

#endif
