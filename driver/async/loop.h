/*
 * loop.h - the run loop: tasks, deferred calls, waits, CPU work on other threads.
 *
 * A loop belongs to one thread and to one engine.  Everything here is called
 * from that thread, but for loop_notify.  A task is a root coroutine; completion
 * of anything queues the task, it never resumes it inline.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef ASYNC_LOOP_H
#define ASYNC_LOOP_H

#include <glib.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct crew;
struct engine;
struct loop;
struct task;
struct waiter;

/* A call made by the next loop_poll, in order of queueing.  Zeroed at start. */
struct deferred {
        GList link;
        void (*call)(struct deferred *d);
        bool queued;
};

enum { TASK_TRACE_DEPTH = 8 };

struct task_place {
        const char *file;
        unsigned line;
};

/* A root coroutine in the caller's memory. */
struct task {
        struct deferred ready;
        GList live;                             /* in loop->tasks */
        struct loop *loop;
        const char *name;
        int (*step)(struct task *task);         /* 0, -errno or CO_PENDING */
        void (*done)(struct task *task, int result);    /* may reuse or free the task */
        bool cancelled;
        unsigned shield_count;                  /* > 0: inside an undo, see task_is_cancelled */
        uint64_t *progress_done;                /* the owner's, set after task_start, or NULL */
        uint64_t *progress_total;
        unsigned trace_count;
        struct task_place trace[TASK_TRACE_DEPTH];      /* innermost first */
};

struct loop {
        struct engine *engine;                  /* owned */
        GQueue ready;                           /* of struct deferred */
        GQueue tasks;                           /* live ones, oldest first */
        unsigned io_count;                      /* I/Os in flight */
        unsigned work_count;                    /* works in flight */
        uint64_t leaks;                         /* undo steps that failed */
        struct crew *workers;                   /* NULL until the first work, or when inline */
        bool inline_work;                       /* tests: work runs on the loop's thread */
        pthread_mutex_t finished_lock;
        GQueue finished;                        /* of struct work; under finished_lock */
};

/* Takes ownership of engine.  inline_work: run works in loop_poll, in order. */
void loop_init(struct loop *loop, struct engine *engine, bool inline_work);

/* Nothing may be in flight.  Joins the workers, destroys the engine. */
void loop_clear(struct loop *loop);

/*
 * Runs what is ready, submits, reaps, until nothing is ready; waits at most
 * timeout_ms for the first event if nothing was ready (0: not, -1: for ever).
 * Returns 0 or -errno of the engine.
 */
int loop_poll(struct loop *loop, int timeout_ms);

/* Polled readable when loop_poll has something to do. */
int loop_fd(struct loop *loop);

/* Any thread: makes loop_poll return, or loop_fd readable. */
void loop_notify(struct loop *loop);

void loop_defer(struct loop *loop, struct deferred *d, void (*call)(struct deferred *d));

/* Starts a task; its first step runs in the next loop_poll. */
void task_start(struct task *task, struct loop *loop, const char *name,
                int (*step)(struct task *task), void (*done)(struct task *task, int result));

/* Steps the task in the next loop_poll.  Idempotent, harmless for spurious wakes. */
void task_wake(struct task *task);

/* Sets task->cancelled and wakes it; cancellable leaves then return -ECANCELED. */
void task_cancel(struct task *task);

/* For leaves: should this wait end with -ECANCELED?  Not inside a CO_UNDO, which
 * must be able to wait to take back what a cancelled operation did. */
bool task_is_cancelled(const struct task *task);

/* The task whose step is running; aborts when there is none. */
struct task *task_current(void);

/* How far the running task is: what it still has to do, and what it has done.  In any unit, all of
 * it in the same; what is done beyond what was expected does not count. */
void task_expect(uint64_t steps);
void task_advance(uint64_t steps);

/* Leaf: lets everything else that is ready, and the engine, have a turn.  *yielded is false at
 * first, and again afterwards. */
int task_yield(bool *yielded);

/* Calls line once for each live task: "name  file:line < file:line". */
void loop_dump(struct loop *loop, void (*line)(void *opaque, const char *text), void *opaque);

/* ---- waiting for each other ---- */

/* A place in a queue, in the waiting frame.  Zeroed at start, reusable. */
struct waiter {
        GList link;
        struct task *task;
        enum { WAITER_IDLE, WAITER_QUEUED, WAITER_WOKEN } state;
};

struct waitq {
        GQueue waiters;
};

/* Leaf: 0 once woken, CO_PENDING before, -ECANCELED if the task was cancelled. */
int waitq_wait(struct waitq *q, struct waiter *w);
void waitq_wake_one(struct waitq *q);
void waitq_wake_all(struct waitq *q);

/* A lock held across awaits, handed over in order of arrival. */
struct co_lock {
        bool held;
        struct waitq queue;
};

int co_lock_acquire(struct co_lock *lock, struct waiter *w);    /* leaf */
void co_lock_release(struct co_lock *lock);

/*
 * A gate lets many in until somebody closes it; close waits until all who are
 * inside have left.  One closer at a time; a second waits for the first's open.
 * If closing is cancelled the gate is open again.
 */
struct gate {
        bool closed;
        unsigned inside;
        struct waiter *closer;                  /* whose close waits for inside == 0, or NULL */
        struct waitq outside;                   /* wait for open */
        struct waitq emptying;                  /* the closer waits for inside == 0 */
};

bool gate_try_enter(struct gate *gate);                         /* false: closed */
int gate_enter(struct gate *gate, struct waiter *w);            /* leaf */
void gate_leave(struct gate *gate);
int gate_close(struct gate *gate, struct waiter *w);            /* leaf */
void gate_open(struct gate *gate);

/* ---- CPU work on other threads ---- */

struct work {
        GList link;
        struct loop *loop;
        int (*run)(struct work *work);          /* on a worker; touches only what work owns */
        struct task *waiter;
        enum { WORK_IDLE, WORK_RUNNING, WORK_DONE } state;
        int result;
};

/* Leaf: first call starts work->run (set by the caller), later ones poll.  Not
 * cancellable.  Returns what run returned (0 or -errno), or CO_PENDING. */
int work_await(struct loop *loop, struct work *work);

#endif
