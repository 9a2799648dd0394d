/*
 * vmstate-io.h - many requests in flight to the VM state of one drive.
 *
 * One thread, a job's, starts requests and is told of those that landed; they run on the
 * drive's thread.  The first error stays: from then on nothing is started.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_VMSTATE_IO_H
#define SNAPSHOT_VMSTATE_IO_H

#include "host/drive-thread.h"

enum {
        VMSTATE_IO_DEPTH = 16,
        VMSTATE_IO_MAX_BYTES = 1 << 20, /* of one request; best, too */
        VMSTATE_IO_ALIGNMENT = 4096,    /* of offset, memory and count, for O_DIRECT */
};

struct vmstate_span {
        uint64_t offset;                /* in the VM state */
        void *bytes;                    /* only read when saving; lives until it landed */
        size_t count;
        void *opaque;                   /* the landing's */
};

/* Told of each span that was transferred, on the thread that starts and waits.  A negative
 * errno becomes the error that stays. */
struct vmstate_landing {
        void *opaque;
        int (*landed)(void *opaque, const struct vmstate_span *span);   /* NULL: not told */
};

struct vmstate_io;

struct vmstate_io *vmstate_io_new(struct drive_thread *thread,
                                  const struct vmstate_landing *landing);
/* Waits for what is in flight.  NULL is fine. */
void vmstate_io_free(struct vmstate_io *io);

/* Start as soon as the window has room.  0, or the error that stays: not started. */
int vmstate_io_save(struct vmstate_io *io, const struct vmstate_span *span);
int vmstate_io_load(struct vmstate_io *io, const struct vmstate_span *span);

/* Waits until all have landed.  0 or the error that stays. */
int vmstate_io_wait(struct vmstate_io *io);

/* Any length, in pieces, then waits. */
int vmstate_io_save_all(struct vmstate_io *io, uint64_t offset, void *bytes, size_t count);
int vmstate_io_load_all(struct vmstate_io *io, uint64_t offset, void *bytes, size_t count);

#endif
