/*
 * disorder-control.c - snapshots, resizes, VM state.
 *
 * Control operations that are in flight together take effect in the order in which they were
 * started: what one must do, and whether it can, is decided when its turn comes.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disorder.h"

#include <errno.h>
#include <string.h>

/* ---- the list ---- */

void shot_free(void *shot)
{
        g_free(((struct shot *)shot)->values);
        g_free(shot);
}

static int shot_index(const struct disorder *d, const char *name)
{
        guint i;

        for (i = 0; i < d->shots->len; i++)
                if (strcmp(((struct shot *)d->shots->pdata[i])->name, name) == 0)
                        return (int)i;
        return -1;
}

static const struct shot *shot_of(const struct act *a)
{
        int index = shot_index(a->d, a->info.name);

        return index < 0 ? NULL : a->d->shots->pdata[index];
}

static void forget_loaded(struct disorder *d, const char *name)
{
        if (!d->has_loaded || strcmp(d->loaded_name, name) != 0)
                return;
        d->has_loaded = false;
        d->loaded_is_gone = true;
}

static void take_loaded(struct disorder *d, const struct shot *shot)
{
        d->has_loaded = true;
        d->loaded_is_gone = false;
        memcpy(d->loaded, shot->state, sizeof(d->loaded));
        g_strlcpy(d->loaded_name, shot->name, sizeof(d->loaded_name));
}

static void drop_saved(struct disorder *d)
{
        memset(d->saved, 0, sizeof(d->saved));
        d->has_saved = false;
}

/* ---- an operation's turn ---- */

/* What a disk loses shows its backing file, for those who still look. */
static uint32_t value_after(const struct act *a, uint64_t unit)
{
        const struct form *f = &a->d->form;
        const struct shot *shot = a->kind == ACT_GOTO ? shot_of(a) : NULL;

        if (shot)
                return unit < shot->unit_count ? shot->values[unit] : 0;
        return a->units_after < a->d->unit_count && unit < f->backing_units &&
               unit * UNIT_BYTES >= round_up(a->units_after * UNIT_BYTES, 1u << f->cluster_bits)
                ? VALUE_BACKING : 0;
}

/* A goto sets all that was or will be seen; a resize the part that comes or goes. */
static uint64_t first_changed(const struct act *a)
{
        return a->kind == ACT_GOTO ? 0 : MIN(a->units_after, a->d->unit_count);
}

static void begin_changes(struct act *a)
{
        uint64_t oldest = disorder_oldest(a->d);
        uint64_t i;

        a->changes = true;
        for (i = first_changed(a); i < a->d->area->unit_count; i++) {
                const struct change change = {
                        .value = value_after(a, i),
                        .id = a->id,
                        .started = a->turn,
                        .happened = MOMENT_NEVER,
                        .overwritten = MOMENT_NEVER,
                };

                area_begin(a->d->area, i, &change, oldest);
        }
}

static int expect(const struct act *a)
{
        const struct disorder *d = a->d;
        const struct shot *shot = shot_of(a);

        switch (a->kind) {
        case ACT_CREATE:
                return shot && !(a->flags & HVB_SNAPSHOT_REPLACE) ? -EEXIST : 0;
        case ACT_GOTO:
                if (!shot)
                        return -ENOENT;
                return d->form.version < 3 && shot->unit_count != d->unit_count ? -ENOTSUP : 0;
        case ACT_DELETE:
                return shot ? 0 : -ENOENT;
        case ACT_RESIZE:
                return d->form.version < 3 && d->shots->len > 0 ? -ENOTSUP : 0;
        default:
                return 0;
        }
}

void control_judge_size(struct act *a)
{
        const struct act *first = g_queue_peek_head(&a->d->controls);

        if (a->unit + a->count > a->d->unit_count ||
            (first && first->changes && a->unit + a->count > first->units_after))
                a->beyond = true;
}

static void take_turn(struct act *a)
{
        struct disorder *d = a->d;
        GList *l;

        a->turn = ++d->now;
        a->expected = expect(a);
        if (a->expected < 0 || (a->kind != ACT_GOTO && a->kind != ACT_RESIZE))
                return;
        if (a->kind == ACT_GOTO)
                a->units_after = shot_of(a)->unit_count;
        if (a->kind == ACT_RESIZE && a->units_after == d->unit_count)
                return;
        begin_changes(a);
        for (l = d->acts.head; l; l = l->next)
                control_judge_size(l->data);
}

/* ---- starting ---- */

static enum act_kind draw_kind(struct disorder *d)
{
        static const enum act_kind mix[] = {
                ACT_CREATE, ACT_CREATE, ACT_CREATE, ACT_CREATE, ACT_GOTO, ACT_GOTO, ACT_GOTO,
                ACT_DELETE, ACT_DELETE, ACT_RESIZE, ACT_RESIZE, ACT_FORGET,
        };

        return mix[disorder_below(d, G_N_ELEMENTS(mix))];
}

static uint64_t draw_size(struct disorder *d)
{
        uint64_t sectors = d->form.units_max / 4;

        return 4 * (sectors / 4 + 1 + disorder_below(d, sectors - sectors / 4));
}

static void describe(struct act *a)
{
        a->info.struct_bytes = sizeof(a->info);
        a->info.icount = UINT64_MAX;
        if (a->d->has_saved)
                a->info.vm_state_bytes = STATE_UNITS * UNIT_BYTES;
}

static void start_create(struct act *a)
{
        const struct disorder *d = a->d;

        d->subject.driver->snapshot_create(d->subject.image, a->request, &a->info, a->flags,
                                           &a->err);
}

/* The request of the phase at hand. */
static void start_phase(struct act *a)
{
        const struct hvb_driver *driver = a->d->subject.driver;
        struct hvb_image *image = a->d->subject.image;

        if (a->phase == PHASE_ABORT)
                driver->snapshot_abort(image, a->request, &a->err);
        else if (a->phase == PHASE_SWITCH)
                driver->snapshot_switch(image, a->request, &a->err);
        else if (a->kind == ACT_GOTO && a->phase == PHASE_PREPARE)
                driver->snapshot_goto_prepare(image, a->request, NULL, a->info.name, &a->err);
        else if (a->kind == ACT_GOTO)
                driver->snapshot_goto(image, a->request, NULL, a->info.name, &a->err);
        else if (a->phase == PHASE_PREPARE)
                driver->snapshot_prepare(image, a->request, &a->info, a->flags, &a->err);
        else
                driver->snapshot_publish(image, a->request, &a->info, &a->err);
}

static void start_act(struct act *a)
{
        const struct hvb_driver *driver = a->d->subject.driver;
        struct hvb_image *image = a->d->subject.image;

        if (a->phase != PHASE_ALL) {
                start_phase(a);
                return;
        }
        switch (a->kind) {
        case ACT_CREATE:
                start_create(a);
                break;
        case ACT_GOTO:
                driver->snapshot_goto(image, a->request, NULL, a->info.name, &a->err);
                break;
        case ACT_DELETE:
                driver->snapshot_delete(image, a->request, NULL, a->info.name, &a->err);
                break;
        case ACT_RESIZE:
                driver->truncate(image, a->request, a->units_after * UNIT_BYTES,
                                 HVB_PREALLOC_OFF, &a->err);
                break;
        default:
                driver->save_vmstate(image, a->request, 0, NULL, 0);
                break;
        }
}

/* Beside something prepared nothing else is; and who goes where that is prepared takes it. */
static bool is_in_phases(const struct disorder *d)
{
        GList *l;

        for (l = d->controls.head; l; l = l->next)
                if (((struct act *)l->data)->phase != PHASE_ALL)
                        return true;
        return false;
}

static void draw_phases(struct act *a)
{
        static const enum act_phase aborts[] = {
                PHASE_ALL, PHASE_ALL, PHASE_ALL, PHASE_PREPARE, PHASE_SWITCH,
        };

        if ((a->kind != ACT_CREATE && a->kind != ACT_GOTO) || is_in_phases(a->d) ||
            !disorder_chance(a->d, 50))
                return;
        a->phase = PHASE_PREPARE;
        a->abort_after = aborts[disorder_below(a->d, G_N_ELEMENTS(aborts))];
        disorder_step(a->d, "%u in phases%s", a->id, a->abort_after == PHASE_ALL ? "" :
                      a->abort_after == PHASE_PREPARE ? ", aborted when prepared"
                      : ", aborted when switched");
}

/* While VM state is saved or loaded, what that means must not change. */
void control_start(struct disorder *d)
{
        enum act_kind kind = draw_kind(d);
        struct act *a;

        if (d->controls.length >= CONTROLS_MAX || d->state_acts > 0 ||
            (kind == ACT_GOTO && is_in_phases(d)) || (kind == ACT_FORGET && is_in_phases(d)))
                return;
        a = act_new(d, kind);
        g_snprintf(a->info.name, sizeof(a->info.name), "s%u", (unsigned)disorder_below(d, 4));
        if (a->kind == ACT_RESIZE)
                a->units_after = draw_size(d);
        if (a->kind == ACT_CREATE && disorder_chance(d, 60))
                a->flags = HVB_SNAPSHOT_REPLACE;
        describe(a);
        draw_phases(a);
        g_queue_push_tail_link(&d->controls, &a->turn_link);
        disorder_step(d, "%u %s %s, %#" PRIx64 " bytes", a->id, act_name(a), a->info.name,
                      a->units_after * UNIT_BYTES);
        if (d->controls.length == 1)
                take_turn(a);
        start_act(a);
}

/* ---- from phase to phase ---- */

/* What the phase that succeeded is followed by; PHASE_ALL: nothing. */
static enum act_phase next_phase(const struct act *a)
{
        if (a->phase == PHASE_LAST)
                return PHASE_ALL;
        if (a->abort_after == a->phase)
                return PHASE_ABORT;
        return a->kind == ACT_GOTO || a->phase == PHASE_SWITCH ? PHASE_LAST : PHASE_SWITCH;
}

bool control_goes_on(struct act *a, int *result)
{
        struct disorder *d = a->d;

        if (a->phase == PHASE_ALL)
                return false;
        if (a->phase == PHASE_ABORT) {
                if (*result != 0)
                        disorder_fail(d, "%u: the abort failed: %d", a->id, *result);
                a->cancelled = true;
                *result = -ECANCELED;
                return false;
        }
        if (a->phase == PHASE_SWITCH)
                a->moment_end = d->now;
        if (*result < 0 && a->phase == PHASE_SWITCH)
                a->phase = PHASE_ABORT;         /* it is prepared still */
        else
                a->phase = *result < 0 ? PHASE_ALL : next_phase(a);
        if (a->phase == PHASE_ALL)
                return false;
        a->asked = ++d->now;
        if (a->phase == PHASE_SWITCH)
                a->moment = a->asked;
        a->err.code = 0;
        d->request_count++;
        start_phase(a);
        return true;
}

/* ---- what became of it ---- */

static void end_create(struct act *a)
{
        struct disorder *d = a->d;
        struct shot *shot = g_new0(struct shot, 1);
        int old = shot_index(d, a->info.name);

        g_strlcpy(shot->name, a->info.name, sizeof(shot->name));
        shot->unit_count = d->unit_count;
        shot->has_state = a->info.vm_state_bytes > 0;
        memcpy(shot->state, d->saved, sizeof(shot->state));
        if (a->info.disk_bytes != d->unit_count * UNIT_BYTES)
                disorder_fail(d, "create %u: of %#" PRIx64 " bytes", a->id, a->info.disk_bytes);
        if (old >= 0) {
                forget_loaded(d, shot->name);
                g_ptr_array_remove_index(d->shots, (guint)old);
        }
        g_ptr_array_add(d->shots, shot);
        verify_adopt(a, shot);
        if (!d->has_loaded)
                take_loaded(d, shot);
        drop_saved(d);
}

static void end_delete(struct act *a)
{
        forget_loaded(a->d, a->info.name);
        g_ptr_array_remove_index(a->d->shots, (guint)shot_index(a->d, a->info.name));
}

static void succeeded(struct act *a)
{
        struct disorder *d = a->d;

        switch (a->kind) {
        case ACT_CREATE:
                end_create(a);
                break;
        case ACT_GOTO:
                take_loaded(d, shot_of(a));
                drop_saved(d);
                d->unit_count = a->units_after;
                break;
        case ACT_DELETE:
                end_delete(a);
                break;
        case ACT_RESIZE:
                d->unit_count = a->units_after;
                break;
        default:
                drop_saved(d);
                break;
        }
}

/* A creation that was cancelled may have given up the state, or not yet. */
static void failed(struct act *a)
{
        unsigned i;

        if (a->expected == 0 && (a->kind == ACT_CREATE || a->kind == ACT_FORGET))
                for (i = 0; i < STATE_UNITS; i++)
                        a->d->saved[i] = a->d->saved[i] == 0 ? 0 : VALUE_TORN;
}

static void end_changes(struct act *a, int result)
{
        struct disorder *d = a->d;
        bool shrinks = a->kind == ACT_RESIZE && a->units_after < d->unit_count;
        enum change_end how = result == 0 ? CHANGE_DONE : shrinks ? CHANGE_MAYBE : CHANGE_NOT;
        uint64_t i;

        for (i = first_changed(a); i < d->area->unit_count; i++)
                if (!area_end(d->area, i, a->id, how, d->now)) {
                        disorder_fail(d, "%s %u failed, but at %#" PRIx64 " it was seen",
                                      act_name(a), a->id, i * UNIT_BYTES);
                        break;
                }
}

void control_end(struct act *a, int result)
{
        struct disorder *d = a->d;
        struct act *next;

        g_queue_unlink(&d->controls, &a->turn_link);
        if (result != -ECANCELED && a->turn == 0)
                disorder_fail(d, "%s %u overtook", act_name(a), a->id);
        else if (result != -ECANCELED && result != a->expected)
                disorder_fail(d, "%s %u: result %d, must be %d", act_name(a), a->id, result,
                              a->expected);
        if (d->difference)
                return;
        if (a->changes)
                end_changes(a, result);
        if (result == 0)
                succeeded(a);
        else if (a->turn != 0)
                failed(a);
        next = g_queue_peek_head(&d->controls);
        if (next && next->turn == 0)
                take_turn(next);
}

/* ---- VM state ---- */

void state_start(struct disorder *d)
{
        struct act *a;
        uint64_t i;

        if (d->controls.length > 0 || d->state_acts > 0)
                return;
        a = act_new(d, disorder_chance(d, 75) ? ACT_SAVE : ACT_LOAD);
        a->unit = 4 * disorder_below(d, STATE_UNITS / 4);
        a->count = 4 * (1 + disorder_below(d, STATE_UNITS / 4 - a->unit / 4));
        act_buffer(a);
        d->state_acts++;
        disorder_step(d, "%u %s %#" PRIx64 "+%#" PRIx64, a->id, act_name(a), a->unit * UNIT_BYTES,
                      a->count * UNIT_BYTES);
        if (a->kind == ACT_LOAD) {
                d->subject.driver->load_vmstate(d->subject.image, a->request, a->unit * UNIT_BYTES,
                                                a->iov, a->iov_count);
                return;
        }
        for (i = 0; i < a->count; i++)
                unit_fill(a->bytes + i * UNIT_BYTES, a->unit + i, a->id);
        d->has_saved = true;
        d->subject.driver->save_vmstate(d->subject.image, a->request, a->unit * UNIT_BYTES,
                                        a->iov, a->iov_count);
}

static void end_load(struct act *a)
{
        struct disorder *d = a->d;
        const uint32_t *expected = d->has_loaded ? d->loaded : d->saved;
        uint64_t i;

        for (i = 0; i < a->count; i++) {
                uint32_t value = unit_value(a->bytes + i * UNIT_BYTES, a->unit + i);

                if (value == expected[a->unit + i] || expected[a->unit + i] == VALUE_TORN)
                        continue;
                disorder_fail(d, "load %u: unit %" PRIu64 " of the VM state holds %u, must be %u",
                              a->id, a->unit + i, value, expected[a->unit + i]);
                return;
        }
}

void state_end(struct act *a, int result)
{
        struct disorder *d = a->d;
        int expected = a->kind == ACT_LOAD && d->loaded_is_gone ? -ESTALE : 0;
        uint64_t i;

        d->state_acts--;
        if (result != expected && result != -ECANCELED)
                disorder_fail(d, "%s %u: %s", act_name(a), a->id, g_strerror(-result));
        if (a->kind == ACT_LOAD && result == 0)
                end_load(a);
        if (a->kind == ACT_LOAD)
                return;
        for (i = a->unit; i < a->unit + a->count; i++)
                d->saved[i] = result == 0 ? a->id : VALUE_TORN;
}
