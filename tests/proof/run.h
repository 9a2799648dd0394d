/*
 * run.h - steps done one after the other on a recording disk, and what may be found
 * if the power fails at a moment of that.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_RUN_H
#define PROOF_RUN_H

#include "proof/world.h"

enum { RUN_STEPS_MAX = 10 };

/* models[i] holds after i steps; the last step is the closing of the image. */
struct run {
        const struct world *world;
        struct simdisk *disk;
        char *text;                     /* the steps' names */
        unsigned step_count;
        bool is_marked;                 /* all steps are, in a version 3 image */
        const struct step *steps[RUN_STEPS_MAX + 1];
        struct model *models[RUN_STEPS_MAX + 2];
        bool durable[RUN_STEPS_MAX + 1];        /* acknowledged as such */
        uint64_t begin[RUN_STEPS_MAX + 1];      /* moments of the log */
        uint64_t end[RUN_STEPS_MAX + 1];
};

/*
 * names: separated by ", then ".  fail_fsync: the number, from 1, of an fsync that fails (0: none);
 * without it steps must not fail.  False: a step cannot be done here (version 2 does not resize
 * under snapshots).  run_clear() in any case.
 */
bool run_record(struct run *r, const struct world *world, const char *names, uint64_t seed,
                uint64_t fail_fsync);
void run_clear(struct run *r);

/*
 * What may be on the disk at a moment: of models[oldest .. newest] each byte of any, as
 * far as they have one history.  A goto that is under way begins another: all of the
 * old one, or all of models[newest].  Where the guest goes on meanwhile: bytes of either.
 */
struct allowed {
        unsigned oldest;
        unsigned newest;
        unsigned oldest_list;           /* of snapshots: >= oldest, for it is durable by itself */
        unsigned newest_list;           /* >= newest: an operation under way may have changed it */
        bool goes;
        GBytes *mixes_with;             /* the snapshot that a goto under way goes to, or NULL */
};

struct allowed run_allowed(const struct run *r, uint64_t moment);

/* NULL, or why the disk cannot be that one; owned by the caller. */
char *run_judge_disk(const struct run *r, struct allowed a, GBytes *disk);

#endif
