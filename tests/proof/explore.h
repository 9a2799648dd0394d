/*
 * explore.h - the states that a power cut could leave of a run, each one judged once.
 *
 * A window is what lies between two fsyncs.  All that can be lost of it is free at its
 * end, so there the choices are enumerated:
 *   - every combination, where there are no more than the budget allows
 *   - else none, all, each one missing, each one present, and samples: a half of them
 *     by 512-byte sectors, a half by pages of 4 KiB
 * and at each moment within it the state with all that completed until then.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_EXPLORE_H
#define PROOF_EXPLORE_H

#include "proof/judge.h"

struct explore_budget {
        unsigned combinations;          /* at most so many are enumerated */
        unsigned samples;
        unsigned second_every;          /* one state of so many is cut again; 0: none */
        unsigned qemu_every;            /* one of so many is shown to qemu-img; 0: none */
        uint64_t seed;
};

struct explore {
        struct explore_budget budget;
        GHashTable *seen;               /* hashes of states judged, of all runs */
        uint64_t states;                /* distinct ones, those of second cuts included */
        uint64_t windows;
        uint64_t windows_sampled;
        uint64_t qemu_checks;
        char *lost;                     /* the first loss, or NULL; owned */
};

void explore_init(struct explore *e, const struct explore_budget *budget);
void explore_clear(struct explore *e);

/* False, and e->lost says why: a state is not what it may be. */
bool explore_run(struct explore *e, const struct run *run);

#endif
