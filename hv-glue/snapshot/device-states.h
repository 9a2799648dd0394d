/*
 * device-states.h - the sections of a VM state: what the machine is and its devices.
 *
 * The section "machine" comes first and names the disks; then each device of
 * machine_devices in its order.  Loading judges everything before it changes anything.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_DEVICE_STATES_H
#define SNAPSHOT_DEVICE_STATES_H

#include <glib.h>

#include "snapshot/vm-state.h"
#include "vm/machine.h"

struct device_states {
        GArray *sections;               /* of struct vm_state_section */
        GPtrArray *bytes;               /* of uint8_t *, one a section, owned */
};

void device_states_init(struct device_states *states);
void device_states_clear(struct device_states *states);

/* The machine is paused.  Offsets of sections are left 0.  0 or -errno. */
int device_states_save(struct machine *m, struct device_states *states, struct hvb_error *err);

/*
 * Do these states fit this machine?  The bytes are untrusted, their sums were checked.
 * Changes nothing.  -EINVAL: damaged; -ENOTSUP: of another machine.
 */
int device_states_judge(struct machine *m, const struct device_states *states,
                        struct hvb_error *err);

/* Takes judged states over; the machine is paused.  Fails where the kernel refuses. */
int device_states_apply(struct machine *m, const struct device_states *states,
                        struct hvb_error *err);

#endif
