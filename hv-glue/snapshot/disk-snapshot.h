/*
 * disk-snapshot.h - a snapshot used beside the guest, from another thread than its disk's.
 *
 * These wait; several threads may at once.  A snapshot that is open is pinned: it may be deleted
 * or replaced, and is read as it was.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_DISK_SNAPSHOT_H
#define SNAPSHOT_DISK_SNAPSHOT_H

#include "host/drive-thread.h"

/* id and name as in hvb_driver; ret_info may be NULL.  -ENOTSUP: the driver cannot. */
int disk_snapshot_open(struct drive_thread *thread, const char *id, const char *name,
                       struct hvb_snapshot_info *ret_info, struct hvb_snapshot **ret_snapshot,
                       struct hvb_error *err);

/* NULL is fine.  Where the space of one that was deleted cannot be freed, the image's close or a
 * repair tries again. */
void disk_snapshot_close(struct drive_thread *thread, struct hvb_snapshot *snapshot);

/* As hvb_driver.snapshot_note; -ENOTSUP, too, if the driver cannot. */
int disk_snapshot_note(struct drive_thread *thread, struct hvb_snapshot *snapshot,
                       uint64_t offset, const void *bytes, size_t count);

/* flags: HVB_REQ_VMSTATE or 0. */
int disk_snapshot_read(struct drive_thread *thread, struct hvb_snapshot *snapshot,
                       uint64_t offset, void *bytes, size_t count, uint32_t flags);
int disk_snapshot_status(struct drive_thread *thread, struct hvb_snapshot *snapshot,
                         uint64_t offset, uint64_t length_bytes,
                         struct hvb_block_status *ret_status);

#endif
