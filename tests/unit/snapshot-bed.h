/*
 * snapshot-bed.h - for tests of snapshots: each operation as one call on an opened bed.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef UNIT_SNAPSHOT_BED_H
#define UNIT_SNAPSHOT_BED_H

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
#include "unit/data-bed.h"

struct snapshot_task {
        struct bed_task base;
        struct hvb_snapshot_info *info;
        uint32_t flags;
        const char *id;
        const char *name;
        uint64_t offset;
        struct iovec iov;
        struct pin *pin;
        uint64_t source_offset;
        uint64_t length_bytes;
        union {
                struct snapshot_create create;
                struct snapshot_prepare prepare;
                struct snapshot_phase phase;
                struct snapshot_goto go;
                struct snapshot_delete delete;
                struct snapshot_load_tmp load_tmp;
                struct snapshot_load_vmstate load_vmstate;
                struct save_vmstate save;
                struct load_vmstate load;
                struct snapshot_pin pin;
                struct snapshot_unpin unpin;
                struct snapshot_note note;
                struct share_vmstate share;
        } u;
};

static inline void snapshot_poll(struct bed *b, struct snapshot_task *t)
{
        while (!t->base.ended) {
                g_assert_cmpint(loop_poll(&b->loop, -1), >=, 0);
                if (!t->base.ended && b->cancel_after > 0 && --b->cancel_after == 0)
                        task_cancel(&t->base.task);
        }
}

/* Runs a task whose step and arguments are set; the text of a failure is in b->err. */
static inline int snapshot_run(struct bed *b, struct snapshot_task *t)
{
        b->err = (struct hvb_error){ .struct_bytes = sizeof(b->err) };
        t->base.bed = b;
        task_start(&t->base.task, &b->loop, "snapshot", bed_task_step, bed_task_done);
        b->progress_done = b->progress_total = 0;
        t->base.task.progress_done = &b->progress_done;
        t->base.task.progress_total = &b->progress_total;
        snapshot_poll(b, t);
        g_assert_cmpint(t->base.result, ==, t->base.result < 0 ? b->err.code ?: t->base.result : 0);
        return t->base.result;
}

static inline int bed_create_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_create(&t->u.create, base->bed->img, t->info, t->flags, &base->bed->err);
}

static inline int bed_prepare_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_prepare(&t->u.prepare, base->bed->img, t->info, t->flags,
                                &base->bed->err);
}

static inline int bed_goto_prepare_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_goto_prepare(&t->u.prepare, base->bed->img, t->id, t->name,
                                     &base->bed->err);
}

static inline int bed_switch_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_switch(&t->u.phase, base->bed->img, &base->bed->err);
}

static inline int bed_publish_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_publish(&t->u.phase, base->bed->img, t->info, &base->bed->err);
}

static inline int bed_abort_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_abort(&t->u.phase, base->bed->img, &base->bed->err);
}

static inline int bed_goto_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_goto(&t->u.go, base->bed->img, t->id, t->name, &base->bed->err);
}

static inline int bed_delete_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_delete(&t->u.delete, base->bed->img, t->id, t->name, &base->bed->err);
}

static inline int bed_load_tmp_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_load_tmp(&t->u.load_tmp, base->bed->img, t->id, t->name,
                                 &base->bed->err);
}

static inline int bed_load_vmstate_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_load_vmstate(&t->u.load_vmstate, base->bed->img, t->id, t->name,
                                     &base->bed->err);
}

static inline int bed_save_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return save_vmstate(&t->u.save, base->bed->img, t->offset, t->iov.iov_len, &t->iov, 1);
}

static inline int bed_load_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return load_vmstate(&t->u.load, base->bed->img, t->offset, t->iov.iov_len, &t->iov, 1);
}

static inline int bed_pin_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_pin(&t->u.pin, base->bed->img, t->id, t->name, NULL, &t->pin,
                            &base->bed->err);
}

static inline int bed_unpin_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_unpin(&t->u.unpin, base->bed->img, t->pin, &base->bed->err);
}

static inline int bed_note_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return snapshot_note(&t->u.note, base->bed->img, t->pin, t->offset, t->iov.iov_len,
                             &t->iov, 1);
}

static inline int bed_share_step(struct bed_task *base)
{
        struct snapshot_task *t = (struct snapshot_task *)base;

        return share_vmstate(&t->u.share, base->bed->img, &t->pin->vm_state, t->source_offset,
                             t->offset, t->length_bytes);
}

/* With a VM state of so many bytes, as the host claims. */
static inline int bed_described(struct bed *b, int (*step)(struct bed_task *t), const char *name,
                                uint64_t vm_state_bytes, uint32_t flags,
                                struct hvb_snapshot_info *ret_info)
{
        struct hvb_snapshot_info info = {
                .struct_bytes = sizeof(info),
                .date_sec = 1700000000,
                .date_nsec = 5,
                .vm_clock_nsec = UINT64_C(3723004000000),
                .vm_state_bytes = vm_state_bytes,
                .icount = UINT64_MAX,
        };
        struct snapshot_task t = {
                .base.step = step,
                .info = ret_info ? ret_info : &info,
                .flags = flags,
        };

        g_strlcpy(info.name, name, sizeof(info.name));
        if (ret_info)
                *ret_info = info;
        return snapshot_run(b, &t);
}

static inline int bed_create(struct bed *b, const char *name, uint64_t vm_state_bytes,
                             uint32_t flags, struct hvb_snapshot_info *ret_info)
{
        return bed_described(b, bed_create_step, name, vm_state_bytes, flags, ret_info);
}

static inline int bed_prepare(struct bed *b, const char *name, uint32_t flags)
{
        return bed_described(b, bed_prepare_step, name, 0, flags, NULL);
}

static inline int bed_publish(struct bed *b, const char *name, uint64_t vm_state_bytes)
{
        return bed_described(b, bed_publish_step, name, vm_state_bytes, 0, NULL);
}

static inline int bed_named(struct bed *b, int (*step)(struct bed_task *t), const char *id,
                            const char *name)
{
        struct snapshot_task t = { .base.step = step, .id = id, .name = name };

        return snapshot_run(b, &t);
}

static inline int bed_switch(struct bed *b)
{
        return bed_named(b, bed_switch_step, NULL, NULL);
}

static inline int bed_abort(struct bed *b)
{
        return bed_named(b, bed_abort_step, NULL, NULL);
}

static inline int bed_goto(struct bed *b, const char *name)
{
        return bed_named(b, bed_goto_step, NULL, name);
}

static inline int bed_goto_prepare(struct bed *b, const char *name)
{
        return bed_named(b, bed_goto_prepare_step, NULL, name);
}

/* Waits for what an operation left to be counted down. */
static inline void bed_background(struct bed *b)
{
        while (b->img->background)
                g_assert_cmpint(loop_poll(&b->loop, -1), >=, 0);
}

static inline int bed_delete(struct bed *b, const char *name)
{
        return bed_named(b, bed_delete_step, NULL, name);
}

static inline int bed_load_vmstate(struct bed *b, const char *name)
{
        return bed_named(b, bed_load_vmstate_step, NULL, name);
}

static inline int bed_save(struct bed *b, uint64_t offset, const void *bytes, size_t length)
{
        struct snapshot_task t = {
                .base.step = bed_save_step,
                .offset = offset,
                .iov = { (void *)bytes, length },
        };

        return snapshot_run(b, &t);
}

static inline int bed_load(struct bed *b, uint64_t offset, void *bytes, size_t length)
{
        struct snapshot_task t = {
                .base.step = bed_load_step,
                .offset = offset,
                .iov = { bytes, length },
        };

        return snapshot_run(b, &t);
}

/* NULL: it failed. */
static inline struct pin *bed_pin(struct bed *b, const char *name)
{
        struct snapshot_task t = { .base.step = bed_pin_step, .name = name };

        return snapshot_run(b, &t) == 0 ? t.pin : NULL;
}

static inline int bed_unpin(struct bed *b, struct pin *pin)
{
        struct snapshot_task t = { .base.step = bed_unpin_step, .pin = pin };

        return snapshot_run(b, &t);
}

static inline int bed_note(struct bed *b, struct pin *pin, uint64_t offset, const void *bytes,
                           size_t length)
{
        struct snapshot_task t = {
                .base.step = bed_note_step,
                .pin = pin,
                .offset = offset,
                .iov = { (void *)bytes, length },
        };

        return snapshot_run(b, &t);
}

static inline int bed_share(struct bed *b, struct pin *pin, uint64_t source_offset,
                            uint64_t offset, uint64_t length_bytes)
{
        struct snapshot_task t = {
                .base.step = bed_share_step,
                .pin = pin,
                .source_offset = source_offset,
                .offset = offset,
                .length_bytes = length_bytes,
        };

        return snapshot_run(b, &t);
}

#endif
