/*
 * work.h - what the loop needs of work.c.  Private to this floor.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef ASYNC_WORK_H
#define ASYNC_WORK_H

#include "async/loop.h"

/* Takes in finished works and wakes who waits; true: there were some. */
bool works_reap(struct loop *loop);

/* Is there something for works_reap? */
bool works_finished(struct loop *loop);

/* Joins the workers.  No work may be in flight. */
void works_stop(struct loop *loop);

#endif
