/*
 * bench-pause.c - how long a guest stands still for savevm and loadvm of much RAM.
 *
 *   bench-pause IMAGE MIB small|huge     MIB of RAM in use, of a machine with a quarter more,
 *                                        in pages of that size
 *
 * IMAGE is made.  The guest writes to its disk and to a hundredth of RAM all the time.  Prints
 * lines of a name and a number: milliseconds that vcpus were stopped (pause), the longest time
 * between two steps of the guest (stall), seconds that all took, and what a second savevm
 * wrote, in percent of the first, when 5 % of RAM had changed in between.  And milliseconds until
 * the guest has read its working set, a twentieth of RAM strewn all over it, behind loadvm: the
 * first of a snapshot (loadvm-touch), and the next, which knows what was wanted
 * (loadvm-again-touch).
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/full-ram.h"
#include "host/error.h"
#include "snapshot/ram-lazy.h"
#include "snapshot/vm-snapshot.h"

enum { STEPS_BETWEEN = 200, STREWN = 20 };

/* Returns the bytes that were written. */
static uint64_t run(struct machine *m, const char *name, const char *tag,
                    int (*operation)(struct machine *m, const struct vm_snapshot_options *options,
                                     struct vm_job *job, struct hvb_error *err))
{
        struct vm_snapshot_options options = { .tag = tag };
        struct vm_job job = { .cancelled = 0 };
        struct hvb_error err = ERROR_INIT;
        gint64 began;

        fake_run_steps(m, STEPS_BETWEEN);
        fake_take_longest_usec(m);
        began = g_get_monotonic_time();
        if (operation(m, &options, &job, &err) < 0)
                g_error("%s: %s", name, err.text);
        printf("%s-total %.3f\n", name, (double) (g_get_monotonic_time() - began) / 1e6);
        printf("%s-pause %.3f\n", name, (double) job.pause_nsec / 1e6);
        fake_run_steps(m, STEPS_BETWEEN);
        printf("%s-stall %.3f\n", name, (double) fake_take_longest_usec(m) / 1e3);
        return job.written_bytes;
}

/* One byte of every 20th unit, in an order that is always the same. */
static double touch_msec(struct machine *m, uint64_t bytes)
{
        const volatile uint8_t *ram = machine_memory(m)->ram;
        uint64_t count = bytes / RAM_UNIT_BYTES / STREWN;
        gint64 began = g_get_monotonic_time();

        for (uint64_t i = 0; i < count; i++)
                (void) ram[i * 7919 % count * STREWN * RAM_UNIT_BYTES];
        return (double) (g_get_monotonic_time() - began) / 1e3;
}

static void load(struct machine *m, const char *name, uint64_t bytes)
{
        struct vm_snapshot_options options = { .tag = "a" };
        struct vm_job job = { .cancelled = 0 };
        struct hvb_error err = ERROR_INIT;

        if (vm_loadvm(m, &options, &job, &err) < 0)
                g_error("%s: %s", name, err.text);
        printf("%s-touch %.3f\n", name, touch_msec(m, bytes));
        if (ram_lazy_wait(ram_guard_of(machine_memory(m)), &job, &err) < 0)
                g_error("%s: %s", name, err.text);
}

int main(int argc, char **argv)
{
        struct vm_job job = { .cancelled = 0 };
        struct fake_disk_options disk = { 0 };
        struct hvb_error err = ERROR_INIT;
        uint64_t bytes, first, second;
        struct machine *m;
        gint64 began;

        if (argc != 4) {
                fprintf(stderr, "usage: bench-pause IMAGE MIB small|huge\n");
                return 2;
        }
        disk.path = argv[1];
        bytes = strtoull(argv[2], NULL, 10) << 20;
        if (strcmp(argv[3], "small") == 0)
                fake_use_small_pages();
        make_image(disk.path);
        m = fake_new((bytes + bytes / 4) >> 20 << 20, &disk, 1);
        fake_limit_pages(m, bytes / 100 / GUEST_PAGE_BYTES);
        fill_ram(m, bytes, 0);
        fake_cont(m);
        first = run(m, "savevm", "a", vm_savevm);
        fake_stop(m);
        fill_ram(m, bytes / 20, 1);
        fake_cont(m);
        second = run(m, "savevm-again", "b", vm_savevm);
        printf("savevm-again-bytes %.2f\n", 100.0 * (double) second / (double) first);
        began = g_get_monotonic_time();
        run(m, "loadvm", "a", vm_loadvm);
        if (ram_guard_of(machine_memory(m)) == NULL ||
            ram_lazy_wait(ram_guard_of(machine_memory(m)), &job, &err) < 0)
                g_error("loadvm: %s", err.text);
        printf("loadvm-whole %.3f\n", (double) (g_get_monotonic_time() - began) / 1e6);
        fake_stop(m);
        load(m, "loadvm", bytes);
        load(m, "loadvm-again", bytes);
        fake_free(m);
        return 0;
}
