/*
 * vcpu-state.c - all that makes up a vcpu: read, set, saved, judged and loaded.
 *
 * The kernel's own structs are kept as they are, each with its size in front: they are its
 * ABI.  Whether a value can be (reserved bits, combinations) is the kernel's to say, so an
 * untrusted state is judged by giving it to a scratch vcpu in a scratch VM, which is then
 * thrown away.
 *
 * Order of setting, and why: control registers before what depends on the mode; the local
 * APIC, whose place they hold, before the MSRs, among which is its timer's deadline.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "host/error.h"
#include "vm/cpuid.h"
#include "vm/vcpu.h"

enum {
        MSR_TSC = 0x10,
        MSR_TSC_DEADLINE = 0x6e0,
        /* Writing these has KVM write the time to guest memory: commands, no state. */
        MSR_KVM_WALL_CLOCK = 0x11,
        MSR_KVM_WALL_CLOCK_NEW = 0x4b564d00,
        /* Switching it on has KVM tell the guest that no page is on its way any more. */
        MSR_KVM_ASYNC_PF = 0x4b564d02,
        CPUID_ENTRIES_MAX = 256,
        MSRS_MAX = 1024,
        XSAVE_BYTES_MAX = 64 << 10,
        TSC_PPM_MAX = 500,              /* what clocks are disciplined by; beyond it, scale */
};

struct vcpu_state {
        uint32_t tsc_khz;
        struct kvm_regs regs;
        struct kvm_sregs2 sregs;        /* without KVM_CAP_SREGS2: flags 0, no PDPTRs */
        struct kvm_fpu fpu;             /* without XSAVE */
        struct kvm_xcrs xcrs;
        struct kvm_lapic_state lapic;
        struct kvm_debugregs debugregs;
        struct kvm_mp_state mp_state;
        struct kvm_vcpu_events events;
        uint32_t xsave_bytes;
        uint8_t *xsave;
        uint32_t msr_count;
        struct kvm_msr_entry *msrs;
        uint32_t cpuid_count;
        struct kvm_cpuid_entry2 *cpuid;
};

void vcpu_state_free(struct vcpu_state *state)
{
        if (state == NULL)
                return;
        g_free(state->xsave);
        g_free(state->msrs);
        g_free(state->cpuid);
        g_free(state);
}

/* ---- MSRs ----------------------------------------------------------------------------- */

/* KVM_GET_MSRS or KVM_SET_MSRS for one.  0, or -errno: there is none such, or not so. */
static int one_msr(int fd, unsigned long request, struct kvm_msr_entry *entry)
{
        struct {
                struct kvm_msrs head;
                struct kvm_msr_entry entry;
        } msrs = { .head.nmsrs = 1, .entry = *entry };
        int ret = kvm_ioctl(fd, request, &msrs);

        if (ret < 0)
                return ret;
        *entry = msrs.entry;
        return ret == 1 ? 0 : -EINVAL;
}

void vcpu_state_prune_msrs(struct kvm *kvm, const struct vcpu *vcpu)
{
        unsigned kept = 0;

        for (unsigned i = 0; i < kvm->msrs->nmsrs; i++) {
                struct kvm_msr_entry entry = { .index = kvm->msrs->indices[i] };

                if (entry.index == MSR_KVM_WALL_CLOCK || entry.index == MSR_KVM_WALL_CLOCK_NEW
                    || one_msr(vcpu->fd, KVM_GET_MSRS, &entry) < 0)
                        continue;
                kvm->msrs->indices[kept++] = entry.index;
        }
        kvm->msrs->nmsrs = kept;
}

static int read_msrs(const struct vcpu *vcpu, struct vcpu_state *state, struct hvb_error *err)
{
        const struct kvm_msr_list *list = vcpu_env(vcpu)->kvm->msrs;

        state->msr_count = list->nmsrs;
        state->msrs = g_new0(struct kvm_msr_entry, list->nmsrs);
        for (unsigned i = 0; i < list->nmsrs; i++) {
                int ret;

                state->msrs[i].index = list->indices[i];
                ret = one_msr(vcpu->fd, KVM_GET_MSRS, &state->msrs[i]);
                if (ret < 0)
                        return error_set(err, ret, "KVM does not give MSR 0x%x",
                                         list->indices[i]);
        }
        return 0;
}

/* Setting it does something, even to the value that it has. */
static bool is_command(const struct kvm_msr_entry *entry)
{
        return entry->index == MSR_TSC || entry->index == MSR_TSC_DEADLINE
               || (entry->index == MSR_KVM_ASYNC_PF && entry->data != 0);
}

/* Only what differs: not all that can be read can be written. */
static int apply_msrs(int fd, const struct vcpu_state *state, struct hvb_error *err)
{
        for (unsigned i = 0; i < state->msr_count; i++) {
                struct kvm_msr_entry wanted = state->msrs[i];
                struct kvm_msr_entry now = { .index = wanted.index };
                int ret = one_msr(fd, KVM_GET_MSRS, &now);

                if (wanted.index == MSR_KVM_WALL_CLOCK || wanted.index == MSR_KVM_WALL_CLOCK_NEW)
                        continue;
                if (ret < 0 && wanted.data == 0)
                        continue;               /* what is not there is 0 */
                if (ret == 0 && now.data == wanted.data && !is_command(&wanted))
                        continue;
                /* What the guest before was told of pages is forgotten by this. */
                if (wanted.index == MSR_KVM_ASYNC_PF && now.data != 0)
                        one_msr(fd, KVM_SET_MSRS, &(struct kvm_msr_entry) { .index = now.index });
                if (one_msr(fd, KVM_SET_MSRS, &wanted) < 0)
                        return error_set(err, -ENOTSUP, "MSR 0x%x cannot be 0x%llx here",
                                         wanted.index, wanted.data);
        }
        return 0;
}

/* ---- Reading and setting -------------------------------------------------------------- */

static int read_sregs(const struct kvm *kvm, int fd, struct kvm_sregs2 *ret_sregs)
{
        struct kvm_sregs old;
        int ret;

        if (kvm->has_sregs2)
                return kvm_ioctl(fd, KVM_GET_SREGS2, ret_sregs);
        ret = kvm_ioctl(fd, KVM_GET_SREGS, &old);
        /* The structs begin alike, up to apic_base. */
        memcpy(ret_sregs, &old, offsetof(struct kvm_sregs2, flags));
        return ret;
}

/* Interrupts that are about to be injected are in vcpu_events. */
static int apply_sregs(const struct kvm *kvm, int fd, const struct kvm_sregs2 *sregs)
{
        struct kvm_sregs2 copy = *sregs;
        struct kvm_sregs old = { 0 };

        if (kvm->has_sregs2)
                return kvm_ioctl(fd, KVM_SET_SREGS2, &copy);
        memcpy(&old, sregs, offsetof(struct kvm_sregs2, flags));
        return kvm_ioctl(fd, KVM_SET_SREGS, &old);
}

static int read_fpu(const struct kvm *kvm, int fd, struct vcpu_state *state)
{
        if (kvm->xsave_bytes == 0)
                return kvm_ioctl(fd, KVM_GET_FPU, &state->fpu);
        state->xsave_bytes = kvm->xsave_bytes;
        state->xsave = g_malloc0(kvm->xsave_bytes);
        return kvm_ioctl(fd, kvm->xsave_bytes > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2
                         : KVM_GET_XSAVE, state->xsave);
}

static int apply_fpu(const struct kvm *kvm, int fd, const struct vcpu_state *state)
{
        g_autofree uint8_t *xsave = NULL;

        if (kvm->xsave_bytes == 0) {
                struct kvm_fpu fpu = state->fpu;

                return kvm_ioctl(fd, KVM_SET_FPU, &fpu);
        }
        xsave = g_malloc0(kvm->xsave_bytes);
        memcpy(xsave, state->xsave, MIN(kvm->xsave_bytes, state->xsave_bytes));
        return kvm_ioctl(fd, KVM_SET_XSAVE, xsave);
}

#define TRY(what, call) \
        do { \
                int try_ret = (call); \
                if (try_ret < 0) \
                        return error_set(err, try_ret, "KVM refuses %s: %s", what, \
                                         g_strerror(-try_ret)); \
        } while (0)

static int read_all(const struct vcpu *vcpu, struct vcpu_state *state, struct hvb_error *err)
{
        const struct kvm *kvm = vcpu_env(vcpu)->kvm;
        int fd = vcpu->fd;

        state->tsc_khz = vcpu->tsc_khz;
        state->cpuid_count = vcpu->cpuid->nent;
        state->cpuid = g_memdup2(vcpu->cpuid->entries,
                                 vcpu->cpuid->nent * sizeof(vcpu->cpuid->entries[0]));
        /* First: reading it lets KVM settle what a vcpu that waits for INIT is to become. */
        TRY("MP state", kvm_ioctl(fd, KVM_GET_MP_STATE, &state->mp_state));
        /* Before the control registers: reading it puts a page fault's address into CR2. */
        TRY("pending events", kvm_ioctl(fd, KVM_GET_VCPU_EVENTS, &state->events));
        TRY("registers", kvm_ioctl(fd, KVM_GET_REGS, &state->regs));
        TRY("control registers", read_sregs(kvm, fd, &state->sregs));
        TRY("FPU state", read_fpu(kvm, fd, state));
        if (kvm->has_xcrs)
                TRY("XCRs", kvm_ioctl(fd, KVM_GET_XCRS, &state->xcrs));
        TRY("the local APIC", kvm_ioctl(fd, KVM_GET_LAPIC, &state->lapic));
        if (kvm->has_debugregs)
                TRY("debug registers", kvm_ioctl(fd, KVM_GET_DEBUGREGS, &state->debugregs));
        return read_msrs(vcpu, state, err);
}

int vcpu_state_read(const struct vcpu *vcpu, struct vcpu_state **ret_state,
                    struct hvb_error *err)
{
        struct vcpu_state *state = g_new0(struct vcpu_state, 1);
        int ret = read_all(vcpu, state, err);

        if (ret < 0) {
                vcpu_state_free(state);
                return ret;
        }
        *ret_state = state;
        return 0;
}

/* The structs are copied: KVM may write to what it is given. */
static int apply_all(const struct kvm *kvm, int fd, const struct vcpu_state *state,
                     struct hvb_error *err)
{
        struct kvm_regs regs = state->regs;
        struct kvm_xcrs xcrs = state->xcrs;
        struct kvm_lapic_state lapic = state->lapic;
        struct kvm_debugregs debugregs = state->debugregs;
        struct kvm_mp_state mp_state = state->mp_state;
        struct kvm_vcpu_events events = state->events;
        int ret;

        TRY("control registers", apply_sregs(kvm, fd, &state->sregs));
        TRY("registers", kvm_ioctl(fd, KVM_SET_REGS, &regs));
        if (kvm->has_xcrs)
                TRY("XCRs", kvm_ioctl(fd, KVM_SET_XCRS, &xcrs));
        TRY("FPU state", apply_fpu(kvm, fd, state));
        TRY("the local APIC", kvm_ioctl(fd, KVM_SET_LAPIC, &lapic));
        ret = apply_msrs(fd, state, err);
        if (ret < 0)
                return ret;
        if (kvm->has_debugregs)
                TRY("debug registers", kvm_ioctl(fd, KVM_SET_DEBUGREGS, &debugregs));
        TRY("MP state", kvm_ioctl(fd, KVM_SET_MP_STATE, &mp_state));
        TRY("pending events", kvm_ioctl(fd, KVM_SET_VCPU_EVENTS, &events));
        return 0;
}

/* Does a guest whose TSC ran at then_khz notice one of now_khz? */
static bool tsc_fits(uint32_t then_khz, uint32_t now_khz)
{
        uint64_t apart = then_khz > now_khz ? then_khz - now_khz : now_khz - then_khz;

        return then_khz == 0 || now_khz == 0
               || apart * 1000000 <= (uint64_t) then_khz * TSC_PPM_MAX;
}

static int apply_tsc_khz(const struct kvm *kvm, int fd, const struct vcpu_state *state,
                         uint32_t now_khz, struct hvb_error *err)
{
        int ret;

        if (tsc_fits(state->tsc_khz, now_khz))
                return 0;
        ret = kvm->has_tsc_control ? kvm_ioctl_number(fd, KVM_SET_TSC_KHZ, state->tsc_khz)
                : -ENOTSUP;
        if (ret < 0)
                return error_set(err, -ENOTSUP, "the guest's TSC runs at %u kHz, this one at %u "
                                 "kHz and cannot be scaled to that", state->tsc_khz, now_khz);
        return 0;
}

int vcpu_state_apply(const struct vcpu *vcpu, const struct vcpu_state *state,
                     struct hvb_error *err)
{
        const struct kvm *kvm = vcpu_env(vcpu)->kvm;
        uint32_t now_khz = kvm->has_tsc_khz
                ? MAX(0, kvm_ioctl_number(vcpu->fd, KVM_GET_TSC_KHZ, 0)) : 0;
        int ret = apply_tsc_khz(kvm, vcpu->fd, state, now_khz, err);

        return ret < 0 ? ret : apply_all(kvm, vcpu->fd, state, err);
}

/* ---- Judging: a scratch vcpu ---------------------------------------------------------- */

/* KVM may write to RAM when it gets MSRs: to this, which nobody reads. */
static int judge_in(const struct vcpu *vcpu, const struct vcpu_state *state,
                    const struct guest_memory *mem, struct hvb_error *err)
{
        const struct kvm *kvm = vcpu_env(vcpu)->kvm;
        int vm_fd = kvm_new_vm(kvm, mem);
        int fd;
        int ret;

        if (vm_fd < 0)
                return error_set(err, vm_fd, "KVM makes no second VM to judge a state in: %s",
                                 g_strerror(-vm_fd));
        fd = vcpu_make(vm_fd, vcpu->index, vcpu->cpuid);
        if (fd < 0) {
                ret = error_set(err, fd, "KVM makes no vcpu to judge a state with: %s",
                                g_strerror(-fd));
        } else {
                ret = apply_tsc_khz(kvm, fd, state, vcpu->tsc_khz, err);
                if (ret == 0)
                        ret = apply_all(kvm, fd, state, err);
                close(fd);
        }
        close(vm_fd);
        return ret;
}

static int judge(const struct vcpu *vcpu, const struct vcpu_state *state, struct hvb_error *err)
{
        const struct guest_memory *mem = vcpu_env(vcpu)->mem;
        struct guest_memory scratch;
        int ret = cpuid_check(vcpu->cpuid, state->cpuid, state->cpuid_count, err);

        if (ret < 0)
                return ret;
        ret = guest_memory_init(&scratch, mem->ram_bytes, false, err);
        if (ret < 0)
                return ret;
        ret = judge_in(vcpu, state, &scratch, err);
        guest_memory_clear(&scratch);
        return ret;
}

/* ---- Saving and loading --------------------------------------------------------------- */

static void put_blob(struct state_writer *w, const void *bytes, uint32_t count)
{
        state_put_u32(w, count);
        state_put_bytes(w, bytes, count);
}

/* A struct whose size never changes. */
static int get_blob(struct state_reader *r, void *bytes, uint32_t count, const char *what,
                    struct hvb_error *err)
{
        uint32_t there = state_get_u32(r);

        if (there != count)
                return error_set(err, -EINVAL, "%s of a vcpu are %u bytes, not %u", what, there,
                                 count);
        state_get_bytes(r, bytes, count);
        return 0;
}

/* As many elements as the state says, within limits.  Their number, or -errno. */
static int get_array(struct state_reader *r, void **ret_elements, uint32_t element_bytes,
                     uint32_t count_max, const char *what, struct hvb_error *err)
{
        uint32_t bytes = state_get_u32(r);
        uint32_t count = bytes / element_bytes;

        if (bytes % element_bytes != 0 || count == 0 || count > count_max)
                return error_set(err, -EINVAL, "%s of a vcpu are %u bytes: must be 1 to %u times "
                                 "%u", what, bytes, count_max, element_bytes);
        *ret_elements = g_malloc(bytes);
        state_get_bytes(r, *ret_elements, bytes);
        return count;
}

/* The fixed parts, in the order of the state. */
static unsigned state_parts(struct vcpu_state *state, struct iovec parts[8],
                            const char *names[8])
{
        const struct {
                void *bytes;
                size_t count;
                const char *name;
        } all[] = {
                { &state->regs, sizeof(state->regs), "registers" },
                { &state->sregs, sizeof(state->sregs), "control registers" },
                { &state->fpu, sizeof(state->fpu), "FPU registers" },
                { &state->xcrs, sizeof(state->xcrs), "XCRs" },
                { &state->lapic, sizeof(state->lapic), "local APIC registers" },
                { &state->debugregs, sizeof(state->debugregs), "debug registers" },
                { &state->mp_state, sizeof(state->mp_state), "MP states" },
                { &state->events, sizeof(state->events), "pending events" },
        };

        for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
                parts[i] = (struct iovec) { all[i].bytes, all[i].count };
                names[i] = all[i].name;
        }
        return G_N_ELEMENTS(all);
}

static struct vcpu *vcpu_of(struct device *device)
{
        return (struct vcpu *) ((char *) device - offsetof(struct vcpu, device));
}

int vcpu_save(struct device *device, struct state_writer *w, struct hvb_error *err)
{
        struct vcpu_state *state;
        struct iovec parts[8];
        const char *names[8];
        unsigned count;
        int ret = vcpu_state_read(vcpu_of(device), &state, err);

        if (ret < 0)
                return ret;
        state_put_u32(w, state->tsc_khz);
        count = state_parts(state, parts, names);
        for (unsigned i = 0; i < count; i++)
                put_blob(w, parts[i].iov_base, parts[i].iov_len);
        put_blob(w, state->msrs, state->msr_count * sizeof(state->msrs[0]));
        put_blob(w, state->cpuid, state->cpuid_count * sizeof(state->cpuid[0]));
        put_blob(w, state->xsave, state->xsave_bytes);
        vcpu_state_free(state);
        return 0;
}

static int get_xsave(const struct kvm *kvm, struct state_reader *r, struct vcpu_state *state,
                     struct hvb_error *err)
{
        state->xsave_bytes = state_get_u32(r);
        if ((state->xsave_bytes == 0) != (kvm->xsave_bytes == 0))
                return error_set(err, -ENOTSUP, "the vcpu's FPU state is %s XSAVE's, this KVM's "
                                 "is%s", state->xsave_bytes == 0 ? "not" : "of",
                                 kvm->xsave_bytes == 0 ? " not" : "");
        if (state->xsave_bytes > kvm->xsave_bytes || state->xsave_bytes > XSAVE_BYTES_MAX)
                return error_set(err, -ENOTSUP, "the vcpu has %u bytes of FPU state, %u fit here",
                                 state->xsave_bytes, kvm->xsave_bytes);
        state->xsave = g_malloc(state->xsave_bytes);
        state_get_bytes(r, state->xsave, state->xsave_bytes);
        return 0;
}

static int get_state(const struct kvm *kvm, struct state_reader *r, struct vcpu_state *state,
                     struct hvb_error *err)
{
        struct iovec parts[8];
        const char *names[8];
        unsigned count = state_parts(state, parts, names);
        int ret;

        state->tsc_khz = state_get_u32(r);
        for (unsigned i = 0; i < count; i++) {
                ret = get_blob(r, parts[i].iov_base, parts[i].iov_len, names[i], err);
                if (ret < 0)
                        return ret;
        }
        ret = get_array(r, (void **) &state->msrs, sizeof(state->msrs[0]), MSRS_MAX, "MSRs", err);
        if (ret < 0)
                return ret;
        state->msr_count = ret;
        ret = get_array(r, (void **) &state->cpuid, sizeof(state->cpuid[0]), CPUID_ENTRIES_MAX,
                        "CPUID entries", err);
        if (ret < 0)
                return ret;
        state->cpuid_count = ret;
        ret = get_xsave(kvm, r, state, err);
        if (ret == 0 && state_reader_end(r) < 0)
                ret = error_set(err, -EINVAL, "the state of a vcpu is too short or too long");
        return ret;
}

int vcpu_load(struct device *device, struct state_reader *r, uint32_t version, bool apply,
              struct hvb_error *err)
{
        const struct vcpu *vcpu = vcpu_of(device);
        struct vcpu_state *state = g_new0(struct vcpu_state, 1);
        int ret = get_state(vcpu_env(vcpu)->kvm, r, state, err);

        (void) version;
        if (ret == 0)
                ret = apply ? vcpu_state_apply(vcpu, state, err) : judge(vcpu, state, err);
        vcpu_state_free(state);
        return ret;
}
