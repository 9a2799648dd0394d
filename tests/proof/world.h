/*
 * world.h - the image that every proof starts from, and what may be done to it.
 *
 * The disk has, in order: a cluster that snapshots a and b share with it, one that b
 * shares, a compressed one, a private one, and the rest from a backing file that is shorter than
 * the disk.  Disks with more clusters repeat that in other L2 tables.  Snapshot a has a
 * VM state.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_WORLD_H
#define PROOF_WORLD_H

#include "lib/simdisk.h"
#include "proof/model.h"
#include "unit/data-bed.h"

struct world_format {
        const char *name;
        const char *options;            /* of qemu-img create -o */
        uint64_t cluster_bytes;
        unsigned disk_clusters;
        bool has_backing;
};

struct world {
        const struct world_format *format;
        struct sim_image image;
        GBytes *backing;                /* NULL: none */
        struct model *model;
        unsigned version;
        bool lazy;
};

extern const struct world_format world_formats[];
extern const unsigned world_format_count;

/* By qemu-img, which must be there, and the driver on a disk without faults. */
void world_init(struct world *w, const struct world_format *format);
void world_clear(struct world *w);

/* A disk with these files: the image, and the backing file where the format has one. */
struct simdisk *world_disk(const struct world *w, const struct sim_image *image,
                           const struct sim_options *options);

/* ---- steps ---- */

struct live;

/* An opened image and what it should hold; steps change both. */
struct stage {
        const struct world *world;
        struct simdisk *disk;
        struct bed bed;
        struct model *model;            /* owned */
        struct live *live;              /* owned; an operation that was begun, or NULL */
        GBytes *saved;                  /* VM state, for phase_publish; or NULL */
        GBytes *switched;               /* the prepared snapshot's disk, or NULL */
};

struct step {
        const char *name;
        int (*run)(struct stage *s, const struct step *step);
        bool durable;                   /* what is acknowledged survives, disk content included */
        bool is_phase;                  /* of an operation that other steps begin and end */
        bool marked;                    /* a version 3 image is dirty while counts move */
        int cluster;                    /* >= 0: counted from the first; < 0: from the end */
        unsigned start_eighths;         /* of a cluster, added to that */
        unsigned length_eighths;
        uint32_t flags;
        const char *snapshot;
};

extern const struct step steps[];
extern const unsigned step_count;

const struct step *step_named(const char *name);

/* ---- operations during which other steps are done (live.c) ---- */

int live_begin_create(struct stage *s, const struct step *step);
int live_begin_delete(struct stage *s, const struct step *step);
int live_begin_goto(struct stage *s, const struct step *step);
/* What was begun goes on a little, while nothing else is done. */
int live_wait(struct stage *s, const struct step *step);
/* It ends; the model has what came of it. */
int live_finish(struct stage *s, const struct step *step);
/* The model is what it is between two steps. */
void live_note(struct stage *s);

/* ---- operations phase by phase (phases.c) ---- */

int phase_prepare(struct stage *s, const struct step *step);
int phase_switch(struct stage *s, const struct step *step);
/* VM state, new or by reference to that of a snapshot. */
int phase_save(struct stage *s, const struct step *step);
int phase_share(struct stage *s, const struct step *step);
int phase_publish(struct stage *s, const struct step *step);
int phase_abort(struct stage *s, const struct step *step);
int phase_goto_prepare(struct stage *s, const struct step *step);
/* In a row. */
int phases_create(struct stage *s, const struct step *step);
int phases_goto(struct stage *s, const struct step *step);
/* What an abort or a publication has ended. */
void stage_forget_phases(struct stage *s);

static inline bool step_begins(const struct step *step)
{
        return step->run == live_begin_create || step->run == live_begin_delete ||
               step->run == live_begin_goto;
}

/* Not for running alone. */
static inline bool step_is_live(const struct step *step)
{
        return step_begins(step) || step->run == live_wait || step->run == live_finish ||
               step->is_phase;
}

/* -errno of the driver, or -ERANGE: the disk is too small by now.  Then the model is as before. */
int step_run(struct stage *s, const struct step *step);

#endif
