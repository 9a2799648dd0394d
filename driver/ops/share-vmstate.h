/*
 * share-vmstate.h - VM state that is saved by reference to what a snapshot has.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SHARE_VMSTATE_H
#define OPS_SHARE_VMSTATE_H

#include "ops/vmstate.h"

struct share_vmstate {
        struct co co;
        struct { struct co co; } count;
        struct { struct co co; } link;
        struct { struct co co; } link_run;
        struct waiter saves;
        struct waiter writes;
        struct map_lookup lookup;
        struct mapping map;             /* of the source */
        struct mapping old;
        struct refs_add add;
        struct commit_wait commit;
        struct range_lock lock;
        struct map_prepare prepare;
        struct slice *slice;
        uint64_t run_bytes;             /* behind linked, of one kind */
        uint64_t linked;                /* bytes of the range whose counts the entries have */
        uint64_t counted;               /* bytes of the range that were counted */
        uint64_t undo_end;
};

/*
 * Coroutine: what source (the VM state of a snapshot that is held) maps at source_offset becomes
 * the VM state being saved at offset, too; holes become holes.  All three are multiples of a
 * cluster's bytes, else -EINVAL, as where a count would overflow.  -ENOTSUP: a cluster is
 * compressed.  After these nothing has changed; after others what was saved in the range may
 * have been replaced in parts.  -EBUSY, -EFBIG: as save_vmstate.
 */
int share_vmstate(struct share_vmstate *s, struct image *img, struct l1_table *source,
                  uint64_t source_offset, uint64_t offset, uint64_t length_bytes);

#endif
