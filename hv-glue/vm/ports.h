/*
 * ports.h - the I/O ports by which a guest resets itself or powers off.
 *
 *   0x600  ACPI: PM1 events (none ever happens) and, at 0x604, control: SLP_EN with type 5
 *          powers off
 *   0xcf9  reset control, ACPI's reset register: writing with bit 2 set resets
 *   0x64   keyboard controller: writing 0xfe resets.  There is no keyboard: its status reads
 *          as "a byte is there, ready for commands", which drivers take for no controller and
 *          reset code does not wait for.
 *   0xf4   power off, whatever is written, for guests without ACPI (QEMU's isa-debug-exit,
 *          but what is written is lost)
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_PORTS_H
#define VM_PORTS_H

#include "vm/bus.h"
#include "vm/device.h"

enum {
        PORTS_PM_EVENT = 0x600,
        PORTS_PM_EVENT_BYTES = 4,
        PORTS_PM_CONTROL = 0x604,
        PORTS_PM_CONTROL_BYTES = 2,
        PORTS_SLEEP_OFF = 5,
        PORTS_SCI_IRQ = 9,              /* never raised */
        PORTS_RESET = 0xcf9,
        PORTS_RESET_VALUE = 6,
};

struct ports_events {
        void *opaque;
        /* On a vcpu's thread. */
        void (*reset)(void *opaque);
        void (*power_off)(void *opaque);
};

struct device *ports_new(const struct ports_events *events, struct bus *ports);

#endif
