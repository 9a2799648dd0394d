/*
 * tasks.h - work that waits, done beside the main loop.
 *
 * A task begins and ends on the main thread and runs on a worker in between.  There
 * are lanes: within one, tasks run one after another in their order; a lane does not
 * wait for another.  All functions are the main thread's.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_TASKS_H
#define MONITOR_TASKS_H

#include <stdbool.h>

enum task_lane {
        TASK_LANE_MACHINE,              /* stop, cont, reset: never behind a snapshot */
        TASK_LANE_SNAPSHOTS,
        TASK_LANE_BACKUPS,
        TASK_LANE_COUNT,
};

struct task {
        void (*begin)(struct task *task);       /* its turn has come; or NULL */
        void (*run)(struct task *task);         /* on the worker */
        void (*done)(struct task *task);        /* may free it */
        enum task_lane lane;                    /* tasks_push's */
};

struct tasks;

struct tasks *tasks_new(void);
/* Lets all that were pushed run and be done. */
void tasks_free(struct tasks *tasks);

void tasks_push(struct tasks *tasks, enum task_lane lane, struct task *task);
/* Takes back one whose turn has not come; done is not called.  False: it has. */
bool tasks_remove(struct tasks *tasks, struct task *task);

#endif
