/*
 * cpuid.c - what a vcpu says that it is.
 *
 * Leaf and bit numbers: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/cpuid.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "host/error.h"

enum {
        LEAF1_ECX_VMX = 1u << 5,
        LEAF1_ECX_TSC_DEADLINE = 1u << 24,
        LEAF1_ECX_OSXSAVE = 1u << 27,   /* the guest's own doing */
        LEAF1_ECX_HYPERVISOR = 1u << 31,
        LEAF1_EDX_HTT = 1u << 28,
        LEAF7_EBX_SGX = 1u << 2,
        LEAF7_ECX_OSPKE = 1u << 4,      /* the guest's own doing */
        LEAF7_ECX_SGX_LC = 1u << 30,
        AMD1_ECX_CMP_LEGACY = 1u << 1,
        AMD1_ECX_SVM = 1u << 2,
        AMD1_ECX_TOPOEXT = 1u << 22,
        THERMAL_EAX_ARAT = 1u << 2,
        TOPOLOGY = 0xb,
        LEVEL_SMT = 1,
        LEVEL_CORE = 2,
};

/* Bits that hold numbers from 0 to count - 1. */
static unsigned bits_for(unsigned count)
{
        return count > 1 ? 32 - __builtin_clz(count - 1) : 0;
}

static void set_basic(const struct kvm *kvm, struct kvm_cpuid_entry2 *entry, unsigned index,
                      unsigned count)
{
        entry->ebx = (entry->ebx & 0x0000ffff) | index << 24 | count << 16;
        entry->ecx &= ~(LEAF1_ECX_VMX | LEAF1_ECX_OSXSAVE | LEAF1_ECX_TSC_DEADLINE);
        entry->ecx |= LEAF1_ECX_HYPERVISOR;
        if (kvm->has_tsc_deadline)
                entry->ecx |= LEAF1_ECX_TSC_DEADLINE;
        entry->edx &= ~LEAF1_EDX_HTT;
        if (count > 1)
                entry->edx |= LEAF1_EDX_HTT;
}

/* Caches of level 3 and above are shared by all, others by none. */
static void set_cache(struct kvm_cpuid_entry2 *entry, unsigned count)
{
        unsigned level = (entry->eax >> 5) & 7;
        unsigned sharers = level >= 3 ? count : 1;

        entry->eax &= 0x00003fff;
        entry->eax |= (sharers - 1) << 14;
        if (entry->function == 4)
                entry->eax |= (count - 1) << 26;
}

/* One leaf as KVM offers it becomes this vcpu's.  False: it is left out. */
static bool set_entry(const struct kvm *kvm, struct kvm_cpuid_entry2 *entry, unsigned index,
                      unsigned count)
{
        switch (entry->function) {
        case 1:
                set_basic(kvm, entry, index, count);
                return true;
        case 4:
        case 0x8000001d:
                if (entry->eax & 0x1f)
                        set_cache(entry, count);
                return true;
        case 6:
                entry->eax &= THERMAL_EAX_ARAT;
                entry->ebx = entry->ecx = entry->edx = 0;
                return true;
        case 7:
                if (entry->index == 0) {
                        entry->ebx &= ~LEAF7_EBX_SGX;
                        entry->ecx &= ~(LEAF7_ECX_SGX_LC | LEAF7_ECX_OSPKE);
                }
                return true;
        case 0xa:                               /* performance counters */
                entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
                return true;
        case TOPOLOGY:                          /* see add_topology */
        case 0x12:                              /* SGX */
        case 0x1f:                              /* as TOPOLOGY, which is enough */
        case 0x8000000a:                        /* SVM */
                return false;
        case 0x80000001:
                entry->ecx &= ~(AMD1_ECX_SVM | AMD1_ECX_TOPOEXT | AMD1_ECX_CMP_LEGACY);
                if (count > 1)
                        entry->ecx |= AMD1_ECX_CMP_LEGACY;
                return true;
        case 0x80000008:
                entry->ecx = count > 1 ? bits_for(count) << 12 | (count - 1) : 0;
                return true;
        default:
                return true;
        }
}

/* x2APIC ids are shifted right to get the id of the next level. */
static void add_topology(struct kvm_cpuid2 *cpuid, unsigned index, unsigned count)
{
        const struct kvm_cpuid_entry2 levels[] = {
                { .eax = 0, .ebx = 1, .ecx = LEVEL_SMT << 8 },
                { .eax = bits_for(count), .ebx = count, .ecx = 1 | LEVEL_CORE << 8 },
                { .ecx = 2 },
        };

        for (unsigned i = 0; i < G_N_ELEMENTS(levels); i++) {
                struct kvm_cpuid_entry2 *entry = &cpuid->entries[cpuid->nent++];

                *entry = levels[i];
                entry->function = TOPOLOGY;
                entry->index = i;
                entry->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
                entry->edx = index;
        }
}

struct kvm_cpuid2 *cpuid_new(const struct kvm *kvm, unsigned index, unsigned count)
{
        const struct kvm_cpuid2 *offered = kvm->cpuid;
        size_t entry_bytes = sizeof(offered->entries[0]);
        struct kvm_cpuid2 *cpuid = g_malloc0(sizeof(*cpuid) + (offered->nent + 3) * entry_bytes);
        uint32_t last_leaf = 0;

        for (unsigned i = 0; i < offered->nent; i++) {
                struct kvm_cpuid_entry2 *entry = &cpuid->entries[cpuid->nent];

                *entry = offered->entries[i];
                if (entry->function == 0)
                        last_leaf = entry->eax;
                if (set_entry(kvm, entry, index, count))
                        cpuid->nent++;
        }
        if (last_leaf >= TOPOLOGY)
                add_topology(cpuid, index, count);
        return cpuid;
}

/* ---- Comparing ------------------------------------------------------------------------ */

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid_entry2 *entries, unsigned count,
                                           uint32_t function, uint32_t index)
{
        for (unsigned i = 0; i < count; i++)
                if (entries[i].function == function && entries[i].index == index)
                        return &entries[i];
        return NULL;
}

/* Where features stand: a set bit is something that a guest may rely on. */
static const struct feature_word {
        uint32_t function;
        uint32_t index;
        unsigned reg;                   /* 0 eax, 1 ebx, 2 ecx, 3 edx */
        uint32_t ignored;
} feature_words[] = {
        { 1, 0, 2, LEAF1_ECX_OSXSAVE },
        { 1, 0, 3, LEAF1_EDX_HTT },
        { 6, 0, 0, 0 },
        { 7, 0, 1, 0 },
        { 7, 0, 2, LEAF7_ECX_OSPKE },
        { 7, 0, 3, 0 },
        { 7, 1, 0, 0 },
        { 7, 1, 3, 0 },
        { 0xd, 0, 0, 0 },
        { 0xd, 0, 3, 0 },
        { 0xd, 1, 0, 0 },
        { 0xd, 1, 2, 0 },
        { 0x40000001, 0, 0, 0 },
        { 0x80000001, 0, 2, AMD1_ECX_CMP_LEGACY },
        { 0x80000001, 0, 3, LEAF1_EDX_HTT },
        { 0x80000007, 0, 3, 0 },
        { 0x80000008, 0, 1, 0 },
};

static uint32_t register_of(const struct kvm_cpuid_entry2 *entry, unsigned reg)
{
        const uint32_t values[] = { entry->eax, entry->ebx, entry->ecx, entry->edx };

        return values[reg];
}

static int check_word(const struct feature_word *word, const struct kvm_cpuid2 *here,
                      const struct kvm_cpuid_entry2 *saved, unsigned saved_count,
                      struct hvb_error *err)
{
        static const char *const names[] = { "eax", "ebx", "ecx", "edx" };
        const struct kvm_cpuid_entry2 *then = find(saved, saved_count, word->function,
                                                   word->index);
        const struct kvm_cpuid_entry2 *now = find(here->entries, here->nent, word->function,
                                                  word->index);
        uint32_t missing;

        if (then == NULL)
                return 0;
        missing = register_of(then, word->reg) & ~word->ignored;
        if (now != NULL)
                missing &= ~register_of(now, word->reg);
        if (missing == 0)
                return 0;
        return error_set(err, -ENOTSUP, "the guest's CPU has features that this one lacks: CPUID "
                         "leaf 0x%x/%u %s bits 0x%x", word->function, word->index,
                         names[word->reg], missing);
}

static int check_vendor(const struct kvm_cpuid2 *here, const struct kvm_cpuid_entry2 *saved,
                        unsigned saved_count, struct hvb_error *err)
{
        const struct kvm_cpuid_entry2 *then = find(saved, saved_count, 0, 0);
        const struct kvm_cpuid_entry2 *now = find(here->entries, here->nent, 0, 0);

        if (then == NULL)
                return error_set(err, -EINVAL, "no CPUID leaf 0");
        if (now == NULL || then->ebx != now->ebx || then->ecx != now->ecx || then->edx != now->edx)
                return error_set(err, -ENOTSUP, "the guest's CPU is of another vendor than this");
        return 0;
}

/* Addresses that a guest uses must not become reserved bits. */
static int check_address_bits(const struct kvm_cpuid2 *here, const struct kvm_cpuid_entry2 *saved,
                              unsigned saved_count, struct hvb_error *err)
{
        const struct kvm_cpuid_entry2 *then = find(saved, saved_count, 0x80000008, 0);
        const struct kvm_cpuid_entry2 *now = find(here->entries, here->nent, 0x80000008, 0);

        if (then == NULL)
                return 0;
        if (now == NULL || (then->eax & 0xff) > (now->eax & 0xff)
            || (then->eax >> 8 & 0xff) > (now->eax >> 8 & 0xff))
                return error_set(err, -ENOTSUP, "the guest's CPU has wider addresses than this "
                                 "one: CPUID leaf 0x80000008 eax 0x%x, here 0x%x", then->eax,
                                 now == NULL ? 0 : now->eax);
        return 0;
}

int cpuid_check(const struct kvm_cpuid2 *here, const struct kvm_cpuid_entry2 *saved,
                unsigned saved_count, struct hvb_error *err)
{
        int ret = check_vendor(here, saved, saved_count, err);

        if (ret == 0)
                ret = check_address_bits(here, saved, saved_count, err);
        for (unsigned i = 0; i < G_N_ELEMENTS(feature_words) && ret == 0; i++)
                ret = check_word(&feature_words[i], here, saved, saved_count, err);
        return ret;
}
