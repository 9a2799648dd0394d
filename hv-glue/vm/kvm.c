/*
 * kvm.c - the kernel's virtual machine.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "host/error.h"

enum {
        CPUID_ENTRIES_MAX = 256,
        MSRS_MAX = 1024,
        /* Three pages that Intel's real mode needs, just below the highest 256 KiB. */
        TSS_ADDRESS = 0xfffbd000,
};

int kvm_ioctl(int fd, unsigned long request, void *argument)
{
        int ret;

        do
                ret = ioctl(fd, request, argument);
        while (ret < 0 && errno == EINTR);
        return ret < 0 ? -errno : ret;
}

int kvm_ioctl_number(int fd, unsigned long request, unsigned long argument)
{
        return kvm_ioctl(fd, request, (void *) argument);
}

/* ---- Opening -------------------------------------------------------------------------- */

/* What stands in the way, and how to get round it. */
static int explain_open(int code, struct hvb_error *err)
{
        switch (code) {
        case -ENOENT:
                return error_set(err, code, "there is no /dev/kvm: load the module ('modprobe "
                                 "kvm_intel' or 'modprobe kvm_amd'), enable virtualization in the "
                                 "firmware, or, within a virtual machine, nested virtualization "
                                 "on its host");
        case -ENODEV:
        case -ENXIO:
                return error_set(err, code, "/dev/kvm is there, but no KVM behind it: 'modprobe "
                                 "kvm_intel' or 'modprobe kvm_amd' says why (often "
                                 "virtualization is off in the firmware)");
        case -EACCES:
        case -EPERM:
                return error_set(err, code, "/dev/kvm may not be opened: join the group that owns "
                                 "it ('usermod -aG kvm USER', then log in again)");
        default:
                return error_set(err, code, "/dev/kvm: %s", g_strerror(-code));
        }
}

static int open_kvm(struct kvm *kvm, struct hvb_error *err)
{
        static const struct {
                unsigned number;
                const char *name;
        } needed[] = {
                { KVM_CAP_USER_MEMORY, "USER_MEMORY" },
                { KVM_CAP_IRQCHIP, "IRQCHIP" },
                { KVM_CAP_PIT2, "PIT2" },
                { KVM_CAP_PIT_STATE2, "PIT_STATE2" },
                { KVM_CAP_IRQFD, "IRQFD" },
                { KVM_CAP_IOEVENTFD, "IOEVENTFD" },
                { KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT" },
                { KVM_CAP_MP_STATE, "MP_STATE" },
                { KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS" },
                { KVM_CAP_EXT_CPUID, "EXT_CPUID" },
        };

        kvm->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (kvm->fd < 0)
                return explain_open(-errno, err);
        if (kvm_ioctl_number(kvm->fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
                return error_set(err, -ENOTSUP, "/dev/kvm speaks another API version than %d",
                                 KVM_API_VERSION);
        for (unsigned i = 0; i < G_N_ELEMENTS(needed); i++)
                if (kvm_ioctl_number(kvm->fd, KVM_CHECK_EXTENSION, needed[i].number) <= 0)
                        return error_set(err, -ENOTSUP, "this kernel's KVM lacks KVM_CAP_%s: a "
                                         "newer kernel is needed", needed[i].name);
        return 0;
}

/* ---- The VM --------------------------------------------------------------------------- */

static int set_slot(int vm_fd, unsigned slot, uint64_t address, uint8_t *memory, uint64_t bytes)
{
        struct kvm_userspace_memory_region region = {
                .slot = slot,
                .guest_phys_addr = address,
                .memory_size = bytes,
                .userspace_addr = (uintptr_t) memory,
        };

        return kvm_ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* With is_there false: both slots become empty. */
static int set_slots(int vm_fd, const struct guest_memory *mem, bool is_there)
{
        uint64_t above_bytes = mem->ram_bytes - mem->below_hole_bytes;
        int ret = set_slot(vm_fd, 0, 0, mem->ram, is_there ? mem->below_hole_bytes : 0);

        if (ret >= 0 && above_bytes > 0)
                ret = set_slot(vm_fd, 1, GUEST_HOLE_END, mem->ram + mem->below_hole_bytes,
                               is_there ? above_bytes : 0);
        return ret;
}

/* A slot that has memory must be emptied before it gets other memory. */
int kvm_replace_memory(const struct kvm *kvm, const struct guest_memory *mem)
{
        int ret = set_slots(kvm->vm_fd, mem, false);

        return ret < 0 ? ret : set_slots(kvm->vm_fd, mem, true);
}

int kvm_new_vm(const struct kvm *kvm, const struct guest_memory *mem)
{
        struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
        int vm_fd = kvm_ioctl_number(kvm->fd, KVM_CREATE_VM, 0);
        int ret;

        if (vm_fd < 0)
                return vm_fd;
        ret = kvm_ioctl_number(vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS);
        if (ret == -EINVAL || ret == -ENOTTY)           /* AMD does not need it */
                ret = 0;
        if (ret >= 0)
                ret = set_slots(vm_fd, mem, true);
        if (ret >= 0)
                ret = kvm_ioctl_number(vm_fd, KVM_CREATE_IRQCHIP, 0);
        if (ret >= 0)
                ret = kvm_ioctl(vm_fd, KVM_CREATE_PIT2, &pit);
        if (ret < 0) {
                close(vm_fd);
                return ret;
        }
        return vm_fd;
}

static bool has(const struct kvm *kvm, unsigned capability)
{
        return kvm_ioctl_number(kvm->vm_fd, KVM_CHECK_EXTENSION, capability) > 0;
}

static void probe(struct kvm *kvm)
{
        int bytes = kvm_ioctl_number(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

        if (bytes > (int) sizeof(struct kvm_xsave))
                kvm->xsave_bytes = bytes;
        else if (has(kvm, KVM_CAP_XSAVE))
                kvm->xsave_bytes = sizeof(struct kvm_xsave);
        kvm->has_xcrs = has(kvm, KVM_CAP_XCRS);
        kvm->has_sregs2 = has(kvm, KVM_CAP_SREGS2);
        kvm->has_debugregs = has(kvm, KVM_CAP_DEBUGREGS);
        kvm->has_tsc_control = has(kvm, KVM_CAP_TSC_CONTROL);
        kvm->has_tsc_khz = has(kvm, KVM_CAP_GET_TSC_KHZ);
        kvm->has_tsc_deadline = has(kvm, KVM_CAP_TSC_DEADLINE_TIMER);
        kvm->has_adjust_clock = has(kvm, KVM_CAP_ADJUST_CLOCK);
}

static int read_lists(struct kvm *kvm)
{
        int ret;

        kvm->msrs = g_malloc0(sizeof(*kvm->msrs) + MSRS_MAX * sizeof(kvm->msrs->indices[0]));
        kvm->msrs->nmsrs = MSRS_MAX;
        ret = kvm_ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, kvm->msrs);
        if (ret < 0)
                return ret;
        kvm->cpuid = g_malloc0(sizeof(*kvm->cpuid)
                               + CPUID_ENTRIES_MAX * sizeof(kvm->cpuid->entries[0]));
        kvm->cpuid->nent = CPUID_ENTRIES_MAX;
        return kvm_ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, kvm->cpuid);
}

int kvm_init(struct kvm *kvm, const struct guest_memory *mem, struct hvb_error *err)
{
        int ret;

        *kvm = (struct kvm) { .fd = -1, .vm_fd = -1 };
        ret = open_kvm(kvm, err);
        if (ret < 0)
                return ret;
        kvm->vm_fd = kvm_new_vm(kvm, mem);
        if (kvm->vm_fd < 0)
                return error_set(err, kvm->vm_fd, "KVM makes no virtual machine: %s",
                                 g_strerror(-kvm->vm_fd));
        kvm->run_bytes = kvm_ioctl_number(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
        probe(kvm);
        ret = read_lists(kvm);
        if (ret < 0)
                return error_set(err, ret, "KVM does not say what its CPUs have: %s",
                                 g_strerror(-ret));
        return 0;
}

void kvm_clear(struct kvm *kvm)
{
        g_clear_pointer(&kvm->msrs, g_free);
        g_clear_pointer(&kvm->cpuid, g_free);
        if (kvm->vm_fd >= 0)
                close(kvm->vm_fd);
        if (kvm->fd >= 0)
                close(kvm->fd);
        kvm->vm_fd = kvm->fd = -1;
}

/* ---- Interrupts and doorbells --------------------------------------------------------- */

void kvm_set_irq(const struct kvm *kvm, unsigned irq, bool level)
{
        struct kvm_irq_level line = { .irq = irq, .level = level };
        int ret = kvm_ioctl(kvm->vm_fd, KVM_IRQ_LINE, &line);

        g_assert(ret >= 0);
}

int kvm_add_irqfd(const struct kvm *kvm, int event_fd, unsigned irq)
{
        struct kvm_irqfd irqfd = { .fd = event_fd, .gsi = irq };

        return kvm_ioctl(kvm->vm_fd, KVM_IRQFD, &irqfd);
}

int kvm_add_ioeventfd(const struct kvm *kvm, int event_fd, uint64_t address, uint32_t value)
{
        struct kvm_ioeventfd ioeventfd = {
                .datamatch = value,
                .addr = address,
                .len = sizeof(value),
                .fd = event_fd,
                .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
        };

        return kvm_ioctl(kvm->vm_fd, KVM_IOEVENTFD, &ioeventfd);
}
