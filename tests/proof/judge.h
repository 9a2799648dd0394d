/*
 * judge.h - is a state that a power cut left what was promised?
 *
 * A state is looked at three times: as it lies there, by the reader of peek.h; after the driver
 * opened it for writing, which repairs it; and after the whole disk was written anew, which no
 * snapshot may notice.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_JUDGE_H
#define PROOF_JUDGE_H

#include "proof/run.h"

struct judge {
        const struct run *run;
        struct allowed allowed;
        bool was_dirty;                 /* set: the state had the dirty bit */
        bool cut_again;                 /* also cut the power during the recovery */
        uint64_t second_states;         /* counted: states of such second cuts */
};

/* NULL, or what was lost; owned by the caller. */
char *judge_state(struct judge *j, const struct sim_image *image);

/* qemu-img check of the state: NULL, or what it said of damage. */
char *judge_by_qemu(const struct judge *j, const struct sim_image *image);

#endif
