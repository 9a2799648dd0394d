/*
 * work.c - CPU work on other threads.
 *
 * A work goes to a worker, runs there, and comes back by the loop's queue of
 * finished works.  With inline_work (tests) it takes the same queue but is run
 * by the loop when it is taken in, so that everything happens in one order.
 *
 * Invariants:
 *  1. Between work_await's first call and works_reap, a work is the worker's.
 *  2. Who makes the finished queue non-empty notifies the loop; who takes from
 *     it takes all.  So no work can lie there unannounced.
 *
 * SPDX-License-Identifier: MIT
 */
#include "async/work.h"

#include "async/co.h"
#include "async/crew.h"

/* Inflating clusters for one disk does not gain from more. */
enum { WORKERS_MAX = 8 };

/* On a worker, or on the loop's thread where there is none. */
static void hand_back(struct loop *loop, struct work *work)
{
        bool first;

        pthread_mutex_lock(&loop->finished_lock);
        first = g_queue_is_empty(&loop->finished);
        work->link = (GList) { .data = work };
        g_queue_push_tail_link(&loop->finished, &work->link);
        pthread_mutex_unlock(&loop->finished_lock);

        if (first)
                loop_notify(loop);
}

static void worker_run(void *item, void *opaque)
{
        struct work *work = item;

        work->result = work->run(work);
        hand_back(opaque, work);
}

/* False: there are no workers and the loop has to do it. */
static bool workers_available(struct loop *loop)
{
        if (loop->inline_work)
                return false;
        if (loop->workers == NULL)
                loop->workers = crew_new(MIN(g_get_num_processors(), WORKERS_MAX),
                                         "hvb-work", worker_run, loop);
        /* Not even one thread to be had: better slow than not at all. */
        loop->inline_work = loop->workers == NULL;
        return !loop->inline_work;
}

static void work_start(struct loop *loop, struct work *work)
{
        work->loop = loop;
        work->state = WORK_RUNNING;
        loop->work_count++;
        work->link = (GList) { .data = work };
        if (workers_available(loop))
                crew_push(loop->workers, &work->link);
        else
                hand_back(loop, work);
}

int work_await(struct loop *loop, struct work *work)
{
        if (work->state == WORK_DONE) {
                work->state = WORK_IDLE;
                return work->result;
        }
        work->waiter = task_current();
        if (work->state == WORK_IDLE)
                work_start(loop, work);
        return CO_PENDING;
}

bool works_reap(struct loop *loop)
{
        GQueue taken = G_QUEUE_INIT;
        GList *link;

        if (loop->work_count == 0)
                return false;

        pthread_mutex_lock(&loop->finished_lock);
        taken = loop->finished;
        g_queue_init(&loop->finished);
        pthread_mutex_unlock(&loop->finished_lock);

        if (g_queue_is_empty(&taken))
                return false;
        while ((link = g_queue_pop_head_link(&taken)) != NULL) {
                struct work *work = link->data;

                if (loop->inline_work)
                        work->result = work->run(work);
                g_assert(work->result <= 0);
                g_assert(loop->work_count > 0);
                loop->work_count--;
                work->state = WORK_DONE;
                task_wake(work->waiter);
        }
        return true;
}

bool works_finished(struct loop *loop)
{
        bool finished;

        if (loop->work_count == 0)
                return false;
        pthread_mutex_lock(&loop->finished_lock);
        finished = !g_queue_is_empty(&loop->finished);
        pthread_mutex_unlock(&loop->finished_lock);
        return finished;
}

void works_stop(struct loop *loop)
{
        g_assert(loop->work_count == 0);
        if (loop->workers != NULL)
                crew_free(loop->workers);
        loop->workers = NULL;
}
