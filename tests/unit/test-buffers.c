/*
 * test-buffers.c - memory that is used again.
 *
 * SPDX-License-Identifier: MIT
 */
#include <glib.h>
#include <string.h>

#include "async/buffers.h"

enum { CLUSTER = 64 << 10, MORE = BUFFERS_MAX + 3 };

static void assert_apart(uint8_t *const *buffers, unsigned count, size_t bytes)
{
        unsigned i;
        unsigned k;

        for (i = 0; i < count; i++)
                for (k = 0; k < i; k++)
                        g_assert_true(buffers[i] + bytes <= buffers[k] ||
                                      buffers[k] + bytes <= buffers[i]);
}

/* More than it keeps, twice: the second time it has to be the same memory, or new. */
static void test_burst(void)
{
        uint8_t *taken[MORE];
        struct buffers b;
        unsigned round;
        unsigned i;

        buffers_init(&b, CLUSTER);
        for (round = 0; round < 2; round++) {
                for (i = 0; i < MORE; i++) {
                        taken[i] = buffers_get(&b, CLUSTER);
                        g_assert_nonnull(taken[i]);
                        g_assert_cmpuint((uintptr_t)taken[i] % 4096, ==, 0);
                        memset(taken[i], (int)i, CLUSTER);
                }
                assert_apart(taken, MORE, CLUSTER);
                for (i = 0; i < MORE; i++) {
                        g_assert_cmpuint(taken[i][0], ==, i);
                        g_assert_cmpuint(taken[i][CLUSTER - 1], ==, i);
                        buffers_put(&b, taken[i]);
                }
        }
        buffers_clear(&b);
}

static void test_again(void)
{
        struct buffers b;
        void *first;

        buffers_init(&b, CLUSTER);
        if (b.count == 0)
                return;                 /* nothing is kept where a sanitizer looks */
        first = buffers_get(&b, CLUSTER);
        buffers_put(&b, first);
        g_assert_true(buffers_get(&b, 1) == first);
        buffers_put(&b, first);
        buffers_clear(&b);
}

/* From sizes smaller than a page to those of which there is room for a few. */
static void test_sizes(void)
{
        size_t bytes;

        for (bytes = 512; bytes <= 2 << 20; bytes *= 2) {
                uint8_t *taken[4];
                struct buffers b;
                unsigned i;

                buffers_init(&b, bytes);
                g_assert_cmpuint(b.count * b.buffer_bytes, <=, BUFFERS_MAX_BYTES);
                for (i = 0; i < G_N_ELEMENTS(taken); i++) {
                        taken[i] = buffers_get(&b, i == 3 ? 2 * bytes : bytes);
                        g_assert_nonnull(taken[i]);
                        memset(taken[i], 0xff, i == 3 ? 2 * bytes : bytes);
                }
                assert_apart(taken, G_N_ELEMENTS(taken), bytes);
                for (i = 0; i < G_N_ELEMENTS(taken); i++)
                        buffers_put(&b, taken[i]);
                buffers_put(&b, NULL);
                buffers_clear(&b);
        }
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/buffers/burst", test_burst);
        g_test_add_func("/buffers/again", test_again);
        g_test_add_func("/buffers/sizes", test_sizes);
        return g_test_run();
}
