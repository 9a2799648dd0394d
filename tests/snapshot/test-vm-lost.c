/*
 * test-vm-lost.c - RAM that is being loaded cannot be read, or is not wanted any more.
 *
 * Reads of the VM state are held where that has to happen at a certain time.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/faulty-driver.h"
#include "snapshot/machine-bed.h"
#include "snapshot/ram-lazy.h"
#include "snapshot/vm-state.h"

#define RAM_BYTES (UINT64_C(8) << 20)

/* Half of what the guest writes to. */
#define HELD_BEGIN (VM_STATE_RAM_OFFSET + RAM_BYTES / 4)
#define HELD_END (VM_STATE_RAM_OFFSET + RAM_BYTES / 2)

/* A machine with a snapshot "a", paused. */
static void open_saved(struct bed *b)
{
        bed_open(b, 1, RAM_BYTES);
        fake_run_steps(b->m, 2000);
        g_assert_cmpint(bed_save(b, "a", false), ==, 0);
        fake_stop(b->m);
}

static void expect_sound(struct bed *b)
{
        g_assert_cmpint(bed_load(b, "a"), ==, 0);
        g_assert_cmpint(machine_run_state(b->m), ==, RUN_STATE_PAUSED);
        g_assert_true(fake_verify(b->m));
        g_assert_cmpint(bed_wait_loaded(b), ==, 0);
}

/* ---- The VM state's disk waits, too ---------------------------------------------------- */

static int call_touch(struct drive *drive, void *opaque)
{
        const struct guest_memory *memory = opaque;

        (void) drive;
        return guest_memory_touch(memory, memory->ram, memory->ram_bytes, false) ? 0 : -EIO;
}

static gpointer touch_all(gpointer opaque)
{
        struct machine *m = opaque;
        unsigned count;

        return GINT_TO_POINTER(drive_thread_call(machine_disks(m, &count)[0].thread, call_touch,
                                                 machine_memory(m)));
}

/* The guest has gone on already, and its disk is about to read all of RAM: both stop, and nothing
 * that was written since counts. */
static void test_unreadable(gconstpointer disk_waits)
{
        unsigned calls;
        struct bed b;

        open_saved(&b);
        faulty_set(FAULT_NONE, 0);
        g_assert_cmpint(bed_load(&b, "a"), ==, 0);
        g_assert_cmpint(bed_wait_loaded(&b), ==, 0);
        calls = faulty_calls();
        for (unsigned from_end = 0; from_end < 40; from_end += 13) {
                const struct guest_memory *memory = machine_memory(b.m);
                GThread *disk = NULL;

                fake_cont(b.m);
                faulty_set(FAULT_ERROR, calls - from_end);
                g_assert_cmpint(bed_load(&b, "a"), ==, 0);
                if (disk_waits != NULL)
                        disk = g_thread_new("touch", touch_all, b.m);
                g_assert_cmpint(bed_wait_loaded(&b), ==, -EIO);
                faulty_set(FAULT_NONE, 0);
                if (disk != NULL)
                        g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(disk)), ==, -EIO);
                g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_INTERNAL_ERROR);
                g_assert_nonnull(strstr(fake_failure(b.m), "only loadvm and system_reset"));
                g_assert_false(guest_memory_touch(memory, memory->ram, 1, false));
                g_assert_cmpint(bed_save(&b, "b", false), ==, -EPERM);
                expect_sound(&b);
        }
        bed_expect_list(&b, "a");
        bed_expect_clean(&b);
        bed_close(&b);
}

/* ---- Not wanted any more --------------------------------------------------------------- */

/* A load that has a read before it which is going to fail. */
static void load_held(struct bed *b)
{
        faulty_hold_loads(HELD_BEGIN, HELD_END);
        g_assert_cmpint(bed_load(b, "a"), ==, 0);
        g_assert_cmpint(machine_run_state(b->m), ==, RUN_STATE_PAUSED);
}

static void fail_held(void)
{
        faulty_set(FAULT_ERROR, 1);
        faulty_hold_loads(0, 0);
}

/* A reset: what was not there is zeros, can be saved, and nothing fails. */
static void test_reset(void)
{
        const struct guest_memory *memory;
        uint32_t sum;
        struct bed b;

        open_saved(&b);
        load_held(&b);
        memory = machine_memory(b.m);
        guest_memory_renew(memory);
        fail_held();
        g_assert_cmpint(bed_wait_loaded(&b), ==, 0);
        faulty_set(FAULT_NONE, 0);
        g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_PAUSED);
        g_assert_cmpint(bed_save(&b, "b", false), ==, 0);
        g_assert_true(guest_memory_touch(memory, memory->ram, memory->ram_bytes, true));
        sum = fake_sum(b.m);
        g_assert_cmpint(bed_load(&b, "b"), ==, 0);
        g_assert_cmpuint(fake_sum(b.m), ==, sum);
        expect_sound(&b);
        bed_expect_clean(&b);
        bed_close(&b);
}

/* The last that the old RAM's load can do: the machine is paused for the next one. */
static void fail_old(struct machine *m)
{
        struct vm_job job = { .cancelled = 0 };
        struct hvb_error err = ERROR_INIT;

        fail_held();
        ram_lazy_wait(ram_guard_of(machine_memory(m)), &job, &err);
        faulty_set(FAULT_NONE, 0);
}

/* Another load: it is not the one that fails. */
static void test_load_again(void)
{
        struct bed b;

        open_saved(&b);
        load_held(&b);
        fake_on_swap(b.m, fail_old);
        expect_sound(&b);
        fake_on_swap(b.m, NULL);
        bed_expect_clean(&b);
        bed_close(&b);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_data_func("/vm-lost/unreadable", NULL, test_unreadable);
        g_test_add_data_func("/vm-lost/unreadable/disk-waits", GINT_TO_POINTER(1),
                             test_unreadable);
        g_test_add_func("/vm-lost/reset", test_reset);
        g_test_add_func("/vm-lost/load-again", test_load_again);
        return g_test_run();
}
