/*
 * explore.c - enumerating states.
 *
 * SPDX-License-Identifier: MIT
 */
#include "proof/explore.h"

#include <string.h>

#include "lib/simdisk-cut.h"

/* One point of a run: the choices that are open there. */
struct point {
        struct explore *e;
        const struct run *run;
        struct sim_cut *cut;
        const struct sim_choice *choices;
        unsigned count;
        unsigned *picks;
};

void explore_init(struct explore *e, const struct explore_budget *budget)
{
        *e = (struct explore){ .budget = *budget };
        e->seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
}

void explore_clear(struct explore *e)
{
        g_hash_table_destroy(e->seen);
        g_free(e->lost);
}

/* What is allowed decides too whether a state is a new one. */
static bool is_new(struct explore *e, const struct sim_image *image, struct allowed a)
{
        uint64_t key = sim_image_hash(image) ^ ((a.oldest * 64 + a.newest) * 64 + a.newest_list) *
                       UINT64_C(0x9e3779b97f4a7c15);

        if (g_hash_table_contains(e->seen, &key))
                return false;
        g_hash_table_add(e->seen, g_memdup2(&key, sizeof(key)));
        return true;
}

static bool is_nth(uint64_t number, unsigned every)
{
        return every > 0 && number % every == 0;
}

static void report(struct explore *e, const struct point *p, const char *why)
{
        e->lost = g_strdup_printf("%s: %s: cut at moment %" G_GUINT64_FORMAT " of %"
                                  G_GUINT64_FORMAT ": %s", p->run->world->format->name,
                                  p->run->text, sim_cut_point(p->cut),
                                  simdisk_moments(p->run->disk), why);
}

static bool judge_image(struct point *p, const struct sim_image *image)
{
        struct explore *e = p->e;
        struct judge j = {
                .run = p->run,
                .allowed = run_allowed(p->run, sim_cut_point(p->cut)),
                .cut_again = is_nth(e->states, e->budget.second_every),
        };
        char *why;

        if (!is_new(e, image, j.allowed))
                return true;
        e->states++;
        why = judge_state(&j, image);
        e->states += j.second_states;
        if (!why && is_nth(e->states, e->budget.qemu_every)) {
                why = judge_by_qemu(&j, image);
                e->qemu_checks++;
        }
        if (why)
                report(e, p, why);
        g_free(why);
        return !e->lost;
}

static bool judge_picks(struct point *p)
{
        struct sim_image images[SIM_FILES_MAX] = { { .root = NULL } };
        bool is_good;
        unsigned i;

        sim_cut_build(p->cut, p->picks, images);
        is_good = judge_image(p, &images[0]);
        for (i = 0; i < SIM_FILES_MAX; i++)
                sim_image_clear(&images[i]);
        return is_good;
}

static void pick_all(struct point *p, bool newest)
{
        unsigned i;

        for (i = 0; i < p->count; i++)
                p->picks[i] = newest ? p->choices[i].option_count - 1 : 0;
}

/* The number of combinations, or more than max. */
static uint64_t combinations(const struct point *p, uint64_t max)
{
        uint64_t product = 1;
        unsigned i;

        for (i = 0; i < p->count && product <= max; i++)
                product *= p->choices[i].option_count;
        return product;
}

static bool judge_combinations(struct point *p)
{
        unsigned i;

        pick_all(p, false);
        do {
                if (!judge_picks(p))
                        return false;
                for (i = 0; i < p->count && ++p->picks[i] == p->choices[i].option_count; i++)
                        p->picks[i] = 0;
        } while (i < p->count);
        return true;
}

/* newest: each one missing; else each one present. */
static bool judge_single(struct point *p, bool newest)
{
        unsigned i;

        for (i = 0; i < p->count; i++) {
                pick_all(p, newest);
                p->picks[i] = newest ? 0 : p->choices[i].option_count - 1;
                if (!judge_picks(p))
                        return false;
        }
        return true;
}

/* Neighbours of the same page share their luck when torn at 4 KiB. */
static void pick_randomly(struct point *p, struct sim_random *random, bool by_page)
{
        uint64_t percent = 10 + sim_random_below(random, 81);
        uint64_t luck = 0;
        unsigned i;

        for (i = 0; i < p->count; i++) {
                const struct sim_choice *c = &p->choices[i];

                if (!by_page || i == 0 || c->sector / 8 != p->choices[i - 1].sector / 8)
                        luck = sim_random_below(random, 100);
                if (luck >= percent)
                        p->picks[i] = 0;
                else if (by_page || sim_random_below(random, 2) == 0)
                        p->picks[i] = c->option_count - 1;
                else
                        p->picks[i] = (unsigned)sim_random_below(random, c->option_count);
        }
}

static bool judge_samples(struct point *p)
{
        struct sim_random random = { p->e->budget.seed + sim_cut_point(p->cut) };
        unsigned i;

        for (i = 0; i < p->e->budget.samples; i++) {
                pick_randomly(p, &random, i % 2 == 1);
                if (!judge_picks(p))
                        return false;
        }
        return true;
}

static bool judge_window(struct point *p)
{
        p->e->windows++;
        if (combinations(p, p->e->budget.combinations) <= p->e->budget.combinations)
                return judge_combinations(p);
        p->e->windows_sampled++;
        pick_all(p, false);
        return judge_picks(p) && judge_single(p, true) && judge_single(p, false) &&
               judge_samples(p);
}

static bool judge_point(struct point *p, bool ends_window)
{
        bool is_good;

        p->choices = sim_cut_choices(p->cut, &p->count);
        p->picks = g_new(unsigned, p->count + 1);
        pick_all(p, true);
        is_good = judge_picks(p) && (!ends_window || judge_window(p));
        g_free(p->picks);
        return is_good;
}

/* Is the next moment an fsync's success, or is there none? */
static bool ends_window(const struct run *run, uint64_t moment)
{
        const struct sim_moment *next;

        if (moment == simdisk_moments(run->disk))
                return true;
        next = &g_array_index(run->disk->moments, struct sim_moment, moment);
        return next->completes && simdisk_entry(run->disk, next->entry)->op == IO_FSYNC &&
               simdisk_entry(run->disk, next->entry)->result == 0;
}

bool explore_run(struct explore *e, const struct run *run)
{
        struct point p = { .e = e, .run = run, .cut = sim_cut_new(run->disk) };
        bool is_good;

        for (;;) {
                is_good = judge_point(&p, ends_window(run, sim_cut_point(p.cut)));
                if (!is_good || sim_cut_point(p.cut) == simdisk_moments(run->disk))
                        break;
                sim_cut_advance(p.cut, sim_cut_point(p.cut) + 1);
        }
        sim_cut_free(p.cut);
        return is_good;
}
