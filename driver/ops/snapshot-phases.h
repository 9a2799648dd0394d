/*
 * snapshot-phases.h - snapshot operations whose phases the host asks for one by one.
 *
 * img->prepared is what goes on between its requests.  It keeps img->control, as an operation in
 * one piece does: whatever else moves counts waits for its end.
 *
 *   prepare begins   --> preparing --> prepared --switch--> switched --publish--> (none)
 *                           |              |                    |
 *                           '-- cancelled -'------- abort ------'--> (none)
 *
 *   goto_prepare     --> preparing --> prepared --goto--> (none; the rest beside the guest)
 *                           |              |
 *                           '-- cancelled -'--abort--> (none)
 *
 * Invariants:
 *  1. Who prepares, or goes on with what is prepared, holds img->phase_lock meanwhile; it is taken
 *     before img->control, and img->list_lock last.
 *  2. img->control is held by what is prepared from the begin of its preparation to its end.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_PHASES_H
#define OPS_SNAPSHOT_PHASES_H

#include "ops/going.h"
#include "ops/taking.h"

struct prepared {
        struct task *preparer;          /* NULL: it is prepared */
        bool has_control;
        bool is_goto;
        struct orphans_drop orphans;
        union {
                struct taking taking;
                struct going going;
        };
};

/* Will what is prepared count down, at its end, what deleted snapshots hold that nobody reads? */
bool prepared_drops_orphans(const struct image *img);

struct snapshot_prepare {
        struct co co;
        struct waiter phase;
        struct waiter control;
};

/* Coroutines: taking_prepare, going_prepare.  -EBUSY: something is prepared, or being prepared. */
int snapshot_prepare(struct snapshot_prepare *s, struct image *img,
                     const struct hvb_snapshot_info *info, uint32_t flags, struct hvb_error *err);

int snapshot_goto_prepare(struct snapshot_prepare *s, struct image *img, const char *id,
                          const char *name, struct hvb_error *err);

/* One request of the others. */
struct snapshot_phase {
        struct co co;
        struct waiter phase;
        bool cancels;                   /* abort: the preparation was still under way */
};

/* Coroutines: taking_switch, taking_publish.  -EINVAL: no snapshot is prepared, or not as far;
 * nothing changes then. */
int snapshot_switch(struct snapshot_phase *s, struct image *img, struct hvb_error *err);
int snapshot_publish(struct snapshot_phase *s, struct image *img, struct hvb_snapshot_info *info,
                     struct hvb_error *err);

struct prepared_goto {
        struct co co;
        struct waiter phase;
        bool was_taken;                 /* there was one to that snapshot: it has ended */
};

/* Coroutine: going_switch, if going to that snapshot is prepared, or being prepared. */
int prepared_goto(struct prepared_goto *s, struct image *img, const char *id, const char *name);

/*
 * Coroutine: all is as before; a preparation under way is cancelled.  -EINVAL: there was nothing
 * to abort.  -EIO: the image is poisoned; what was prepared is gone all the same.
 */
int snapshot_abort(struct snapshot_phase *s, struct image *img, struct hvb_error *err);

/* Coroutine: whatever is prepared is aborted, if anything is: the image is left.  Not cancelled. */
struct prepared_end {
        struct co co;
        struct waiter phase;
};
int prepared_end(struct prepared_end *s, struct image *img);

/* Of an image that is freed as it is. */
void prepared_forget(struct image *img);

#endif
