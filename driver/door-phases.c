/*
 * door-phases.c - members that take a snapshot, or prepare going to one, phase by phase.
 *
 * What is prepared is the image's, not a request's (ops/snapshot-phases.h).
 *
 * SPDX-License-Identifier: MIT
 */
#include "door.h"

static int step_prepare(struct request *r)
{
        return snapshot_prepare(&r->frame.snapshot_prepare, r->image->top, r->wanted_info,
                                r->flags, r->err);
}

static int step_goto_prepare(struct request *r)
{
        return snapshot_goto_prepare(&r->frame.snapshot_prepare, r->image->top, r->id, r->name,
                                     r->err);
}

static int step_switch(struct request *r)
{
        return snapshot_switch(&r->frame.snapshot_phase, r->image->top, r->err);
}

static int step_publish(struct request *r)
{
        return snapshot_publish(&r->frame.snapshot_phase, r->image->top, r->info, r->err);
}

static int step_abort(struct request *r)
{
        return snapshot_abort(&r->frame.snapshot_phase, r->image->top, r->err);
}

static const struct operation op_prepare = {
        "snapshot prepare", step_prepare, sizeof(struct snapshot_prepare), false, true };
static const struct operation op_goto_prepare = {
        "snapshot goto_prepare", step_goto_prepare, sizeof(struct snapshot_prepare), false, true };
static const struct operation op_switch = {
        "snapshot switch", step_switch, sizeof(struct snapshot_phase), false, true };
static const struct operation op_publish = {
        "snapshot publish", step_publish, sizeof(struct snapshot_phase), false, true };
static const struct operation op_abort = {
        "snapshot abort", step_abort, sizeof(struct snapshot_phase), false, true };

static struct request *begin(struct hvb_image *image, struct hvb_request *request,
                             const struct operation *op, struct hvb_error *err)
{
        struct request *r = request_begin(image, request, op);

        r->err = err;
        return r;
}

void driver_snapshot_prepare(struct hvb_image *image, struct hvb_request *request,
                             const struct hvb_snapshot_info *info, uint32_t flags,
                             struct hvb_error *err)
{
        struct request *r = begin(image, request, &op_prepare, err);

        r->wanted_info = info;
        r->flags = flags;
        request_start_task(r);
}

void driver_snapshot_switch(struct hvb_image *image, struct hvb_request *request,
                            struct hvb_error *err)
{
        request_start_task(begin(image, request, &op_switch, err));
}

void driver_snapshot_publish(struct hvb_image *image, struct hvb_request *request,
                             struct hvb_snapshot_info *info, struct hvb_error *err)
{
        struct request *r = begin(image, request, &op_publish, err);

        r->info = info;
        request_start_task(r);
}

void driver_snapshot_abort(struct hvb_image *image, struct hvb_request *request,
                           struct hvb_error *err)
{
        request_start_task(begin(image, request, &op_abort, err));
}

void driver_snapshot_goto_prepare(struct hvb_image *image, struct hvb_request *request,
                                  const char *id, const char *name, struct hvb_error *err)
{
        struct request *r = begin(image, request, &op_goto_prepare, err);

        r->id = id;
        r->name = name;
        request_start_task(r);
}
