/*
 * test-crash.c - no power cut loses anything, whatever was going on.
 *
 *      test-crash                              each step once, the sequences below, and of all
 *                                              pairs of steps one in PAIRS_EVERY; of large
 *                                              clusters less
 *      test-crash --world W --steps S --seed N one run; S: "write, then flush"
 *      TEST_SECONDS=600 test-crash             all pairs, then random triples, as long; live
 *                                              phases at other seeds in between
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "proof/explore.h"
#include "unit/qemu-img.h"

static char *only_world;
static char *only_steps;
static gint64 first_seed = 1;

/* What one step alone does not show. */
static const char *const sequences[] = {
        "write many, then flush",
        "discard, then flush, then write new",
        "discard private, then write new, then flush",
        "write new, then create",
        "create, then write many",
        "create with state, then delete a, then write many",
        "delete a, then write many, then flush",
        "delete a, then delete b, then grow",
        "delete a, then delete b, then shrink",
        "delete a, then delete b, then shrink much, then grow",
        "goto a, then write many",
        "goto a, then delete b",
        "create, then discard, then flush",
        "grow, then goto a",
        "shrink, then goto a",
        "replace with state, then goto a",
        "save state, then goto b",
        "write compressed, then write compressed, then discard",
        "burst, then discard, then burst",
        "delete a, then check -r all",
        "write new, then reopen, then discard",
};

/* The guest goes on while a snapshot comes or goes. */
static const char *const live_sequences[] = {
        "begin create, then burst, then finish",
        "begin create, then write new, then flush, then write many, then finish",
        "begin create, then wait, then write many, then flush, then finish",
        "begin create, then wait, then wait, then burst, then flush, then finish",
        "begin create, then discard, then burst, then wait, then discard private, then finish",
        "begin create, then write compressed, then write zeroes, unmap, then wait, "
                "then write on compressed, then finish",
        "write many, then begin create, then write many, then finish, then discard, then flush",
        "begin create, then wait, then write wide, then flush, then finish",
        "begin replace, then burst, then wait, then write many, then flush, then finish",
        "begin delete a, then burst, then wait, then discard, then finish",
        "begin delete b, then write many, then flush, then write new, then finish",
        "begin delete b, then wait, then write on shared, then wait, then flush, then finish",
        "delete a, then begin delete b, then wait, then burst, then flush, then finish",
        "begin goto a, then burst, then wait, then write new, then flush, then finish, then flush",
        "begin goto a, then wait, then write many, then discard, then finish, then flush",
        "goto a at once, then burst, then flush, then discard, then write new",
        "write wide, then goto b at once, then write many, then flush, then create",
};

/* Phase by phase, whatever the guest does between them. */
static const char *const phase_sequences[] = {
        "write many, then prepare, then burst, then switch, then write many, then flush, "
                "then save, then publish, then discard",
        "prepare, then write new, then flush, then discard, then switch, then burst, "
                "then discard private, then share, then publish, then write many",
        "save, then prepare, then write many, then abort, then write many, then flush",
        "prepare, then burst, then share, then switch, then write many, then flush, then abort, "
                "then discard, then flush",
        "prepare replace, then write new, then switch, then write on shared, then publish replace, "
                "then write many, then flush",
        "prepare goto a, then write many, then flush, then goto a, then write new",
        "prepare goto b, then burst, then discard, then abort, then delete a",
};

/* Large clusters show little more, and take much longer to look at. */
enum {
        PAIRS_EVERY = 96, LIVE_SEEDS = 3, LARGE_BYTES = 65536, LARGE_EVERY = 6, PHASES_EVERY = 3,
};

static struct explore explore;
static struct explore_budget budget = {
        .combinations = 65536, .samples = 2000, .second_every = 97, .qemu_every = 1009,
};
/* Of the live phases, which have many windows, and in CI of large clusters. */
static const struct explore_budget small_budget = {
        .combinations = 2048, .samples = 300, .second_every = 197, .qemu_every = 1009,
};
static unsigned lost_count;
static uint64_t live_states;

static void explore_one(const struct world *w, const char *names, uint64_t seed)
{
        struct run run;

        if (run_record(&run, w, names, seed, 0) && !explore_run(&explore, &run)) {
                lost_count++;
                g_print("# lost: %s (--world %s --steps '%s' --seed %" G_GUINT64_FORMAT ")\n",
                        explore.lost, w->format->name, names, seed);
                g_clear_pointer(&explore.lost, g_free);
                g_test_fail();
        }
        run_clear(&run);
}

/* Growing the L1 needs clusters so small that little does it; some steps need others first. */
static bool stands_alone(const struct world *w, const struct step *step)
{
        if (strcmp(step->name, "grow L1") == 0)
                return w->format->cluster_bytes == 512;
        return g_strcmp0(step->snapshot, "c") != 0 || g_str_has_prefix(step->name, "create");
}

static bool is_setup(const struct step *step)
{
        return step_is_live(step) || strstr(step->name, " as ") ||
               strstr(step->name, " at once") || strstr(step->name, " in phases");
}

/* True if a name before it in the run is gone, or not there yet. */
static bool lacks_snapshot(const struct step *first, const struct step *second)
{
        bool makes = !first->snapshot ? false : g_str_has_prefix(first->name, "create");
        bool deletes = g_str_has_prefix(first->name, "delete");
        bool wants = second->snapshot && !g_str_has_prefix(second->name, "create");

        if (!second->snapshot)
                return false;
        if (g_str_has_prefix(second->name, "create"))
                return makes;
        if (strcmp(second->snapshot, "c") == 0)
                return !makes;
        return wants && deletes && strcmp(first->snapshot, second->snapshot) == 0;
}

static bool is_pair(const struct world *w, const struct step *first, const struct step *second)
{
        return !is_setup(first) && !is_setup(second) && stands_alone(w, first) &&
               !lacks_snapshot(first, second) &&
               (stands_alone(w, second) || g_strcmp0(second->snapshot, "c") == 0);
}

/* One pair in every, another share for each first. */
static void explore_pairs(const struct world *w, unsigned every, unsigned first, gint64 until)
{
        unsigned number = first;
        unsigned i, k;

        for (i = 0; i < step_count; i++)
                for (k = 0; k < step_count; k++) {
                        g_autofree char *names = g_strdup_printf("%s, then %s", steps[i].name,
                                                                 steps[k].name);

                        if (is_pair(w, &steps[i], &steps[k]) && ++number % every == 0 &&
                            g_get_monotonic_time() < until)
                                explore_one(w, names, (uint64_t)first_seed);
                }
}

/* Each seed lets them meet at other moments. */
static void explore_live(const struct world *w, unsigned every, uint64_t seed,
                         unsigned seed_count, gint64 until)
{
        uint64_t before = explore.states;
        unsigned i, k;

        for (i = 0; i < G_N_ELEMENTS(live_sequences); i += every)
                for (k = 0; k < seed_count && g_get_monotonic_time() < until; k++)
                        explore_one(w, live_sequences[i], seed + k);
        live_states += explore.states - before;
}

/* One in every, from number first on. */
static void explore_phases(const struct world *w, unsigned first, unsigned every, uint64_t seed,
                           gint64 until)
{
        uint64_t before = explore.states;
        unsigned i;

        for (i = first; i < G_N_ELEMENTS(phase_sequences) && g_get_monotonic_time() < until;
             i += every)
                explore_one(w, phase_sequences[i], seed);
        live_states += explore.states - before;
}

static bool is_large(const struct world *w)
{
        return w->format->cluster_bytes >= LARGE_BYTES;
}

static void explore_live_briefly(const struct world *w)
{
        explore.budget = small_budget;
        explore_live(w, is_large(w) ? LARGE_EVERY : 1, (uint64_t)first_seed,
                     is_large(w) ? 1 : LIVE_SEEDS, G_MAXINT64);
        explore_phases(w, (unsigned)(w->format - world_formats) % PHASES_EVERY, PHASES_EVERY,
                       (uint64_t)first_seed, G_MAXINT64);
        explore.budget = budget;
}

static void explore_steps(const struct world *w)
{
        unsigned i;

        explore.budget = is_large(w) ? small_budget : budget;
        for (i = 0; i < step_count; i++)
                if (!is_setup(&steps[i]) && stands_alone(w, &steps[i]))
                        explore_one(w, steps[i].name, (uint64_t)first_seed);
        for (i = 0; i < G_N_ELEMENTS(sequences); i += is_large(w) ? LARGE_EVERY : 1)
                explore_one(w, sequences[i], (uint64_t)first_seed);
        explore.budget = budget;
}

static void test_world(gconstpointer data)
{
        uint64_t before = explore.states;
        struct world w;

        if (qemu_img_missing())
                return;
        world_init(&w, data);
        if (only_steps) {
                explore_one(&w, only_steps, (uint64_t)first_seed);
        } else {
                explore_steps(&w);
                explore_live_briefly(&w);
                if (!is_large(&w))
                        explore_pairs(&w, PAIRS_EVERY, (unsigned)(w.format - world_formats),
                                      G_MAXINT64);
        }
        g_print("# %s: %" G_GUINT64_FORMAT " states\n", w.format->name, explore.states - before);
        world_clear(&w);
}

static const char *random_name(struct sim_random *random)
{
        const struct step *step;

        do {
                step = &steps[sim_random_below(random, step_count)];
        } while (step_is_live(step));
        return step->name;
}

/* Steps that need what is not there are refused by the driver: such runs do not count. */
static void explore_triples(const struct world *w, uint64_t seed, unsigned count, gint64 until)
{
        struct sim_random random = { seed };

        while (count-- > 0 && g_get_monotonic_time() < until) {
                const char *first = random_name(&random);
                const char *second = random_name(&random);
                g_autofree char *names = g_strdup_printf("%s, then %s, then %s", first, second,
                                                         random_name(&random));

                explore_one(w, names, sim_random_next(&random));
        }
}

/* Round after round other pairs, and when all had their turn, triples; between them the live
 * phases, at a new seed each time. */
static void test_soak(void)
{
        gint64 until = g_get_monotonic_time() +
                       g_ascii_strtoll(g_getenv("TEST_SECONDS"), NULL, 10) * G_USEC_PER_SEC;
        struct world w;
        unsigned round;
        unsigned i;

        for (round = 0; g_get_monotonic_time() < until; round++)
                for (i = 0; i < world_format_count; i++) {
                        world_init(&w, &world_formats[i]);
                        explore_live(&w, 1, (uint64_t)first_seed + LIVE_SEEDS + round, 1, until);
                        explore_phases(&w, 0, 1, (uint64_t)first_seed + round, until);
                        if (round < PAIRS_EVERY)
                                explore_pairs(&w, PAIRS_EVERY, round, until);
                        else
                                explore_triples(&w, (uint64_t)first_seed * 1000003 + round, 40,
                                                until);
                        world_clear(&w);
                }
        g_print("# rounds: %u of %u for all pairs\n", round, PAIRS_EVERY);
}

static void parse(int *argc, char ***argv)
{
        const GOptionEntry entries[] = {
                { "world", 0, 0, G_OPTION_ARG_STRING, &only_world, "only this world", "NAME" },
                { "steps", 0, 0, G_OPTION_ARG_STRING, &only_steps, "only this run", "STEPS" },
                { "seed", 0, 0, G_OPTION_ARG_INT64, &first_seed, "of the disk", "N" },
                { .long_name = NULL },
        };
        g_autoptr(GOptionContext) context = g_option_context_new(NULL);
        g_autoptr(GError) error = NULL;

        g_option_context_set_ignore_unknown_options(context, TRUE);
        g_option_context_add_main_entries(context, entries, NULL);
        if (!g_option_context_parse(context, argc, argv, &error))
                g_error("%s", error->message);
}

int main(int argc, char **argv)
{
        unsigned i;
        int ret;

        parse(&argc, &argv);            /* first: GLib has a --seed of its own */
        g_test_init(&argc, &argv, NULL);
        explore_init(&explore, &budget);
        for (i = 0; i < world_format_count && !g_getenv("TEST_SECONDS"); i++) {
                g_autofree char *path = g_strdup_printf("/crash/%s", world_formats[i].name);

                if (!only_world || strcmp(only_world, world_formats[i].name) == 0)
                        g_test_add_data_func(path, &world_formats[i], test_world);
        }
        if (g_getenv("TEST_SECONDS"))
                g_test_add_func("/crash/soak", test_soak);
        ret = g_test_run();
        g_print("# windows: %" G_GUINT64_FORMAT ", of which sampled: %" G_GUINT64_FORMAT
                ", shown to qemu-img: %" G_GUINT64_FORMAT "\n", explore.windows,
                explore.windows_sampled, explore.qemu_checks);
        g_print("# live phases: %" G_GUINT64_FORMAT " states\n", live_states);
        g_print("# proof: crash states: %" G_GUINT64_FORMAT ", lost: %u\n", explore.states,
                lost_count);
        explore_clear(&explore);
        return ret;
}
