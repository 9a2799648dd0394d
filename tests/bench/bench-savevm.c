/*
 * bench-savevm.c - savevm and loadvm of much RAM, on the fake machine.
 *
 *   bench-savevm IMAGE MIB       MIB of RAM in use, of a machine with a quarter more
 *
 * IMAGE is made.  Prints seconds and MB/s of savevm, loadvm into RAM that differs, and
 * delvm.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/full-ram.h"
#include "host/error.h"
#include "snapshot/vm-snapshot.h"

static void run(struct machine *m, const char *name, uint64_t bytes,
                int (*operation)(struct machine *m, const struct vm_snapshot_options *options,
                                 struct vm_job *job, struct hvb_error *err))
{
        struct vm_snapshot_options options = {
                .tag = "bench", .replace = true, .stopped = true, .eager = true,
        };
        struct vm_job job = { .cancelled = 0 };
        struct hvb_error err = ERROR_INIT;
        gint64 began = g_get_monotonic_time();
        double seconds;

        if (operation(m, &options, &job, &err) < 0)
                g_error("%s: %s", name, err.text);
        seconds = (double) (g_get_monotonic_time() - began) / G_TIME_SPAN_SECOND;
        printf("%s\t%.3f s\t%.0f MB/s\tstopped %.3f s\n", name, seconds,
               (double) bytes / 1e6 / seconds, (double) job.pause_nsec / 1e9);
}

int main(int argc, char **argv)
{
        struct fake_disk_options disk = { 0 };
        struct machine *m;
        uint64_t bytes;

        if (argc != 3) {
                fprintf(stderr, "usage: bench-savevm IMAGE MIB\n");
                return 2;
        }
        disk.path = argv[1];
        bytes = strtoull(argv[2], NULL, 10) << 20;
        make_image(disk.path);
        m = fake_new((bytes + bytes / 4) >> 20 << 20, &disk, 1);
        fill_ram(m, bytes, 0);
        run(m, "savevm", bytes, vm_savevm);
        fill_ram(m, bytes, 1);
        run(m, "loadvm", bytes, vm_loadvm);
        run(m, "savevm again", bytes, vm_savevm);
        run(m, "delvm", bytes, vm_delvm);
        fake_free(m);
        return 0;
}
