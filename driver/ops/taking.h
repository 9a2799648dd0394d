/*
 * taking.h - taking an internal snapshot, phase by phase.
 *
 *              taking_prepare    taking_switch          taking_publish
 *   (nothing) ---------------> prepared ------> switched -------------> in the list
 *        <--------- taking_abort --'----------------'
 *
 * The caller holds img->control from the beginning to the end, and wants one phase at a time.
 * Whatever the host waits between them, the guest reads and writes, and VM state is saved.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_TAKING_H
#define OPS_TAKING_H

#include "meta/snapshots.h"
#include "ops/motion.h"
#include "ops/orphans.h"
#include "ops/tree.h"
#include "ops/vmstate.h"

struct taking {
        struct { struct co co; } prepare;
        struct { struct co co; } switch_over;
        struct { struct co co; } publish;
        struct { struct co co; } list_it;
        struct { struct co co; } take_state;
        struct { struct co co; } abort;
        struct { struct co co; } give_up;
        struct waiter gate;
        struct waiter saves;
        struct waiter list_lock;
        struct motion motion;
        struct l1_io io;
        struct clusters_alloc alloc;
        struct commit_wait commit;
        struct tree_count count;
        struct tree_drop drop;
        struct snapshot_unlink unlink;
        struct vmstate_trim trim;
        struct snapshots_publish publication;
        struct l1_table l1;             /* the snapshot's, in memory; its entries from
                                         * the switch on */
        struct l1_table old_l1;         /* of the snapshot that is replaced */
        struct pin *old_pin;            /* held: that snapshot, if somebody reads it */
        struct l1_table state;          /* a VM state that is given up */
        struct snapshot *list;          /* the new one */
        uint32_t list_count;
        uint32_t flags;                 /* HVB_SNAPSHOT_* */
        uint32_t disk_slots;            /* active L1 entries that the snapshot takes */
        int replaced;                   /* index in the list, or -1 */
        bool is_switched;
        bool has_state;                 /* l1 maps the VM state, too */
};

/*
 * Coroutine: everything that grows with the disk.  info: the name, and vm_state_bytes as far as it
 * is known.  -EEXIST, -EFBIG (a limit), -EINVAL (name; a refcount would overflow), -ECANCELED.  On
 * failure all is as before, or the image poisoned; the saved VM state is dropped, unless the
 * arguments were refused.
 */
int taking_prepare(struct taking *s, struct image *img, const struct hvb_snapshot_info *info,
                   uint32_t flags, struct hvb_error *err);

/* Coroutine: the snapshot is the disk at one moment of this call.  Waits for writes in flight, and
 * writes nothing.  On failure it is prepared as before. */
int taking_switch(struct taking *s, struct image *img, struct hvb_error *err);

/*
 * Coroutine: the snapshot is in the list, durably, with the VM state saved until now and what info
 * says; id_str and disk_bytes are filled in.  Ends it in any case: a failure is an abort.
 */
int taking_publish(struct taking *s, struct image *img, struct hvb_snapshot_info *info,
                   struct hvb_error *err);

/* Coroutine: all is as before, the saved VM state is dropped.  What fails leaks and is told.  On a
 * poisoned image only memory goes. */
int taking_abort(struct taking *s, struct image *img);

/* Of an image that is left. */
void taking_forget(struct taking *s, struct image *img);

#endif
