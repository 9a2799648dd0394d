/*
 * tasks.c - work that waits, done beside the main loop.
 *
 * Queues are the main thread's; what crosses are the pool's own queue, one to bring
 * tasks back, and the source's ready time.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/tasks.h"

#include <glib.h>

struct lane {
        GQueue waiting;
        struct task *running;
};

struct tasks {
        struct lane lanes[TASK_LANE_COUNT];
        GThreadPool *pool;
        GAsyncQueue *returned;
        GSource *source;                /* ready when something returned */
};

static void run(gpointer data, gpointer opaque)
{
        struct task *task = data;
        struct tasks *tasks = opaque;

        task->run(task);
        g_async_queue_push(tasks->returned, task);
        g_source_set_ready_time(tasks->source, 0);
}

static void start_next(struct tasks *tasks, struct lane *lane)
{
        struct task *task = lane->running == NULL ? g_queue_pop_head(&lane->waiting) : NULL;

        if (task == NULL)
                return;
        lane->running = task;
        if (task->begin != NULL)
                task->begin(task);
        g_thread_pool_push(tasks->pool, task, NULL);
}

static void finish(struct tasks *tasks, struct task *task)
{
        struct lane *lane = &tasks->lanes[task->lane];

        g_assert(lane->running == task);
        lane->running = NULL;
        task->done(task);
        start_next(tasks, lane);
}

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer data)
{
        struct tasks *tasks = data;
        struct task *task;

        (void) callback;
        g_source_set_ready_time(source, -1);
        while ((task = g_async_queue_try_pop(tasks->returned)) != NULL)
                finish(tasks, task);
        return G_SOURCE_CONTINUE;
}

struct tasks *tasks_new(void)
{
        static GSourceFuncs funcs = { .dispatch = dispatch };
        struct tasks *tasks = g_new0(struct tasks, 1);

        for (unsigned i = 0; i < TASK_LANE_COUNT; i++)
                g_queue_init(&tasks->lanes[i].waiting);
        /* Shared threads: this cannot fail. */
        tasks->pool = g_thread_pool_new(run, tasks, TASK_LANE_COUNT, FALSE, NULL);
        tasks->returned = g_async_queue_new();
        tasks->source = g_source_new(&funcs, sizeof(GSource));
        g_source_set_callback(tasks->source, NULL, tasks, NULL);
        g_source_attach(tasks->source, NULL);
        return tasks;
}

static bool is_idle(const struct tasks *tasks)
{
        for (unsigned i = 0; i < TASK_LANE_COUNT; i++)
                if (tasks->lanes[i].running != NULL)
                        return false;
        return true;
}

void tasks_free(struct tasks *tasks)
{
        while (!is_idle(tasks))
                finish(tasks, g_async_queue_pop(tasks->returned));
        g_thread_pool_free(tasks->pool, FALSE, TRUE);
        g_source_destroy(tasks->source);
        g_source_unref(tasks->source);
        g_async_queue_unref(tasks->returned);
        g_free(tasks);
}

void tasks_push(struct tasks *tasks, enum task_lane lane, struct task *task)
{
        task->lane = lane;
        g_queue_push_tail(&tasks->lanes[lane].waiting, task);
        start_next(tasks, &tasks->lanes[lane]);
}

bool tasks_remove(struct tasks *tasks, struct task *task)
{
        return g_queue_remove(&tasks->lanes[task->lane].waiting, task);
}
