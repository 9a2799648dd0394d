/*
 * vcpu.h - virtual processors, each on a thread of its own.
 *
 * They run and stop together.  A vcpu stops only in KVM_RUN with immediate_exit set: by then
 * KVM has finished the instruction that made it leave (its IN has got the value, its OUT is
 * done), so that its registers may be read.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_VCPU_H
#define VM_VCPU_H

#include <pthread.h>

#include "vm/boot.h"
#include "vm/bus.h"
#include "vm/device.h"
#include "vm/kvm.h"

struct vcpus;
struct vcpu_state;

/* What happened on a vcpu's thread that stops the machine.  text: of failures, else NULL. */
enum vcpu_event { VCPU_TRIPLE_FAULT, VCPU_FAILED };

struct vcpu_env {
        struct kvm *kvm;
        const struct guest_memory *mem;
        const struct bus *ports;
        const struct bus *mmio;
        void *opaque;
        /* On a vcpu's thread; must call vcpus_ask_stop. */
        void (*event)(void *opaque, unsigned index, enum vcpu_event event, const char *text);
};

struct vcpu {
        struct device device;
        struct vcpus *vcpus;
        unsigned index;                 /* and APIC id */
        int fd;
        struct kvm_run *run;
        struct kvm_cpuid2 *cpuid;
        uint32_t tsc_khz;               /* 0: KVM does not say */
        struct vcpu_state *power_on;    /* as KVM made it */
        pthread_t thread;
        bool has_thread;
        bool stopped;                   /* under the lock of vcpus */
};

/* env must outlive them.  They exist and are stopped. */
int vcpus_new(const struct vcpu_env *env, unsigned count, struct vcpus **ret_vcpus,
              struct hvb_error *err);
void vcpus_free(struct vcpus *vcpus);           /* stopped ones; NULL is fine */
struct vcpu *vcpus_at(struct vcpus *vcpus, unsigned index);

void vcpus_start(struct vcpus *vcpus);
/* Any thread, vcpus' own included: they will stop soon. */
void vcpus_ask_stop(struct vcpus *vcpus);
/* They have stopped. */
void vcpus_stop(struct vcpus *vcpus);

/* Where the first vcpu begins after power-on or reset.  Stopped. */
int vcpus_set_entry(struct vcpus *vcpus, const struct boot_entry *entry, struct hvb_error *err);

/* ---- vcpu-state.c ---- */

/* All that makes up a vcpu.  Stopped. */
int vcpu_state_read(const struct vcpu *vcpu, struct vcpu_state **ret_state,
                    struct hvb_error *err);
int vcpu_state_apply(const struct vcpu *vcpu, const struct vcpu_state *state,
                     struct hvb_error *err);
void vcpu_state_free(struct vcpu_state *state);         /* NULL is fine */
/* Leaves in kvm's list what a vcpu of this kind has indeed. */
void vcpu_state_prune_msrs(struct kvm *kvm, const struct vcpu *vcpu);

/* struct device_ops of a vcpu but reset. */
int vcpu_save(struct device *device, struct state_writer *w, struct hvb_error *err);
int vcpu_load(struct device *device, struct state_reader *r, uint32_t version, bool apply,
              struct hvb_error *err);
enum { VCPU_STATE_VERSION = 1 };

/* Makes vcpu's fd in vm_fd, with the same CPUID. */
int vcpu_make(int vm_fd, unsigned index, struct kvm_cpuid2 *cpuid);

const struct vcpu_env *vcpu_env(const struct vcpu *vcpu);

#endif
