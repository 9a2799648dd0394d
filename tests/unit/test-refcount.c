/*
 * test-refcount.c - counts of every width against a reference that goes bit by bit.
 *
 * Property: whatever the run, a function of refcount.c leaves the block, and
 * answers, as the naive one does.  The blocks are malloc()ed to the byte, so that
 * a sanitizer sees what looks beyond.
 *
 * SPDX-License-Identifier: MIT
 */
#include <glib.h>
#include <string.h>

#include "disk/refcount.h"

/* ---- the reference: bit by bit, from the format's text ---- */

/* Where bit number bit (0: least significant) of a count lies, in bits of the block. */
static uint64_t bit_place(unsigned order, uint64_t index, unsigned bit)
{
        unsigned width = 1u << order;
        uint64_t byte;

        if (width < 8)
                return index * width + bit;
        byte = index * (width / 8) + (width / 8 - 1 - bit / 8);
        return byte * 8 + bit % 8;
}

static uint64_t naive_get(const uint8_t *counts, unsigned order, uint64_t index)
{
        uint64_t value = 0;

        for (unsigned bit = 0; bit < 1u << order; bit++) {
                uint64_t place = bit_place(order, index, bit);

                value |= (uint64_t)(counts[place / 8] >> place % 8 & 1) << bit;
        }
        return value;
}

static void naive_set(uint8_t *counts, unsigned order, uint64_t index, uint64_t value)
{
        for (unsigned bit = 0; bit < 1u << order; bit++) {
                uint64_t place = bit_place(order, index, bit);

                counts[place / 8] &= (uint8_t)~(1u << place % 8);
                counts[place / 8] |= (uint8_t)((value >> bit & 1) << place % 8);
        }
}

static uint64_t naive_max(unsigned order)
{
        uint64_t max = 0;

        for (unsigned bit = 0; bit < 1u << order; bit++)
                max = max * 2 + 1;
        return max;
}

static uint64_t naive_add_run(uint8_t *counts, unsigned order, uint64_t first, uint64_t n,
                              int delta)
{
        for (uint64_t i = 0; i < n; i++) {
                uint64_t v = naive_get(counts, order, first + i);

                if (v == 0 || (delta > 0 && v == naive_max(order)))
                        return i;
                naive_set(counts, order, first + i, delta > 0 ? v + 1 : v - 1);
        }
        return n;
}

static uint64_t naive_find(const uint8_t *counts, unsigned order, uint64_t first, uint64_t end,
                           bool used)
{
        for (; first < end; first++) {
                if ((naive_get(counts, order, first) != 0) == used)
                        return first;
        }
        return end;
}

/* ---- blocks to try ---- */

enum { BLOCK_BYTES = 512 };

static uint64_t block_entries(unsigned order)
{
        return (uint64_t)BLOCK_BYTES * 8 >> order;
}

static uint64_t random_count(unsigned order)
{
        uint64_t random = (uint64_t)(uint32_t)g_test_rand_int() << 32 | (uint32_t)g_test_rand_int();

        return random & naive_max(order);
}

/* Mostly one count, as in life, with a few zeros, maxima and random ones in between. */
static uint8_t *random_block(unsigned order)
{
        uint8_t *block = g_malloc(BLOCK_BYTES);
        uint64_t common[] = { 1, 0, naive_max(order), naive_max(order) - 1, random_count(order) };
        uint64_t usual = common[g_test_rand_int_range(0, G_N_ELEMENTS(common))];
        int others = g_test_rand_int_range(0, 6);

        for (uint64_t i = 0; i < block_entries(order); i++)
                naive_set(block, order, i, usual);
        for (int i = 0; i < others; i++) {
                uint64_t index = (uint32_t)g_test_rand_int() % block_entries(order);

                naive_set(block, order, index,
                          common[g_test_rand_int_range(0, G_N_ELEMENTS(common))]);
        }
        return block;
}

/* A random range, whole blocks among them. */
static void random_range(unsigned order, uint64_t *ret_first, uint64_t *ret_end)
{
        uint64_t first = (uint32_t)g_test_rand_int() % (block_entries(order) + 1);
        uint64_t end = first + (uint32_t)g_test_rand_int() % (block_entries(order) - first + 1);

        if (g_test_rand_int_range(0, 4) == 0)
                first = 0;
        if (g_test_rand_int_range(0, 4) == 0)
                end = block_entries(order);
        *ret_first = first;
        *ret_end = end;
}

static unsigned order_of(gconstpointer data)
{
        return GPOINTER_TO_UINT(data);
}

static void get_and_set(gconstpointer data)
{
        unsigned order = order_of(data);
        g_autofree uint8_t *block = g_malloc0(BLOCK_BYTES);
        g_autofree uint8_t *expected = g_malloc0(BLOCK_BYTES);

        for (unsigned i = 0; i < 3000; i++) {
                uint64_t index = (uint32_t)g_test_rand_int() % block_entries(order);
                uint64_t value = random_count(order);

                refcount_set(block, order, index, value);
                naive_set(expected, order, index, value);
                g_assert_cmpmem(block, BLOCK_BYTES, expected, BLOCK_BYTES);
                index = (uint32_t)g_test_rand_int() % block_entries(order);
                g_assert_cmpuint(refcount_get(block, order, index), ==,
                                 naive_get(expected, order, index));
        }
}

static void add_run(gconstpointer data)
{
        unsigned order = order_of(data);

        for (unsigned i = 0; i < 2000; i++) {
                g_autofree uint8_t *block = random_block(order);
                g_autofree uint8_t *expected = g_memdup2(block, BLOCK_BYTES);
                int delta = g_test_rand_int_range(0, 2) ? 1 : -1;
                uint64_t first;
                uint64_t end;

                random_range(order, &first, &end);
                g_assert_cmpuint(refcount_add_run(block, order, first, end - first, delta), ==,
                                 naive_add_run(expected, order, first, end - first, delta));
                g_assert_cmpmem(block, BLOCK_BYTES, expected, BLOCK_BYTES);
        }
}

static void add_run_undone(gconstpointer data)
{
        unsigned order = order_of(data);

        for (unsigned i = 0; i < 500; i++) {
                g_autofree uint8_t *block = random_block(order);
                g_autofree uint8_t *before = g_memdup2(block, BLOCK_BYTES);
                uint64_t first;
                uint64_t end;
                uint64_t n;

                random_range(order, &first, &end);
                n = refcount_add_run(block, order, first, end - first, 1);
                g_assert_cmpuint(refcount_add_run(block, order, first, n, -1), ==, n);
                g_assert_cmpmem(block, BLOCK_BYTES, before, BLOCK_BYTES);
        }
}

static void find(gconstpointer data)
{
        unsigned order = order_of(data);

        for (unsigned i = 0; i < 3000; i++) {
                g_autofree uint8_t *block = random_block(order);
                uint64_t first;
                uint64_t end;

                random_range(order, &first, &end);
                g_assert_cmpuint(refcount_find_zero(block, order, first, end), ==,
                                 naive_find(block, order, first, end, false));
                g_assert_cmpuint(refcount_find_used(block, order, first, end), ==,
                                 naive_find(block, order, first, end, true));
        }
}

static void all(gconstpointer data)
{
        unsigned order = order_of(data);

        for (unsigned i = 0; i < 2000; i++) {
                g_autofree uint8_t *block = random_block(order);
                bool expected = true;
                uint64_t first;
                uint64_t value;
                uint64_t end;

                random_range(order, &first, &end);
                value = naive_get(block, order, first < end ? first : 0);
                for (uint64_t j = first; j < end; j++)
                        expected &= naive_get(block, order, j) == value;
                g_assert_cmpint(refcount_all(block, order, first, end - first, value), ==,
                                expected);
        }
}

/* A value that the width cannot hold is nowhere; in no counts everything is. */
static void all_of_what_cannot_be(void)
{
        uint8_t counts[64];

        memset(counts, 0xff, sizeof(counts));
        g_assert_false(refcount_all(counts, 3, 0, 64, 256));
        g_assert_true(refcount_all(counts, 3, 0, 64, 255));
        g_assert_true(refcount_all(counts, 3, 5, 0, 256));
}

/* The order of the bits, from the format: the lowest bits hold the first count. */
static void laid_by_hand(void)
{
        static const uint8_t bytes[8] = { 0x1b, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08 };

        g_assert_cmpuint(refcount_get(bytes, 0, 0), ==, 1);
        g_assert_cmpuint(refcount_get(bytes, 0, 2), ==, 0);
        g_assert_cmpuint(refcount_get(bytes, 1, 0), ==, 3);
        g_assert_cmpuint(refcount_get(bytes, 1, 2), ==, 1);
        g_assert_cmpuint(refcount_get(bytes, 2, 0), ==, 0xb);
        g_assert_cmpuint(refcount_get(bytes, 2, 1), ==, 1);
        g_assert_cmphex(refcount_get(bytes, 3, 1), ==, 2);
        g_assert_cmphex(refcount_get(bytes, 4, 1), ==, 0x0304);
        g_assert_cmphex(refcount_get(bytes, 5, 1), ==, 0x05060708);
        g_assert_cmphex(refcount_get(bytes, 6, 0), ==, UINT64_C(0x1b02030405060708));
}

/* Run with -m perf.  A snapshot of a full 1 TiB disk adds to 16 M counts. */
static void add_run_speed(void)
{
        enum { ROUNDS = 20000, COUNTS = 32768 };
        g_autofree uint8_t *block = g_malloc(65536);
        double seconds;

        if (!g_test_perf()) {
                g_test_skip("run with -m perf");
                return;
        }
        for (unsigned i = 0; i < COUNTS; i++)
                refcount_set(block, 4, i, 1);
        g_test_timer_start();
        for (unsigned i = 0; i < ROUNDS; i++)
                g_assert_cmpuint(refcount_add_run(block, 4, 0, COUNTS, i % 2 ? -1 : 1), ==, COUNTS);
        seconds = g_test_timer_elapsed();
        g_test_maximized_result(ROUNDS * (double)COUNTS / seconds / 1e9,
                                "%.2f G counts of 16 bits a second",
                                ROUNDS * (double)COUNTS / seconds / 1e9);
}

static void add_for_every_width(const char *name, GTestDataFunc test)
{
        for (unsigned order = 0; order <= 6; order++) {
                g_autofree char *path = g_strdup_printf("/refcount/%s/%u-bit", name, 1u << order);

                g_test_add_data_func(path, GUINT_TO_POINTER(order), test);
        }
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/refcount/laid-by-hand", laid_by_hand);
        add_for_every_width("get-and-set", get_and_set);
        add_for_every_width("add-run", add_run);
        add_for_every_width("add-run-undone", add_run_undone);
        add_for_every_width("find", find);
        add_for_every_width("all", all);
        g_test_add_func("/refcount/all-of-what-cannot-be", all_of_what_cannot_be);
        g_test_add_func("/refcount/add-run-speed", add_run_speed);
        return g_test_run();
}
