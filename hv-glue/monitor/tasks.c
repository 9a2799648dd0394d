/*
 * tasks.c - work that waits, done beside the main loop.
 *
 * A thread a task: what it wrote is seen because it is joined.  Queues are the main
 * thread's; a worker touches nothing here but its lane's `finished`.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/tasks.h"

#include <glib.h>
#include <pthread.h>

struct lane {
        struct tasks *tasks;
        GQueue waiting;
        struct task *running;
        pthread_t thread;               /* that runs it */
        bool has_thread;
        bool finished;                  /* atomic: the thread is about to end */
};

struct tasks {
        GSource source;                 /* first: GLib allocates it; ready when one finished */
        struct lane lanes[TASK_LANE_COUNT];
};

static void *run(void *opaque)
{
        struct lane *lane = opaque;

        lane->running->run(lane->running);
        __atomic_store_n(&lane->finished, true, __ATOMIC_RELEASE);
        g_source_set_ready_time(&lane->tasks->source, 0);
        return NULL;
}

static void start_next(struct lane *lane)
{
        struct task *task = lane->running == NULL ? g_queue_pop_head(&lane->waiting) : NULL;

        if (task == NULL)
                return;
        lane->running = task;
        if (task->begin != NULL)
                task->begin(task);
        lane->has_thread = pthread_create(&lane->thread, NULL, run, lane) == 0;
        /* Where no thread is to be had the loop has to wait. */
        if (!lane->has_thread)
                run(lane);
}

/* Waits for the one that runs, if need be. */
static void finish(struct lane *lane)
{
        struct task *task = lane->running;

        if (lane->has_thread)
                pthread_join(lane->thread, NULL);
        lane->running = NULL;
        lane->finished = false;
        task->done(task);
        start_next(lane);
}

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer data)
{
        struct tasks *tasks = (struct tasks *) source;

        (void) callback;
        (void) data;
        g_source_set_ready_time(source, -1);
        for (unsigned i = 0; i < TASK_LANE_COUNT; i++)
                if (__atomic_load_n(&tasks->lanes[i].finished, __ATOMIC_ACQUIRE))
                        finish(&tasks->lanes[i]);
        return G_SOURCE_CONTINUE;
}

struct tasks *tasks_new(void)
{
        static GSourceFuncs funcs = { .dispatch = dispatch };
        struct tasks *tasks = (struct tasks *) g_source_new(&funcs, sizeof(struct tasks));

        for (unsigned i = 0; i < TASK_LANE_COUNT; i++)
                tasks->lanes[i].tasks = tasks;
        g_source_attach(&tasks->source, NULL);
        return tasks;
}

void tasks_free(struct tasks *tasks)
{
        unsigned idle_count = 0;

        for (unsigned i = 0; idle_count < TASK_LANE_COUNT; i = (i + 1) % TASK_LANE_COUNT) {
                idle_count = tasks->lanes[i].running == NULL ? idle_count + 1 : 0;
                if (idle_count == 0)
                        finish(&tasks->lanes[i]);
        }
        g_source_destroy(&tasks->source);
        g_source_unref(&tasks->source);
}

void tasks_push(struct tasks *tasks, enum task_lane lane, struct task *task)
{
        task->lane = lane;
        g_queue_push_tail(&tasks->lanes[lane].waiting, task);
        start_next(&tasks->lanes[lane]);
}

bool tasks_remove(struct tasks *tasks, struct task *task)
{
        return g_queue_remove(&tasks->lanes[task->lane].waiting, task);
}
