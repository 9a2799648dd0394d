/*
 * phases.c - snapshot operations phase by phase, each a step, with others between them.
 *
 * A step ends before the next begins, so it is known which disk the snapshot has: that of the
 * switch.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "proof/world.h"
#include "unit/sim-bed.h"
#include "unit/snapshot-bed.h"

void stage_forget_phases(struct stage *s)
{
        g_clear_pointer(&s->saved, g_bytes_unref);
        g_clear_pointer(&s->switched, g_bytes_unref);
}

int phase_prepare(struct stage *s, const struct step *step)
{
        return bed_prepare(&s->bed, step->snapshot, step->flags);
}

int phase_switch(struct stage *s, const struct step *step)
{
        int ret = bed_switch(&s->bed);

        (void)step;
        if (ret == 0)
                s->switched = g_bytes_ref(s->model->disk);
        return ret;
}

/* No longer than needed to begin and to end within a cluster. */
int phase_save(struct stage *s, const struct step *step)
{
        gsize bytes = s->world->format->cluster_bytes * 3 / 2 + 77;
        uint8_t *data = g_malloc(bytes);

        (void)step;
        memset(data, (int)(1 + s->disk->io_count % 127), bytes);
        g_clear_pointer(&s->saved, g_bytes_unref);
        s->saved = g_bytes_new_take(data, bytes);
        return bed_save(&s->bed, 0, data, bytes);
}

/* All that the snapshot's state has; on failure the handle goes all the same. */
int phase_share(struct stage *s, const struct step *step)
{
        const struct model_snapshot *source = model_snapshot_find(s->model, step->snapshot);
        uint64_t cluster = s->world->format->cluster_bytes;
        struct pin *pin = bed_pin(&s->bed, step->snapshot);
        int ret;

        if (!pin)
                return s->bed.err.code;
        ret = bed_share(&s->bed, pin, 0, 0,
                        (g_bytes_get_size(source->vm_state) + cluster - 1) / cluster * cluster);
        bed_unpin(&s->bed, pin);
        if (ret < 0)
                return ret;
        g_clear_pointer(&s->saved, g_bytes_unref);
        s->saved = g_bytes_ref(source->vm_state);
        return 0;
}

int phase_publish(struct stage *s, const struct step *step)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        int ret = bed_described(&s->bed, bed_publish_step, step->snapshot,
                                s->saved ? g_bytes_get_size(s->saved) : 0, 0, &info);

        if (ret == 0 && (step->flags & HVB_SNAPSHOT_REPLACE))
                model_snapshot_remove(s->model, step->snapshot);
        if (ret == 0) {
                model_snapshot_add(s->model, info.id_str, step->snapshot, s->saved);
                model_snapshot_set_disk(s->model, step->snapshot, s->switched);
        }
        stage_forget_phases(s);
        return ret;
}

int phase_abort(struct stage *s, const struct step *step)
{
        (void)step;
        stage_forget_phases(s);
        return bed_abort(&s->bed);
}

int phase_goto_prepare(struct stage *s, const struct step *step)
{
        return bed_goto_prepare(&s->bed, step->snapshot);
}

/* ---- all of them ---- */

/* What was begun is taken back, so that the next one finds nothing prepared. */
static int give_up(struct stage *s, const struct step *step, int error)
{
        if (s->bed.img->prepared)
                phase_abort(s, step);
        stage_forget_phases(s);
        return error;
}

int phases_create(struct stage *s, const struct step *step)
{
        const struct step source = { .snapshot = "a" };
        int ret = phase_prepare(s, step);

        if (ret == 0)
                ret = phase_share(s, &source);
        if (ret == 0)
                ret = phase_switch(s, step);
        if (ret == 0)
                ret = phase_save(s, step);
        if (ret == 0)
                ret = phase_publish(s, step);
        return ret < 0 ? give_up(s, step, ret) : 0;
}

int phases_goto(struct stage *s, const struct step *step)
{
        int ret = phase_goto_prepare(s, step);

        if (ret == 0)
                ret = bed_goto(&s->bed, step->snapshot);
        if (ret < 0)
                return give_up(s, step, ret);
        bed_background(&s->bed);
        model_snapshot_goto(s->model, step->snapshot);
        return 0;
}
