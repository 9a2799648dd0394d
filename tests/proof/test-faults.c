/*
 * test-faults.c - each I/O and each allocation of every operation fails once.
 *
 * A step is done with its 1st, 2nd, 3rd ... I/O failing, until a run has none that fails.
 * Then:
 *   - the step tells that error, or none if it could do without
 *   - nothing hangs or aborts
 *   - a poisoned image refuses to flush; any other does the step when asked again
 *   - what the file holds after closing is what memory held, or for a poisoned image the
 *     old or the new; test-crash's judge looks at it, recovers it and uses it
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "proof/failing-alloc.h"
#include "proof/judge.h"
#include "unit/qemu-img.h"
#include "unit/sim-bed.h"

enum { POINTS_MAX = 3000, KIND_SHORT = 6 };

struct fault_kind {
        const char *name;
        unsigned ops;                   /* 1 << enum io_op, or'ed; 0: any */
        int error;                      /* 0: an allocation fails */
        bool sticky;
        bool is_harmless;               /* the engine starts it again */
};

static const struct fault_kind kinds[] = {
        { "EIO", 0, -EIO, false, false },
        { "EIO from then on", 0, -EIO, true, false },
        { "ENOSPC", 1 << IO_WRITE | 1 << IO_ALLOCATE, -ENOSPC, false, false },
        { "ENOSPC from then on", 1 << IO_WRITE | 1 << IO_ALLOCATE, -ENOSPC, true, false },
        { "failed fsync", 1 << IO_FSYNC, -EIO, false, false },
        { "ECANCELED", 0, -ECANCELED, false, false },
        [KIND_SHORT] = { "EINTR, short transfers", 0, -EINTR, false, true },
        { "EAGAIN", 0, -EAGAIN, false, true },
        { "no memory", 0, 0, false, false },
};

static uint64_t point_count;
static uint64_t kind_points[G_N_ELEMENTS(kinds)];
static unsigned failed_count;

/* One step with one fault. */
struct trial {
        const struct world *world;
        const struct step *step;
        const struct fault_kind *kind;
        uint64_t nth;
        struct stage stage;
        struct run run;                 /* models[0] before, models[1] after the step */
        unsigned fault;
        int result;
        bool was_hit;
};

static void arm(struct trial *t)
{
        const struct sim_fault fault = {
                .ops = t->kind->ops, .file = -1, .nth = t->nth, .sticky = t->kind->sticky,
                .torn = true, .error = t->kind->error,
        };

        if (t->kind->error)
                t->fault = simdisk_fault_add(t->stage.disk, &fault);
        else
                alloc_fail_nth(t->nth);
}

static void disarm(struct trial *t)
{
        t->was_hit = t->kind->error ? simdisk_fault(t->stage.disk, t->fault)->hits > 0
                                    : alloc_has_failed();
        simdisk_faults_clear(t->stage.disk);
        alloc_fail_nth(0);
}

static int expected_error(const struct trial *t)
{
        return t->kind->error ? t->kind->error : -ENOMEM;
}

static char *judge_result(const struct trial *t)
{
        bool is_poisoned = t->stage.bed.img->state == IMAGE_POISONED;

        if (t->result == 0 || t->result == expected_error(t) ||
            (is_poisoned && t->result == -EIO))
                return t->kind->is_harmless && t->result < 0
                        ? g_strdup_printf("%s was not tried again", t->kind->name) : NULL;
        return g_strdup_printf("returned %s", g_strerror(-t->result));
}

/* Poisoned: no flush succeeds.  Else the step can be done. */
static char *judge_life(struct trial *t)
{
        struct stage *s = &t->stage;
        int ret;

        if (s->bed.img->state == IMAGE_POISONED) {
                ret = bed_run(&s->bed, bed_commit_step);
                return ret < 0 ? NULL : g_strdup("a poisoned image was flushed");
        }
        if (t->result == 0)
                return NULL;
        ret = step_run(s, t->step);
        return ret == 0 ? NULL : g_strdup_printf("fails when done again: %s", g_strerror(-ret));
}

static char *judge_file(struct trial *t, bool was_poisoned)
{
        struct judge j = { .run = &t->run };

        t->run.models[1] = t->stage.model;
        j.allowed.newest = 1;
        j.allowed.oldest = was_poisoned ? 0 : 1;
        j.allowed.goes = strncmp(t->step->name, "goto", 4) == 0;
        return judge_state(&j, &t->stage.disk->files[0].image);
}

/* What the model is after the step, without faults: a poisoned image may hold that. */
static struct model *model_after(const struct trial *t)
{
        struct stage s = { .world = t->world, .model = model_copy(t->world->model) };

        s.disk = world_disk(t->world, &t->world->image, NULL);
        sim_open(&s.bed, s.disk, HVB_OPEN_RDWR);
        step_run(&s, t->step);
        sim_close(&s.bed);
        simdisk_free(s.disk);
        return s.model;
}

static char *run_trial(struct trial *t)
{
        struct stage *s = &t->stage;
        bool was_poisoned;
        char *why;
        int ret;

        arm(t);
        t->result = step_run(s, t->step);
        disarm(t);
        why = judge_result(t);
        was_poisoned = s->bed.img->state == IMAGE_POISONED;
        if (!why)
                why = judge_life(t);
        ret = sim_close(&s->bed);
        if (!why && ret < 0 && !was_poisoned)
                why = g_strdup_printf("cannot be closed: %s", g_strerror(-ret));
        if (!why && was_poisoned) {
                model_free(s->model);
                s->model = model_after(t);
        }
        return why ? why : judge_file(t, was_poisoned);
}

/* Returns whether something was made to fail. */
static bool account(const struct trial *t, const char *what, const char *why)
{
        point_count += t->was_hit;
        kind_points[t->kind - kinds] += t->was_hit;
        if (why) {
                failed_count++;
                g_print("# failed: %s: %s: %s at number %" G_GUINT64_FORMAT ": %s\n",
                        t->world->format->name, what, t->kind->name, t->nth, why);
                g_test_fail();
        }
        return t->was_hit;
}

/* False when nothing failed any more. */
static bool try_point(const struct world *w, const struct step *step,
                      const struct fault_kind *kind, uint64_t nth)
{
        struct trial t = { .world = w, .step = step, .kind = kind, .nth = nth };
        g_autofree char *why = NULL;

        t.run = (struct run){ .world = w, .text = (char *)step->name };
        t.run.models[0] = w->model;
        t.stage.world = w;
        t.stage.model = model_copy(w->model);
        t.stage.disk = world_disk(w, &w->image, NULL);
        sim_open(&t.stage.bed, t.stage.disk, HVB_OPEN_RDWR);
        why = run_trial(&t);
        model_free(t.stage.model);
        simdisk_free(t.stage.disk);
        return account(&t, step->name, why);
}

static bool is_possible(const struct world *w, const struct step *step)
{
        struct run run;
        bool ret;

        if (step_is_live(step) || strstr(step->name, " at once") ||
            strstr(step->name, " as ") || strcmp(step->name, "reopen") == 0)
                return false;
        ret = run_record(&run, w, step->name, 1, 0);
        run_clear(&run);
        return ret;
}

/* ---- opening and closing ---- */

/* Closed dirty, so that opening it repairs. */
static struct sim_image dirty_image(const struct world *w)
{
        struct sim_image image = sim_image_clone(&w->image);
        const uint8_t dirty = 1;

        if (w->version >= 3)
                sim_image_write(&image, 79, &dirty, 1);
        return image;
}

/* An open that fails says so and leaves nothing; the next one succeeds. */
static bool try_open(const struct world *w, const struct fault_kind *kind, uint64_t nth)
{
        struct trial t = { .world = w, .kind = kind, .nth = nth };
        struct sim_image image = dirty_image(w);
        struct judge j = { .run = &t.run };
        g_autofree char *why = NULL;

        t.run = (struct run){ .world = w, .models = { w->model } };
        t.stage.disk = world_disk(w, &image, NULL);
        arm(&t);
        t.result = sim_open_begin(&t.stage.bed, t.stage.disk, HVB_OPEN_RDWR);
        disarm(&t);
        if (t.result < 0 && t.result != expected_error(&t) && t.result != -EIO)
                why = g_strdup_printf("returned %s", g_strerror(-t.result));
        if (t.result < 0)
                sim_abandon(&t.stage.bed);
        else
                sim_close(&t.stage.bed);
        if (!why)
                why = judge_state(&j, &t.stage.disk->files[0].image);
        simdisk_free(t.stage.disk);
        sim_image_clear(&image);
        return account(&t, "open", why);
}

/* A close that fails says so, and what was not flushed may be lost. */
static bool try_close(const struct world *w, const struct fault_kind *kind, uint64_t nth)
{
        struct trial t = { .world = w, .kind = kind, .nth = nth };
        struct judge j = { .run = &t.run };
        g_autofree char *why = NULL;

        t.run = (struct run){ .world = w, .models = { w->model } };
        t.stage = (struct stage){ .world = w, .model = model_copy(w->model) };
        t.stage.disk = world_disk(w, &w->image, NULL);
        sim_open(&t.stage.bed, t.stage.disk, HVB_OPEN_RDWR);
        g_assert_cmpint(step_run(&t.stage, step_named("write many")), ==, 0);
        arm(&t);
        t.result = sim_close(&t.stage.bed);
        disarm(&t);
        t.run.models[1] = t.stage.model;
        j.allowed = (struct allowed){ .oldest = t.result == 0, .newest = 1 };
        why = judge_state(&j, &t.stage.disk->files[0].image);
        simdisk_free(t.stage.disk);
        model_free(t.stage.model);
        return account(&t, "close", why);
}

/* ---- transfers that end early, or are to be tried again ---- */

static void try_short_transfers(const struct world *w, const struct step *step, uint64_t seed)
{
        const struct sim_options options = {
                .seed = seed, .delay_max = 3, .reorder = true, .short_percent = 70,
                .retry_percent = 30,
        };
        struct trial t = { .world = w, .kind = &kinds[KIND_SHORT], .was_hit = true };
        g_autofree char *why = NULL;

        t.run = (struct run){ .world = w, .text = (char *)step->name, .models = { w->model } };
        t.stage = (struct stage){ .world = w, .model = model_copy(w->model) };
        t.stage.disk = world_disk(w, &w->image, &options);
        sim_open(&t.stage.bed, t.stage.disk, HVB_OPEN_RDWR);
        t.result = step_run(&t.stage, step);
        if (t.result < 0)
                why = g_strdup_printf("returned %s", g_strerror(-t.result));
        if (sim_close(&t.stage.bed) < 0 && !why)
                why = g_strdup("does not close");
        t.step = step;
        if (!why)
                why = judge_file(&t, false);
        model_free(t.stage.model);
        simdisk_free(t.stage.disk);
        account(&t, "short transfers", why);
}

static void test_world(gconstpointer data)
{
        struct world w;
        unsigned i, k;
        uint64_t nth;

        if (qemu_img_missing())
                return;
        world_init(&w, data);
        for (i = 0; i < step_count; i++) {
                if (!is_possible(&w, &steps[i]))
                        continue;
                for (k = 0; k < G_N_ELEMENTS(kinds); k++)
                        for (nth = 1; try_point(&w, &steps[i], &kinds[k], nth); nth++)
                                g_assert_cmpuint(nth, <, POINTS_MAX);
                for (nth = 1; nth <= 8; nth++)
                        try_short_transfers(&w, &steps[i], nth);
        }
        for (k = 0; k < G_N_ELEMENTS(kinds); k++) {
                for (nth = 1; try_open(&w, &kinds[k], nth); nth++)
                        g_assert_cmpuint(nth, <, POINTS_MAX);
                for (nth = 1; try_close(&w, &kinds[k], nth); nth++)
                        g_assert_cmpuint(nth, <, POINTS_MAX);
        }
        world_clear(&w);
}

int main(int argc, char **argv)
{
        unsigned i;
        int ret;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < world_format_count; i++) {
                g_autofree char *path = g_strdup_printf("/faults/%s", world_formats[i].name);

                g_test_add_data_func(path, &world_formats[i], test_world);
        }
        ret = g_test_run();
        for (i = 0; i < G_N_ELEMENTS(kinds); i++)
                g_print("# %s: %" G_GUINT64_FORMAT "\n", kinds[i].name, kind_points[i]);
        g_print("# proof: fault points: %" G_GUINT64_FORMAT ", failed: %u\n", point_count,
                failed_count);
        return ret;
}
