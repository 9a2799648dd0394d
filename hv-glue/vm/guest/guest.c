/*
 * guest.c - the built-in guest: memory and disk that must be of one moment.
 *
 * It counts rounds.  In round N it
 *
 *   1. for each block of its part of the disk, in order and several at once: reads it and
 *      finds what round N - 1 wrote, then writes what belongs to round N,
 *   2. after each block does the same with a share of its memory,
 *   3. flushes, reads all blocks again and finds round N's, looks at all memory,
 *   4. prints "guest: round N, ram ok, disk ok" and its longest stalls.
 *
 * So in every moment each block and each page has the age that the position in the round,
 * itself in memory, says.  A machine whose memory or disk alone went back to another moment
 * finds blocks from the future or the past, and says "BAD".
 *
 * Options, words of the command line:
 *
 *   ram=SIZE     memory to keep writing (1M)        blocks=N   of 4 KiB on the disk (64)
 *   rounds=N     power off after so many (endless)   rate=N     rounds a second, at most
 *   hostile      break the rules of virtio instead; power off
 *
 * Stalls are what the guest had to wait, pauses of the machine included.  They need kvmclock;
 * without it they are 0 and rate does not work.
 *
 * SPDX-License-Identifier: MIT
 */
#include <asm/bootparam.h>

#include "guest.h"

#define RAM_BEGIN       ((uint8_t *)0x400000)
#define NSEC            1000000000ull

enum { BLOCK_MAGIC = 0x6b636f6c, LOW_RESERVED = 0x400000 };

struct position {
        uint64_t round;                 /* that is being written */
        uint64_t block;                 /* the next */
        uint64_t page;
};

static struct {
        struct position at;
        uint64_t block_count;
        uint64_t page_count;
        uint64_t rounds;
        uint64_t rate;
        uint64_t round_began;
        uint64_t last_tick;             /* the last look at the clock while busy */
        uint64_t cpu_longest;
        bool bad;
} g;

static uint64_t buffers[DISK_REQUESTS][BLOCK_WORDS] __attribute__((aligned(4096)));

/* ---- Stalls of the processor ------------------------------------------------------------ */

/* Called often while busy: what passed since the last call is more than it should be when
 * the processor stood still. */
static void tick(void)
{
        uint64_t now = clock_unpaused();

        if (now - g.last_tick > g.cpu_longest)
                g.cpu_longest = now - g.last_tick;
        g.last_tick = now;
}

/* After waiting: that was no stall. */
static void tick_anew(void)
{
        g.last_tick = clock_unpaused();
}

/* ---- Patterns -------------------------------------------------------------------------- */

/* splitmix64's mixer. */
static uint64_t mix(uint64_t x)
{
        x += 0x9e3779b97f4a7c15;
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
        x = (x ^ x >> 27) * 0x94d049bb133111eb;
        return x ^ x >> 31;
}

static uint64_t page_word(uint64_t round, uint64_t page)
{
        return mix(round ^ page << 40);
}

/* Magic, round, number of the block; then words that belong to both. */
static void block_write(uint64_t *words, uint64_t round, uint64_t block)
{
        words[0] = BLOCK_MAGIC;
        words[1] = round;
        words[2] = block;
        fill_words(words + 3, mix(~round ^ block << 40), BLOCK_WORDS - 3);
}

static bool block_is(const uint64_t *words, uint64_t round, uint64_t block)
{
        return words[0] == BLOCK_MAGIC && words[1] == round && words[2] == block
                && all_words_are(words + 3, mix(~round ^ block << 40), BLOCK_WORDS - 3);
}

static void report_bad(const char *what, uint64_t number, uint64_t expected, uint64_t found)
{
        g.bad = true;
        print("guest: round ");
        print_number(g.at.round);
        print(", ");
        print(what);
        print(" BAD: number ");
        print_number(number);
        print(" should be of round ");
        print_number(expected);
        print(", is of ");
        print_number(found);
        print("\n");
}

/* ---- Memory ---------------------------------------------------------------------------- */

static uint64_t *page_at(uint64_t page)
{
        return (uint64_t *)(RAM_BEGIN + page * BLOCK_BYTES);
}

/* The first word of a page is its round. */
static void page_check(uint64_t page, uint64_t round)
{
        const uint64_t *words = page_at(page);

        if (words[0] != round
            || !all_words_are(words + 1, page_word(round, page), BLOCK_WORDS - 1))
                report_bad("ram", page, round, words[0]);
        tick();
}

static void page_write(uint64_t page, uint64_t round)
{
        uint64_t *words = page_at(page);

        fill_words(words + 1, page_word(round, page), BLOCK_WORDS - 1);
        words[0] = round;
        tick();
}

/* As many pages as keep pace with the blocks. */
static void pages_advance(uint64_t round)
{
        uint64_t until = g.page_count * g.at.block / g.block_count;

        for (; g.at.page < until; g.at.page++) {
                page_check(g.at.page, round - 1);
                page_write(g.at.page, round);
        }
}

/* ---- Rounds ---------------------------------------------------------------------------- */

/* How many blocks from first on make up one batch. */
static unsigned batch_size(uint64_t first)
{
        uint64_t left = g.block_count - first;

        return left < DISK_REQUESTS ? (unsigned)left : DISK_REQUESTS;
}

static void batch_run(enum disk_what what, uint64_t first, unsigned count)
{
        for (unsigned i = 0; i < count; i++)
                disk_start(i, what, first + i, buffers[i]);
        disk_submit();
        for (unsigned i = 0; i < count; i++)
                disk_finish(i);
        tick_anew();
}

static void batch_check(uint64_t first, unsigned count, uint64_t round)
{
        for (unsigned i = 0; i < count; i++)
                if (!block_is(buffers[i], round, first + i))
                        report_bad("disk", first + i, round, buffers[i][1]);
}

static void write_round(uint64_t round)
{
        while (g.at.block < g.block_count) {
                unsigned count = batch_size(g.at.block);

                batch_run(DISK_READ, g.at.block, count);
                batch_check(g.at.block, count, round - 1);
                for (unsigned i = 0; i < count; i++)
                        block_write(buffers[i], round, g.at.block + i);
                batch_run(DISK_WRITE, g.at.block, count);
                g.at.block += count;
                pages_advance(round);
        }
        disk_start(0, DISK_FLUSH, 0, NULL);
        disk_submit();
        disk_finish(0);
}

static void check_round(uint64_t round)
{
        for (uint64_t first = 0; first < g.block_count; first += DISK_REQUESTS) {
                unsigned count = batch_size(first);

                batch_run(DISK_READ, first, count);
                batch_check(first, count, round);
        }
        for (uint64_t page = 0; page < g.page_count; page++)
                page_check(page, round);
}

static void report_round(uint64_t round)
{
        print("guest: round ");
        print_number(round);
        print(g.bad ? ", BAD" : ", ram ok, disk ok");
        print(", longest i/o ");
        print_number(disk_longest_nsec() / 1000);
        print(" us, longest cpu stall ");
        print_number(g.cpu_longest / 1000);
        print(" us\n");
        g.cpu_longest = 0;
        if (g.bad)
                stop_with("FAILED: memory and disk are not of one moment");
}

/* No more rounds a second than wanted.  Busy: it has no timer. */
static void keep_rate(void)
{
        while (g.rate > 0 && clock_now() - g.round_began < NSEC / g.rate)
                __asm__ volatile("pause");
        g.round_began = clock_now();
}

static void run_rounds(void)
{
        for (uint64_t done = 0; g.rounds == 0 || done < g.rounds; done++) {
                keep_rate();
                tick_anew();
                write_round(g.at.round);
                check_round(g.at.round);
                report_round(g.at.round);
                g.at = (struct position) { .round = g.at.round + 1 };
        }
}

/* ---- Beginning -------------------------------------------------------------------------- */

/* All blocks are made of one round: that after the newest which the disk has, if any. */
static void prepare(void)
{
        uint64_t round = 0;

        for (uint64_t first = 0; first < g.block_count; first += DISK_REQUESTS) {
                unsigned count = batch_size(first);

                batch_run(DISK_READ, first, count);
                for (unsigned i = 0; i < count; i++)
                        if (buffers[i][0] == BLOCK_MAGIC && buffers[i][1] > round)
                                round = buffers[i][1];
        }
        print("guest: the disk is of round ");
        print_number(round);
        print("\n");
        for (uint64_t first = 0; first < g.block_count; first += DISK_REQUESTS) {
                unsigned count = batch_size(first);

                for (unsigned i = 0; i < count; i++)
                        block_write(buffers[i], round, first + i);
                batch_run(DISK_WRITE, first, count);
        }
        for (uint64_t page = 0; page < g.page_count; page++)
                page_write(page, round);
        g.at.round = round + 1;
}

static uint64_t ram_end(const struct boot_params *params)
{
        uint64_t end = 0;

        for (unsigned i = 0; i < params->e820_entries; i++) {
                const struct boot_e820_entry *entry = &params->e820_table[i];

                if (entry->type == 1 && entry->addr < LOW_RESERVED
                    && entry->addr + entry->size > LOW_RESERVED)
                        end = entry->addr + entry->size;
        }
        return end;
}

void guest_main(const struct boot_params *params);
void guest_main(const struct boot_params *params)
{
        const char *line = (const char *)(uintptr_t)params->hdr.cmd_line_ptr;
        uint64_t disk_blocks;

        print("guest: hello\n");
        clock_init();
        disk_blocks = disk_init(line);
        if (disk_blocks == 0)
                stop_with("there is no disk: power off");
        if (has_word(line, "hostile")) {
                hostile_run();
                power_off();
        }
        g.block_count = option(line, "blocks", 64);
        g.page_count = option(line, "ram", 1 << 20) / BLOCK_BYTES;
        g.rounds = option(line, "rounds", 0);
        g.rate = option(line, "rate", 0);
        if (g.block_count == 0 || g.block_count > disk_blocks)
                stop_with("FAILED: option blocks= does not fit the disk");
        if (LOW_RESERVED + g.page_count * BLOCK_BYTES > ram_end(params))
                stop_with("FAILED: option ram= does not fit the machine's memory");
        prepare();
        run_rounds();
        stop_with("done: power off");
}
