/*
 * vm-op.h - one operation on all disks of a machine: what they have in common.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_VM_OP_H
#define SNAPSHOT_VM_OP_H

#include "snapshot/vm-disks.h"

struct vm_op {
        struct machine *machine;
        struct vm_job *job;             /* never NULL */
        struct hvb_error *err;          /* never NULL */
        struct vm_job own_job;
        struct hvb_error own_err;
        struct vm_disks disks;
        int state_disk;                 /* index in disks */
};

/*
 * Begins: -EBUSY if another operation runs on this machine.  Afterwards vm_op_end, whatever
 * happens.  The disks of the options are selected and their snapshots listed.
 */
int vm_op_begin(struct vm_op *op, struct machine *m, const struct vm_snapshot_options *options,
                const char *tag, struct vm_job *job, struct hvb_error *err);
void vm_op_end(struct vm_op *op);

struct vm_disk *vm_op_state_disk(struct vm_op *op);

/*
 * The record of a loadvm over several disks, so that one that a crash tore is not
 * taken for a whole one: a snapshot of the VM-state disk whose name says it.  It is there
 * before the first disk goes back, and goes after the last one has.
 */
int torn_record(struct vm_op *op, const char *tag);
/* Is there one of this tag, as of the last list? */
bool torn_has(const struct vm_op *op, const char *tag);
/* That of this tag, or (NULL) all. */
int torn_erase(struct vm_op *op, const char *tag);
/* The tag in the record on one of these disks, or NULL.  Theirs. */
const char *torn_find(const struct vm_disks *disks);

#endif
