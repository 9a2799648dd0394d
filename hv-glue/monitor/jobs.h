/*
 * jobs.h - savevm, loadvm, delvm and backups in the background.
 *
 * One runs at a time, the others wait in their order; backups wait only for each other.  A
 * job with an id is QMP's: it is listed, its states are told, and it stays when it has ended
 * until it is dismissed.  One without is HMP's and goes when it has ended.
 *
 *   CREATED  -its turn-> RUNNING  -0-> WAITING -> PENDING -> CONCLUDED  -dismiss-> NULL
 *   CREATED/RUNNING  -error or cancelled->  ABORTING -> CONCLUDED
 *
 * All functions are the main thread's.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_JOBS_H
#define MONITOR_JOBS_H

#include <glib.h>

#include "monitor/tasks.h"
#include "snapshot/vm-snapshot.h"

enum { JOBS_MAX = 1000 };           /* with an id, concluded ones included */

enum job_kind { JOB_SAVE, JOB_LOAD, JOB_DELETE, JOB_BACKUP };

enum job_status {
        JOB_CREATED, JOB_RUNNING, JOB_WAITING, JOB_PENDING, JOB_ABORTING, JOB_CONCLUDED, JOB_NULL,
};

/* Strings are copied. */
struct job_request {
        enum job_kind kind;
        const char *id;                 /* NULL: HMP's */
        const char *tag;                /* NULL: savevm finds one */
        bool replace;
        const char *vmstate_disk;       /* these two as in struct vm_snapshot_options */
        const char *const *disks;
        const char *disk, *target, *format;     /* JOB_BACKUP: as in struct vm_backup_options */
        void (*done)(void *opaque);     /* concluded: the last moment of one without id */
        void *opaque;
};

struct job {
        struct task task;
        struct jobs *jobs;
        struct job_request request;
        enum job_status status;
        struct vm_job progress;         /* shared with the worker: see job_bytes */
        gint64 begin_usec;              /* its turn; 0: has not come */
        int result;                     /* when concluded: 0 or -errno, err filled */
        struct hvb_error err;
};

/* What is left of a job that has ended. */
struct job_report {
        enum job_kind kind;
        int result;                     /* 0 or -errno */
        uint64_t usec;                  /* from its turn to its end */
        struct vm_job progress;
};

struct jobs;

/* changed is told of each new status of jobs that have an id. */
struct jobs *jobs_new(struct machine *machine, struct tasks *tasks,
                      void (*changed)(void *opaque, const struct job *job), void *opaque);
/* How loads are made: see struct vm_snapshot_options. */
void jobs_set_eager(struct jobs *jobs, bool eager);
/* After tasks_free. */
void jobs_free(struct jobs *jobs);

/* NULL with err filled: the id is no id, or in use. */
struct job *jobs_start(struct jobs *jobs, const struct job_request *request,
                       struct hvb_error *err);
/* Only those with an id; the newest first. */
const GPtrArray *jobs_list(const struct jobs *jobs);
/* Those at work, in the order of their start, and what ended last, whoever's they are; or NULL. */
const struct job *jobs_running(const struct jobs *jobs, unsigned index);
const struct job_report *jobs_last(const struct jobs *jobs);
/* 0, -ENOENT, or -EBUSY (not in this status), with err, which must not be NULL, filled. */
int jobs_cancel(struct jobs *jobs, const char *id, struct hvb_error *err);
int jobs_dismiss(struct jobs *jobs, const char *id, struct hvb_error *err);
/* All of that kind, of whomever, that have not ended.  Returns how many. */
unsigned jobs_cancel_kind(struct jobs *jobs, enum job_kind kind);
void jobs_cancel_all(struct jobs *jobs);

void job_cancel(struct job *job);
void job_bytes(const struct job *job, uint64_t *ret_done, uint64_t *ret_total);
const char *job_kind_name(enum job_kind kind);          /* "snapshot-save", ... */
const char *job_status_name(enum job_status status);    /* "created", ... */

#endif
