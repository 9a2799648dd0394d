/*
 * device.h - what every part of a machine that has state can do.
 *
 * Devices, and as devices too: each vcpu, the interrupt controllers, the timer, the
 * clock.  A device file defines one const struct device_ops with designated
 * initialisers and embeds struct device.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_DEVICE_H
#define VM_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "hv-block.h"
#include "snapshot/state.h"

struct device;

struct device_ops {
        const char *name;               /* of its section in a VM state, e.g. "virtio-blk" */
        uint32_t state_version;         /* what save writes */
        uint32_t state_oldest;          /* the oldest that load reads */

        /* As after power-on.  Vcpus are stopped and the device is quiet.  NULL: nothing to do. */
        void (*reset)(struct device *device);

        /*
         * Vcpus are stopped.  quiesce starts no new guest request from now on and returns
         * when those in flight are finished, their results in guest memory and their
         * interrupts raised; resume looks at the queues again.  NULL: nothing in flight
         * ever.
         */
        void (*quiesce)(struct device *device);
        void (*resume)(struct device *device);

        /*
         * The device is quiet.  save may fail only where the kernel refuses, or where what
         * the device waits for cannot be saved (-errno).
         */
        int (*save)(struct device *device, struct state_writer *w, struct hvb_error *err);
        /*
         * Called twice with the same untrusted bytes: with apply false it judges every
         * field, and that they fit this machine, and changes nothing; with apply true it
         * takes them over, guest memory being the loaded one already.  version is between
         * state_oldest and state_version.  -EINVAL: not a state of such a device; -ENOTSUP:
         * this machine cannot (CPU features, TSC frequency).
         */
        int (*load)(struct device *device, struct state_reader *r, uint32_t version, bool apply,
                    struct hvb_error *err);
        void (*free)(struct device *device);
};

struct device {
        const struct device_ops *ops;
        unsigned instance;              /* among those of its name, from 0 */
};

#endif
