/*
 * snapshot-delete.c - deleting a snapshot, while the guest reads and writes.
 *
 *   1. a v3 image is marked dirty
 *   2. the list without the snapshot is published
 *   3. its L1 and the tree that nothing refers to any more are counted down, a table at a
 *      time; if somebody reads it (pins.h), when the last of them is done: the image stays
 *      marked until then
 *   4. counts are made stable
 *   5. active clusters that are private again get COPIED, a table at a time; that is made
 *      stable, and the mark goes
 *
 * Nobody changes the tree of 3: as long as it counts for a table that the active L1 has too,
 * that one is copied before it is written.  What the guest remaps meanwhile is counted by
 * itself.  In 5 an L2 table's guest range is locked, and its flags change in memory.
 *
 * A crash before 2 leaves the snapshot; after 2 it is gone and some clusters leak,
 * which the dirty bit (v3) or a check (v2) repairs.  Until 5 COPIED is clear at a
 * count of 1: the safe side.  What fails after 2 leaks and is told, but is no failure.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "disk/error.h"
#include "disk/planted.h"
#include "ops/snapshot-delete.h"
#include "ops/vmstate.h"

static const struct snapshot *target(const struct snapshot_delete *s, const struct image *img)
{
        return &img->snapshots[s->index];
}

static int check_request(struct snapshot_delete *s, struct image *img, const char *id,
                         const char *name, struct hvb_error *err)
{
        s->index = snapshots_require_countable(img, id, name, err);
        return MIN(s->index, 0);
}

static int make_list(struct snapshot_delete *s, struct image *img)
{
        s->list_count = img->header.snapshot_count - 1;
        s->list = snapshots_copy(img, s->index);
        return s->list ? 0 : -ENOMEM;
}

int snapshot_delete(struct snapshot_delete *s, struct image *img, const char *id,
                    const char *name, struct hvb_error *err)
{
        static const struct root_change nothing_else = { .what = 0 };

        image_assert(img);

        CO_BEGIN(s);
        CO_TRY(s, done, co_lock_acquire(&img->control, &s->waiter));
        CO_TRY(s, unlock, check_request(s, img, id, name, err));
        CO_TRY(s, unlock, make_list(s, img));
        CO_TRY(s, forget, l1_read(&s->io, img, target(s, img)->l1_offset,
                                  target(s, img)->l1_entries, &s->l1));
        task_expect(s->l1.count + (uint64_t)img->active.count);
        CO_TRY(s, forget, motion_begin(&s->motion, img));
        CO_TRY(s, end, co_lock_acquire(&img->list_lock, &s->list_lock));
        s->pin = pin_take_listed(img, target(s, img));
        if (PLANTED(DELETE_COUNTS_FIRST))
                CO_UNDO(s, tree_drop(&s->unlink.drop, img, &s->l1));
        CO_TRY(s, put, snapshots_publish(&s->publish, img, s->list, s->list_count,
                                         &nothing_else));
        co_lock_release(&img->list_lock);
        s->list = NULL;
        if (s->pin)
                vmstate_lose_loaded(img, s->pin);
        if (!PLANTED(DELETE_COUNTS_FIRST))
                CO_UNDO(s, snapshot_unlink(&s->unlink, img, s->pin, &s->l1));
        s->pin = NULL;
        CO_UNDO(s, meta_commit_counts(&s->commit, img));
        CO_UNDO(s, tree_refresh_copied(&s->refresh, img));
        goto end;
put:
        if (s->pin)
                pin_put(img, s->pin);
        co_lock_release(&img->list_lock);
end:
        CO_UNDO(s, motion_end(&s->motion, img));
forget:
        snapshots_free_list(s->list, s->list_count);
        s->list = NULL;
        l1_clear(&s->l1);
unlock:
        co_lock_release(&img->control);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not delete snapshot '%.255s' of %s: %s",
                          name ? name : id ? id : "", img->name, g_strerror(-s->co.err));
        CO_END(s);
}
