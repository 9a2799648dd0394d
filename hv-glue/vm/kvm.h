/*
 * kvm.h - the kernel's virtual machine, and what this kernel can do.
 *
 * Nothing is taken for granted that a capability can tell: KVM may itself run in an
 * emulated machine.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_KVM_H
#define VM_KVM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "hv-block.h"
#include "vm/memory.h"

struct kvm {
        int fd;                         /* /dev/kvm */
        int vm_fd;
        unsigned run_bytes;             /* of a vcpu's shared page */
        unsigned xsave_bytes;           /* 0: only KVM_GET_FPU */
        bool has_xcrs;
        bool has_sregs2;
        bool has_debugregs;
        bool has_tsc_control;           /* the TSC can be scaled */
        bool has_tsc_khz;
        bool has_tsc_deadline;
        bool has_adjust_clock;
        struct kvm_msr_list *msrs;      /* that make up a vcpu's state; g_free */
        struct kvm_cpuid2 *cpuid;       /* that it can offer; g_free */
};

/*
 * Opens /dev/kvm and makes a VM with mem as its RAM, interrupt controllers and timer.  A
 * failure's text says what to do.
 */
int kvm_init(struct kvm *kvm, const struct guest_memory *mem, struct hvb_error *err);
void kvm_clear(struct kvm *kvm);

/* One more VM beside kvm's, without anything of it but mem: an fd, or -errno. */
int kvm_new_vm(const struct kvm *kvm, const struct guest_memory *mem);

/* mem is the RAM of kvm's VM from now on, of the same size as before.  Its vcpus are stopped.
 * On failure the VM may have none. */
int kvm_replace_memory(const struct kvm *kvm, const struct guest_memory *mem);

/* ioctl(2) that is not interrupted; its value, or -errno. */
int kvm_ioctl(int fd, unsigned long request, void *argument);
/* With a number for an argument. */
int kvm_ioctl_number(int fd, unsigned long request, unsigned long argument);

/* Raises or lowers an interrupt line.  Any thread. */
void kvm_set_irq(const struct kvm *kvm, unsigned irq, bool level);
/* An eventfd that raises irq for a moment; one that a 4-byte write of value to address rings. */
int kvm_add_irqfd(const struct kvm *kvm, int event_fd, unsigned irq);
int kvm_add_ioeventfd(const struct kvm *kvm, int event_fd, uint64_t address, uint32_t value);

#endif
