/*
 * background.c - counting down beside the guest, for nobody who waits.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/background.h"

static struct background *of_task(struct task *task)
{
        return (struct background *)((char *)task - offsetof(struct background, task));
}

static int step(struct task *task)
{
        struct background *b = of_task(task);

        CO_BEGIN(b);
        CO_UNDO(b, tree_drop(&b->drop, b->img, &b->tree));
        if (b->state.count > 0)
                CO_UNDO(b, tree_drop(&b->drop, b->img, &b->state));
        CO_UNDO(b, orphans_drop(&b->orphans, b->img, false));
        CO_UNDO(b, motion_end(&b->motion, b->img));
        CO_END(b);
}

static void ended(struct task *task, int result)
{
        struct background *b = of_task(task);
        struct image *img = b->img;

        (void)result;
        l1_clear(&b->tree);
        l1_clear(&b->state);
        g_free(b);
        img->background = NULL;
        waitq_wake_all(&img->background_ended);
        co_lock_release(&img->control);
}

void background_start(struct background *b, struct image *img)
{
        g_assert(!img->background && img->control.held);
        b->img = img;
        img->background = b;
        task_start(&b->task, img->loop, "counting down", step, ended);
}

int background_wait(struct waiter *w, struct image *img)
{
        if (!img->background && w->state == WAITER_IDLE)
                return 0;
        return waitq_wait(&img->background_ended, w);
}
