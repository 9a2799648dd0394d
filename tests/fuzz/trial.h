/*
 * trial.h - one input is tried: what a host would do with such an image, and what must hold.
 *
 * In every mode:
 *
 *   1. nothing crashes, waits for ever, or leaks memory
 *   2. what was opened read-only is never written to, and a backing file never at all
 *   3. reading and memory are bounded by the file's length, whatever the image declares
 *   4. the file grows by what was written, and by the metadata for that
 *   5. an image whose check finds nothing has nothing to be found afterwards either; but the
 *      clusters of bitmaps, which a writer that does not maintain them gives up, leak
 *   6. a read that succeeded sets every byte, and says the same when repeated
 *   7. a repair leaves what it says it leaves
 *
 * A violation aborts, which libFuzzer reports with the input.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef FUZZ_TRIAL_H
#define FUZZ_TRIAL_H

#include "fuzz/input.h"
#include "proof/disorder-subject.h"

enum mode { MODE_OPEN, MODE_CHECK, MODE_DATA, MODE_SNAPSHOTS, MODE_VMSTATE, MODE_REPAIR };

/* Ended by the closing of the image. */
struct standing {
        struct hvb_snapshot *held;      /* NULL: none is */
        unsigned held_users;            /* actions in flight that use it */
        bool is_prepared;               /* what moves counts waits */
        bool is_switched;
        bool goes;                      /* it is a goto */
        struct hvb_snapshot_info info;  /* of what is prepared */
};

struct trial {
        enum mode mode;
        const struct input *in;
        struct simdisk *disk;
        struct subject subject;
        uint64_t file_bytes;            /* the input's */
        uint64_t data_bytes;            /* of which in memory pages */
        uint64_t growth_bytes;          /* what the actions may add to that */
        struct standing standing;
};

void trial_run(const struct input *in, enum mode mode);

void trial_fail(const struct trial *t, const char *format, ...)
        __attribute__((format(printf, 2, 3), noreturn));

/* ---- actions.c ---- */

/* Does what the script says with the opened image. */
void actions_run(struct trial *t);

/* Looks at everything that can be looked at; for read-only images too. */
void actions_look(struct trial *t);

/* ---- standing.c; these wait ---- */

/* Holds that snapshot, or lets go of the one that is held, unless it is in use. */
void standing_hold(struct trial *t, const struct hvb_snapshot_info *info);
/* Prepares it, or going to it; or goes on with what is prepared. */
void standing_prepare(struct trial *t, const struct hvb_snapshot_info *info, uint8_t flags);

/* ---- what the driver says of an image, by itself ---- */

struct verdict {
        int open_result;
        int check_result;               /* if it could be opened */
        struct hvb_check_result found;
        char text[256];                 /* why it could not be opened, or checked */
        bool is_marked;                 /* dirty or corrupt, by the header */
        bool has_bitmaps;               /* that count, by the header */
};

/* Read-only and without its backing file; flags: HVB_OPEN_CHECK, or 0: then nothing is checked. */
struct verdict verdict_of(const struct sim_image *image, uint32_t flags);
bool verdict_is_clean(const struct verdict *v);

#endif
