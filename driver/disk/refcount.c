/*
 * refcount.c - counts inside a refcount block.
 *
 * A snapshot adds one to every count of the disk, so runs must go at the speed of
 * memory.  They are handled a 64-bit word at a time, and every word holds whole
 * counts, whatever their width.  Three facts make that right:
 *
 *  - Whether some count of a word is all zeros or all ones can be told in either
 *    byte order.
 *  - Loading a word as big-endian gives each count its value in place (the order
 *    of the counts is reversed for wide ones, which adding does not mind).
 *  - Adding one to all counts of a word is one addition if none of them is at its
 *    maximum, and subtracting is one subtraction if none is zero: nothing carries
 *    into a neighbour.
 *
 * Words are taken in blocks, so that a block without the sought or forbidden count
 * costs one branch.  The rest goes count by count.
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>

#include "disk/refcount.h"

enum { BLOCK_WORDS = 8 };

static uint64_t count_max(unsigned order)
{
        return UINT64_MAX >> (64 - (1u << order));
}

/* ---- one count ---- */

static unsigned narrow_shift(unsigned order, uint64_t index)
{
        return (unsigned)(index << order) & 7;
}

uint64_t refcount_get(const void *counts, unsigned order, uint64_t index)
{
        const uint8_t *p = (const uint8_t *)counts + ((index << order) >> 3);

        assert(order <= MAX_REFCOUNT_ORDER);
        switch (order) {
        case 3:
                return *p;
        case 4:
                return be16_load(p);
        case 5:
                return be32_load(p);
        case 6:
                return be64_load(p);
        default:
                return (*p >> narrow_shift(order, index)) & count_max(order);
        }
}

static void narrow_set(uint8_t *p, unsigned order, uint64_t index, uint64_t value)
{
        unsigned shift = narrow_shift(order, index);

        *p = (uint8_t)((*p & ~(count_max(order) << shift)) | value << shift);
}

void refcount_set(void *counts, unsigned order, uint64_t index, uint64_t value)
{
        uint8_t *p = (uint8_t *)counts + ((index << order) >> 3);

        assert(order <= MAX_REFCOUNT_ORDER);
        assert(value <= count_max(order));
        switch (order) {
        case 3:
                *p = (uint8_t)value;
                break;
        case 4:
                be16_store(p, (uint16_t)value);
                break;
        case 5:
                be32_store(p, (uint32_t)value);
                break;
        case 6:
                be64_store(p, value);
                break;
        default:
                narrow_set(p, order, index, value);
                break;
        }
}

/* ---- blocks of words ---- */

static uint64_t word_load(const uint8_t *p)
{
        uint64_t word;

        memcpy(&word, p, sizeof(word));
        return word;
}

/* A one in the lowest bit of every count, and in the highest. */
static uint64_t low_bits(unsigned order)
{
        return UINT64_MAX / count_max(order);
}

static uint64_t top_bits(unsigned order)
{
        return low_bits(order) << ((1u << order) - 1);
}

static uint64_t block_counts(unsigned order)
{
        return UINT64_C(64) * BLOCK_WORDS >> order;
}

/* The place of count index if a block begins there and does not pass end, else NULL.
 * Blocks are aligned, so that one which is of no use is looked at only once. */
static uint8_t *block_at(const void *counts, unsigned order, uint64_t index, uint64_t end)
{
        if (index % block_counts(order) != 0 || end - index < block_counts(order))
                return NULL;
        return (uint8_t *)counts + ((index << order) >> 3);
}

/* Is some count zero, or, given ones of all bits, some count at its maximum?
 * Subtracting one borrows through the top bit of a count only if that count, or
 * one below it, was zero. */
static bool block_has_edge(const uint8_t *p, unsigned order, uint64_t ones)
{
        uint64_t low = low_bits(order);
        uint64_t edges = 0;

        for (unsigned i = 0; i < BLOCK_WORDS; i++) {
                uint64_t word = word_load(p + i * 8);

                edges |= (word - low) & ~word;
                edges |= (~word - low) & word & ones;
        }
        return (edges & top_bits(order)) != 0;
}

static void block_add(uint8_t *p, uint64_t addend)
{
        for (unsigned i = 0; i < BLOCK_WORDS; i++)
                be64_store(p + i * 8, be64_load(p + i * 8) + addend);
}

static bool block_is(const uint8_t *p, uint64_t pattern)
{
        uint64_t differences = 0;

        for (unsigned i = 0; i < BLOCK_WORDS; i++)
                differences |= word_load(p + i * 8) ^ pattern;
        return differences == 0;
}

/* ---- runs ---- */

uint64_t refcount_add_run(void *counts, unsigned order, uint64_t first, uint64_t n, int delta)
{
        uint64_t edge = delta > 0 ? count_max(order) : 0;
        uint64_t ones = delta > 0 ? UINT64_MAX : 0;
        uint64_t addend = delta > 0 ? low_bits(order) : -low_bits(order);
        uint64_t end = first + n;
        uint64_t index = first;

        assert(order <= MAX_REFCOUNT_ORDER);
        assert(delta == 1 || delta == -1);

        while (index < end) {
                uint8_t *block = block_at(counts, order, index, end);
                uint64_t v;

                if (block && !block_has_edge(block, order, ones)) {
                        block_add(block, addend);
                        index += block_counts(order);
                        continue;
                }
                v = refcount_get(counts, order, index);
                if (v == 0 || v == edge)
                        break;
                refcount_set(counts, order, index, delta > 0 ? v + 1 : v - 1);
                index++;
        }
        return index - first;
}

uint64_t refcount_find_zero(const void *counts, unsigned order, uint64_t first, uint64_t end)
{
        uint64_t index = first;

        assert(order <= MAX_REFCOUNT_ORDER);
        while (index < end) {
                const uint8_t *block = block_at(counts, order, index, end);

                if (block && !block_has_edge(block, order, 0)) {
                        index += block_counts(order);
                        continue;
                }
                if (refcount_get(counts, order, index) == 0)
                        return index;
                index++;
        }
        return end;
}

/* The first index in [first, end) whose count is not value; end if none. */
static uint64_t find_other(const void *counts, unsigned order, uint64_t first, uint64_t end,
                           uint64_t value)
{
        uint64_t index = first;
        uint64_t pattern;

        be64_store(&pattern, value * low_bits(order));
        while (index < end) {
                const uint8_t *block = block_at(counts, order, index, end);

                if (block && block_is(block, pattern)) {
                        index += block_counts(order);
                        continue;
                }
                if (refcount_get(counts, order, index) != value)
                        return index;
                index++;
        }
        return end;
}

uint64_t refcount_find_used(const void *counts, unsigned order, uint64_t first, uint64_t end)
{
        assert(order <= MAX_REFCOUNT_ORDER);
        return find_other(counts, order, first, end, 0);
}

bool refcount_all(const void *counts, unsigned order, uint64_t first, uint64_t n, uint64_t value)
{
        assert(order <= MAX_REFCOUNT_ORDER);
        if (value > count_max(order))
                return n == 0;
        return find_other(counts, order, first, first + n, value) == first + n;
}
