/*
 * backup.h - a disk's snapshot is written to a file of its own, while the machine runs.
 *
 * The guest does not notice but for the bandwidth.  The snapshot is pinned meanwhile: it may be
 * deleted or replaced, and the backup goes on reading what it was.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_BACKUP_H
#define SNAPSHOT_BACKUP_H

#include "snapshot/vm-snapshot.h"

struct vm_backup_options {
        const char *disk;               /* its id */
        const char *tag;                /* the first snapshot of that name */
        const char *target;             /* path of a file that must not exist */
        const char *format;             /* "qcow2" or "raw"; NULL: "qcow2" */
};

/*
 * Waits, so it runs on a worker thread; any number at a time, beside vm_savevm() and its
 * sisters.  The target holds the whole disk, what backing files give included, and stands
 * alone; zeros take no space.  The VM state is not part of it.  On failure, and when
 * cancelled (-ECANCELED), there is no target.  job: done_bytes of the disk, written_bytes.
 */
int vm_backup(struct machine *m, const struct vm_backup_options *options, struct vm_job *job,
              struct hvb_error *err);

#endif
