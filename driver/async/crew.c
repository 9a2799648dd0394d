/*
 * crew.c - a few threads that take items from one queue.
 *
 * Invariants:
 *  1. There is always at least one thread, so an item that was pushed is run even
 *     if the system refuses more threads.
 *  2. Threads of a crew take no signals: those belong to the host's threads.  What a thread
 *     does to itself (a fault, a system call that a sandbox refuses) is no signal from
 *     outside: were it blocked, the kernel would end the process past the host's handler.
 *
 * SPDX-License-Identifier: MIT
 */
#include "async/crew.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

struct crew {
        void (*run)(void *item, void *opaque);
        void *opaque;
        const char *name;
        unsigned thread_max;
        pthread_mutex_t lock;   /* of all below */
        pthread_cond_t wanted;
        GQueue items;
        GPtrArray *threads;     /* of GThread */
        unsigned idle_count;
        bool stopping;
};

/* The next item, NULL when the crew stops and all is done. */
static void *item_take(struct crew *crew)
{
        GList *link;

        pthread_mutex_lock(&crew->lock);
        while (g_queue_is_empty(&crew->items) && !crew->stopping) {
                crew->idle_count++;
                pthread_cond_wait(&crew->wanted, &crew->lock);
                crew->idle_count--;
        }
        link = g_queue_pop_head_link(&crew->items);
        pthread_mutex_unlock(&crew->lock);
        return link == NULL ? NULL : link->data;
}

static gpointer thread_main(gpointer data)
{
        struct crew *crew = data;
        void *item;

        while ((item = item_take(crew)) != NULL)
                crew->run(item, crew->opaque);
        return NULL;
}

/* With the lock held, or before anybody else knows the crew. */
static bool thread_add(struct crew *crew)
{
        static const int own[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS };
        sigset_t others, before;
        GThread *thread;
        unsigned i;

        sigfillset(&others);
        for (i = 0; i < G_N_ELEMENTS(own); i++)
                sigdelset(&others, own[i]);
        pthread_sigmask(SIG_BLOCK, &others, &before);
        thread = g_thread_try_new(crew->name, thread_main, crew, NULL);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (thread == NULL)
                return false;
        g_ptr_array_add(crew->threads, thread);
        return true;
}

static void crew_destroy(struct crew *crew)
{
        g_ptr_array_free(crew->threads, TRUE);
        pthread_cond_destroy(&crew->wanted);
        pthread_mutex_destroy(&crew->lock);
        g_free(crew);
}

struct crew *crew_new(unsigned thread_max, const char *name,
                      void (*run)(void *item, void *opaque), void *opaque)
{
        struct crew *crew = g_new0(struct crew, 1);

        g_assert(thread_max > 0);
        crew->run = run;
        crew->opaque = opaque;
        crew->name = name;
        crew->thread_max = thread_max;
        crew->threads = g_ptr_array_new();
        pthread_mutex_init(&crew->lock, NULL);
        pthread_cond_init(&crew->wanted, NULL);
        if (!thread_add(crew)) {
                crew_destroy(crew);
                return NULL;
        }
        return crew;
}

void crew_push(struct crew *crew, GList *link)
{
        g_assert(link->data != NULL);

        pthread_mutex_lock(&crew->lock);
        g_assert(!crew->stopping);
        g_queue_push_tail_link(&crew->items, link);
        if (g_queue_get_length(&crew->items) > crew->idle_count &&
            crew->threads->len < crew->thread_max)
                thread_add(crew);       /* failing leaves it to those who are there */
        pthread_cond_signal(&crew->wanted);
        pthread_mutex_unlock(&crew->lock);
}

void crew_free(struct crew *crew)
{
        unsigned i;

        pthread_mutex_lock(&crew->lock);
        crew->stopping = true;
        pthread_cond_broadcast(&crew->wanted);
        pthread_mutex_unlock(&crew->lock);

        for (i = 0; i < crew->threads->len; i++)
                g_thread_join(g_ptr_array_index(crew->threads, i));
        g_assert(g_queue_is_empty(&crew->items));
        crew_destroy(crew);
}
