/*
 * loop.c - the run loop.
 *
 * A round of loop_poll takes in finished works, makes the deferred calls that
 * were queued when the round began, and lets the engine submit and complete.
 * Rounds follow each other until one finds nothing to do.  A task's step is such
 * a deferred call; so a wake is cheap, idempotent, and never runs anything inline.
 *
 * Invariants:
 *  1. The loop sleeps only in a round before which nothing was ready.
 *  2. When loop_poll returns, everything left will make loop_fd readable.  That
 *     includes a loop that was cut short because its callbacks never ran dry.
 *  3. A task that is done is in no queue: its memory is the owner's again.
 *
 * SPDX-License-Identifier: MIT
 */
#include "async/loop.h"

#include <string.h>

#include "async/co.h"
#include "async/io.h"
#include "async/work.h"

/* Callbacks that start new work for ever must not keep the host from its own. */
enum { ROUNDS_MAX = 64 };

static _Thread_local struct task *current;

void loop_init(struct loop *loop, struct engine *engine, bool inline_work)
{
        g_assert(engine->loop == NULL);

        *loop = (struct loop) { .engine = engine, .inline_work = inline_work };
        pthread_mutex_init(&loop->finished_lock, NULL);
        engine->loop = loop;
}

void loop_clear(struct loop *loop)
{
        g_assert(current == NULL);
        g_assert(g_queue_is_empty(&loop->tasks));
        g_assert(g_queue_is_empty(&loop->ready));
        g_assert(loop->io_count == 0);
        g_assert(loop->work_count == 0);

        works_stop(loop);
        loop->engine->ops->destroy(loop->engine);
        loop->engine = NULL;
        pthread_mutex_destroy(&loop->finished_lock);
}

void loop_defer(struct loop *loop, struct deferred *d, void (*call)(struct deferred *d))
{
        g_assert(!d->queued || d->call == call);

        if (d->queued)
                return;
        d->call = call;
        d->queued = true;
        d->link.data = d;
        g_queue_push_tail_link(&loop->ready, &d->link);
}

/* Makes the calls queued so far; those queued meanwhile are the next round's. */
static bool run_ready(struct loop *loop)
{
        guint count = g_queue_get_length(&loop->ready);
        guint i;

        /* A call may take others off the queue (invariant 3). */
        for (i = 0; i < count && !g_queue_is_empty(&loop->ready); i++) {
                struct deferred *d = g_queue_pop_head_link(&loop->ready)->data;

                g_assert(d->queued);
                d->queued = false;
                d->call(d);
        }
        return count > 0;
}

int loop_poll(struct loop *loop, int timeout_ms)
{
        unsigned round;
        bool busy;
        int moved;

        g_assert(current == NULL);

        for (round = 0; round < ROUNDS_MAX; round++) {
                busy = works_reap(loop);
                busy |= run_ready(loop);
                busy |= !g_queue_is_empty(&loop->ready);

                moved = loop->engine->ops->run(loop->engine, busy ? 0 : timeout_ms);
                if (moved < 0)
                        return moved;
                timeout_ms = 0;
                if (moved == 0 && g_queue_is_empty(&loop->ready) && !works_finished(loop))
                        return 0;
        }
        loop_notify(loop);
        return 0;
}

int loop_fd(struct loop *loop)
{
        return loop->engine->ops->fd(loop->engine);
}

void loop_notify(struct loop *loop)
{
        loop->engine->ops->notify(loop->engine);
}

static void task_step(struct deferred *d)
{
        struct task *task = (struct task *)((char *)d - offsetof(struct task, ready));
        struct loop *loop = task->loop;
        int ret;

        g_assert(current == NULL);
        current = task;
        task->trace_count = 0;
        ret = task->step(task);
        current = NULL;

        g_assert(ret <= 0 || ret == CO_PENDING);
        g_assert(task->shield_count == 0);
        if (ret == CO_PENDING)
                return;

        if (task->ready.queued) {
                g_queue_unlink(&loop->ready, &task->ready.link);
                task->ready.queued = false;
        }
        g_queue_unlink(&loop->tasks, &task->live);
        task->loop = NULL;
        if (task->done != NULL)
                task->done(task, ret);
}

void task_start(struct task *task, struct loop *loop, const char *name,
                int (*step)(struct task *task), void (*done)(struct task *task, int result))
{
        memset(&task->ready, 0, sizeof(task->ready));
        task->loop = loop;
        task->name = name;
        task->step = step;
        task->done = done;
        task->cancelled = false;
        task->shield_count = 0;
        task->progress_done = NULL;
        task->progress_total = NULL;
        task->trace_count = 0;
        task->live = (GList) { .data = task };
        g_queue_push_tail_link(&loop->tasks, &task->live);
        task_wake(task);
}

void task_wake(struct task *task)
{
        g_assert(task->loop != NULL);
        loop_defer(task->loop, &task->ready, task_step);
}

void task_cancel(struct task *task)
{
        task->cancelled = true;
        task_wake(task);
}

bool task_is_cancelled(const struct task *task)
{
        return task->cancelled && task->shield_count == 0;
}

struct task *task_current(void)
{
        g_assert(current != NULL);
        return current;
}

void task_expect(uint64_t steps)
{
        struct task *task = task_current();

        if (task->progress_total)
                *task->progress_total += steps;
}

void task_advance(uint64_t steps)
{
        struct task *task = task_current();

        if (task->progress_done)
                *task->progress_done = MIN(*task->progress_done + steps, *task->progress_total);
}

int task_yield(bool *yielded)
{
        *yielded = !*yielded;
        if (!*yielded)
                return 0;
        task_wake(task_current());
        return CO_PENDING;
}

static void dump_task(const struct task *task, GString *text)
{
        unsigned i;

        g_string_printf(text, "%s ", task->name);
        for (i = 0; i < task->trace_count; i++)
                g_string_append_printf(text, "%s%s:%u", i == 0 ? " " : " < ",
                                       task->trace[i].file, task->trace[i].line);
        if (task->trace_count == 0)
                g_string_append(text, " (not yet waiting)");
}

void loop_dump(struct loop *loop, void (*line)(void *opaque, const char *text), void *opaque)
{
        GString *text = g_string_new(NULL);
        GList *link;

        for (link = loop->tasks.head; link != NULL; link = link->next) {
                dump_task(link->data, text);
                line(opaque, text->str);
        }
        g_string_free(text, TRUE);
}
