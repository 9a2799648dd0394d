/*
 * sequence.h - one random sequence of operations on one image.
 *
 * The image is either open in the driver (drive != NULL) or closed and free for
 * the peer.  The model is what both must believe.  Steps are:
 *
 *   sequence.c  the order of steps
 *   subject.c   creating, opening, closing; comparing the whole disk
 *   batch.c     data requests in flight together, up to a barrier
 *   control.c   snapshots, truncate, block status, reopen
 *   handoff.c   the peer's turn
 *   verify.c    the end: the peer's judgement, each snapshot from both sides
 *
 * What is checked, besides data: `qemu-img check` finds neither leaks nor
 * corruptions whenever the image was closed; refused operations change nothing;
 * snapshot ids, names, disks and VM states stay as they were made.
 *
 * A step returns 0, or a negative errno after sequence_fail() has said what differs.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef INTEROP_SEQUENCE_H
#define INTEROP_SEQUENCE_H

#include <stdio.h>

#include "host/drive.h"
#include "model.h"
#include "peer.h"
#include "plan.h"

enum { IMAGE_FILES_MAX = 2 };

struct sequence {
        struct plan plan;
        struct rng rng;
        struct model model;
        struct policy *policy;
        struct drive *drive;            /* NULL: the image is closed */
        char *directory;
        char *path;                     /* of the image */
        char *backing_path;             /* or NULL */
        FILE *log;                      /* "operations" in directory */
        char *difference;               /* what differs, once */
        unsigned op_count;
        unsigned next_name;             /* for snapshots */
        bool compressed;                /* clusters may share host clusters */
        /* VM state that load_vmstate shows now: that of the snapshot gone to. */
        struct model_disk *vm_state;
};

/* Counters over all sequences, shared between processes. */
struct tally {
        unsigned sequences, operations, requests, handoffs;
        unsigned snapshots_created, snapshots_refused, snapshots_verified, vm_states_verified;
        unsigned compressed_refused;
};

extern struct tally *tally;

#define tally_add(member, count) __atomic_add_fetch(&tally->member, (count), __ATOMIC_RELAXED)

/* Runs it; the image stays in directory.  0, or -errno with *ret_difference (g_free). */
int sequence_run(const struct plan *plan, const char *directory, char **ret_difference);

/* Records the first difference; returns -EBADMSG. */
int sequence_fail(struct sequence *seq, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
/* One line into the list of operations. */
void sequence_log(struct sequence *seq, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/* subject.c */
int subject_create(struct sequence *seq);
int subject_open(struct sequence *seq, bool writable);
int subject_close(struct sequence *seq);
/* Reads all and compares; *ret_got, if wanted, is what was read. */
int subject_compare(struct sequence *seq, const struct model_disk *disk,
                    const struct model_disk *other, const char *what,
                    struct model_disk **ret_got);
/* `qemu-img check` on the closed image must find nothing. */
int subject_check(struct sequence *seq);

/* batch.c */
int batch_run(struct sequence *seq);
/* Bytes at offset that differ by place and by salt; compressible ones repeat. */
void batch_pattern(uint8_t *bytes, uint64_t offset, size_t length_bytes, uint64_t salt,
                   bool compressible);
/* Reads [offset, offset + length), which must hold what before or the model has, and
 * zeros in whole clusters; the model takes over what was read. */
int batch_settle_discard(struct sequence *seq, const struct model_disk *before,
                         uint64_t offset, uint64_t length_bytes);

/* control.c */
int control_step(struct sequence *seq);
int control_status_walk(struct sequence *seq);
/* May, or must, creating (or going to) a snapshot overflow a reference count? */
bool control_may_overflow(const struct sequence *seq);
bool control_must_overflow(const struct sequence *seq);
int control_draw_vm_state(struct sequence *seq, struct model_disk **ret_state);
int control_check_vm_state(struct sequence *seq, const struct model_disk *state, const char *what);
int control_settle(struct sequence *seq, struct model_snapshot *snapshot);
char *control_new_name(struct sequence *seq);
struct model_snapshot *control_pick(struct sequence *seq);
void control_forget_vm_state(struct sequence *seq);
int control_delete(struct sequence *seq, struct model_snapshot *snapshot);

/* handoff.c */
int handoff_run(struct sequence *seq);
/* After the peer refused a snapshot operation: its own leaks, and nothing else. */
int handoff_repair_leaks(struct sequence *seq);
int handoff_snapshot_delete(struct sequence *seq, struct model_snapshot *snapshot);
/* QEMU resizes first, and leaves it so when a count overflows then. */
bool handoff_may_go(const struct sequence *seq, const struct model_snapshot *snapshot);

/* verify.c */
int verify_all(struct sequence *seq);
/* The peer's snapshot list against the model's. */
int verify_peer_list(struct sequence *seq);

#endif
