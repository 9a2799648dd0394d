/*
 * test-vm-hostile.c - VM states with anything in them: no crash, and a refused one changes
 * nothing.
 *
 * A real VM state, of RAM that is all holes, is changed in a few places: bytes at random, and
 * fields to values that hurt.  Half of the time the sums are made right again, so that
 * what is behind them is reached.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/error.h"
#include "lib/effort.h"
#include "snapshot/faulty-driver.h"
#include "snapshot/machine-bed.h"
#include "snapshot/vm-state.h"
#include "snapshot/vmstate-io.h"

enum { TRIES = EFFORT(1500), MAX_CHANGES = 4, HEAD_BYTES = 112 };

struct state {
        uint8_t *head;                  /* first page */
        uint8_t *tail;                  /* from map_offset on */
        size_t tail_bytes;
        uint64_t tail_offset;
        uint64_t table_at;              /* in tail */
        uint32_t section_count;
};

static uint64_t get(const uint8_t *at, unsigned bytes)
{
        uint64_t value = 0;

        for (unsigned i = 0; i < bytes; i++)
                value = value << 8 | at[i];
        return value;
}

static void put(uint8_t *at, unsigned bytes, uint64_t value)
{
        for (unsigned i = 0; i < bytes; i++)
                at[i] = (uint8_t) (value >> 8 * (bytes - 1 - i));
}

static void *read_state(struct bed *b, uint64_t offset, size_t count)
{
        unsigned disk_count;
        struct machine_disk *disks = machine_disks(b->m, &disk_count);
        struct vmstate_io *io = vmstate_io_new(disks[0].thread, NULL);
        void *bytes = NULL;

        count = (count + 4095) / 4096 * 4096;
        g_assert_cmpint(posix_memalign(&bytes, 4096, count), ==, 0);
        g_assert_cmpint(vmstate_io_load_all(io, offset, bytes, count), ==, 0);
        vmstate_io_free(io);
        return bytes;
}

static void read_all(struct bed *b, struct state *s)
{
        s->head = read_state(b, 0, 4096);
        s->tail_offset = get(s->head + 56, 8);
        s->tail_bytes = get(s->head + 24, 8) - s->tail_offset;
        s->tail = read_state(b, s->tail_offset, s->tail_bytes);
        s->table_at = get(s->head + 80, 8) - s->tail_offset;
        s->section_count = (uint32_t) get(s->head + 76, 4);
        g_assert_cmpuint(get(s->head + 104, 8), ==, 0);
}

/* ---- Changes ------------------------------------------------------------------------ */

static uint64_t hurting_value(uint64_t old)
{
        static const uint64_t values[] = {
                0, 1, 2, 7, 8, 63, 64, 4095, 4096, 4097, 1 << 20, 2 << 20, 0x7fffffff, 0x80000000,
                0xffffffff, UINT64_C(1) << 32, UINT64_C(1) << 62, INT64_MAX, UINT64_MAX - 4095,
                UINT64_MAX,
        };
        uint64_t value = values[g_test_rand_int_range(0, G_N_ELEMENTS(values))];

        switch (g_test_rand_int_range(0, 4)) {
        case 0:
                return old + value;
        case 1:
                return old - value;
        default:
                return value;
        }
}

static void change_bytes(uint8_t *bytes, size_t count)
{
        size_t at = (size_t) g_test_rand_int_range(0, (gint32) count);

        if (g_test_rand_bit()) {
                bytes[at] ^= (uint8_t) (1u << g_test_rand_int_range(0, 8));
        } else {
                unsigned width = g_test_rand_bit() ? 8 : 4;

                at = at / width * width;
                if (at + width <= count)
                        put(bytes + at, width, hurting_value(get(bytes + at, width)));
        }
}

static void change(struct state *s)
{
        size_t table_bytes = (size_t) s->section_count * 64;

        switch (g_test_rand_int_range(0, 4)) {
        case 0:
                change_bytes(s->head, HEAD_BYTES);
                break;
        case 1:
                change_bytes(s->tail + s->table_at, table_bytes);
                break;
        case 2:
                change_bytes(s->tail + s->table_at + table_bytes,
                             s->tail_bytes - s->table_at - table_bytes);
                break;
        default:
                change_bytes(s->tail, s->table_at);
        }
}

/* What was changed counts as meant. */
static void seal(struct state *s)
{
        uint64_t header_bytes = get(s->head + 16, 4);
        uint8_t *table = s->tail + s->table_at;

        for (uint32_t i = 0; i < s->section_count; i++) {
                uint64_t at = get(table + i * 64 + 48, 8) - s->tail_offset;
                uint64_t bytes = get(table + i * 64 + 56, 8);

                if (at <= s->tail_bytes && bytes <= s->tail_bytes - at)
                        put(table + i * 64 + 44, 4, vm_state_sum(s->tail + at, bytes));
        }
        put(s->head + 72, 4, vm_state_sum(s->tail, get(s->head + 64, 8) <= s->tail_bytes ?
                                          get(s->head + 64, 8) : 0));
        put(s->head + 92, 4, vm_state_sum(table, (size_t) s->section_count * 64));
        put(s->head + 20, 4, 0);
        if (header_bytes <= 4096)
                put(s->head + 20, 4, vm_state_sum(s->head, header_bytes));
}

/* ---- Judgement ---------------------------------------------------------------------- */

/* Returns true if it was taken. */
static bool try_state(struct bed *b, const struct state *s)
{
        const struct fed_piece pieces[] = {
                { 0, s->head, 4096 }, { s->tail_offset, s->tail, s->tail_bytes },
        };
        uint32_t sum = fake_sum(b->m);
        int ret;

        faulty_feed(pieces, G_N_ELEMENTS(pieces));
        b->eager = g_test_rand_bit();
        ret = bed_load(b, "a");
        if (ret == 0)
                ret = bed_wait_loaded(b);
        faulty_feed(NULL, 0);
        if (ret == 0)
                return true;
        g_assert_cmpint(b->err.code, ==, ret);
        g_assert_cmpuint(strlen(b->err.text), >, 10);
        if (machine_run_state(b->m) != RUN_STATE_INTERNAL_ERROR) {
                g_assert_true(ret == -EINVAL || ret == -ENOTSUP);
                g_assert_cmpuint(fake_sum(b->m), ==, sum);
                return false;
        }
        /* A page that should be stored and is not; found while RAM is read. */
        g_assert_cmpint(ret, ==, -EIO);
        g_assert_nonnull(strstr(fake_failure(b->m), "RAM page"));
        return true;
}

static void test_hostile(void)
{
        const char *seconds = g_getenv("TEST_SECONDS");
        gint64 until = g_get_monotonic_time() +
                (seconds ? atoi(seconds) : 0) * G_TIME_SPAN_SECOND;
        unsigned taken = 0;
        unsigned tries;
        struct state good;
        struct bed b;

        bed_open(&b, 1, BED_RAM_BYTES);
        memset(machine_memory(b.m)->ram, 0, BED_RAM_BYTES);
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        read_all(&b, &good);
        g_assert_true(try_state(&b, &good));
        for (tries = 0; tries < TRIES || g_get_monotonic_time() < until; tries++) {
                struct state s = good;
                int changes = g_test_rand_int_range(1, MAX_CHANGES + 1);

                s.head = g_memdup2(good.head, 4096);
                s.tail = g_memdup2(good.tail, good.tail_bytes);
                while (changes-- > 0)
                        change(&s);
                if (g_test_rand_bit())
                        seal(&s);
                if (try_state(&b, &s)) {
                        taken++;
                        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
                }
                g_free(s.head);
                g_free(s.tail);
        }
        g_test_message("%u VM states, %u taken or found out in RAM", tries, taken);
        g_assert_cmpuint(taken, <, tries / 4);
        bed_expect_list(&b, "a");
        bed_expect_clean(&b);
        free(good.head);
        free(good.tail);
        bed_close(&b);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/vm/hostile", test_hostile);
        return g_test_run();
}
