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
 * Makes the edge-triggered lines of chips[IRQCHIPS] low: both PICs, then the IOAPIC.
 *
 * Lines of disks and of the timer are pulsed by threads of KVM's, which go on while vcpus are
 * stopped.  Chips that were read in the middle of a pulse never see its end when they are set
 * again; the next pulse would be no edge to them, and its interrupt lost.  Whoever holds a line
 * high raises it anew when he is loaded; so does a disk with an interrupt that is not
 * acknowledged, which the pulse may have been for.
 */
enum { IRQCHIPS = 3 };
void irqchip_edges_fall(struct kvm_irqchip *chips);

/*
 * The clock that KVM shows to guests (kvmclock).  It stands still between clock_stop and
 * clock_start, whatever the host's does; a load sets where it goes on.
 */
struct device *clock_new(const struct kvm *kvm);
void clock_stop(struct device *clock);
void clock_start(struct device *clock);

#endif
