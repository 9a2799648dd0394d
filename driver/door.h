/*
 * door.h - the top floor's own: an image as the host holds it, and requests.
 *
 * A request is the host's memory: struct hvb_request in front, our scratch behind.
 * What cached metadata can serve becomes one I/O in the submitting call (fast);
 * all else is a task whose frame lies in the scratch.
 *
 *   begun -> requests -> complete()
 *               \-> parked (HVB_ACTION_STOP) -> requests (retry)
 *
 * Who leaves the image (close, inactivate) is the oldest when it does: what was begun before has
 * ended, what is begun after is refused.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVER_DOOR_H
#define DRIVER_DOOR_H

#include "hv-block.h"
#include "ops/check.h"
#include "ops/create.h"
#include "ops/data.h"
#include "ops/open.h"
#include "ops/preallocate.h"
#include "ops/resize.h"
#include "ops/share-vmstate.h"
#include "ops/snapshot-create.h"
#include "ops/snapshot-delete.h"
#include "ops/snapshot-goto.h"
#include "ops/snapshot-list.h"
#include "ops/snapshot-load-tmp.h"
#include "ops/snapshot-load-vmstate.h"
#include "ops/snapshot-note.h"
#include "ops/snapshot-phases.h"
#include "ops/snapshot-pin.h"
#include "ops/vmstate.h"

/* One for now; nothing outside this floor assumes so. */
struct hvb_queue {
        struct hvb_image *image;
};

/* A handle: a hold of a pin. */
struct hvb_snapshot {
        GList link;                     /* in image->snapshots */
        struct hvb_image *image;
        struct pin *pin;
        unsigned in_flight;             /* requests that read it */
};

struct hvb_image {
        struct hvb_queue queue;
        struct loop loop;
        struct image *top;
        struct open_options options;
        GQueue requests;                /* of struct request, in order of start */
        GQueue parked;
        bool is_leaving;                /* a close or inactivate was begun, or it is closed */
        bool is_activating;             /* tables and the chain are being read again */
        struct waitq ended;             /* wait for a request to end */
        GQueue snapshots;               /* of struct hvb_snapshot */
        int completed;                  /* during this poll */
};

struct request;

/* What a request asks for. */
struct operation {
        const char *name;
        int (*step)(struct request *r); /* a coroutine over r's frame */
        size_t frame_bytes;             /* zeroed before the first step */
        bool is_data;                   /* errors go to the host's policy */
        bool is_write;
};

struct write_through {
        struct co co;
        union {
                struct write write;
                struct write_compressed compressed;
                struct zero zero;
        };
        struct commit_wait commit;
};

struct leaving {
        struct co co;
        struct { struct co co; } outlast;
        struct prepared_end prepared;
        struct waiter waiter;
        struct image_close close;
};

struct creation {
        struct co co;
        union {
                struct create create;
                struct image_open open;
                struct preallocate preallocate;
        };
};

struct request {
        struct hvb_request host;        /* first: the host's view */
        struct hvb_image *image;
        const struct operation *op;     /* NULL: not in flight */
        GList link;                     /* in image->requests or image->parked */
        bool parked;
        bool has_task;
        struct deferred deferred;
        struct task task;
        struct fast fast;
        int result;
        struct hvb_error *err;
        uint64_t offset;
        uint64_t length;
        const struct iovec *iov;
        unsigned iov_count;
        uint32_t flags;
        const char *id;
        const char *name;
        void *out;
        struct hvb_snapshot *snapshot;
        struct hvb_snapshot_info *info;
        const struct hvb_snapshot_info *wanted_info;
        struct l1_table *l1;            /* of the snapshot: what is read */
        uint64_t source_offset;         /* there */
        const struct hvb_create_args *create_args;
        union {
                struct read read;
                struct write_through write;
                struct discard discard;
                struct status status;
                struct commit_wait flush;
                struct image_open open;
                struct leaving leave;
                struct creation create;
                struct resize resize;
                struct check check;
                struct snapshot_create snapshot_create;
                struct snapshot_prepare snapshot_prepare;
                struct snapshot_phase snapshot_phase;
                struct snapshot_goto snapshot_goto;
                struct snapshot_delete snapshot_delete;
                struct snapshot_load_tmp snapshot_load_tmp;
                struct snapshot_load_vmstate snapshot_load_vmstate;
                struct snapshot_pin snapshot_open;
                struct snapshot_unpin snapshot_close;
                struct snapshot_note snapshot_note;
                struct save_vmstate save_vmstate;
                struct share_vmstate share_vmstate;
                struct load_vmstate load_vmstate;
        } frame;
};

static inline struct request *request_of(struct hvb_request *request)
{
        return (struct request *)request;
}

extern const struct operation op_read, op_write, op_zero, op_discard, op_flush, op_status, op_drain,
        op_open, op_create, op_close, op_inactivate, op_activate, op_truncate, op_check,
        op_snapshot_create, op_snapshot_goto, op_snapshot_delete, op_snapshot_load_tmp,
        op_save_vmstate, op_load_vmstate, op_snapshot_load_vmstate, op_snapshot_open,
        op_snapshot_close, op_snapshot_read, op_snapshot_status, op_snapshot_note,
        op_share_vmstate;

/* The request is in flight from here on; exactly one of the four below follows. */
struct request *request_begin(struct hvb_image *image, struct hvb_request *request,
                              const struct operation *op);
/* Serves r from cached metadata, or starts its task. */
void request_start(struct request *r);
void request_start_task(struct request *r);
/* The same for close and inactivate. */
void request_start_leaving(struct request *r);
/* From now on until the step ends nothing else is begun. */
void request_start_activating(struct request *r);
void request_finish_later(struct request *r, int result);

/* Starts a parked request again, or ends it with -ECANCELED. */
void request_unpark(struct request *r, bool cancelled);

/* False: the sum overflows. */
bool iov_length(const struct iovec *iov, unsigned iov_count, uint64_t *ret);

/* ---- reading snapshots (door-snapshots.c): members of hvb_driver ---- */

void driver_snapshot_open(struct hvb_image *image, struct hvb_request *request, const char *id,
                          const char *name, struct hvb_snapshot_info *ret_info,
                          struct hvb_snapshot **ret_snapshot, struct hvb_error *err);
void driver_snapshot_close(struct hvb_snapshot *snapshot, struct hvb_request *request,
                           struct hvb_error *err);
void driver_snapshot_preadv(struct hvb_queue *queue, struct hvb_request *request,
                            struct hvb_snapshot *snapshot, uint64_t offset,
                            const struct iovec *iov, unsigned iov_count, uint32_t flags);
void driver_snapshot_block_status(struct hvb_queue *queue, struct hvb_request *request,
                                  struct hvb_snapshot *snapshot, uint64_t offset,
                                  uint64_t length_bytes, uint32_t flags,
                                  struct hvb_block_status *ret_status);
void driver_snapshot_note(struct hvb_queue *queue, struct hvb_request *request,
                          struct hvb_snapshot *snapshot, uint64_t offset, const struct iovec *iov,
                          unsigned iov_count);
void driver_share_vmstate(struct hvb_image *image, struct hvb_request *request,
                          struct hvb_snapshot *source, uint64_t source_offset, uint64_t offset,
                          uint64_t length_bytes);
/* With the image: those that were not closed. */
void snapshots_release(struct hvb_image *image);

/* ---- snapshot operations phase by phase (door-phases.c): members of hvb_driver ---- */

void driver_snapshot_prepare(struct hvb_image *image, struct hvb_request *request,
                             const struct hvb_snapshot_info *info, uint32_t flags,
                             struct hvb_error *err);
void driver_snapshot_switch(struct hvb_image *image, struct hvb_request *request,
                            struct hvb_error *err);
void driver_snapshot_publish(struct hvb_image *image, struct hvb_request *request,
                             struct hvb_snapshot_info *info, struct hvb_error *err);
void driver_snapshot_abort(struct hvb_image *image, struct hvb_request *request,
                           struct hvb_error *err);
void driver_snapshot_goto_prepare(struct hvb_image *image, struct hvb_request *request,
                                  const char *id, const char *name, struct hvb_error *err);

#endif
