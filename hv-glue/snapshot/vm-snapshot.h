/*
 * vm-snapshot.h - savevm, loadvm, delvm and the list, over all disks of a machine.
 *
 * These wait, so they run on a worker thread; one at a time a machine (-EBUSY else).  The
 * machine's run state is afterwards what it was, unless a load failed half-way.
 *
 * Texts of errors are QEMU's where QEMU has one.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_VM_SNAPSHOT_H
#define SNAPSHOT_VM_SNAPSHOT_H

#include "vm/machine.h"

/* Shared with whoever shows progress or cancels; atomics.  Zero it first. */
struct vm_job {
        gint cancelled;                 /* set it: -ECANCELED soon, everything as before */
        uint64_t done_bytes;            /* of RAM, zero pages included */
        uint64_t total_bytes;           /* 0: not known yet */
        uint64_t pause_nsec;            /* how long vcpus were stopped, at the end */
        uint64_t written_bytes;         /* VM state bytes actually written or read */
};

struct vm_snapshot_options {
        const char *tag;                /* NULL for savevm: "vm-%Y%m%d%H%M%S" */
        bool replace;                   /* savevm: HMP replaces, QMP refuses (-EEXIST) */
        const char *vmstate_disk;       /* id of the disk for the VM state; NULL: the first that
                                         * can hold it, or of loadvm the first that has it */
        const char *const *disks;       /* ids that take part, NULL-terminated; NULL: all
                                         * writable ones */
        bool stopped;                   /* savevm: the guest stands still until all is saved */
        bool eager;                     /* loadvm: all of RAM is read before the guest goes on */
};

/*
 * Replacing keeps the old snapshot whole until the new one is: 0 means the new one is
 * there, an error that the old one is.  What could not be deleted of the old one afterwards
 * is listed as partial.  job may be NULL.
 */
int vm_savevm(struct machine *m, const struct vm_snapshot_options *options, struct vm_job *job,
              struct hvb_error *err);

/*
 * Also in PRELAUNCH, for --loadvm.  A state that does not fit or is damaged is refused before
 * anything changes; a failure later leaves the machine in INTERNAL_ERROR, and err says what
 * to do.  A load may be cancelled until then.
 */
int vm_loadvm(struct machine *m, const struct vm_snapshot_options *options, struct vm_job *job,
              struct hvb_error *err);

/* -ENOENT: no disk has it. */
int vm_delvm(struct machine *m, const struct vm_snapshot_options *options, struct vm_job *job,
             struct hvb_error *err);

/*
 * Ask when a machine was made: 0, or 1 and the tag (g_free) of a loadvm over several disks that was
 * interrupted: the disks do not fit together, and the machine may only loadvm.
 */
int vm_loadvm_unfinished(struct machine *m, char **ret_tag, struct hvb_error *err);

/* A tag and the disks that have it. */
struct vm_snapshot_row {
        struct hvb_snapshot_info info;  /* of the disk with the VM state, else of the first */
        bool on_all_disks;              /* and of one moment */
        bool loadable;                  /* complete, with a VM state */
        char *disk_id;                  /* for partial ones: which disk; NULL else; owned */
};

/* All rows: complete ones first, then partial ones by disk.  g_ptr_array_unref frees.
 * NULL: err says why. */
GPtrArray *vm_snapshots(struct machine *m, struct hvb_error *err);

#endif
