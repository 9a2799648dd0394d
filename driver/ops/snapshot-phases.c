/*
 * snapshot-phases.c - see snapshot-phases.h.
 *
 * A request that ends what is prepared does so in any case: cancelling it does not keep it from
 * its turn, and then it ends with an abort.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "disk/error.h"
#include "ops/snapshot-phases.h"

static int begin(struct image *img, bool is_goto, struct hvb_error *err)
{
        if (img->prepared)
                return error_set(err, -EBUSY, "a snapshot of %s, or going to one, is prepared "
                                 "already", img->name);
        img->prepared = g_try_new0(struct prepared, 1);
        if (!img->prepared)
                return -ENOMEM;
        img->prepared->preparer = task_current();
        img->prepared->is_goto = is_goto;
        return 0;
}

bool prepared_drops_orphans(const struct image *img)
{
        return img->prepared && img->prepared->has_control;
}

/* What was prepared is gone, or was never. */
static void forget(struct image *img)
{
        if (img->prepared->has_control)
                co_lock_release(&img->control);
        g_free(img->prepared);
        img->prepared = NULL;
}

/* What has been prepared, or NULL. */
static struct prepared *ready(const struct image *img)
{
        return img->prepared && !img->prepared->preparer ? img->prepared : NULL;
}

/* ---- prepare ---- */

/* What a request wants: a snapshot, or to go to one. */
struct wanted {
        const struct hvb_snapshot_info *info;   /* NULL: to go */
        uint32_t flags;
        const char *id;
        const char *name;
};

static int prepare_it(struct prepared *p, struct image *img, const struct wanted *w,
                      struct hvb_error *err)
{
        return p->is_goto ? going_prepare(&p->going, img, w->id, w->name, err)
                          : taking_prepare(&p->taking, img, w->info, w->flags, err);
}

static int prepare(struct snapshot_prepare *s, struct image *img, const struct wanted *w,
                   struct hvb_error *err)
{
        image_assert(img);

        CO_BEGIN(s);
        CO_TRY(s, done, begin(img, !w->info, err));
        CO_TRY(s, end, co_lock_acquire(&img->phase_lock, &s->phase));
        CO_TRY(s, unlock, co_lock_acquire(&img->control, &s->control));
        img->prepared->has_control = true;
        CO_TRY(s, orphans, prepare_it(img->prepared, img, w, err));
        img->prepared->preparer = NULL;
        goto unlock;
orphans:
        CO_UNDO(s, orphans_drop(&img->prepared->orphans, img, false));
unlock:
        co_lock_release(&img->phase_lock);
end:
        if (s->co.err)
                forget(img);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not prepare %ssnapshot '%.255s' of %s: %s",
                          w->info ? "" : "going to ", w->name ? w->name : w->id ? w->id : "",
                          img->name, g_strerror(-s->co.err));
        CO_END(s);
}

int snapshot_prepare(struct snapshot_prepare *s, struct image *img,
                     const struct hvb_snapshot_info *info, uint32_t flags, struct hvb_error *err)
{
        const struct wanted wanted = { .info = info, .flags = flags, .name = info->name };

        return prepare(s, img, &wanted, err);
}

int snapshot_goto_prepare(struct snapshot_prepare *s, struct image *img, const char *id,
                          const char *name, struct hvb_error *err)
{
        const struct wanted wanted = { .id = id, .name = name };

        return prepare(s, img, &wanted, err);
}

/* ---- going on ---- */

static int require(const struct image *img, bool is_switched, struct hvb_error *err)
{
        const struct prepared *p = ready(img);

        if (!p || p->is_goto)
                return error_set(err, -EINVAL, "no snapshot of %s is prepared", img->name);
        if (p->taking.is_switched && !is_switched)
                return error_set(err, -EINVAL, "the prepared snapshot of %s has its moment already",
                                 img->name);
        if (!p->taking.is_switched && is_switched)
                return error_set(err, -EINVAL, "the prepared snapshot of %s has no moment yet",
                                 img->name);
        return 0;
}

int snapshot_switch(struct snapshot_phase *s, struct image *img, struct hvb_error *err)
{
        CO_BEGIN(s);
        CO_TRY(s, done, co_lock_acquire(&img->phase_lock, &s->phase));
        CO_TRY(s, unlock, require(img, false, err));
        CO_TRY(s, unlock, taking_switch(&img->prepared->taking, img, err));
unlock:
        co_lock_release(&img->phase_lock);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not switch %s to its prepared snapshot: %s",
                          img->name, g_strerror(-s->co.err));
        CO_END(s);
}

int snapshot_publish(struct snapshot_phase *s, struct image *img, struct hvb_snapshot_info *info,
                     struct hvb_error *err)
{
        CO_BEGIN(s);
        CO_TRY(s, done, co_shielded(co_lock_acquire(&img->phase_lock, &s->phase)));
        CO_TRY(s, unlock, require(img, true, err));
        task_expect(img->prepared->taking.l1.count + (uint64_t)img->vmstate.count);
        CO_TRY(s, end, taking_publish(&img->prepared->taking, img, info, err));
end:
        CO_UNDO(s, orphans_drop(&img->prepared->orphans, img, false));
        forget(img);
unlock:
        co_lock_release(&img->phase_lock);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not publish snapshot '%.255s' in %s: %s",
                          info->name, img->name, g_strerror(-s->co.err));
        CO_END(s);
}

static bool is_prepared_goto(const struct image *img, const char *id, const char *name)
{
        const struct prepared *p = ready(img);

        return p && p->is_goto && snapshots_find(img, id, name) == p->going.index;
}

int prepared_goto(struct prepared_goto *s, struct image *img, const char *id, const char *name)
{
        CO_BEGIN(s);
        s->was_taken = false;
        if (!img->prepared || !img->prepared->is_goto)
                goto done;
        CO_TRY(s, done, co_shielded(co_lock_acquire(&img->phase_lock, &s->phase)));
        if (!is_prepared_goto(img, id, name))
                goto unlock;
        s->was_taken = true;
        CO_TRY(s, failed, going_switch(&img->prepared->going, img));
        img->prepared->has_control = false;     /* it is the background's */
        goto end;
failed:
        CO_UNDO(s, orphans_drop(&img->prepared->orphans, img, false));
end:
        forget(img);
unlock:
        co_lock_release(&img->phase_lock);
done:
        CO_END(s);
}

/* ---- giving up ---- */

static int abort_it(struct prepared *p, struct image *img)
{
        return p->is_goto ? going_abort(&p->going, img) : taking_abort(&p->taking, img);
}

/* A preparation under way undoes itself. */
static bool cancel_preparation(struct image *img)
{
        if (!img->prepared || !img->prepared->preparer)
                return false;
        task_cancel(img->prepared->preparer);
        return true;
}


int snapshot_abort(struct snapshot_phase *s, struct image *img, struct hvb_error *err)
{
        CO_BEGIN(s);
        s->cancels = cancel_preparation(img);
        CO_TRY(s, done, co_shielded(co_lock_acquire(&img->phase_lock, &s->phase)));
        if (!ready(img) && s->cancels)
                goto unlock;
        if (!ready(img))
                CO_FAIL(s, unlock, error_set(err, -EINVAL, "no snapshot of %s is prepared",
                                             img->name));
        CO_UNDO(s, abort_it(img->prepared, img));
        CO_UNDO(s, orphans_drop(&img->prepared->orphans, img, false));
        forget(img);
        if (img->state == IMAGE_POISONED)
                s->co.err = -EIO;
unlock:
        co_lock_release(&img->phase_lock);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not abort the prepared snapshot of %s: %s",
                          img->name, g_strerror(-s->co.err));
        CO_END(s);
}

int prepared_end(struct prepared_end *s, struct image *img)
{
        CO_BEGIN(s);
        cancel_preparation(img);
        CO_UNDO(s, co_lock_acquire(&img->phase_lock, &s->phase));
        if (ready(img)) {
                CO_UNDO(s, abort_it(img->prepared, img));
                forget(img);
        }
        co_lock_release(&img->phase_lock);
        CO_END(s);
}

void prepared_forget(struct image *img)
{
        if (!img->prepared)
                return;
        if (img->prepared->is_goto)
                going_forget(&img->prepared->going);
        else
                taking_forget(&img->prepared->taking, img);
        forget(img);
}
