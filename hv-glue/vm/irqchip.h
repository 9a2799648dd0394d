/*
 * irqchip.h - what KVM does in the kernel, as devices: interrupt controllers, timer, clock.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_IRQCHIP_H
#define VM_IRQCHIP_H

#include "vm/device.h"
#include "vm/kvm.h"

/* The kvm must outlive them; their free frees them. */
struct device *irqchip_new(const struct kvm *kvm, struct hvb_error *err);
struct device *pit_new(const struct kvm *kvm, struct hvb_error *err);

/*
 * The clock that KVM shows to guests (kvmclock).  It stands still between clock_stop and
 * clock_start, whatever the host's does; a load sets where it goes on.
 */
struct device *clock_new(const struct kvm *kvm);
void clock_stop(struct device *clock);
void clock_start(struct device *clock);

#endif
