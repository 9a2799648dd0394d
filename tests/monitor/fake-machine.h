/*
 * fake-machine.h - a machine that does what a test tells it, and vm_savevm() and its sisters.
 *
 * No KVM, no guest: run states, disks that are real images on their own threads, and
 * jobs that wait, count, fail or end as told.  What was asked of it stands in a log.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_FAKE_MACHINE_H
#define MONITOR_FAKE_MACHINE_H

#include <pthread.h>

#include "monitor/monitor.h"
#include "snapshot/vm-snapshot.h"

enum { FAKE_DISKS = 2, FAKE_DISK_BYTES = 64 << 20 };

struct machine {
        pthread_mutex_t lock;
        pthread_cond_t changed;
        enum run_state state;
        struct machine_disk disks[FAKE_DISKS];
        unsigned disk_count;
        char *directory;
        struct monitors *monitors;      /* told of run states, as hv does; may be NULL */
        GQueue untold;                  /* run states that the loop has yet to tell */

        /* The script.  A held call waits until released; a job also until cancelled. */
        bool hold_jobs, hold_machine;
        unsigned held;                  /* calls that wait now */
        int job_result;                 /* of jobs: -errno, with job_text */
        const char *job_text;
        int machine_result;             /* of stop, cont, reset */
        const char *machine_text;
        GPtrArray *rows;                /* what vm_snapshots lists; NULL: it fails */
        GString *log;                   /* a line for each call */
};

/* Makes disk_count images "virtio0", ... of FAKE_DISK_BYTES, or opens paths instead. */
struct machine *fake_machine_new(unsigned disk_count, const char *const *paths);
void fake_machine_free(struct machine *machine);

/* From the test's thread. */
void fake_hold(struct machine *machine, bool jobs, bool machine_calls);
void fake_release(struct machine *machine);
unsigned fake_held(struct machine *machine);
/* The log so far, which is emptied.  g_free. */
char *fake_take_log(struct machine *machine);
/* A row of vm_snapshots; disk_id: of a partial one, or NULL. */
void fake_add_row(struct machine *machine, const struct hvb_snapshot_info *info,
                  const char *disk_id);

#endif
