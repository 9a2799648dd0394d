/*
 * test-touch-record.c - what a guest wants first after a loadvm is noted, and read first.
 *
 * The machine stays paused, so that nobody touches its RAM but the test.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "snapshot/disk-snapshot.h"
#include "snapshot/faulty-driver.h"
#include "snapshot/machine-bed.h"
#include "snapshot/ram-guard.h"
#include "snapshot/touch-record.h"
#include "snapshot/vm-state.h"

#define RAM_BYTES (UINT64_C(8) << 20)

enum { TRIES = 100 };

/* ---- Bytes ----------------------------------------------------------------------------- */

static GArray *units_new(guint count, uint32_t first)
{
        GArray *units = g_array_new(FALSE, FALSE, sizeof(uint32_t));

        for (uint32_t unit = first; unit < first + count; unit++)
                g_array_append_val(units, unit);
        return units;
}

static void expect_units(const GArray *units, const GArray *expected)
{
        g_assert_cmpmem(units->data, (size_t) units->len * 4, expected->data,
                        (size_t) expected->len * 4);
}

static void test_bytes(void)
{
        g_autofree uint8_t *bytes = g_malloc(TOUCH_RECORD_BYTES);

        for (guint count = 0; count <= TOUCH_RECORD_UNITS; count = count * 2 + 1) {
                g_autoptr(GArray) units = units_new(MIN(count, TOUCH_RECORD_UNITS), 0xfffffff0);
                g_autoptr(GArray) decoded = NULL;

                touch_record_encode(units, bytes);
                decoded = touch_record_decode(bytes);
                expect_units(decoded, units);
        }
}

static bool is_of_another_kind(size_t at)
{
        return at < 8 || (at >= 12 && at < 16);
}

/* Every byte counts, what is free as well. */
static void test_damage(void)
{
        g_autoptr(GArray) units = units_new(1000, 7);
        g_autofree uint8_t *bytes = g_malloc(TOUCH_RECORD_BYTES);

        touch_record_encode(units, bytes);
        for (size_t at = 0; at < TOUCH_RECORD_BYTES; at += at < 64 ? 1 : 997) {
                g_autoptr(GArray) decoded = NULL;

                bytes[at] ^= 0x10;
                decoded = touch_record_decode(bytes);
                g_assert_true((decoded == NULL) == is_of_another_kind(at));
                g_assert_true(decoded == NULL || decoded->len == 0);
                bytes[at] ^= 0x10;
        }
        memset(bytes, 0xff, TOUCH_RECORD_BYTES);
        g_assert_null(touch_record_decode(bytes));
}

static void test_merge(void)
{
        static const uint32_t fresh_units[] = { 30, 9, 7, 31 };
        static const uint32_t merged[] = { 9, 7, 8, 10, 30, 31 };
        g_autoptr(GArray) fresh = units_new(0, 0);
        g_autoptr(GArray) old = units_new(4, 7);
        g_autoptr(GArray) many = units_new(TOUCH_RECORD_UNITS, 9);
        g_autoptr(GArray) both = NULL;
        g_autoptr(GArray) full = NULL;

        g_array_append_vals(fresh, fresh_units, G_N_ELEMENTS(fresh_units));
        both = touch_record_merge(old, fresh);
        g_assert_cmpmem(both->data, (size_t) both->len * 4, merged, sizeof(merged));
        full = touch_record_merge(many, old);
        g_assert_cmpuint(full->len, ==, TOUCH_RECORD_UNITS);
        g_assert_cmpuint(g_array_index(full, uint32_t, 0), ==, 9);
        g_assert_cmpuint(g_array_index(full, uint32_t, 2), ==, 11);
        g_assert_cmpuint(g_array_index(full, uint32_t, TOUCH_RECORD_UNITS - 1), ==,
                         TOUCH_RECORD_UNITS + 8);
}

/* ---- The record of a snapshot ------------------------------------------------------------ */

static struct hvb_snapshot *snapshot_of(struct bed *b, uint64_t *ret_touch_offset)
{
        struct drive_thread *thread = machine_disks(b->m, &(unsigned) { 0 })->thread;
        struct hvb_snapshot_info info;
        struct hvb_snapshot *snapshot;

        g_assert_cmpint(disk_snapshot_open(thread, NULL, "a", &info, &snapshot, &b->err), ==, 0);
        *ret_touch_offset = (info.vm_state_bytes + VM_STATE_ALIGNMENT - 1) / VM_STATE_ALIGNMENT *
                            VM_STATE_ALIGNMENT;
        return snapshot;
}

static uint8_t *record_bytes(void)
{
        return g_aligned_alloc0(1, TOUCH_RECORD_BYTES, 4096);
}

static GArray *read_record(struct bed *b)
{
        struct drive_thread *thread = machine_disks(b->m, &(unsigned) { 0 })->thread;
        uint64_t offset;
        struct hvb_snapshot *snapshot = snapshot_of(b, &offset);
        uint8_t *bytes = record_bytes();
        GArray *units;

        g_assert_cmpint(disk_snapshot_read(thread, snapshot, offset, bytes, TOUCH_RECORD_BYTES,
                                           HVB_REQ_VMSTATE), ==, 0);
        units = touch_record_decode(bytes);
        g_assert_nonnull(units);
        g_aligned_free(bytes);
        disk_snapshot_close(thread, snapshot);
        return units;
}

static void write_record(struct bed *b, const uint8_t *bytes)
{
        struct drive_thread *thread = machine_disks(b->m, &(unsigned) { 0 })->thread;
        uint64_t offset;
        struct hvb_snapshot *snapshot = snapshot_of(b, &offset);

        g_assert_cmpint(disk_snapshot_note(thread, snapshot, offset, bytes, TOUCH_RECORD_BYTES),
                        ==, 0);
        disk_snapshot_close(thread, snapshot);
}

static void expect_record(struct bed *b, const uint32_t *units, guint count)
{
        g_autoptr(GArray) record = read_record(b);

        g_assert_cmpmem(record->data, (size_t) record->len * 4, units, (size_t) count * 4);
}

/* ---- Loads ------------------------------------------------------------------------------ */

/* A snapshot of a paused machine, half of whose RAM is not zero. */
static void begin(struct bed *b)
{
        bed_open(b, 1, RAM_BYTES);
        fake_run_steps(b->m, 2000);
        fake_stop(b->m);
        g_assert_cmpint(bed_save(b, "a", false), ==, 0);
        expect_record(b, NULL, 0);
}

static void end(struct bed *b)
{
        g_assert_true(fake_verify(b->m));
        bed_expect_clean(b);
        bed_close(b);
}

struct toucher {
        const struct guest_memory *memory;
        uint32_t unit;
        gint has_begun;
};

static gpointer touch(gpointer opaque)
{
        struct toucher *t = opaque;

        g_atomic_int_set(&t->has_begun, 1);
        g_assert_true(guest_memory_touch(t->memory, t->memory->ram +
                                         (uint64_t) t->unit * RAM_UNIT_BYTES, 1, false));
        return NULL;
}

static bool has_unit(const GArray *units, uint32_t unit)
{
        for (guint i = 0; i < units->len; i++)
                if (g_array_index(units, uint32_t, i) == unit)
                        return true;
        return false;
}

/* Loads while somebody wants a unit.  Whether it is wanted before it is read is a race: again,
 * until it was and is in the record. */
static void load_wanting(struct bed *b, uint32_t unit)
{
        g_autoptr(GArray) record = NULL;

        for (unsigned i = 0; i < TRIES; i++) {
                struct toucher t = { .unit = unit };
                GThread *thread;

                faulty_hold_loads(VM_STATE_RAM_OFFSET, VM_STATE_RAM_OFFSET + RAM_BYTES);
                g_assert_cmpint(bed_load(b, "a"), ==, 0);
                t.memory = machine_memory(b->m);
                thread = g_thread_new("touch", touch, &t);
                while (!g_atomic_int_get(&t.has_begun))
                        g_thread_yield();
                faulty_hold_loads(0, 0);
                g_thread_join(thread);
                g_assert_cmpint(bed_wait_loaded(b), ==, 0);
                g_clear_pointer(&record, g_array_unref);
                record = read_record(b);
                if (has_unit(record, unit))
                        return;
        }
        g_assert_not_reached();
}

/* The units that are read first. */
static void expect_order(struct bed *b, const uint32_t *units, guint count)
{
        g_autoptr(GArray) trace = g_array_new(FALSE, FALSE, sizeof(uint64_t));
        guint found = 0;

        faulty_trace_loads(trace);
        g_assert_cmpint(bed_load(b, "a"), ==, 0);
        g_assert_cmpint(bed_wait_loaded(b), ==, 0);
        faulty_trace_loads(NULL);
        for (guint i = 0; i < trace->len && found < count; i++) {
                uint64_t offset = g_array_index(trace, uint64_t, i);

                if (offset < VM_STATE_RAM_OFFSET || offset >= VM_STATE_RAM_OFFSET + RAM_BYTES)
                        continue;
                offset -= VM_STATE_RAM_OFFSET;
                g_assert_cmpuint(offset / RAM_UNIT_BYTES, ==, units[found++]);
        }
        g_assert_cmpuint(found, ==, count);
}

static void test_life(void)
{
        static const uint32_t record[] = { 7, 50, 39 };
        static const uint32_t order[] = { 7, 50, 39, 0, 1, 2 };
        struct bed b;

        begin(&b);
        expect_order(&b, order + 3, 3);
        expect_record(&b, NULL, 0);
        load_wanting(&b, 7);
        expect_record(&b, record, 1);
        load_wanting(&b, 50);
        load_wanting(&b, 39);
        expect_record(&b, record, 3);
        expect_order(&b, order, G_N_ELEMENTS(order));
        expect_record(&b, record, 3);
        bed_machine_close(&b);
        bed_machine_open(&b);
        expect_order(&b, order, G_N_ELEMENTS(order));
        g_assert_cmpint(bed_save(&b, "a", true), ==, 0);
        expect_record(&b, NULL, 0);
        end(&b);
}

/* A record is believed to be numbers, no more: twice the same, holes, those that there are not. */
static void test_hostile(void)
{
        static const uint32_t numbers[] = { 60, UINT32_MAX, 60, 128, 1u << 31, 127, 3, 60, 40 };
        static const uint32_t order[] = { 60, 3, 40, 0, 1, 2, 4 };
        g_autoptr(GArray) units = g_array_new(FALSE, FALSE, sizeof(uint32_t));
        uint8_t *bytes = record_bytes();
        struct bed b;

        begin(&b);
        g_array_append_vals(units, numbers, G_N_ELEMENTS(numbers));
        touch_record_encode(units, bytes);
        write_record(&b, bytes);
        expect_order(&b, order, G_N_ELEMENTS(order));
        bytes[TOUCH_RECORD_BYTES - 1] ^= 1;
        write_record(&b, bytes);
        expect_order(&b, order + 3, 3);
        load_wanting(&b, 3);
        g_aligned_free(bytes);
        end(&b);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/touch-record/bytes", test_bytes);
        g_test_add_func("/touch-record/damage", test_damage);
        g_test_add_func("/touch-record/merge", test_merge);
        g_test_add_func("/touch-record/life", test_life);
        g_test_add_func("/touch-record/hostile", test_hostile);
        return g_test_run();
}
