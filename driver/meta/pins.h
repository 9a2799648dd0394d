/*
 * pins.h - snapshots that somebody reads while the image lives.
 *
 * A pin is a snapshot's tree in memory, shared by all its holders: handles, load_vmstate, reads
 * under way.  Deleting the snapshot does not wait for them:
 *
 *   LISTED -----last holder goes-----------------> freed
 *      \--unlinked--> UNLINKED --last one goes--> an orphan --counted down--> freed
 *      \                    \
 *       \--image left-----------> STALE --last holder goes--> freed
 *
 * Invariants:
 *  1. What a LISTED or UNLINKED pin maps is counted, and never changes but for notes behind the VM
 *     state (ops/snapshot-note.h): reads need no lock.
 *  2. Holders come only while img->list_lock is held; they may go at any time.
 *  3. An UNLINKED pin is one of the image's dirty_holders: a crash leaks its tree, which the
 *     next open repairs.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef META_PINS_H
#define META_PINS_H

#include "meta/image.h"

enum pin_state { PIN_LISTED, PIN_UNLINKED, PIN_STALE };

struct pin {
        GList link;                     /* in img->pins, unless STALE */
        enum pin_state state;
        unsigned holders;
        char *id;                       /* owned; with the L1's place and the sizes: whose */
        uint64_t disk_bytes;
        uint64_t vm_state_bytes;
        struct l1_table l1;             /* owned: the snapshot's, whole */
        struct l1_table disk;           /* what of it maps the disk; the entries are l1's */
        struct l1_table vm_state;       /* ... the VM state; index 0 maps its first byte */
};

/* The snapshot, held: its own pin, or a new one with a copy of l1, which its disk size
 * must fit (snapshots_require_readable).  NULL: no memory. */
struct pin *pin_take(struct image *img, const struct snapshot *snapshot,
                     const struct l1_table *l1);
/* The same if there is one; else NULL. */
struct pin *pin_take_listed(struct image *img, const struct snapshot *snapshot);
void pin_hold(struct pin *pin);
/* The last one frees the pin, or leaves an orphan. */
void pin_put(struct image *img, struct pin *pin);

/* The snapshot has left the list.  The caller holds the dirty bit. */
void pin_unlink(struct image *img, struct pin *pin);
/* An unlinked pin that nobody holds (held_too: or somebody does), or NULL. */
struct pin *pins_orphan(struct image *img, bool held_too);
/* Its tree is not the image's any more.  Frees it, unless it is held. */
void pin_forget(struct image *img, struct pin *pin);
/* The image is left: all of them. */
void pins_forget(struct image *img);

#endif
