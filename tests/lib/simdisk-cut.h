/*
 * simdisk-cut.h - what a power cut could leave of a simdisk.
 *
 * The log of a run is walked moment by moment.  At each point there is what is
 * certainly on the disk, and a list of choices: for each sector with changes that no
 * fsync made durable, which of its versions is there; for each file whose length
 * changed, which length.  One pick per choice gives one state.
 *
 *      for (cut = sim_cut_new(disk); ; sim_cut_advance(cut, sim_cut_point(cut) + 1)) {
 *              choices = sim_cut_choices(cut, &count);
 *              ... for as many picks as wanted: sim_cut_build(cut, picks, images) ...
 *      }
 *
 * The rules of the disk:
 *  1. An fsync that succeeded makes durable what had completed on its file before it
 *     was submitted.  Everything else may be there or not, each sector by itself.
 *  2. Versions of one sector follow each other in the order of completion; the disk has
 *     one of them, and not one older than what is durable.
 *  3. What is in flight may have happened, to each sector by itself, on top of the
 *     newest version.
 *  4. After an fsync that failed, what had completed before that stays uncertain: no
 *     later fsync makes it durable (Linux marks the pages clean).  Writing it again does.
 *  5. A truncation happens with the length.  Bytes that it cut off do not come back
 *     under a length that was set later, nor does what was written after it show
 *     under a length from before.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_LIB_SIMDISK_CUT_H
#define TESTS_LIB_SIMDISK_CUT_H

#include "lib/simdisk.h"

struct sim_cut;

/* Option 0 is the durable one, option_count - 1 the newest with all that is in flight. */
struct sim_choice {
        unsigned file;
        int64_t sector;                 /* -1: the file's length */
        unsigned option_count;          /* at least 2 */
        unsigned newest_entry;          /* the last one in the log that touches it */
};

/* At point 0.  disk must have recorded, and must not change meanwhile. */
struct sim_cut *sim_cut_new(const struct simdisk *disk);
void sim_cut_free(struct sim_cut *cut);

/* Forward only; point <= simdisk_moments(disk). */
void sim_cut_advance(struct sim_cut *cut, uint64_t point);
uint64_t sim_cut_point(const struct sim_cut *cut);

/* Valid until the cut advances; in a fixed order (files, sectors ascending, length last). */
const struct sim_choice *sim_cut_choices(struct sim_cut *cut, unsigned *ret_count);

/*
 * The state with picks[i] < choices[i].option_count.  images gets one image per
 * file of the disk, to be cleared.  Picks that rule 5 forbids together are moved to the
 * nearest that it allows, so different picks may give the same state.
 */
void sim_cut_build(struct sim_cut *cut, const unsigned *picks, struct sim_image *images);

#endif
