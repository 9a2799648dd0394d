/*
 * disorder.h - many requests in flight on one image, snapshots and resizes among them.
 *
 * What a run checks:
 *
 *   1. every read sees, in each unit, a change that may have been the last one
 *      (disorder-model.h), and never goes back behind what was seen before
 *   2. a snapshot is the disk at one moment between the begin and the end of its creation, with the
 *      VM state saved for it; from then on it never changes in the file
 *   3. going to a snapshot sets the whole disk and its size; a disk that grows shows zeros
 *   4. control operations take effect in the order in which they were started
 *   5. a request that was cancelled has happened, or has not; a snapshot operation that was
 *      cancelled has not, and nothing leaks
 *      (the same of one that is done phase by phase, and aborted or cancelled between; its snapshot
 *      is the disk at one moment of the switch)
 *   6. a drain completes after all that was started before
 *   7. whenever nothing is in flight, disk and list are what they must be and a check finds
 *      nothing; the same after closing and opening
 *
 *   disorder-data.c      reads, writes, zeroings, discards ...: starting and judging them
 *   disorder-control.c   snapshots, resizes, VM state
 *   disorder-verify.c    what is looked at from outside
 *   disorder.c           the form of a run, its order of steps
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_DISORDER_H
#define PROOF_DISORDER_H

#include <inttypes.h>
#include <stdio.h>

#include "disorder-model.h"
#include "disorder-subject.h"

enum {
        ACTS_MAX = 64,
        CONTROLS_MAX = 3,
        ACT_IOVECS = 4,
        STATE_UNITS = 96,               /* of a VM state */
        VALUE_BACKING = 1,              /* all of the backing file; requests' ids come after it */
};

enum act_kind {
        ACT_READ, ACT_WRITE, ACT_COMPRESS, ACT_ZERO, ACT_DISCARD, ACT_FLUSH, ACT_DRAIN, ACT_STATUS,
        ACT_SAVE, ACT_LOAD,
        ACT_FORGET, ACT_CREATE, ACT_GOTO, ACT_DELETE, ACT_RESIZE,       /* wait for each other */
};

static inline bool act_is_control(enum act_kind kind)
{
        return kind >= ACT_FORGET;
}

/* Requests that an operation is made of. */
enum act_phase { PHASE_ALL, PHASE_PREPARE, PHASE_SWITCH, PHASE_LAST, PHASE_ABORT };

struct disorder;

/* One request, or one for each phase. */
struct act {
        struct disorder *d;
        GList link;                     /* in d->acts */
        GList turn_link;                /* in d->controls */
        enum act_kind kind;
        uint32_t id;
        uint64_t started;
        uint64_t asked;                 /* when its request at hand was started */
        bool cancelled;
        struct hvb_request *request;
        struct hvb_error err;

        /* Data, VM state. */
        uint64_t unit;
        uint64_t count;                 /* units */
        uint32_t flags;                 /* HVB_REQ_*, HVB_SNAPSHOT_* */
        bool beyond;                    /* the disk may have ended before the range did */
        uint8_t *bytes;
        struct iovec iov[ACT_IOVECS];
        unsigned iov_count;
        struct hvb_block_status status;

        /* Control. */
        uint64_t turn;                  /* when all before it had ended; 0: not yet */
        int expected;                   /* the result, if not cancelled */
        bool changes;                   /* it began changes of the disk */
        enum act_phase phase;           /* of what is done phase by phase: the request at hand */
        enum act_phase abort_after;     /* PHASE_ALL: not at all */
        uint64_t moment;                /* a creation's: not before this ... */
        uint64_t moment_end;            /* ... nor after; 0: now */
        uint64_t units_after;           /* how long the disk becomes */
        struct hvb_snapshot_info info;
};

/* A snapshot, as it was when it was taken. */
struct shot {
        char name[8];
        uint64_t unit_count;
        uint32_t *values;
        bool has_state;
        uint32_t state[STATE_UNITS];
};

/* What the seed decides beforehand. */
struct form {
        unsigned cluster_bits;
        unsigned version;
        unsigned refcount_bits;
        bool lazy;
        bool zstd;
        unsigned alignment;             /* of the disk; 1: any */
        uint64_t backing_units;         /* 0: no backing file */
        uint64_t unit_count;            /* at the beginning */
        uint64_t units_max;
        unsigned depth;                 /* requests in flight */
        unsigned step_count;
        unsigned control_percent;
        unsigned cancel_percent;
        struct sim_options disk;
};

struct disorder {
        uint64_t seed;
        struct form form;
        struct sim_random random;
        struct simdisk *disk;
        struct subject subject;
        uint64_t now;
        uint32_t next_id;
        GQueue acts;                    /* in flight, oldest first */
        GQueue controls;                /* those that wait for each other */
        GString *steps;
        FILE *log;                      /* steps as they happen; or NULL */
        char *difference;               /* the first; the run ends with it */
        uint64_t results_hash;
        unsigned request_count;

        struct area *area;
        uint64_t unit_count;            /* of the disk */
        GPtrArray *shots;               /* of struct shot, in the order of the list */
        uint32_t saved[STATE_UNITS];    /* for the next snapshot; VALUE_TORN: not known */
        bool has_saved;
        bool has_loaded;
        bool loaded_is_gone;            /* with its snapshot */
        uint32_t loaded[STATE_UNITS];
        char loaded_name[8];            /* of the snapshot */
        unsigned state_acts;            /* ACT_SAVE and ACT_LOAD in flight */
};

/* What came of a run. */
struct outcome {
        char *difference;               /* owned; NULL: none */
        char *steps;                    /* owned; what was done, a line each */
        uint64_t hash;                  /* of all that happened */
        unsigned request_count;
};

/* log may be NULL. */
struct outcome disorder_run(uint64_t seed, FILE *log);

/* ---- disorder.c ---- */

void disorder_fail(struct disorder *d, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
void disorder_step(struct disorder *d, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
uint64_t disorder_below(struct disorder *d, uint64_t limit);
bool disorder_chance(struct disorder *d, unsigned percent);
/* When the oldest request in flight was started. */
uint64_t disorder_oldest(const struct disorder *d);

/* ---- disorder-data.c ---- */

struct act *act_new(struct disorder *d, enum act_kind kind);
/* Memory for the act's range, in several pieces perhaps. */
void act_buffer(struct act *a);
const char *act_name(const struct act *a);
void data_start(struct disorder *d);
void data_end(struct act *a, int result);

/* ---- disorder-control.c ---- */

void control_start(struct disorder *d);
/* The request has completed: starts the next phase, or false and *result is the operation's. */
bool control_goes_on(struct act *a, int *result);
void control_end(struct act *a, int result);
void state_start(struct disorder *d);
void state_end(struct act *a, int result);
/* The data request may be cut off by what the control operations do to the disk's size. */
void control_judge_size(struct act *a);
void shot_free(void *shot);

/* ---- disorder-verify.c ---- */

/* A new snapshot, from the file as it is now: judged, and its content adopted. */
void verify_adopt(struct act *create, struct shot *shot);
void verify_shot(struct disorder *d, const struct shot *shot);
/* Nothing is in flight: disk, list, counts. */
void verify_quiet(struct disorder *d);
/* The same, of the file and all snapshots; the image is closed. */
void verify_closed(struct disorder *d);

#endif
