/*
 * going.h - going back to a snapshot, phase by phase.
 *
 *              going_prepare    going_switch
 *   (nothing) -------------> prepared ------> the disk is the snapshot's
 *        <---- going_abort ------'
 *
 * The caller holds img->control from the beginning; after the switch it is the background's
 * (background.h).  Between the phases the guest goes on with the disk as it is.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_GOING_H
#define OPS_GOING_H

#include "meta/snapshots.h"
#include "ops/background.h"
#include "ops/vmstate.h"

struct going {
        struct { struct co co; } prepare;
        struct { struct co co; } make_tree;
        struct { struct co co; } switch_over;
        struct { struct co co; } abort;
        struct waiter gate;
        struct motion motion;
        struct l1_io io;
        struct clusters_alloc alloc;
        struct clusters_free free;
        struct tree_count count;
        struct commit_wait commit;
        struct commit_settle settle;
        struct root_switch root;
        struct root_change root_change;
        struct l1_table snapshot_l1;
        struct l1_table fresh;          /* becomes the active one */
        struct background *background;  /* owned; takes what was it */
        uint64_t fresh_offset;
        int index;                      /* of the snapshot, in the list */
};

/*
 * Coroutine: everything that grows with the disk.  -ENOENT; -ENOTSUP: in version 2 the disk's size
 * must not differ; -EINVAL: the snapshot's L1 makes no sense, or a count would overflow.  On
 * failure the image is as before, or poisoned.
 */
int going_prepare(struct going *s, struct image *img, const char *id, const char *name,
                  struct hvb_error *err);

/* Coroutine: the disk is as it was in the snapshot, its size included, and its VM state is the one
 * that load_vmstate reads.  Ends it in any case: a failure is an abort. */
int going_switch(struct going *s, struct image *img);

/* Coroutine: all is as before.  What fails leaks and is told. */
int going_abort(struct going *s, struct image *img);

/* Of an image that is left. */
void going_forget(struct going *s);

#endif
