/*
 * snapshot-note.h - notes about a snapshot, written over what was saved behind its VM state.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_SNAPSHOT_NOTE_H
#define OPS_SNAPSHOT_NOTE_H

#include "meta/pins.h"
#include "ops/pieces.h"

struct snapshot_note {
        struct co co;
        struct { struct co co; } find;
        struct waiter waiter;
        struct pieces pieces;
        struct map_lookup lookup;
        struct mapping map;
        struct refs_get get;
        struct iov_cursor at;
        uint64_t position;              /* bytes dealt with */
        uint64_t checked;               /* bytes of map whose clusters are the snapshot's alone */
        uint64_t begun_bytes;
        uint64_t count;
};

/*
 * Coroutine: overwrites bytes of the VM-state area of a snapshot that is held, behind its
 * vm_state_bytes.  -EINVAL: not behind them, or the file does not take the alignment.  -ENOTSUP:
 * what lies there has no cluster of its own.  -ESTALE: the image was left.  After an error some of
 * it may have been written.
 */
int snapshot_note(struct snapshot_note *s, struct image *img, struct pin *pin, uint64_t offset,
                  uint64_t length_bytes, const struct iovec *iov, unsigned iov_count);

#endif
