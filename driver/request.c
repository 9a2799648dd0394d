/*
 * request.c - the life of a request, and what each operation calls.
 *
 * Completion always goes through finish(), which asks the host what to do with an
 * I/O error, and is reached from loop_poll only.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "door.h"

static struct request *request_of_task(struct task *task)
{
        return (struct request *)((char *)task - offsetof(struct request, task));
}

/* ---- the life of a request ---- */

static void complete(struct request *r, int result)
{
        struct hvb_image *image = r->image;

        g_queue_unlink(&image->requests, &r->link);
        if (r->op == &op_snapshot_read || r->op == &op_snapshot_status ||
            r->op == &op_snapshot_note || r->op == &op_share_vmstate)
                r->snapshot->in_flight--;
        r->op = NULL;
        r->host.result = result;
        image->completed++;
        r->host.complete(&r->host);
}

/* A drain completes when it is the oldest. */
static void complete_drains(struct hvb_image *image)
{
        while (image->requests.head) {
                struct request *oldest = image->requests.head->data;

                if (oldest->op != &op_drain || oldest->deferred.queued)
                        return;                 /* begun by complete(): its turn comes */
                complete(oldest, 0);
        }
}

static enum hvb_error_action ask_host(struct request *r, int result)
{
        const struct hvb_host *host = r->image->top->host;
        const struct hvb_io_error what = {
                .struct_bytes = sizeof(what),
                .code = result,
                .is_write = r->op->is_write,
                .offset = r->offset,
                .length_bytes = r->length,
                .request = &r->host,
        };

        if (!r->op->is_data || !host || !host->io_error || result == -ECANCELED ||
            result == -EINVAL || result == -EROFS || result == -ENOTSUP || result == -ESTALE ||
            result == -EINPROGRESS || result == -ENOMEDIUM)
                return HVB_ACTION_REPORT;
        return host->io_error(host->opaque, &what);
}

static void finish_as(struct request *r, int result, enum hvb_error_action action)
{
        struct hvb_image *image = r->image;

        if (action == HVB_ACTION_STOP) {
                g_queue_unlink(&image->requests, &r->link);
                g_queue_push_tail_link(&image->parked, &r->link);
                r->parked = true;
        } else {
                complete(r, action == HVB_ACTION_IGNORE ? 0 : result);
        }
        complete_drains(image);
        waitq_wake_all(&image->ended);
}

static void finish(struct request *r, int result)
{
        finish_as(r, result, result < 0 ? ask_host(r, result) : HVB_ACTION_REPORT);
}

static int task_step(struct task *task)
{
        struct request *r = request_of_task(task);

        return r->op->step(r);
}

static void task_done(struct task *task, int result)
{
        struct request *r = request_of_task(task);

        r->has_task = false;
        finish(r, result);
}

static void deferred_finish(struct deferred *d)
{
        struct request *r = (struct request *)((char *)d - offsetof(struct request, deferred));

        finish_as(r, r->result, HVB_ACTION_REPORT);     /* refused, or nothing to do */
}

void request_finish_later(struct request *r, int result)
{
        r->result = result;
        loop_defer(&r->image->loop, &r->deferred, deferred_finish);
}

static void fast_done(struct io *io)
{
        struct request *r = (struct request *)((char *)io - offsetof(struct request, fast.io));

        finish(r, fast_finish(&r->fast));
}

static void start_task(struct request *r)
{
        memset(&r->frame, 0, r->op->frame_bytes);
        r->has_task = true;
        task_start(&r->task, &r->image->loop, r->op->name, task_step, task_done);
        r->task.progress_done = &r->host.progress_done;
        r->task.progress_total = &r->host.progress_total;
}

/* While tables are being read again; these wait until that has ended, or need none. */
static bool may_be_early(const struct request *r)
{
        return r->op == &op_close || r->op == &op_inactivate || r->op == &op_snapshot_close;
}

void request_start_task(struct request *r)
{
        if (r->image->is_leaving || (r->image->is_activating && !may_be_early(r)))
                request_finish_later(r, -EINPROGRESS);
        else
                start_task(r);
}

void request_start_leaving(struct request *r)
{
        request_start_task(r);
        r->image->is_leaving = true;
}

void request_start_activating(struct request *r)
{
        request_start_task(r);
        if (r->has_task)
                r->image->is_activating = true;
}

struct request *request_begin(struct hvb_image *image, struct hvb_request *request,
                              const struct operation *op)
{
        struct request *r = request_of(request);

        g_assert(r->op == NULL);
        r->image = image;
        r->op = op;
        r->err = NULL;
        r->host.progress_done = 0;
        r->host.progress_total = 0;
        r->has_task = false;
        r->parked = false;
        r->link = (GList) { .data = r };
        g_queue_push_tail_link(&image->requests, &r->link);
        return r;
}

static bool may_go_fast(const struct request *r)
{
        return (r->op == &op_read || r->op == &op_write || r->op == &op_load_vmstate ||
                r->op == &op_snapshot_read) &&
               r->length > 0 && r->image->top->state == IMAGE_LIVE && !r->image->is_leaving &&
               !r->image->is_activating &&
               (r->flags & (HVB_REQ_FUA | HVB_REQ_COMPRESS)) == 0;
}

/* NULL: there is none, which the task tells. */
static struct l1_table *tree_to_read(const struct request *r)
{
        struct image *img = r->image->top;

        if (r->op == &op_snapshot_read)
                return r->l1;
        return r->op == &op_read ? &img->active : vmstate_to_load(img);
}

static enum fast_result go_fast(struct request *r)
{
        struct image *img = r->image->top;
        struct l1_table *l1;

        if (r->op == &op_write)
                return write_fast(&r->fast, img, r->offset, r->length, r->iov, r->iov_count);
        l1 = tree_to_read(r);
        return l1 ? read_fast(&r->fast, img, l1, r->offset, r->length, r->iov, r->iov_count)
                  : FAST_NO;
}

void request_start(struct request *r)
{
        enum fast_result fast = FAST_NO;

        r->fast.io.done = fast_done;
        if (may_go_fast(r))
                fast = go_fast(r);
        if (fast == FAST_NO)
                request_start_task(r);
        else if (fast == FAST_DONE)
                request_finish_later(r, 0);
}

/* The disk has become shorter meanwhile. */
static bool is_beyond(const struct request *r)
{
        uint64_t end;

        return (r->op == &op_read || r->op == &op_write || r->op == &op_zero ||
                r->op == &op_discard || r->op == &op_status) &&
               (!u64_add(r->offset, r->length, &end) || end > image_size(r->image->top));
}

void request_unpark(struct request *r, bool cancelled)
{
        g_queue_unlink(&r->image->parked, &r->link);
        g_queue_push_tail_link(&r->image->requests, &r->link);
        r->parked = false;
        if (cancelled)
                request_finish_later(r, -ECANCELED);
        else if (is_beyond(r))
                request_finish_later(r, -EIO);
        else
                request_start(r);
}

/* ---- what the operations do ---- */

static int step_read(struct request *r)
{
        struct image *img = r->image->top;

        return read_range(&r->frame.read, img, &img->active, r->offset, r->length, r->iov,
                          r->iov_count);
}

static int step_write(struct request *r)
{
        struct write_through *s = &r->frame.write;
        struct image *img = r->image->top;

        CO_BEGIN(s);
        if (r->flags & HVB_REQ_COMPRESS)
                CO_TRY(s, out, write_compressed(&s->compressed, img, r->offset, r->length, r->iov,
                                                r->iov_count));
        else
                CO_TRY(s, out, write_range(&s->write, img, &img->active, r->offset, r->length,
                                           r->iov, r->iov_count));
        if (r->flags & HVB_REQ_FUA)
                CO_TRY(s, out, meta_commit(&s->commit, img));
out:
        CO_END(s);
}

static int step_zero(struct request *r)
{
        struct write_through *s = &r->frame.write;
        struct image *img = r->image->top;

        CO_BEGIN(s);
        CO_TRY(s, out, zero_range(&s->zero, img, &img->active, r->offset, r->length, r->flags));
        if (r->flags & HVB_REQ_FUA)
                CO_TRY(s, out, meta_commit(&s->commit, img));
out:
        CO_END(s);
}

static int step_discard(struct request *r)
{
        struct image *img = r->image->top;

        return discard_range(&r->frame.discard, img, &img->active, r->offset, r->length);
}

static int step_flush(struct request *r)
{
        return meta_commit(&r->frame.flush, r->image->top);
}

static int step_status(struct request *r)
{
        struct image *img = r->image->top;

        return status_range(&r->frame.status, img, &img->active, r->offset, r->length, r->out);
}

static int step_open(struct request *r)
{
        return image_open(&r->frame.open, r->image->top, &r->image->options, r->err);
}

static int step_create(struct request *r)
{
        struct creation *s = &r->frame.create;
        struct image *img = r->image->top;

        CO_BEGIN(s);
        CO_TRY(s, out, create_file(&s->create, &r->image->loop, &img->file, r->create_args,
                                   r->err));
        memset(&s->open, 0, sizeof(s->open));
        CO_TRY(s, out, image_open(&s->open, img, &r->image->options, r->err));
        memset(&s->preallocate, 0, sizeof(s->preallocate));
        if (r->create_args->preallocation != HVB_PREALLOC_OFF)
                CO_TRY(s, out, preallocate(&s->preallocate, img, 0, image_size(img),
                                           r->create_args->preallocation, r->err));
out:
        CO_END(s);
}

static bool is_oldest(const struct request *r)
{
        return r->image->requests.head == &r->link;
}

/* Coroutine: all that was begun before has ended.  What waits there for a snapshot operation
 * between its phases would wait for ever, so that is aborted, and the next one of them too. */
static int outlast_others(struct leaving *s, struct request *r)
{
        CO_BEGIN(&s->outlast);
        while (!is_oldest(r)) {
                CO_UNDO(&s->outlast, prepared_end(&s->prepared, r->image->top));
                if (!is_oldest(r))
                        CO_UNDO(&s->outlast, waitq_wait(&r->image->ended, &s->waiter));
        }
        CO_END(&s->outlast);
}

/* Not cancelled: half left would be neither. */
static int step_close(struct request *r)
{
        struct leaving *s = &r->frame.leave;

        CO_BEGIN(s);
        CO_AWAIT(s, outlast_others(s, r));
        CO_AWAIT(s, co_shielded(image_close(&s->close, r->image->top, r->err)));
        s->co.err = s->co.ret;
        CO_END(s);
}

static int step_inactivate(struct request *r)
{
        struct leaving *s = &r->frame.leave;

        CO_BEGIN(s);
        CO_AWAIT(s, outlast_others(s, r));
        CO_AWAIT(s, co_shielded(image_inactivate(&s->close, r->image->top, r->err)));
        s->co.err = s->co.ret;
        r->image->is_leaving = false;
        CO_END(s);
}

static int step_activate(struct request *r)
{
        int ret = image_activate(&r->frame.open, r->image->top, &r->image->options, r->err);

        if (ret != CO_PENDING)
                r->image->is_activating = false;
        return ret;
}

static int step_truncate(struct request *r)
{
        return resize(&r->frame.resize, r->image->top, r->length, r->flags, r->err);
}

static int step_check(struct request *r)
{
        return check_image(&r->frame.check, r->image->top, r->flags, r->out, r->err);
}

static int step_snapshot_create(struct request *r)
{
        return snapshot_create(&r->frame.snapshot_create, r->image->top, r->out, r->flags,
                               r->err);
}

static int step_snapshot_goto(struct request *r)
{
        return snapshot_goto(&r->frame.snapshot_goto, r->image->top, r->id, r->name, r->err);
}

static int step_snapshot_delete(struct request *r)
{
        return snapshot_delete(&r->frame.snapshot_delete, r->image->top, r->id, r->name, r->err);
}

static int step_snapshot_load_tmp(struct request *r)
{
        return snapshot_load_tmp(&r->frame.snapshot_load_tmp, r->image->top, r->id, r->name,
                                 r->err);
}

static int step_snapshot_load_vmstate(struct request *r)
{
        return snapshot_load_vmstate(&r->frame.snapshot_load_vmstate, r->image->top, r->id,
                                     r->name, r->err);
}

static int step_snapshot_open(struct request *r)
{
        struct hvb_snapshot *snapshot = r->snapshot;
        int ret = snapshot_pin(&r->frame.snapshot_open, r->image->top, r->id, r->name, r->info,
                               &snapshot->pin, r->err);

        if (ret == CO_PENDING)
                return ret;
        if (ret < 0) {
                g_free(snapshot);
                return ret;
        }
        g_queue_push_tail_link(&r->image->snapshots, &snapshot->link);
        *(struct hvb_snapshot **)r->out = snapshot;
        return 0;
}

static int step_snapshot_close(struct request *r)
{
        int ret = snapshot_unpin(&r->frame.snapshot_close, r->image->top, r->snapshot->pin,
                                 r->err);

        if (ret == CO_PENDING)
                return ret;
        g_queue_unlink(&r->image->snapshots, &r->snapshot->link);
        g_free(r->snapshot);
        return ret;
}

/* One that was stopped and is tried again may find that the image has been left meanwhile. */
static bool is_stale(const struct request *r)
{
        return r->snapshot->pin->state == PIN_STALE;
}

static int step_snapshot_read(struct request *r)
{
        if (is_stale(r))
                return -ESTALE;
        return read_range(&r->frame.read, r->image->top, r->l1, r->offset, r->length, r->iov,
                          r->iov_count);
}

static int step_snapshot_status(struct request *r)
{
        if (is_stale(r))
                return -ESTALE;
        return status_range(&r->frame.status, r->image->top, r->l1, r->offset, r->length, r->out);
}

static int step_snapshot_note(struct request *r)
{
        return snapshot_note(&r->frame.snapshot_note, r->image->top, r->snapshot->pin, r->offset,
                             r->length, r->iov, r->iov_count);
}

static int step_save_vmstate(struct request *r)
{
        return save_vmstate(&r->frame.save_vmstate, r->image->top, r->offset, r->length, r->iov,
                            r->iov_count);
}

static int step_share_vmstate(struct request *r)
{
        if (is_stale(r))
                return -ESTALE;
        return share_vmstate(&r->frame.share_vmstate, r->image->top, r->l1, r->source_offset,
                             r->offset, r->length);
}

static int step_load_vmstate(struct request *r)
{
        return load_vmstate(&r->frame.load_vmstate, r->image->top, r->offset, r->length, r->iov,
                            r->iov_count);
}

static int step_refuse(struct request *r)
{
        return r->result;
}

#define FRAME(member) sizeof(((struct request *)NULL)->frame.member)

const struct operation op_read = { "read", step_read, FRAME(read), true, false };
const struct operation op_write = { "write", step_write, FRAME(write), true, true };
const struct operation op_zero = { "write zeroes", step_zero, FRAME(write), true, true };
const struct operation op_discard = {
        "discard", step_discard, FRAME(discard), true, true };
const struct operation op_flush = { "flush", step_flush, FRAME(flush), true, true };
const struct operation op_status = {
        "block status", step_status, FRAME(status), false, false };
const struct operation op_drain = { "drain", step_refuse, 0, false, false };
const struct operation op_open = { "open", step_open, FRAME(open), false, false };
const struct operation op_create = { "create", step_create, FRAME(create), false, true };
const struct operation op_close = { "close", step_close, FRAME(leave), false, true };
const struct operation op_inactivate = {
        "inactivate", step_inactivate, FRAME(leave), false, true };
const struct operation op_activate = {
        "activate", step_activate, FRAME(open), false, false };
const struct operation op_truncate = {
        "truncate", step_truncate, FRAME(resize), false, true };
const struct operation op_check = { "check", step_check, FRAME(check), false, true };
const struct operation op_snapshot_create = {
        "snapshot create", step_snapshot_create, FRAME(snapshot_create), false, true };
const struct operation op_snapshot_goto = {
        "snapshot goto", step_snapshot_goto, FRAME(snapshot_goto), false, true };
const struct operation op_snapshot_delete = {
        "snapshot delete", step_snapshot_delete, FRAME(snapshot_delete), false, true };
const struct operation op_snapshot_load_tmp = {
        "snapshot load_tmp", step_snapshot_load_tmp, FRAME(snapshot_load_tmp), false, false };
const struct operation op_snapshot_load_vmstate = {
        "snapshot load_vmstate", step_snapshot_load_vmstate, FRAME(snapshot_load_vmstate), false,
        false };
const struct operation op_snapshot_open = {
        "snapshot open", step_snapshot_open, FRAME(snapshot_open), false, false };
const struct operation op_snapshot_close = {
        "snapshot close", step_snapshot_close, FRAME(snapshot_close), false, true };
const struct operation op_snapshot_read = {
        "snapshot read", step_snapshot_read, FRAME(read), false, false };
const struct operation op_snapshot_status = {
        "snapshot block status", step_snapshot_status, FRAME(status), false, false };
const struct operation op_snapshot_note = {
        "snapshot note", step_snapshot_note, FRAME(snapshot_note), false, true };
const struct operation op_save_vmstate = {
        "save vmstate", step_save_vmstate, FRAME(save_vmstate), true, true };
const struct operation op_share_vmstate = {
        "share vmstate", step_share_vmstate, FRAME(share_vmstate), true, true };
const struct operation op_load_vmstate = {
        "load vmstate", step_load_vmstate, FRAME(load_vmstate), true, false };
