/*
 * test-planted.c - the search for lost states finds what it looks for.
 *
 * Each rule of disk/planted.h is broken once, and a run that depends on it must leave a
 * state that test-crash would call lost.  The same runs lose nothing when no rule is broken.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "disk/planted.h"
#include "proof/explore.h"
#include "unit/qemu-img.h"

enum planted_bug planted_bug;

struct planting {
        enum planted_bug bug;
        const char *rule;
        const char *world;
        const char *steps;
        uint64_t fail_fsync;
        bool in_recovery;               /* broken there, not while the run is recorded */
        unsigned more_seeds;            /* it takes two to meet at the wrong moment */
};

#define BREAKS(bug_, rule_, world_, steps_) \
        .bug = PLANTED_##bug_, .rule = rule_, .world = world_, .steps = steps_

static const struct planting plantings[] = {
        { BREAKS(COUNTS_UNSTABLE, "counts are stable before entries refer to them",
                 "v3-512", "write new, then write many") },
        { BREAKS(BLOCKS_UNSTABLE, "refcount blocks are stable before the table names them",
                 "v3-512-64bit", "write wide") },
        { BREAKS(REFTABLE_UNSTABLE, "the refcount table is stable before entries rely on it",
                 "v3-512-64bit", "write wide") },
        { BREAKS(DATA_UNSTABLE, "data is stable before entries point to it",
                 "v3-512-lazy", "write on shared, then flush") },
        { BREAKS(ENTRIES_UNSTABLE, "a flush waits for the entries",
                 "v3-512", "write new, then flush") },
        { BREAKS(ENTRIES_FIRST, "count up, then refer",
                 "v3-512", "write new") },
        { BREAKS(COUNT_DOWN_FIRST, "stop referring, then count down",
                 "v3-512", "discard private") },
        { BREAKS(ROOT_FIRST, "tables are stable before the root names them",
                 "v3-512", "create") },
        { BREAKS(ROOT_UNSTABLE, "the switched root is stable before counts go down",
                 "v3-512", "delete a") },
        { BREAKS(ROOT_IN_TWO, "the root switches in one write",
                 "v3-512", "create") },
        { BREAKS(GOTO_IN_PLACE, "goto never overwrites the live L1",
                 "v3-512", "write many, then goto a") },
        { BREAKS(COPIED_KEPT, "COPIED is cleared on what a snapshot shares",
                 "v3-512", "create, then write") },
        { BREAKS(DELETE_COUNTS_FIRST, "unlink the snapshot, then count down",
                 "v3-512", "delete a") },
        { BREAKS(NO_DIRTY_BIT, "the dirty bit is set while counts move",
                 "v3-512", "delete b") },
        { BREAKS(CLEAN_TOO_EARLY, "counts are stable before the dirty bit goes",
                 "v3-512", "create") },
        { BREAKS(DELTA_LOST, "what is mapped behind a walk has the snapshot's count",
                 "v3-512", "begin create, then wait, then burst, then burst, then finish"),
          .more_seeds = 12 },
        { BREAKS(WALK_UNLOCKED, "a table is not changed while it is counted",
                 "v3-512", "begin create, then burst, then burst, then finish"),
          .more_seeds = 12 },
        { BREAKS(SWITCH_KEEPS_COPIED, "what a snapshot has taken is copied before it changes",
                 "v3-512", "begin create, then wait, then wait, then burst, then finish"),
          .more_seeds = 12 },
        { BREAKS(TABLE_FROM_FILE, "tables are what memory has of them",
                 "v3-512", "write many, then begin create, then burst, then finish"),
          .more_seeds = 12 },
        { BREAKS(REPAIR_TOO_EARLY, "a repair is stable before the dirty bit goes",
                 "v3-512", "delete b"), .in_recovery = true },
        { BREAKS(NO_POISON, "no flush succeeds after a failed fsync",
                 "v3-512", "write, then flush, then flush"), .fail_fsync = 1 },
};

enum { FIRST_SEED = 3 };

static unsigned caught_count;

static const struct world_format *format_named(const char *name)
{
        unsigned i;

        for (i = 0; i < world_format_count; i++)
                if (strcmp(world_formats[i].name, name) == 0)
                        return &world_formats[i];
        g_error("no world is called '%s'", name);
}

/* NULL, or what was lost; owned by the caller. */
static char *look_for_loss(const struct planting *p, enum planted_bug bug, uint64_t seed)
{
        const struct explore_budget budget = {
                .combinations = 4096, .samples = 500, .second_every = p->in_recovery ? 1 : 0,
        };
        struct explore e;
        struct world w;
        struct run run;
        char *lost;

        planted_bug = PLANTED_NONE;
        world_init(&w, format_named(p->world));
        explore_init(&e, &budget);
        planted_bug = p->in_recovery ? PLANTED_NONE : bug;
        g_assert_true(run_record(&run, &w, p->steps, seed, p->fail_fsync));
        planted_bug = p->in_recovery ? bug : PLANTED_NONE;
        explore_run(&e, &run);
        planted_bug = PLANTED_NONE;
        lost = g_steal_pointer(&e.lost);
        run_clear(&run);
        explore_clear(&e);
        world_clear(&w);
        return lost;
}

static void test_planting(gconstpointer data)
{
        const struct planting *p = data;
        g_autofree char *lost = NULL;
        uint64_t seed;

        if (qemu_img_missing())
                return;
        for (seed = FIRST_SEED; seed <= FIRST_SEED + p->more_seeds && !lost; seed++) {
                g_autofree char *sound = look_for_loss(p, PLANTED_NONE, seed);

                g_assert_cmpstr(sound, ==, NULL);
                lost = look_for_loss(p, p->bug, seed);
        }
        if (!lost) {
                g_test_fail_printf("not caught");
                return;
        }
        caught_count++;
        g_print("# %-55s -> %s\n", p->rule, lost);
}

int main(int argc, char **argv)
{
        unsigned i;
        int ret;

        G_STATIC_ASSERT(G_N_ELEMENTS(plantings) == PLANTED_COUNT - 1);
        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(plantings); i++) {
                g_autofree char *path = g_strdup_printf("/planted/%s", plantings[i].rule);

                g_test_add_data_func(path, &plantings[i], test_planting);
        }
        ret = g_test_run();
        g_print("# proof: planted bugs: %u of %u caught\n", caught_count,
                (unsigned)G_N_ELEMENTS(plantings));
        return ret;
}
