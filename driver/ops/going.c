/*
 * going.c - going back to a snapshot, phase by phase.
 *
 * Prepare, while the guest reads and writes
 *   1. a v3 image is marked dirty
 *   2. the counts of the snapshot's disk go up: it has a second reader
 *   3. a fresh L1 with its entries is written; the live L1 is never overwritten
 *   4. counts and L1 are made stable
 * Switch, writes held off
 *   5. what the guest wrote last is settled, so that no commit knows the old L1
 *   6. the root switches: disk size and L1, in one sector; the operation has completed
 * Afterwards, beside the guest
 *   7. the old tree and its L1 are counted down, a VM state that no snapshot took as well;
 *      the mark goes
 *
 * A crash before 6 leaves the old disk, after 6 the snapshot's, never a mixture; beside
 * it counts that are too high, which the dirty bit (v3) or a check (v2) repairs.
 * Failing before 6 is undone; after 6 the disk is the snapshot's, and what fails leaks.
 *
 * The fresh L1 maps the disk only.  The VM state stays the snapshot's, and is read
 * through a copy of its L1's end.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/error.h"
#include "disk/planted.h"
#include "ops/going.h"

static const struct snapshot *target(const struct going *s, const struct image *img)
{
        return &img->snapshots[s->index];
}

/* Entries that map the disk; those behind them in the snapshot's L1 map its VM state. */
static uint32_t disk_slots(const struct going *s, const struct image *img)
{
        return (uint32_t)geometry_l1_entries(image_geometry(img), target(s, img)->disk_bytes);
}

/* A table without entries would have no place in the file. */
static uint32_t fresh_slots(const struct going *s, const struct image *img)
{
        return (uint32_t)u64_max(disk_slots(s, img), 1);
}

static int check_size(const struct image *img, const struct snapshot *sn, struct hvb_error *err)
{
        const struct geometry *g = image_geometry(img);

        if (img->header.version < 3 && sn->disk_bytes != image_size(img))
                return error_set(err, -ENOTSUP, "snapshot '%.255s' has a disk of %" PRIu64 " bytes"
                                 ", %s one of %" PRIu64 ": a version 2 image cannot go there",
                                 sn->name, sn->disk_bytes, img->name, image_size(img));
        if (sn->disk_bytes > MAX_GUEST_BYTES ||
            geometry_l1_entries(g, sn->disk_bytes) > MAX_L1_BYTES / 8)
                return error_set(err, -EFBIG, "snapshot '%.255s' has a disk of %" PRIu64
                                 " bytes, which is more than an L1 table of %u bytes maps",
                                 sn->name, sn->disk_bytes, MAX_L1_BYTES);
        return 0;
}

static int check_request(struct going *s, struct image *img, const char *id,
                         const char *name, struct hvb_error *err)
{
        s->index = snapshots_require_countable(img, id, name, err);
        return s->index < 0 ? s->index : check_size(img, target(s, img), err);
}

/* ---- prepare ---- */

static int make_fresh(struct going *s, struct image *img)
{
        uint32_t count = fresh_slots(s, img);
        uint32_t i;

        if (l1_init(&s->fresh, count, s->fresh_offset) < 0)
                return -ENOMEM;
        for (i = 0; i < disk_slots(s, img) && i < s->snapshot_l1.count; i++)
                s->fresh.entries[i] = s->snapshot_l1.entries[i] & ~ENTRY_COPIED;
        s->root_change = (struct root_change) {
                .what = ROOT_SIZE | ROOT_L1,
                .size_bytes = target(s, img)->disk_bytes,
                .l1_offset = s->fresh_offset,
                .l1_entries = count,
        };
        return 0;
}

static int count_fresh(struct going *s, struct image *img, struct hvb_error *err)
{
        int ret = tree_count_up(&s->count, img, &s->fresh, s->fresh.count);

        if (ret == -EINVAL)
                error_set(err, ret, "refcount_bits=%u of %s cannot count one more use of "
                          "snapshot '%.255s'", 1u << image_geometry(img)->refcount_order,
                          img->name, target(s, img)->name);
        return ret;
}

/* Coroutine: a tree of its own, whole and stable, which nothing refers to. */
static int make_tree(struct going *s, struct image *img, struct hvb_error *err)
{
        CO_BEGIN(&s->make_tree);
        CO_TRY(&s->make_tree, out, clusters_alloc(&s->alloc, img,
                                                  tree_l1_clusters(img, fresh_slots(s, img)), 1,
                                                  &s->fresh_offset));
        CO_TRY(&s->make_tree, free_l1, make_fresh(s, img));
        CO_TRY(&s->make_tree, free_l1, count_fresh(s, img, err));
        if (PLANTED(GOTO_IN_PLACE))
                CO_TRY(&s->make_tree, count_down, l1_write(&s->io, img, &s->fresh,
                                                           img->active.offset, UINT64_MAX));
        CO_TRY(&s->make_tree, count_down, l1_write(&s->io, img, &s->fresh, s->fresh_offset,
                                                   UINT64_MAX));
        img->data_written = true;
        CO_TRY(&s->make_tree, count_down, meta_commit_counts(&s->commit, img));
        if (!task_is_cancelled(task_current()))
                goto out;
        s->make_tree.co.err = -ECANCELED;
count_down:
        if (img->state != IMAGE_POISONED)
                CO_UNDO(&s->make_tree, tree_count_down(&s->count, img, &s->fresh, s->fresh.count));
free_l1:
        if (img->state != IMAGE_POISONED)
                CO_UNDO(&s->make_tree, clusters_free(&s->free, img, s->fresh_offset,
                                                     fresh_slots(s, img) * UINT64_C(8), 1));
out:
        CO_END(&s->make_tree);
}

static int make_background(struct going *s)
{
        s->background = g_try_new0(struct background, 1);
        return s->background ? 0 : -ENOMEM;
}

int going_prepare(struct going *s, struct image *img, const char *id, const char *name,
                  struct hvb_error *err)
{
        CO_BEGIN(&s->prepare);
        CO_TRY(&s->prepare, out, check_request(s, img, id, name, err));
        CO_TRY(&s->prepare, forget, make_background(s));
        CO_TRY(&s->prepare, forget, l1_read(&s->io, img, target(s, img)->l1_offset,
                                            target(s, img)->l1_entries, &s->snapshot_l1));
        task_expect(fresh_slots(s, img));
        CO_TRY(&s->prepare, forget, motion_begin(&s->motion, img));
        CO_TRY(&s->prepare, end, make_tree(s, img, err));
        goto out;
end:
        CO_UNDO(&s->prepare, motion_end(&s->motion, img));
forget:
        going_forget(s);
out:
        CO_END(&s->prepare);
}

/* ---- switch ---- */

/* The root has switched; memory follows in the same step. */
static void install(struct going *s, struct image *img)
{
        s->background->tree = img->active;
        s->background->state = img->vmstate;
        s->background->motion = s->motion;
        img->active = s->fresh;
        s->fresh = (struct l1_table) { .count = 0 };
        img->vmstate = (struct l1_table) { .count = 0 };
        vmstate_forget_saved(img);
        img->compressed_next = 0;
        if (vmstate_take_loaded(img, target(s, img), &s->snapshot_l1) < 0) {
                vmstate_lose_loaded(img, NULL);
                image_log(img, HVB_LOG_ERROR, "%s: no memory to load the VM state of '%s'",
                          img->name, target(s, img)->name);
        }
}

/* img->control is the background's from now on. */
static void leave_the_rest(struct going *s, struct image *img)
{
        background_start(s->background, img);
        s->background = NULL;
        going_forget(s);
}

int going_switch(struct going *s, struct image *img)
{
        CO_BEGIN(&s->switch_over);
        CO_TRY(&s->switch_over, abort, gate_close(&img->writes, &s->gate));
        CO_TRY(&s->switch_over, open_gate, meta_settle(&s->settle, img));
        CO_TRY(&s->switch_over, open_gate, root_switch(&s->root, img, &s->root_change));
        install(s, img);
        gate_open(&img->writes);
        leave_the_rest(s, img);
        goto out;
open_gate:
        gate_open(&img->writes);
abort:
        CO_UNDO(&s->switch_over, going_abort(s, img));
out:
        CO_END(&s->switch_over);
}

/* ---- giving up ---- */

int going_abort(struct going *s, struct image *img)
{
        CO_BEGIN(&s->abort);
        if (img->state != IMAGE_POISONED)
                CO_UNDO(&s->abort, tree_count_down(&s->count, img, &s->fresh, s->fresh.count));
        if (img->state != IMAGE_POISONED)
                CO_UNDO(&s->abort, clusters_free(&s->free, img, s->fresh_offset,
                                                 fresh_slots(s, img) * UINT64_C(8), 1));
        CO_UNDO(&s->abort, motion_end(&s->motion, img));
        going_forget(s);
        CO_END(&s->abort);
}

void going_forget(struct going *s)
{
        l1_clear(&s->snapshot_l1);
        l1_clear(&s->fresh);
        g_free(s->background);
        s->background = NULL;
}
