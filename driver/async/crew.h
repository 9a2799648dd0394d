/*
 * crew.h - a few threads that take items from one queue.
 *
 * Not a GThreadPool, because that one never joins its threads: after it is freed
 * they may still run for a while, and a plugin must leave none behind.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef ASYNC_CREW_H
#define ASYNC_CREW_H

#include <glib.h>

struct crew;

/*
 * run(item, opaque) is called on a thread of the crew, for each item once.
 * Threads come as they are needed, thread_max at most; names them name.
 * Returns NULL when not even the first can be had.
 */
struct crew *crew_new(unsigned thread_max, const char *name,
                      void (*run)(void *item, void *opaque), void *opaque);

/* link->data is the item; link is the crew's until run is called.  Any thread. */
void crew_push(struct crew *crew, GList *link);

/* Finishes what was pushed, then joins all threads. */
void crew_free(struct crew *crew);

#endif
