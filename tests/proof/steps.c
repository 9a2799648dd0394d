/*
 * steps.c - what may be done to an image, and what it does to the model.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "ops/check.h"
#include "ops/resize.h"
#include "ops/snapshot-pin.h"
#include "proof/world.h"
#include "unit/sim-bed.h"
#include "unit/snapshot-bed.h"

static uint64_t step_offset(const struct stage *s, const struct step *step)
{
        uint64_t cluster = s->world->format->cluster_bytes;
        int64_t first = step->cluster;

        if (first < 0)
                first += (int64_t)(g_bytes_get_size(s->model->disk) / cluster);
        return (uint64_t)first * cluster + cluster / 8 * step->start_eighths;
}

/* A value that no other write of the run has. */
static uint8_t fresh_value(struct stage *s)
{
        return (uint8_t)(1 + s->disk->io_count % 127);
}

/* ---- data ---- */

static int write_range_of(struct stage *s, const struct step *step, enum op_kind kind)
{
        uint64_t length = s->world->format->cluster_bytes / 8 * step->length_eighths;
        uint64_t offset = step_offset(s, step);
        g_autofree uint8_t *bytes = g_malloc(length);
        uint8_t value = fresh_value(s);
        int ret;

        memset(bytes, value, length);
        ret = bed_transfer(&s->bed, kind, offset, bytes, length);
        if (ret == 0)
                model_fill(s->model, offset, length, value);
        return ret;
}

static int run_write(struct stage *s, const struct step *step)
{
        return write_range_of(s, step, OP_WRITE);
}

static int run_compress(struct stage *s, const struct step *step)
{
        return write_range_of(s, step, OP_COMPRESS);
}

static int run_zero(struct stage *s, const struct step *step)
{
        uint64_t length = s->world->format->cluster_bytes / 8 * step->length_eighths;
        uint64_t offset = step_offset(s, step);
        int ret = bed_zero(&s->bed, offset, length, step->flags);

        if (ret == 0)
                model_fill(s->model, offset, length, 0);
        return ret;
}

/* Whole clusters become zeros, but for version 2 over a backing file, which cannot say so. */
static int run_discard(struct stage *s, const struct step *step)
{
        uint64_t cluster = s->world->format->cluster_bytes;
        uint64_t offset = step_offset(s, step);
        uint64_t end = offset + cluster / 8 * step->length_eighths;
        uint64_t first = (offset + cluster - 1) / cluster * cluster;
        int ret = bed_discard(&s->bed, offset, end - offset);

        end = end / cluster * cluster;
        if (ret == 0 && first < end && (s->world->version >= 3 || !s->world->backing))
                model_fill(s->model, first, end - first, 0);
        return ret;
}

/* Eight writes and a commit, all at once. */
static int run_burst(struct stage *s, const struct step *step)
{
        uint64_t cluster = s->world->format->cluster_bytes;
        uint64_t length = cluster * step->length_eighths / 8 / 8;
        g_autofree uint8_t *bytes = g_malloc(length * 8);
        struct op *ops[8];
        int ret = 0;
        unsigned i;

        for (i = 0; i < 8; i++) {
                memset(bytes + i * length, fresh_value(s), length);
                ops[i] = op_new(&s->bed, OP_WRITE, step_offset(s, step) + i * length, length);
                op_buffer(ops[i], bytes + i * length, 0);
                op_start(ops[i]);
                if (i == 4)
                        ret = bed_run(&s->bed, bed_commit_step);
        }
        for (i = 0; i < 8; i++) {
                int one = op_end(ops[i]);

                ret = ret < 0 ? ret : one;
        }
        for (i = 0; i < 8 && ret == 0; i++)
                model_fill(s->model, step_offset(s, step) + i * length, length,
                           bytes[i * length]);
        return ret;
}

static int run_flush(struct stage *s, const struct step *step)
{
        (void)step;
        return bed_run(&s->bed, bed_commit_step);
}

/* ---- size ---- */

struct resize_task {
        struct bed_task base;
        struct resize resize;
        uint64_t disk_bytes;
};

static int resize_step(struct bed_task *base)
{
        struct resize_task *t = (struct resize_task *)base;

        return resize(&t->resize, base->bed->img, t->disk_bytes, HVB_PREALLOC_OFF,
                      &base->bed->err);
}

static int run_resize(struct stage *s, const struct step *step)
{
        uint64_t cluster = s->world->format->cluster_bytes;
        g_autofree struct resize_task *t = g_new0(struct resize_task, 1);

        t->base = (struct bed_task){ .bed = &s->bed, .step = resize_step };
        t->disk_bytes = g_bytes_get_size(s->model->disk);
        t->disk_bytes += (int64_t)step->cluster * (int64_t)cluster;
        t->disk_bytes += cluster / 8 * step->start_eighths;
        t->disk_bytes &= ~UINT64_C(511);
        task_start(&t->base.task, &s->bed.loop, "resize", bed_task_step, bed_task_done);
        bed_poll_until(&s->bed, &t->base.ended);
        if (t->base.result == 0)
                model_resize(s->model, t->disk_bytes);
        return t->base.result;
}

/* ---- snapshots ---- */

/* No longer than needed to begin and to end within a cluster. */
static GBytes *vm_state_of(struct stage *s)
{
        uint64_t bytes = s->world->format->cluster_bytes * 3 / 2 + 77;
        uint8_t *data = g_malloc(bytes);

        memset(data, fresh_value(s), bytes);
        return g_bytes_new_take(data, bytes);
}

static int run_create(struct stage *s, const struct step *step)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        int ret = bed_create(&s->bed, step->snapshot, 0, step->flags, &info);

        if (ret < 0)
                return ret;
        if (step->flags & HVB_SNAPSHOT_REPLACE)
                model_snapshot_remove(s->model, step->snapshot);
        model_snapshot_add(s->model, info.id_str, step->snapshot, NULL);
        return 0;
}

static int save(struct stage *s, GBytes *state)
{
        return bed_save(&s->bed, 0, g_bytes_get_data(state, NULL), g_bytes_get_size(state));
}

static int run_savevm(struct stage *s, const struct step *step)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        g_autoptr(GBytes) state = vm_state_of(s);
        int ret = save(s, state);

        if (ret < 0)
                return ret;
        ret = bed_create(&s->bed, step->snapshot, g_bytes_get_size(state), step->flags, &info);
        if (ret < 0)
                return ret;
        if (step->flags & HVB_SNAPSHOT_REPLACE)
                model_snapshot_remove(s->model, step->snapshot);
        model_snapshot_add(s->model, info.id_str, step->snapshot, state);
        return 0;
}

static int run_save(struct stage *s, const struct step *step)
{
        g_autoptr(GBytes) state = vm_state_of(s);

        (void)step;
        return save(s, state);
}

/* What follows meets the counting down of what the disk was. */
static int run_goto_at_once(struct stage *s, const struct step *step)
{
        int ret = bed_goto(&s->bed, step->snapshot);

        if (ret == 0)
                model_snapshot_goto(s->model, step->snapshot);
        return ret;
}

static int run_goto(struct stage *s, const struct step *step)
{
        int ret = run_goto_at_once(s, step);

        bed_background(&s->bed);
        return ret;
}

static int run_delete(struct stage *s, const struct step *step)
{
        int ret = bed_delete(&s->bed, step->snapshot);

        if (ret == 0)
                model_snapshot_remove(s->model, step->snapshot);
        return ret;
}

/* A snapshot is pinned, deleted, read, and only then it goes. */
struct reading_task {
        struct bed_task base;
        const char *name;
        struct pin *pin;
        uint64_t offset;
        struct iovec iov;
        union {
                struct snapshot_pin pin;
                struct snapshot_unpin unpin;
                struct read read;
                struct snapshot_note note;
        } u;
};

static int reading_pin(struct bed_task *base)
{
        struct reading_task *t = (struct reading_task *)base;

        return snapshot_pin(&t->u.pin, base->bed->img, NULL, t->name, NULL, &t->pin,
                            &base->bed->err);
}

static int reading_read(struct bed_task *base)
{
        struct reading_task *t = (struct reading_task *)base;

        return read_range(&t->u.read, base->bed->img, &t->pin->disk, 0, t->iov.iov_len, &t->iov,
                          1);
}

static int reading_unpin(struct bed_task *base)
{
        struct reading_task *t = (struct reading_task *)base;

        return snapshot_unpin(&t->u.unpin, base->bed->img, t->pin, &base->bed->err);
}

static int reading_note(struct bed_task *base)
{
        struct reading_task *t = (struct reading_task *)base;

        return snapshot_note(&t->u.note, base->bed->img, t->pin, t->offset, t->iov.iov_len,
                             &t->iov, 1);
}

static int run_reading(struct reading_task *t, int (*step)(struct bed_task *base))
{
        memset(&t->u, 0, sizeof(t->u));
        t->base.step = step;
        t->base.ended = false;
        task_start(&t->base.task, &t->base.bed->loop, "reading", bed_task_step, bed_task_done);
        bed_poll_until(t->base.bed, &t->base.ended);
        return t->base.result;
}

/* What can be read is what the snapshot has. */
static void expect_content(struct reading_task *t, GBytes *disk)
{
        gsize length = g_bytes_get_size(disk);
        g_autofree uint8_t *bytes = g_malloc(length + 1);

        t->iov = (struct iovec){ bytes, length };
        if (run_reading(t, reading_read) == 0)
                g_assert_cmpmem(bytes, length, g_bytes_get_data(disk, NULL), length);
}

/* Once it is deleted what fails leaks, and no more: as with a delete that nobody waits for. */
static int run_delete_read(struct stage *s, const struct step *step)
{
        const struct model_snapshot *shot = model_snapshot_find(s->model, step->snapshot);
        g_autofree struct reading_task *t = g_new0(struct reading_task, 1);
        g_autoptr(GBytes) disk = shot ? g_bytes_ref(shot->disk) : NULL;
        int ret;

        t->base.bed = &s->bed;
        t->name = step->snapshot;
        ret = run_reading(t, reading_pin);
        if (ret < 0)
                return ret;
        ret = run_delete(s, step);
        expect_content(t, disk);
        run_reading(t, reading_unpin);
        return ret;
}

/* A cluster that was saved behind the state is written over; the snapshot stays what it is. */
static int note(struct stage *s, const char *name, void *bytes)
{
        uint64_t cluster_bytes = s->world->format->cluster_bytes;
        g_autofree struct reading_task *t = g_new0(struct reading_task, 1);
        int unpinned;
        int ret;

        t->base.bed = &s->bed;
        t->name = name;
        ret = run_reading(t, reading_pin);
        if (ret < 0)
                return ret;
        memset(bytes, fresh_value(s), cluster_bytes);
        t->iov = (struct iovec){ bytes, cluster_bytes };
        t->offset = 2 * cluster_bytes;
        ret = run_reading(t, reading_note);
        unpinned = run_reading(t, reading_unpin);
        return ret < 0 ? ret : unpinned;
}

static int run_note(struct stage *s, const struct step *step)
{
        uint64_t cluster_bytes = s->world->format->cluster_bytes;
        g_autofree uint8_t *bytes = g_malloc(cluster_bytes);
        int ret = 0;

        memset(bytes, fresh_value(s), cluster_bytes);
        if (!model_snapshot_find(s->model, step->snapshot)) {
                ret = bed_save(&s->bed, 2 * cluster_bytes, bytes, cluster_bytes);
                if (ret == 0)
                        ret = run_savevm(s, step);
        }
        return ret < 0 ? ret : note(s, step->snapshot, bytes);
}

/* ---- the image ---- */

struct repair_task {
        struct bed_task base;
        struct check check;
        struct hvb_check_result result;
        uint32_t flags;                 /* HVB_CHECK_* */
};

static int repair_step(struct bed_task *base)
{
        struct repair_task *t = (struct repair_task *)base;

        return check_image(&t->check, base->bed->img, t->flags, &t->result, &base->bed->err);
}

static int run_repair(struct stage *s, const struct step *step)
{
        g_autofree struct repair_task *t = g_new0(struct repair_task, 1);

        t->base = (struct bed_task){ .bed = &s->bed, .step = repair_step };
        t->flags = step->flags;
        t->result.struct_bytes = sizeof(t->result);
        task_start(&t->base.task, &s->bed.loop, "check", bed_task_step, bed_task_done);
        bed_poll_until(&s->bed, &t->base.ended);
        return t->base.result;
}

static int run_reopen(struct stage *s, const struct step *step)
{
        int ret = sim_close(&s->bed);
        int second = sim_open_begin(&s->bed, s->disk, HVB_OPEN_RDWR);

        (void)step;
        return ret < 0 ? ret : second;
}

/* ---- the table ---- */

#define DISK(cluster_, start_, length_) \
        .cluster = cluster_, .start_eighths = start_, .length_eighths = length_

#define STABLE .durable = true
#define MARKED .durable = true, .marked = true

const struct step steps[] = {
        { "write", run_write, DISK(3, 1, 3) },
        { "write on shared", run_write, DISK(0, 2, 4) },
        { "write on compressed", run_write, DISK(2, 3, 2) },
        { "write new", run_write, DISK(4, 0, 5) },
        { "write many", run_write, DISK(0, 5, 25) },
        { "write wide", run_write, DISK(40, 4, 560) },
        { "write at end", run_write, DISK(-1, 3, 5) },
        { "write compressed", run_compress, DISK(4, 0, 8) },
        { "burst", run_burst, DISK(0, 0, 40) },
        { "write zeroes", run_zero, DISK(0, 4, 25) },
        { "write zeroes, unmap", run_zero, DISK(0, 4, 25), .flags = HVB_REQ_MAY_UNMAP },
        { "discard", run_discard, DISK(0, 0, 36) },
        { "discard private", run_discard, DISK(3, 0, 8) },
        { "flush", run_flush, STABLE },
        { "grow", run_resize, STABLE, DISK(3, 4, 0) },
        { "grow L1", run_resize, STABLE, DISK(150, 0, 0) },
        { "shrink", run_resize, STABLE, DISK(-3, 4, 0) },
        { "shrink much", run_resize, STABLE, DISK(-4, 0, 0) },
        { "create", run_create, MARKED, .snapshot = "c" },
        { "create with state", run_savevm, STABLE, .snapshot = "c" },
        { "replace", run_create, MARKED, .snapshot = "a", .flags = HVB_SNAPSHOT_REPLACE },
        { "replace with state", run_savevm, STABLE, .snapshot = "a",
          .flags = HVB_SNAPSHOT_REPLACE },
        { "create with state, note", run_note, STABLE, .snapshot = "c" },
        { "save state", run_save, DISK(0, 0, 0) },
        { "goto a", run_goto, MARKED, .snapshot = "a" },
        { "goto b", run_goto, MARKED, .snapshot = "b" },
        { "goto c", run_goto, MARKED, .snapshot = "c" },
        { "delete a", run_delete, MARKED, .snapshot = "a" },
        { "delete b", run_delete, MARKED, .snapshot = "b" },
        { "delete c", run_delete, MARKED, .snapshot = "c" },
        { "delete b, read", run_delete_read, MARKED, .snapshot = "b" },
        { "check -r leaks", run_repair, MARKED, .flags = HVB_CHECK_FIX_LEAKS },
        { "check -r all", run_repair, MARKED,
          .flags = HVB_CHECK_FIX_LEAKS | HVB_CHECK_FIX_ERRORS },
        { "reopen", run_reopen, STABLE },
        { "begin create", live_begin_create, .snapshot = "c" },
        { "begin replace", live_begin_create, .snapshot = "a", .flags = HVB_SNAPSHOT_REPLACE },
        { "begin delete a", live_begin_delete, .snapshot = "a" },
        { "begin delete b", live_begin_delete, .snapshot = "b" },
        { "begin goto a", live_begin_goto, .snapshot = "a" },
        { "goto a at once", run_goto_at_once, MARKED, .snapshot = "a" },
        { "goto b at once", run_goto_at_once, MARKED, .snapshot = "b" },
        { "wait", live_wait, DISK(0, 0, 0) },
        { "finish", live_finish, DISK(0, 0, 0) },
        { "prepare", phase_prepare, .is_phase = true, .snapshot = "c" },
        { "prepare replace", phase_prepare, .is_phase = true, .snapshot = "a",
          .flags = HVB_SNAPSHOT_REPLACE },
        { "prepare goto a", phase_goto_prepare, .is_phase = true, .snapshot = "a" },
        { "prepare goto b", phase_goto_prepare, .is_phase = true, .snapshot = "b" },
        { "switch", phase_switch, .is_phase = true },
        { "save", phase_save, .is_phase = true },
        { "share", phase_share, .is_phase = true, .snapshot = "a" },
        { "publish", phase_publish, STABLE, .is_phase = true, .snapshot = "c" },
        { "publish replace", phase_publish, STABLE, .is_phase = true, .snapshot = "a",
          .flags = HVB_SNAPSHOT_REPLACE },
        { "abort", phase_abort, .is_phase = true },
        { "create in phases", phases_create, STABLE, .snapshot = "c" },
        { "goto a in phases", phases_goto, MARKED, .snapshot = "a" },
        { "create as b", run_create, MARKED, .snapshot = "b" },
        { "create with state as a", run_savevm, STABLE, .snapshot = "a" },
};

const unsigned step_count = G_N_ELEMENTS(steps);

const struct step *step_named(const char *name)
{
        unsigned i;

        for (i = 0; i < step_count; i++)
                if (strcmp(steps[i].name, name) == 0)
                        return &steps[i];
        g_error("no step is called '%s'", name);
}

/* Is what a step touches within the disk, and does a resize leave some of it? */
static bool fits(const struct stage *s, const struct step *step)
{
        int64_t cluster = (int64_t)s->world->format->cluster_bytes;
        int64_t disk = (int64_t)g_bytes_get_size(s->model->disk);
        int64_t first = step->cluster * cluster + cluster / 8 * step->start_eighths;

        if (step->run == run_resize)
                return disk + first > 0;
        if (step->length_eighths == 0)
                return true;
        if (step->cluster < 0)
                first += disk;
        return first >= 0 && first + cluster / 8 * step->length_eighths <= disk;
}

int step_run(struct stage *s, const struct step *step)
{
        int ret = fits(s, step) ? step->run(s, step) : -ERANGE;

        live_note(s);
        return ret;
}
