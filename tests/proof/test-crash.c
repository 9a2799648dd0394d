/*
 * test-crash.c - no power cut loses anything, whatever was going on.
 *
 *      test-crash                              each step once, and the sequences below
 *      test-crash --world W --steps S --seed N one run; S: "write, then flush"
 *      TEST_SECONDS=600 test-crash             sequences of two and three steps, as long
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
        "grow, then goto a",
        "shrink, then goto a",
        "replace with state, then goto a",
        "save state, then goto b",
        "write compressed, then write compressed, then discard",
        "burst, then discard, then burst",
        "delete a, then check -r all",
        "write new, then reopen, then discard",
};

static struct explore explore;
static struct explore_budget budget = {
        .combinations = 65536, .samples = 2000, .second_every = 97, .qemu_every = 1009,
};
static unsigned lost_count;

static void explore_one(const struct world *w, const char *names, uint64_t seed)
{
        struct run run;

        if (run_record(&run, w, names, seed) && !explore_run(&explore, &run)) {
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
        return strstr(step->name, " as ") != NULL;
}

static void test_world(gconstpointer data)
{
        uint64_t before = explore.states;
        struct world w;
        unsigned i;

        if (qemu_img_missing())
                return;
        world_init(&w, data);
        if (only_steps) {
                explore_one(&w, only_steps, (uint64_t)first_seed);
        } else {
                for (i = 0; i < step_count; i++)
                        if (!is_setup(&steps[i]) && stands_alone(&w, &steps[i]))
                                explore_one(&w, steps[i].name, (uint64_t)first_seed);
                for (i = 0; i < G_N_ELEMENTS(sequences); i++)
                        explore_one(&w, sequences[i], (uint64_t)first_seed);
        }
        g_print("# %s: %" G_GUINT64_FORMAT " states\n", w.format->name, explore.states - before);
        world_clear(&w);
}

static void parse(int *argc, char ***argv)
{
        const GOptionEntry entries[] = {
                { "world", 0, 0, G_OPTION_ARG_STRING, &only_world, "only this world", "NAME" },
                { "steps", 0, 0, G_OPTION_ARG_STRING, &only_steps, "only this run", "STEPS" },
                { "seed", 0, 0, G_OPTION_ARG_INT64, &first_seed, "of the disk", "N" },
                { NULL },
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

        g_test_init(&argc, &argv, NULL);
        parse(&argc, &argv);
        explore_init(&explore, &budget);
        for (i = 0; i < world_format_count; i++) {
                g_autofree char *path = g_strdup_printf("/crash/%s", world_formats[i].name);

                if (!only_world || strcmp(only_world, world_formats[i].name) == 0)
                        g_test_add_data_func(path, &world_formats[i], test_world);
        }
        ret = g_test_run();
        g_print("# windows: %" G_GUINT64_FORMAT ", of which sampled: %" G_GUINT64_FORMAT
                ", shown to qemu-img: %" G_GUINT64_FORMAT "\n", explore.windows,
                explore.windows_sampled, explore.qemu_checks);
        g_print("# proof: crash states: %" G_GUINT64_FORMAT ", lost: %u\n", explore.states,
                lost_count);
        explore_clear(&explore);
        return ret;
}
