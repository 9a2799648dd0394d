/*
 * live.c - snapshot operations during which the guest goes on.
 *
 * A step begins the operation, others follow while it runs, and one waits for its end.
 * A snapshot taken so is the disk at one moment of that: what it shows, after some of the
 * steps and perhaps in the middle of the next, becomes the model's, to which every state
 * of the run is held.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "proof/peek.h"
#include "proof/world.h"
#include "unit/sim-bed.h"
#include "unit/snapshot-bed.h"

enum { WAIT_POLLS = 6 };

struct live {
        struct snapshot_task task;
        struct hvb_snapshot_info info;
        const struct step *step;
        GPtrArray *models;              /* of struct model, after each step since the begin */
};

static void free_model(gpointer m)
{
        model_free(m);
}

static int begin(struct stage *s, const struct step *step, int (*run)(struct bed_task *t))
{
        struct live *l = g_new0(struct live, 1);

        g_assert_null(s->live);
        s->live = l;
        l->step = step;
        l->models = g_ptr_array_new_with_free_func(free_model);
        l->info = (struct hvb_snapshot_info){ .struct_bytes = sizeof(l->info) };
        if (step->snapshot)
                g_strlcpy(l->info.name, step->snapshot, sizeof(l->info.name));
        l->task.base.bed = &s->bed;
        l->task.base.step = run;
        l->task.info = &l->info;
        l->task.flags = step->flags;
        l->task.name = step->snapshot;
        task_start(&l->task.base.task, &s->bed.loop, "live", bed_task_step, bed_task_done);
        live_note(s);
        return 0;
}

int live_begin_create(struct stage *s, const struct step *step)
{
        return begin(s, step, bed_create_step);
}

int live_begin_delete(struct stage *s, const struct step *step)
{
        return begin(s, step, bed_delete_step);
}

int live_begin_goto(struct stage *s, const struct step *step)
{
        return begin(s, step, bed_goto_step);
}

void live_note(struct stage *s)
{
        if (s->live)
                g_ptr_array_add(s->live->models, model_copy(s->model));
}

int live_wait(struct stage *s, const struct step *step)
{
        unsigned i;

        (void)step;
        for (i = 0; i < WAIT_POLLS && !s->live->task.base.ended; i++)
                g_assert_cmpint(loop_poll(&s->bed.loop, -1), >=, 0);
        return 0;
}

/* ---- what the snapshot shows ---- */

static const uint8_t *disk_of(const struct live *l, guint index)
{
        const struct model *m = g_ptr_array_index(l->models, index);

        return g_bytes_get_data(m->disk, NULL);
}

/* The disk after step number `index`, in parts after the next one perhaps. */
static bool is_moment(const struct live *l, guint index, GBytes *disk)
{
        gsize bytes, i;
        const uint8_t *data = g_bytes_get_data(disk, &bytes);
        const uint8_t *before = disk_of(l, index);
        const uint8_t *after = disk_of(l, MIN(index + 1, l->models->len - 1));

        for (i = 0; i < bytes; i++)
                if (data[i] != before[i] && data[i] != after[i])
                        return false;
        return true;
}

static void adopt(struct stage *s)
{
        struct live *l = s->live;
        const struct peek_snapshot *shown;
        g_autoptr(GBytes) disk = NULL;
        struct peek p;
        guint i;

        if (peek_open(&p, &s->disk->files[0].image, s->world->backing) != NULL)
                g_error("the image cannot be looked at");
        shown = &p.snapshots[p.snapshot_count - 1];
        g_assert_cmpstr(shown->name, ==, l->info.name);
        disk = peek_disk(&p, shown->l1_offset, shown->l1_entries, shown->disk_bytes);
        for (i = 0; i < l->models->len && !is_moment(l, i, disk); i++)
                ;
        if (i == l->models->len)
                g_error("snapshot '%s' is the disk at no moment", shown->name);
        if (l->step->flags & HVB_SNAPSHOT_REPLACE)
                model_snapshot_remove(s->model, l->step->snapshot);
        model_snapshot_add(s->model, shown->id, shown->name, NULL);
        model_snapshot_set_disk(s->model, shown->name, disk);
        peek_clear(&p);
}

/* Writes that met the switch are lost, or on top of the snapshot. */
static void adopt_disk(struct stage *s)
{
        uint64_t bytes = image_size(s->bed.img);
        g_autofree uint8_t *data = g_malloc(bytes);
        GBytes *shown = model_snapshot_find(s->model, s->live->step->snapshot)->disk;
        const uint8_t *snapshot = g_bytes_get_data(shown, NULL);
        uint64_t i;
        guint k;

        g_assert_cmpuint(g_bytes_get_size(shown), ==, bytes);
        g_assert_cmpint(bed_read(&s->bed, 0, data, bytes), ==, 0);
        for (i = 0; i < bytes; i++) {
                for (k = 0; k < s->live->models->len && data[i] != snapshot[i] &&
                     data[i] != disk_of(s->live, k)[i]; k++)
                        ;
                if (k == s->live->models->len)
                        g_error("byte %" G_GUINT64_FORMAT " is nobody's behind the goto", i);
        }
        g_bytes_unref(s->model->disk);
        s->model->disk = g_bytes_new_take(g_steal_pointer(&data), bytes);
}

int live_finish(struct stage *s, const struct step *step)
{
        struct live *l = s->live;
        int ret;

        (void)step;
        bed_poll_until(&s->bed, &l->task.base.ended);
        ret = l->task.base.result;
        if (ret == 0 && l->step->run == live_begin_create)
                adopt(s);
        if (ret == 0 && l->step->run == live_begin_delete)
                model_snapshot_remove(s->model, l->step->snapshot);
        if (ret == 0 && l->step->run == live_begin_goto)
                adopt_disk(s);
        g_ptr_array_unref(l->models);
        g_free(l);
        s->live = NULL;
        return ret;
}
