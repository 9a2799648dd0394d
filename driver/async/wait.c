/*
 * wait.c - tasks that wait for each other: queues, locks, gates.
 *
 * A waiter is handed what it waits for: waking takes it off the queue and marks
 * it WOKEN, and the next call of the leaf collects that.  So nobody can overtake
 * a waiter that was woken but has not run yet.
 *
 * Invariants:
 *  1. A waiter is QUEUED exactly while it is in a queue; once WOKEN, a cancel
 *     does not take back what it was given.
 *  2. A lock that is not held has an empty queue.
 *  3. gate->closer is the one who closed it and still waits for it to empty.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "async/co.h"
#include "async/loop.h"

static int enqueue(struct waitq *q, struct waiter *w)
{
        w->task = task_current();
        w->link = (GList) { .data = w };
        w->state = WAITER_QUEUED;
        g_queue_push_tail_link(&q->waiters, &w->link);
        return CO_PENDING;
}

static void dequeue(struct waitq *q, struct waiter *w)
{
        g_assert(w->state == WAITER_QUEUED);
        g_queue_unlink(&q->waiters, &w->link);
        w->state = WAITER_IDLE;
}

int waitq_wait(struct waitq *q, struct waiter *w)
{
        struct task *task = task_current();

        if (w->state == WAITER_WOKEN) {
                w->state = WAITER_IDLE;
                return 0;
        }
        if (task_is_cancelled(task)) {
                if (w->state == WAITER_QUEUED)
                        dequeue(q, w);
                return -ECANCELED;
        }
        if (w->state == WAITER_IDLE)
                return enqueue(q, w);
        g_assert(w->task == task);
        return CO_PENDING;
}

void waitq_wake_one(struct waitq *q)
{
        struct waiter *w;

        if (g_queue_is_empty(&q->waiters))
                return;
        w = g_queue_peek_head(&q->waiters);
        dequeue(q, w);
        w->state = WAITER_WOKEN;
        task_wake(w->task);
}

void waitq_wake_all(struct waitq *q)
{
        while (!g_queue_is_empty(&q->waiters))
                waitq_wake_one(q);
}

int co_lock_acquire(struct co_lock *lock, struct waiter *w)
{
        if (lock->held || w->state != WAITER_IDLE)
                return waitq_wait(&lock->queue, w);
        if (task_is_cancelled(task_current()))
                return -ECANCELED;
        g_assert(g_queue_is_empty(&lock->queue.waiters));
        lock->held = true;
        return 0;
}

void co_lock_release(struct co_lock *lock)
{
        g_assert(lock->held);

        if (g_queue_is_empty(&lock->queue.waiters))
                lock->held = false;
        else
                waitq_wake_one(&lock->queue);   /* held goes over to it */
}

bool gate_try_enter(struct gate *gate)
{
        if (gate->closed)
                return false;
        gate->inside++;
        return true;
}

/* Waits until the gate has been seen open.  A woken waiter may find it closed
 * again, and queues once more. */
static int gate_wait_open(struct gate *gate, struct waiter *w)
{
        int ret;

        do {
                ret = waitq_wait(&gate->outside, w);
        } while (ret == 0 && gate->closed);
        return ret;
}

int gate_enter(struct gate *gate, struct waiter *w)
{
        int ret;

        if (gate->closed || w->state != WAITER_IDLE) {
                ret = gate_wait_open(gate, w);
                if (ret != 0)
                        return ret;
        } else if (task_is_cancelled(task_current())) {
                return -ECANCELED;
        }
        g_assert(!gate->closed);
        gate->inside++;
        return 0;
}

void gate_leave(struct gate *gate)
{
        g_assert(gate->inside > 0);

        gate->inside--;
        if (gate->inside == 0 && gate->closed)
                waitq_wake_one(&gate->emptying);
}

/* The gate is ours and closed: wait for the last one inside. */
static int gate_wait_empty(struct gate *gate, struct waiter *w)
{
        int ret = 0;

        g_assert(gate->closed && gate->closer == w);
        if (gate->inside > 0 || w->state != WAITER_IDLE)
                ret = waitq_wait(&gate->emptying, w);
        if (ret == CO_PENDING)
                return ret;
        gate->closer = NULL;
        if (ret < 0)
                gate_open(gate);
        g_assert(ret < 0 || gate->inside == 0);
        return ret;
}

int gate_close(struct gate *gate, struct waiter *w)
{
        int ret;

        if (gate->closer == w)
                return gate_wait_empty(gate, w);
        if (gate->closed || w->state != WAITER_IDLE) {
                ret = gate_wait_open(gate, w);
                if (ret != 0)
                        return ret;
        } else if (task_is_cancelled(task_current())) {
                return -ECANCELED;
        }
        gate->closed = true;
        gate->closer = w;
        return gate_wait_empty(gate, w);
}

void gate_open(struct gate *gate)
{
        g_assert(gate->closed && gate->closer == NULL);

        gate->closed = false;
        waitq_wake_all(&gate->outside);
}
