/*
 * machine.c - the built-in guest's console, time, interrupts and command line.
 *
 * SPDX-License-Identifier: MIT
 */
#include "guest.h"

enum {
        SERIAL_PORT = 0x3f8,
        SERIAL_STATUS = SERIAL_PORT + 5,
        SERIAL_ROOM = 1 << 5,
        POWER_PORT = 0xf4,
        PIC1 = 0x20,
        PIC2 = 0xa0,
        PIC_INIT = 0x11,
        PIC_8086 = 1,
        PIC_EOI = 0x20,
        VECTOR_BASE = 0x20,
        GATE_INTERRUPT = 0x8e,
        CODE_SELECTOR = 0x10,
};

/* ---- Console -------------------------------------------------------------------------- */

void print(const char *text)
{
        for (; *text != '\0'; text++) {
                while (!(in8(SERIAL_STATUS) & SERIAL_ROOM))
                        ;
                out8(SERIAL_PORT, *text);
        }
}

void print_number(uint64_t number)
{
        char digits[24];
        unsigned at = sizeof(digits) - 1;

        digits[at] = '\0';
        do {
                digits[--at] = '0' + number % 10;
                number /= 10;
        } while (number > 0);
        print(digits + at);
}

void power_off(void)
{
        for (;;) {
                out8(POWER_PORT, 0);
                __asm__ volatile("cli; hlt");
        }
}

void stop_with(const char *text)
{
        print("guest: ");
        print(text);
        print("\n");
        power_off();
}

void guest_crashed(void);
void guest_crashed(void)
{
        stop_with("FAILED: an exception");
}

/* ---- The command line ------------------------------------------------------------------ */

/* Where a word of line that begins with prefix goes on, or NULL. */
static const char *find_word(const char *line, const char *prefix)
{
        for (bool at_word = true; *line != '\0'; at_word = *line++ == ' ') {
                unsigned i = 0;

                while (at_word && prefix[i] != '\0' && line[i] == prefix[i])
                        i++;
                if (at_word && prefix[i] == '\0')
                        return line + i;
        }
        return NULL;
}

bool has_word(const char *line, const char *word)
{
        const char *after = find_word(line, word);

        return after != NULL && (*after == '\0' || *after == ' ');
}

uint64_t option(const char *line, const char *name, uint64_t otherwise)
{
        const char *at = find_word(line, name);
        uint64_t value = 0;

        if (at == NULL || *at++ != '=')
                return otherwise;
        for (; *at >= '0' && *at <= '9'; at++)
                value = 10 * value + (*at - '0');
        switch (*at) {
        case 'K':
                return value << 10;
        case 'M':
                return value << 20;
        case 'G':
                return value << 30;
        default:
                return value;
        }
}

/* ---- Time ----------------------------------------------------------------------------- */

/* KVM's paravirtual clock: it writes here what to make of the TSC. */
static struct {
        uint32_t version;
        uint32_t pad;
        uint64_t tsc;
        uint64_t nsec;
        uint32_t multiplier;
        int8_t shift;
        uint8_t flags;
        uint8_t pad2[2];
} volatile kvm_clock __attribute__((aligned(4096)));
static bool has_clock;

static void cpuid(uint32_t leaf, uint32_t regs[4])
{
        __asm__ volatile("cpuid" : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3])
                         : "a"(leaf), "c"(0));
}

static void write_msr(uint32_t msr, uint64_t value)
{
        __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static uint64_t read_tsc(void)
{
        uint32_t low;
        uint32_t high;

        __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
        return (uint64_t)high << 32 | low;
}

void clock_init(void)
{
        enum { SIGNATURE_LEAF = 0x40000000, FEATURES_LEAF, CLOCK_FEATURE = 1 << 3 };
        enum { KVM = 0x4b4d564b, MSR_SYSTEM_TIME_NEW = 0x4b564d01 };
        uint32_t regs[4];

        cpuid(SIGNATURE_LEAF, regs);
        if (regs[1] != KVM)
                return;
        cpuid(FEATURES_LEAF, regs);
        if (!(regs[0] & CLOCK_FEATURE))
                return;
        write_msr(MSR_SYSTEM_TIME_NEW, (uintptr_t)&kvm_clock | 1);
        has_clock = true;
}

/* TSC ticks in nanoseconds, by KVM's factors. */
static uint64_t ticks_nsec(uint64_t ticks)
{
        ticks = kvm_clock.shift < 0 ? ticks >> -kvm_clock.shift : ticks << kvm_clock.shift;
        return (uint64_t)((unsigned __int128)ticks * kvm_clock.multiplier >> 32);
}

uint64_t clock_unpaused(void)
{
        return has_clock ? ticks_nsec(read_tsc()) : 0;
}

uint64_t clock_now(void)
{
        uint32_t version;
        uint64_t nsec;

        if (!has_clock)
                return 0;
        do {
                version = kvm_clock.version;
                barrier();
                nsec = kvm_clock.nsec + ticks_nsec(read_tsc() - kvm_clock.tsc);
                barrier();
        } while (version & 1 || version != kvm_clock.version);
        return nsec;
}

/* ---- Interrupts ------------------------------------------------------------------------ */

struct gate {
        uint16_t address_low;
        uint16_t selector;
        uint8_t stack;
        uint8_t type;
        uint16_t address_middle;
        uint32_t address_high;
        uint32_t zero;
};

static struct gate gates[256] __attribute__((aligned(16)));
static volatile bool interrupted;
static unsigned disk_irq;

void interrupt_disk(void);
void interrupt_other(void);
void interrupt_sleep(void);

static void set_gate(unsigned vector, void (*handler)(void))
{
        uintptr_t address = (uintptr_t)handler;

        gates[vector] = (struct gate) {
                .address_low = (uint16_t)address,
                .selector = CODE_SELECTOR,
                .type = GATE_INTERRUPT,
                .address_middle = (uint16_t)(address >> 16),
                .address_high = (uint32_t)(address >> 32),
        };
}

/* Both PICs, all lines but irq masked. */
static void pic_init(unsigned irq)
{
        uint16_t open = (uint16_t)~(1u << irq | (irq >= 8 ? 1u << 2 : 0));

        out8(PIC1, PIC_INIT);
        out8(PIC2, PIC_INIT);
        out8(PIC1 + 1, VECTOR_BASE);
        out8(PIC2 + 1, VECTOR_BASE + 8);
        out8(PIC1 + 1, 1 << 2);
        out8(PIC2 + 1, 2);
        out8(PIC1 + 1, PIC_8086);
        out8(PIC2 + 1, PIC_8086);
        out8(PIC1 + 1, (uint8_t)open);
        out8(PIC2 + 1, (uint8_t)(open >> 8));
}

void interrupts_init(unsigned irq)
{
        struct {
                uint16_t limit;
                uint64_t base;
        } __attribute__((packed)) idt = { sizeof(gates) - 1, (uintptr_t)gates };

        disk_irq = irq;
        for (unsigned vector = 0; vector < 256; vector++)
                set_gate(vector, interrupt_other);
        set_gate(VECTOR_BASE + irq, interrupt_disk);
        __asm__ volatile("lidt %0" : : "m"(idt));
        pic_init(irq);
        __asm__ volatile("sti");
}

void disk_interrupted(void);
void disk_interrupted(void)
{
        enum { INTERRUPT_STATUS = 0x60, INTERRUPT_ACK = 0x64 };

        disk_write_register(INTERRUPT_ACK, disk_read_register(INTERRUPT_STATUS));
        interrupted = true;
        if (disk_irq >= 8)
                out8(PIC2, PIC_EOI);
        out8(PIC1, PIC_EOI);
}

void interrupt_wait(void)
{
        __asm__ volatile("cli" : : : "memory");
        if (!interrupted)
                interrupt_sleep();
        else
                __asm__ volatile("sti" : : : "memory");
        interrupted = false;
}
