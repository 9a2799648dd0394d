/*
 * vm-state-file.h - a whole VM state, read from a disk's VM-state area.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_VM_STATE_FILE_H
#define SNAPSHOT_VM_STATE_FILE_H

#include "snapshot/device-states.h"
#include "snapshot/page-map.h"
#include "snapshot/vm-snapshot.h"

/* A VM state that was read but for RAM, and judged. */
struct vm_state_file {
        struct machine_disk *disk;
        struct vm_state_header header;
        struct device_states devices;
        struct page_map map;
};

/*
 * Reads what the disk's load_vmstate shows, limit_bytes long, and judges it for this
 * machine, which goes on running and does not change.  -EINVAL: damaged or no VM state;
 * -ENOTSUP: of another machine or a newer version.
 */
int vm_state_open(struct machine *m, struct machine_disk *disk, uint64_t limit_bytes,
                  struct vm_state_file *ret_file, struct hvb_error *err);
void vm_state_close(struct vm_state_file *file);

/* Overwrites RAM of the paused machine.  On failure RAM is neither old nor new. */
int vm_state_load_ram(struct vm_state_file *file, struct machine *m, struct vm_job *job,
                      struct hvb_error *err);

#endif
