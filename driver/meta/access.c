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
        waitq_wake_all(&img->grace.left);
        if (is_idle(img))
                img->grace.late_writes = false;
}

/* One that came before and is in the way, or NULL. */
static struct range_lock *in_the_way(const struct range_lock *r)
{
        GList *l;

        for (l = r->link.prev; l; l = l->prev) {
                struct range_lock *before = l->data;

                if (before->is_vmstate == r->is_vmstate && r->first < before->end &&
                    before->first < r->end)
                        return before;
        }
        return NULL;
}

static void arrive(struct range_lock *r, struct image *img, bool is_vmstate, uint64_t first,
                   uint64_t end)
{
        r->is_vmstate = is_vmstate;
        r->first = first;
        r->end = end;
        r->is_queued = true;
        r->link = (GList) { .data = r };
        g_queue_push_tail_link(&img->ranges, &r->link);
}

/* The frame waited in is valid while we wait: release wakes all, and each looks anew
 * before it waits again.  Nobody waits for one that came later, so there is no circle. */
int range_lock(struct range_lock *r, struct image *img, bool is_vmstate, uint64_t first,
               uint64_t end)
{
        int ret = 0;

        g_assert(first < end);
        if (!r->is_queued)
                arrive(r, img, is_vmstate, first, end);
        if (r->waiter.state != WAITER_IDLE)
                ret = waitq_wait(&r->waiting_on->released, &r->waiter);
        while (ret == 0) {
                r->waiting_on = in_the_way(r);
                if (!r->waiting_on)
                        return 0;
                ret = waitq_wait(&r->waiting_on->released, &r->waiter);
        }
        if (ret < 0)
                range_unlock(r, img);
        return ret;
}

void range_unlock(struct range_lock *r, struct image *img)
{
        g_assert(r->is_queued);
        g_queue_unlink(&img->ranges, &r->link);
        r->is_queued = false;
        waitq_wake_all(&r->released);
}
