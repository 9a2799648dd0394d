/*
 * guest.h - the built-in guest: what its files share.
 *
 * It runs on the bare machine: no library, no paging of its own, one processor.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BLOCK_BYTES = 4096, BLOCK_WORDS = BLOCK_BYTES / 8, SECTOR_BYTES = 512 };

/* ---- machine.c: console, time, interrupts, the command line ---- */

void print(const char *text);
void print_number(uint64_t number);
/* "guest: TEXT", then the machine is off. */
__attribute__((noreturn)) void stop_with(const char *text);
__attribute__((noreturn)) void power_off(void);

/* What follows "name=" in line, or otherwise.  A suffix K, M or G counts. */
uint64_t option(const char *line, const char *name, uint64_t otherwise);
bool has_word(const char *line, const char *word);

void clock_init(void);
/* Nanoseconds since some moment; 0 where there is no kvmclock. */
uint64_t clock_now(void);
/* The same, but time goes on while the machine is paused: kvmclock stands still then, the TSC
 * does not. */
uint64_t clock_unpaused(void);

/* The disk's interrupts arrive, through the PIC's line irq. */
void interrupts_init(unsigned irq);
/* Sleeps until the next interrupt, unless one has come since the last call. */
void interrupt_wait(void);

static inline uint8_t in8(uint16_t port)
{
        uint8_t value;

        __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
        return value;
}

static inline void out8(uint16_t port, uint8_t value)
{
        __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

/* The compiler and the processor order what is shared with the device. */
static inline void barrier(void)
{
        __asm__ volatile("mfence" : : : "memory");
}

/* Words of memory at once: one instruction, so that emulators are fast as well. */
static inline void fill_words(void *to, uint64_t value, size_t count)
{
        __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}

/* count > 0. */
static inline bool all_words_are(const void *at, uint64_t value, size_t count)
{
        bool same;

        __asm__ volatile("repe scasq" : "=@ccz"(same), "+D"(at), "+c"(count) : "a"(value)
                         : "memory");
        return same;
}

/* ---- disk.c: virtio-blk at one virtio-mmio address ---- */

enum { DISK_REQUESTS = 16 };

/* Finds "virtio_mmio.device=" in the command line and starts the device.  Its capacity in
 * blocks, or 0: there is no disk. */
uint64_t disk_init(const char *line);

/* One request in flight, slot 0 .. DISK_REQUESTS - 1.  Data of a block, in memory. */
enum disk_what { DISK_READ = 0, DISK_WRITE = 1, DISK_FLUSH = 4 };
void disk_start(unsigned slot, enum disk_what what, uint64_t block, void *data);
/* Waits until that slot's request is done; stops the guest if it failed. */
void disk_finish(unsigned slot);
/* The longest that a request has taken, nanoseconds; from now on anew. */
uint64_t disk_longest_nsec(void);
/* Rings the bell once for all that was started. */
void disk_submit(void);

/* Registers and rings, for hostile.c. */
uint32_t disk_read_register(unsigned at);
void disk_write_register(unsigned at, uint32_t value);
void disk_start_device(void);

/* ---- hostile.c ---- */

/* Sends requests that break every rule, one after the other. */
void hostile_run(void);

#endif
