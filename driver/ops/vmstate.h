/*
 * vmstate.h - VM state: saving it for the next snapshot, loading that of one.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_VMSTATE_H
#define OPS_VMSTATE_H

#include "disk/snapshot-table.h"
#include "meta/pins.h"
#include "ops/data.h"
#include "ops/exclusive.h"
#include "ops/tree.h"

struct vmstate_drop {
        struct co co;
        struct dirty_change dirty;
        struct commit_settle settle;
        struct tree_drop drop;
        struct l1_table l1;
};

/* Coroutine: a state that was saved, but taken by no snapshot, is given up.  The caller holds
 * img->control and has the write gate closed and metadata settled. */
int vmstate_drop(struct vmstate_drop *s, struct image *img);

struct vmstate_trim {
        struct co co;
        struct tree_drop drop;
        struct l1_table tail;
        bool used;
};

/*
 * Coroutine: the state that QEMU leaves behind the disk in the active L1 when it goes to a
 * snapshot is given up: its own resize would leak it.  The caller holds img->control and has the
 * image marked.  A failure leaks.
 */
int vmstate_trim(struct vmstate_trim *s, struct image *img);

struct save_vmstate {
        struct co co;
        struct waiter saves;
        struct waiter waiter;
        struct write_inside write;
        struct { struct co co; } forget;
        struct exclusive exclusive;
        struct vmstate_drop drop;
};

/*
 * Coroutine: writes to the state that the next snapshot takes.  No bytes at offset 0: what
 * was saved so far is given up; -EBUSY while a snapshot is prepared, whose abort does that.
 * -EFBIG: no L1 maps the disk and so much state.  -EBUSY: a snapshot that is being published has
 * taken it.
 */
int save_vmstate(struct save_vmstate *s, struct image *img, uint64_t offset,
                 uint64_t length_bytes, const struct iovec *iov, unsigned iov_count);

/* The tree that load_vmstate reads now, or NULL: it is gone. */
struct l1_table *vmstate_to_load(struct image *img);

struct load_vmstate {
        struct co co;
        struct l1_table *l1;
        struct pin *pin;                /* held: whose that is, or NULL */
        unsigned generation;
        struct read read;
};

/* Coroutine: reads the state of the snapshot last gone to or loaded; if there is none, what was
 * just saved.  (So a state can be loaded lazily while another is saved.)  Beyond it: zeros.
 * -ESTALE: that snapshot was deleted, or what was saved went meanwhile; -EINPROGRESS: the image is
 * inactive. */
int load_vmstate(struct load_vmstate *s, struct image *img, uint64_t offset,
                 uint64_t length_bytes, const struct iovec *iov, unsigned iov_count);

/* Nothing is saved any more: a snapshot has it, or it was given up. */
void vmstate_forget_saved(struct image *img);

/* The VM state of a snapshot with this L1 becomes the one that is loaded; -ENOMEM: nothing
 * changed.  The caller holds img->control; so do those of the next two. */
int vmstate_take_loaded(struct image *img, const struct snapshot *snapshot,
                        const struct l1_table *l1);
/* The same; a hold of pin goes over. */
void vmstate_load_pin(struct image *img, struct pin *pin);
/* What was loaded is gone if it was the pin's (NULL: whatever it was). */
void vmstate_lose_loaded(struct image *img, const struct pin *pin);
/* Nothing is loaded: the image is left. */
void vmstate_unload(struct image *img);

#endif
