/*
 * cpuid.h - what a vcpu says that it is.
 *
 * All that KVM offers, but for what would need state that no VM state holds (nested
 * virtualization, SGX) and for the topology, which is the machine's: one socket, each vcpu a
 * core.  Made for each vcpu, fixed for its life.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_CPUID_H
#define VM_CPUID_H

#include "vm/kvm.h"

/* The table for vcpu `index` of `count`.  g_free. */
struct kvm_cpuid2 *cpuid_new(const struct kvm *kvm, unsigned index, unsigned count);

/*
 * May a guest that found the CPU `saved` go on on the CPU `here`?  Every feature that it may
 * have taken up must be there.  0, or -ENOTSUP with the first that is missing in err.
 */
int cpuid_check(const struct kvm_cpuid2 *here, const struct kvm_cpuid_entry2 *saved,
                unsigned saved_count, struct hvb_error *err);

#endif
