/*
 * door-snapshots.c - members that use a snapshot while the image lives.
 *
 * A handle is the host's; the pin behind it (pins.h) may be shared, and outlives the snapshot's
 * place in the list.  The handle is off the image's list, and freed, when its close completes.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "door.h"

void driver_snapshot_open(struct hvb_image *image, struct hvb_request *request, const char *id,
                          const char *name, struct hvb_snapshot_info *ret_info,
                          struct hvb_snapshot **ret_snapshot, struct hvb_error *err)
{
        struct request *r = request_begin(image, request, &op_snapshot_open);

        r->err = err;
        r->id = id;
        r->name = name;
        r->info = ret_info;
        r->out = ret_snapshot;
        if (image->is_leaving || image->is_activating) {
                request_finish_later(r, -EINPROGRESS);
                return;
        }
        r->snapshot = g_try_new0(struct hvb_snapshot, 1);
        if (!r->snapshot) {
                request_finish_later(r, -ENOMEM);
                return;
        }
        r->snapshot->image = image;
        r->snapshot->link.data = r->snapshot;
        request_start_task(r);
}

void driver_snapshot_close(struct hvb_snapshot *snapshot, struct hvb_request *request,
                           struct hvb_error *err)
{
        struct request *r = request_begin(snapshot->image, request, &op_snapshot_close);

        g_assert(snapshot->in_flight == 0);
        r->err = err;
        r->snapshot = snapshot;
        request_start_task(r);
}

void snapshots_release(struct hvb_image *image)
{
        GList *link;

        while ((link = g_queue_pop_head_link(&image->snapshots)) != NULL) {
                struct hvb_snapshot *snapshot = link->data;

                pin_put(image->top, snapshot->pin);
                g_free(snapshot);
        }
}

static struct request *begin(struct hvb_queue *queue, struct hvb_request *request,
                             struct hvb_snapshot *snapshot, const struct operation *op,
                             uint64_t offset, uint32_t flags)
{
        struct request *r = request_begin(queue->image, request, op);

        snapshot->in_flight++;
        r->snapshot = snapshot;
        r->l1 = flags & HVB_REQ_VMSTATE ? &snapshot->pin->vm_state : &snapshot->pin->disk;
        r->offset = offset;
        r->flags = 0;
        r->iov = NULL;
        return r;
}

static int judge_state(const struct hvb_snapshot *snapshot)
{
        switch (snapshot->image->top->state) {
        case IMAGE_INACTIVE:
                return -EINPROGRESS;
        case IMAGE_LIVE:
        case IMAGE_POISONED:
                return snapshot->pin->state == PIN_STALE ? -ESTALE : 0;
        default:
                return -ENOMEDIUM;
        }
}

/* Bytes that can be asked about; a VM state reads as zeros beyond them. */
static uint64_t end_of(const struct request *r)
{
        const struct pin *pin = r->snapshot->pin;

        return r->l1 == &pin->disk ? pin->disk_bytes
                : pin->vm_state.count * image_geometry(r->image->top)->l2_span_bytes;
}

void driver_snapshot_preadv(struct hvb_queue *queue, struct hvb_request *request,
                            struct hvb_snapshot *snapshot, uint64_t offset,
                            const struct iovec *iov, unsigned iov_count, uint32_t flags)
{
        struct request *r = begin(queue, request, snapshot, &op_snapshot_read, offset, flags);
        int ret = judge_state(snapshot);
        uint64_t end;

        r->iov = iov;
        r->iov_count = iov_count;
        if (ret == 0 && !iov_length(iov, iov_count, &r->length))
                ret = -EINVAL;
        if (ret == 0 && (!u64_add(offset, r->length, &end) ||
                         (r->l1 == &snapshot->pin->disk && end > end_of(r))))
                ret = -EIO;
        if (ret < 0 || r->length == 0)
                request_finish_later(r, ret);
        else
                request_start(r);
}

void driver_snapshot_block_status(struct hvb_queue *queue, struct hvb_request *request,
                                  struct hvb_snapshot *snapshot, uint64_t offset,
                                  uint64_t length_bytes, uint32_t flags,
                                  struct hvb_block_status *ret_status)
{
        struct request *r = begin(queue, request, snapshot, &op_snapshot_status, offset, flags);
        int ret = judge_state(snapshot);

        r->out = ret_status;
        if (ret == 0 && r->l1 == &snapshot->pin->disk && offset > end_of(r))
                ret = -EIO;
        if (ret < 0) {
                request_finish_later(r, ret);
                return;
        }
        r->length = u64_min(length_bytes, end_of(r) - u64_min(offset, end_of(r)));
        request_start_task(r);
}

void driver_snapshot_note(struct hvb_queue *queue, struct hvb_request *request,
                          struct hvb_snapshot *snapshot, uint64_t offset, const struct iovec *iov,
                          unsigned iov_count)
{
        struct request *r = begin(queue, request, snapshot, &op_snapshot_note, offset,
                                  HVB_REQ_VMSTATE);
        int ret = judge_state(snapshot);

        r->iov = iov;
        r->iov_count = iov_count;
        if (ret == 0 && !iov_length(iov, iov_count, &r->length))
                ret = -EINVAL;
        if (ret < 0)
                request_finish_later(r, ret);
        else
                request_start_task(r);
}

void driver_share_vmstate(struct hvb_image *image, struct hvb_request *request,
                          struct hvb_snapshot *source, uint64_t source_offset, uint64_t offset,
                          uint64_t length_bytes)
{
        struct request *r = begin(&image->queue, request, source, &op_share_vmstate, offset,
                                  HVB_REQ_VMSTATE);
        int ret = judge_state(source);

        r->source_offset = source_offset;
        r->length = length_bytes;
        if (ret < 0)
                request_finish_later(r, ret);
        else
                request_start_task(r);
}
