/*
 * vcpu.c - virtual processors, each on a thread of its own.
 *
 * How one stops: `run` becomes false, its immediate_exit 1, and a signal gets it out of
 * KVM_RUN.  A signal that comes just before KVM_RUN is not lost, since immediate_exit is
 * looked at on the way in.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/vcpu.h"

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/error.h"
#include "vm/cpuid.h"

enum { KICK_SIGNAL = SIGUSR1 };

struct vcpus {
        const struct vcpu_env *env;
        struct vcpu *vcpus;
        unsigned count;
        pthread_mutex_t lock;           /* of all below */
        pthread_cond_t changed;
        bool run;
        bool quit;
};

const struct vcpu_env *vcpu_env(const struct vcpu *vcpu)
{
        return vcpu->vcpus->env;
}

/* ---- Exits ---------------------------------------------------------------------------- */

static void handle_port(const struct vcpu *vcpu)
{
        struct kvm_run *run = vcpu->run;
        uint8_t *bytes = (uint8_t *) run + run->io.data_offset;

        for (uint32_t i = 0; i < run->io.count; i++, bytes += run->io.size) {
                if (run->io.direction == KVM_EXIT_IO_IN)
                        bus_read(vcpu_env(vcpu)->ports, run->io.port, bytes, run->io.size);
                else
                        bus_write(vcpu_env(vcpu)->ports, run->io.port, bytes, run->io.size);
        }
}

static void handle_mmio(const struct vcpu *vcpu)
{
        struct kvm_run *run = vcpu->run;

        if (run->mmio.is_write)
                bus_write(vcpu_env(vcpu)->mmio, run->mmio.phys_addr, run->mmio.data,
                          run->mmio.len);
        else
                bus_read(vcpu_env(vcpu)->mmio, run->mmio.phys_addr, run->mmio.data,
                         run->mmio.len);
}

static void fail(const struct vcpu *vcpu, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/* Tells the machine, with where the vcpu is. */
static void fail(const struct vcpu *vcpu, const char *format, ...)
{
        g_autofree char *what = NULL;
        g_autofree char *text = NULL;
        struct kvm_regs regs = { 0 };
        va_list args;

        va_start(args, format);
        what = g_strdup_vprintf(format, args);
        va_end(args);
        kvm_ioctl(vcpu->fd, KVM_GET_REGS, &regs);
        text = g_strdup_printf("KVM stopped vcpu %u at rip 0x%llx: %s", vcpu->index, regs.rip,
                               what);
        vcpu_env(vcpu)->event(vcpu_env(vcpu)->opaque, vcpu->index, VCPU_FAILED, text);
}

static void handle_exit(const struct vcpu *vcpu)
{
        const struct kvm_run *run = vcpu->run;

        switch (run->exit_reason) {
        case KVM_EXIT_IO:
                handle_port(vcpu);
                break;
        case KVM_EXIT_MMIO:
                handle_mmio(vcpu);
                break;
        case KVM_EXIT_INTR:
        case KVM_EXIT_IRQ_WINDOW_OPEN:
                break;
        case KVM_EXIT_SHUTDOWN:
                vcpu_env(vcpu)->event(vcpu_env(vcpu)->opaque, vcpu->index, VCPU_TRIPLE_FAULT,
                                      NULL);
                break;
        case KVM_EXIT_FAIL_ENTRY:
                fail(vcpu, "the processor refuses to enter the guest, reason 0x%llx",
                     run->fail_entry.hardware_entry_failure_reason);
                break;
        case KVM_EXIT_INTERNAL_ERROR:
                fail(vcpu, "internal error %u (1: an instruction that it cannot emulate)",
                     run->internal.suberror);
                break;
        default:
                fail(vcpu, "exit reason %u is unknown here", run->exit_reason);
                break;
        }
}

/* ---- Threads -------------------------------------------------------------------------- */

static void run_until_asked(const struct vcpu *vcpu)
{
        for (;;) {
                if (ioctl(vcpu->fd, KVM_RUN, 0) >= 0) {
                        handle_exit(vcpu);
                } else if (errno == EINTR) {
                        if (__atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_ACQUIRE))
                                return;
                } else if (errno != EAGAIN) {
                        fail(vcpu, "KVM_RUN: %s", g_strerror(errno));
                        return;
                }
        }
}

/* Waits for leave to run.  False: it is over.  Leave that is taken back before this thread has
 * noticed it is answered like any other stop. */
static bool await_start(struct vcpu *vcpu)
{
        struct vcpus *vcpus = vcpu->vcpus;
        bool goes_on;

        pthread_mutex_lock(&vcpus->lock);
        while (!vcpus->run && !vcpus->quit) {
                if (!vcpu->stopped) {
                        vcpu->stopped = true;
                        pthread_cond_broadcast(&vcpus->changed);
                }
                pthread_cond_wait(&vcpus->changed, &vcpus->lock);
        }
        goes_on = !vcpus->quit;
        if (goes_on) {
                vcpu->stopped = false;
                __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_RELEASE);
        }
        pthread_mutex_unlock(&vcpus->lock);
        return goes_on;
}

static void *thread_main(void *opaque)
{
        struct vcpu *vcpu = opaque;

        while (await_start(vcpu))
                run_until_asked(vcpu);
        return NULL;
}

void vcpus_start(struct vcpus *vcpus)
{
        pthread_mutex_lock(&vcpus->lock);
        vcpus->run = true;
        for (unsigned i = 0; i < vcpus->count; i++)
                vcpus->vcpus[i].stopped = false;
        pthread_cond_broadcast(&vcpus->changed);
        pthread_mutex_unlock(&vcpus->lock);
}

/* With the lock. */
static void ask_stop(struct vcpus *vcpus)
{
        if (!vcpus->run)
                return;
        vcpus->run = false;
        for (unsigned i = 0; i < vcpus->count; i++) {
                struct vcpu *vcpu = &vcpus->vcpus[i];

                __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELEASE);
                pthread_kill(vcpu->thread, KICK_SIGNAL);
        }
}

void vcpus_ask_stop(struct vcpus *vcpus)
{
        pthread_mutex_lock(&vcpus->lock);
        ask_stop(vcpus);
        pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_stop(struct vcpus *vcpus)
{
        pthread_mutex_lock(&vcpus->lock);
        ask_stop(vcpus);
        for (unsigned i = 0; i < vcpus->count; i++)
                while (!vcpus->vcpus[i].stopped)
                        pthread_cond_wait(&vcpus->changed, &vcpus->lock);
        pthread_mutex_unlock(&vcpus->lock);
}

/* ---- Entry ---------------------------------------------------------------------------- */

static void flat_segment(struct kvm_segment *segment, uint16_t selector, bool is_code,
                         bool long_mode)
{
        *segment = (struct kvm_segment) {
                .limit = 0xffffffff,
                .selector = selector,
                .type = is_code ? 0xb : 0x3,    /* accessed, readable or writable */
                .present = 1,
                .db = !(is_code && long_mode),
                .s = 1,
                .l = is_code && long_mode,
                .g = 1,
        };
}

static void set_mode(struct kvm_sregs *sregs, const struct boot_entry *entry)
{
        enum { CR0_PE = 1, CR0_ET = 1 << 4, CR0_NE = 1 << 5, CR4_PAE = 1 << 5 };
        enum { EFER_LME = 1 << 8, EFER_LMA = 1 << 10 };
        struct kvm_segment *data[] = { &sregs->ds, &sregs->es, &sregs->fs, &sregs->gs, &sregs->ss };

        flat_segment(&sregs->cs, BOOT_CODE_SELECTOR, true, entry->long_mode);
        for (unsigned i = 0; i < G_N_ELEMENTS(data); i++)
                flat_segment(data[i], BOOT_DATA_SELECTOR, false, entry->long_mode);
        sregs->gdt.base = entry->gdt;
        sregs->gdt.limit = BOOT_GDT_ENTRIES * 8 - 1;
        sregs->cr0 = CR0_PE | CR0_ET | CR0_NE;
        if (entry->long_mode) {
                sregs->cr0 |= 1u << 31;         /* PG */
                sregs->cr3 = entry->page_tables;
                sregs->cr4 = CR4_PAE;
                sregs->efer = EFER_LME | EFER_LMA;
        }
}

int vcpus_set_entry(struct vcpus *vcpus, const struct boot_entry *entry, struct hvb_error *err)
{
        int fd = vcpus->vcpus[0].fd;
        struct kvm_regs regs = {
                .rip = entry->rip,
                .rsi = entry->rsi,
                .rflags = 2,
        };
        struct kvm_sregs sregs;
        int ret = kvm_ioctl(fd, KVM_GET_SREGS, &sregs);

        if (ret >= 0) {
                set_mode(&sregs, entry);
                ret = kvm_ioctl(fd, KVM_SET_SREGS, &sregs);
        }
        if (ret >= 0)
                ret = kvm_ioctl(fd, KVM_SET_REGS, &regs);
        return ret < 0 ? error_set(err, ret, "KVM refuses the kernel's entry: %s",
                                   g_strerror(-ret)) : 0;
}

/* ---- Life ----------------------------------------------------------------------------- */

static void device_reset(struct device *device)
{
        struct vcpu *vcpu = (struct vcpu *) ((char *) device - offsetof(struct vcpu, device));
        struct hvb_error err = ERROR_INIT;

        /* It was this vcpu's own state once. */
        if (vcpu_state_apply(vcpu, vcpu->power_on, &err) < 0)
                g_error("vcpu %u: reset: %s", vcpu->index, err.text);
}

static const struct device_ops device_ops = {
        .name = "vcpu",
        .state_version = VCPU_STATE_VERSION,
        .state_oldest = VCPU_STATE_VERSION,
        .reset = device_reset,
        .save = vcpu_save,
        .load = vcpu_load,
};

int vcpu_make(int vm_fd, unsigned index, struct kvm_cpuid2 *cpuid)
{
        int fd = kvm_ioctl_number(vm_fd, KVM_CREATE_VCPU, index);
        int ret;

        if (fd < 0)
                return fd;
        ret = kvm_ioctl(fd, KVM_SET_CPUID2, cpuid);
        if (ret < 0) {
                close(fd);
                return ret;
        }
        return fd;
}

static int vcpu_init(struct vcpus *vcpus, unsigned index, struct hvb_error *err)
{
        struct kvm *kvm = vcpus->env->kvm;
        struct vcpu *vcpu = &vcpus->vcpus[index];
        int ret;

        vcpu->device = (struct device) { &device_ops, index };
        vcpu->vcpus = vcpus;
        vcpu->index = index;
        vcpu->cpuid = cpuid_new(kvm, index, vcpus->count);
        vcpu->fd = vcpu_make(kvm->vm_fd, index, vcpu->cpuid);
        if (vcpu->fd < 0)
                return error_set(err, vcpu->fd, "KVM makes no vcpu %u: %s", index,
                                 g_strerror(-vcpu->fd));
        vcpu->run = mmap(NULL, kvm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
        if (vcpu->run == MAP_FAILED) {
                vcpu->run = NULL;
                return error_set(err, -errno, "vcpu %u: mmap: %s", index, g_strerror(errno));
        }
        if (index == 0)
                vcpu_state_prune_msrs(kvm, vcpu);
        if (kvm->has_tsc_khz)
                vcpu->tsc_khz = MAX(0, kvm_ioctl_number(vcpu->fd, KVM_GET_TSC_KHZ, 0));
        ret = vcpu_state_read(vcpu, &vcpu->power_on, err);
        if (ret < 0)
                return ret;
        ret = -pthread_create(&vcpu->thread, NULL, thread_main, vcpu);
        if (ret < 0)
                return error_set(err, ret, "no thread for vcpu %u: %s", index, g_strerror(-ret));
        vcpu->has_thread = true;
        return 0;
}

static void kicked(int signal)
{
        (void) signal;
}

int vcpus_new(const struct vcpu_env *env, unsigned count, struct vcpus **ret_vcpus,
              struct hvb_error *err)
{
        struct vcpus *vcpus = g_new0(struct vcpus, 1);
        const struct sigaction action = { .sa_handler = kicked };
        sigset_t kick;
        int ret = 0;

        /* Without SA_RESTART: it is to interrupt KVM_RUN.  Who started us may have blocked it. */
        sigaction(KICK_SIGNAL, &action, NULL);
        sigemptyset(&kick);
        sigaddset(&kick, KICK_SIGNAL);
        pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
        vcpus->env = env;
        vcpus->count = count;
        vcpus->vcpus = g_new0(struct vcpu, count);
        pthread_mutex_init(&vcpus->lock, NULL);
        pthread_cond_init(&vcpus->changed, NULL);
        for (unsigned i = 0; i < count; i++)
                vcpus->vcpus[i].fd = -1;
        for (unsigned i = 0; i < count && ret == 0; i++)
                ret = vcpu_init(vcpus, i, err);
        if (ret < 0) {
                vcpus_free(vcpus);
                return ret;
        }
        vcpus_stop(vcpus);              /* all threads have arrived */
        *ret_vcpus = vcpus;
        return 0;
}

void vcpus_free(struct vcpus *vcpus)
{
        if (vcpus == NULL)
                return;
        pthread_mutex_lock(&vcpus->lock);
        g_assert(!vcpus->run);
        vcpus->quit = true;
        pthread_cond_broadcast(&vcpus->changed);
        pthread_mutex_unlock(&vcpus->lock);
        for (unsigned i = 0; i < vcpus->count; i++) {
                struct vcpu *vcpu = &vcpus->vcpus[i];

                if (vcpu->has_thread)
                        pthread_join(vcpu->thread, NULL);
                if (vcpu->run != NULL)
                        munmap(vcpu->run, vcpus->env->kvm->run_bytes);
                if (vcpu->fd >= 0)
                        close(vcpu->fd);
                vcpu_state_free(vcpu->power_on);
                g_free(vcpu->cpuid);
        }
        pthread_cond_destroy(&vcpus->changed);
        pthread_mutex_destroy(&vcpus->lock);
        g_free(vcpus->vcpus);
        g_free(vcpus);
}

struct vcpu *vcpus_at(struct vcpus *vcpus, unsigned index)
{
        g_assert(index < vcpus->count);
        return &vcpus->vcpus[index];
}
