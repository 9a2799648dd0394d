/*
 * access.c - who may touch a cluster when: grace periods and range locks.
 *
 * Grace: I/O on guest data counts itself into the current generation.  A commit that
 * gives clusters back begins a new generation and waits until the old one has
 * drained; only then can the clusters be allocated again.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "meta/image.h"

unsigned grace_enter(struct image *img)
{
        unsigned generation = img->grace.generation;

        img->grace.in_flight[generation]++;
        return generation;
}

static bool is_idle(const struct image *img)
{
        return img->grace.in_flight[0] + img->grace.in_flight[1] == 0;
}

void grace_zeroed(struct image *img)
{
        img->grace.late_writes = !is_idle(img);
}

void grace_leave(struct image *img, unsigned generation)
{
        g_assert(img->grace.in_flight[generation] > 0);
        if (--img->grace.in_flight[generation] == 0)
                waitq_wake_all(&img->grace.drained);
        if (is_idle(img))
                img->grace.late_writes = false;
}

static struct range_lock *overlapping(struct image *img, const struct range_lock *r)
{
        GList *l;

        for (l = img->ranges.head; l; l = l->next) {
                struct range_lock *held = l->data;

                if (held->is_vmstate == r->is_vmstate && r->first < held->end &&
                    held->first < r->end)
                        return held;
        }
        return NULL;
}

/* The holder's frame is valid while we wait in it: release wakes all, and each
 * looks anew before it waits again. */
int range_lock(struct range_lock *r, struct image *img, bool is_vmstate, uint64_t first,
               uint64_t end)
{
        struct range_lock *held;
        int ret;

        g_assert(first < end);
        for (;;) {
                if (r->waiter.state != WAITER_IDLE) {
                        ret = waitq_wait(&r->waiting_on->released, &r->waiter);
                        if (ret != 0)
                                return ret;
                }
                r->is_vmstate = is_vmstate;
                r->first = first;
                r->end = end;
                held = overlapping(img, r);
                if (!held)
                        break;
                r->waiting_on = held;
                ret = waitq_wait(&held->released, &r->waiter);
                if (ret != 0)
                        return ret;
        }
        r->link = (GList) { .data = r };
        g_queue_push_tail_link(&img->ranges, &r->link);
        return 0;
}

void range_unlock(struct range_lock *r, struct image *img)
{
        g_queue_unlink(&img->ranges, &r->link);
        waitq_wake_all(&r->released);
}
