/*
 * vm-disks.h - the disks that a VM snapshot is over, and what is done to each.
 *
 * Snapshots of one tag on several disks belong together when they are of one moment:
 * date and guest time are equal, to the nanosecond.  A name alone proves nothing, as a
 * crash may leave a new one here and an old one there, or both on one disk.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_VM_DISKS_H
#define SNAPSHOT_VM_DISKS_H

#include "snapshot/vm-snapshot.h"

/* A disk that takes part. */
struct vm_disk {
        struct machine_disk *disk;
        struct hvb_snapshot_info *infos;        /* its snapshots, as of vm_disks_list; owned */
        unsigned info_count;
        const struct hvb_snapshot_info *found;  /* of the tag in question, in infos; or NULL:
                                                 * the complete set's, else the first */
        bool is_prepared;               /* until publish or goto, whatever comes of it, or abort */
};

struct vm_disks {
        struct vm_disk *disks;          /* owned */
        unsigned count;
};

/*
 * The disks that ids name (NULL: all that are writable), in the machine's order.
 * -ENOTSUP: one of them cannot snapshot; -ENOENT: no such disk; -ENOMEDIUM: none at all.
 */
int vm_disks_select(struct machine *m, const char *const *ids, struct vm_disks *ret_disks,
                    struct hvb_error *err);
void vm_disks_clear(struct vm_disks *disks);

/* The same, but disks without snapshots are left out instead: for lists. */
void vm_disks_all(struct machine *m, struct vm_disks *ret_disks);

/* Index of the disk for the VM state: the one that is named, or the first. */
int vm_disks_state_disk(const struct vm_disks *disks, const char *id, struct hvb_error *err);

/* Reads all lists of snapshots; found becomes that of the tag (NULL: nothing). */
int vm_disks_list(struct vm_disks *disks, const char *tag, struct hvb_error *err);

bool snapshots_are_of_one_moment(const struct hvb_snapshot_info *a,
                                 const struct hvb_snapshot_info *b);

/* All that is prepared is as before, and what was saved of a VM state is forgotten. */
void vm_disks_abort(struct vm_disks *disks);

/* ---- One disk; from a job's thread.  Errors say which disk ---- */

int disk_create(struct vm_disk *d, struct hvb_snapshot_info *info, uint32_t flags,
                struct hvb_error *err);
/* The phases of that. */
int disk_prepare(struct vm_disk *d, const struct hvb_snapshot_info *info, uint32_t flags,
                 struct vm_job *job, struct hvb_error *err);
int disk_switch(struct vm_disk *d, const char *tag, struct hvb_error *err);
int disk_publish(struct vm_disk *d, struct hvb_snapshot_info *info, struct hvb_error *err);
/* What of goto grows with the disk; nothing where the driver does that in one. */
int disk_goto_prepare(struct vm_disk *d, const char *id, const char *tag, struct vm_job *job,
                      struct hvb_error *err);
int disk_goto(struct vm_disk *d, const char *id, const char *tag, struct hvb_error *err);
int disk_delete(struct vm_disk *d, const char *id, const char *tag, struct hvb_error *err);
/* load_vmstate reads this snapshot's from now on. */
int disk_load_vmstate(struct vm_disk *d, const char *id, const char *tag, struct hvb_error *err);

#endif
