/*
 * taking-publish.c - taking an internal snapshot: behind the switch, and giving up.
 *
 * taking.c says what happens in which order.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/taking-parts.h"

/* ---- publish ---- */

static struct snapshot *new_entry(struct taking *s)
{
        return &s->list[s->list_count - 1];
}

static int make_list(struct taking *s, struct image *img, const struct hvb_snapshot_info *info)
{
        uint32_t kept = img->header.snapshot_count - (s->replaced >= 0);
        char id[SNAPSHOT_ID_BYTES];

        s->list = snapshots_copy(img, s->replaced);
        if (!s->list)
                return -ENOMEM;
        snapshots_next_id(img, id);
        s->list_count = kept + 1;
        *new_entry(s) = (struct snapshot) {
                .id = g_strdup(id),
                .name = g_strdup(info->name),
                .date_sec = info->date_sec,
                .date_nsec = info->date_nsec,
                .vm_clock_nsec = info->vm_clock_nsec,
                .vm_state_bytes = info->vm_state_bytes,
                .disk_bytes = image_size(img),
                .icount = info->icount,
                .extra_bytes = SNAPSHOT_EXTRA_BYTES,
                .l1_offset = s->l1.offset,
                .l1_entries = s->l1.count,
        };
        return 0;
}

static int read_replaced(struct taking *s, struct image *img)
{
        const struct snapshot *old;

        if (s->replaced < 0)
                return 0;
        old = &img->snapshots[s->replaced];
        return l1_read(&s->io, img, old->l1_offset, old->l1_entries, &s->old_l1);
}

/* Nobody is saving.  After an error nothing has changed. */
static int link_state(struct taking *s, struct image *img, const struct hvb_snapshot_info *info,
                      struct hvb_error *err)
{
        uint64_t state_slot = geometry_l1_entries(image_geometry(img), image_size(img));
        uint32_t i;
        int ret = taking_check_slots(img, info, err);

        if (ret == 0)
                ret = l1_grow(&s->l1, (uint32_t)taking_l1_slots(img, info));
        if (ret < 0)
                return ret;
        for (i = 0; i < img->vmstate.count; i++)
                s->l1.entries[state_slot + i] = img->vmstate.entries[i];
        s->has_state = true;
        img->vmstate_taken = true;
        return 0;
}

static int take_state(struct taking *s, struct image *img, const struct hvb_snapshot_info *info,
                      struct hvb_error *err)
{
        CO_BEGIN(&s->take_state);
        CO_TRY(&s->take_state, out, gate_close(&img->saves, &s->saves));
        CO_TRY(&s->take_state, open_gate, link_state(s, img, info, err));
open_gate:
        gate_open(&img->saves);
out:
        CO_END(&s->take_state);
}

/* Somebody may be reading what is to be replaced. */
static void hold_replaced(struct taking *s, struct image *img)
{
        if (s->replaced >= 0)
                s->old_pin = pin_take_listed(img, &img->snapshots[s->replaced]);
}

/* References to the VM state are the snapshot's now. */
static void hand_over(struct taking *s, struct image *img, struct hvb_snapshot_info *info)
{
        const struct snapshot *entry = &img->snapshots[s->list_count - 1];

        s->list = NULL;
        vmstate_forget_saved(img);
        if (s->old_pin)
                vmstate_lose_loaded(img, s->old_pin);
        if (!img->loaded && vmstate_take_loaded(img, entry, &s->l1) < 0)
                vmstate_lose_loaded(img, NULL);
        g_strlcpy(info->id_str, entry->id, sizeof(info->id_str));
        info->disk_bytes = entry->disk_bytes;
}

/* What was replaced leaves the list and goes in one step: nobody finds it in between. */
static int list_it(struct taking *s, struct image *img, struct hvb_snapshot_info *info)
{
        static const struct root_change nothing_else = { .what = 0 };

        CO_BEGIN(&s->list_it);
        CO_TRY(&s->list_it, out, co_lock_acquire(&img->list_lock, &s->list_lock));
        hold_replaced(s, img);
        CO_TRY(&s->list_it, unlock, snapshots_publish(&s->publication, img, s->list,
                                                      s->list_count, &nothing_else));
        hand_over(s, img, info);
unlock:
        co_lock_release(&img->list_lock);
out:
        CO_END(&s->list_it);
}

int taking_publish(struct taking *s, struct image *img, struct hvb_snapshot_info *info,
                   struct hvb_error *err)
{
        CO_BEGIN(&s->publish);
        CO_TRY(&s->publish, abort, taking_judge(s, img, info, err));
        CO_TRY(&s->publish, abort, read_replaced(s, img));
        CO_TRY(&s->publish, abort, take_state(s, img, info, err));
        CO_TRY(&s->publish, abort, clusters_alloc(&s->alloc, img,
                                                  tree_l1_clusters(img, s->l1.count), 1,
                                                  &s->l1.offset));
        CO_TRY(&s->publish, abort, make_list(s, img, info));
        CO_TRY(&s->publish, abort, l1_write(&s->io, img, &s->l1, s->l1.offset, ~ENTRY_COPIED));
        img->data_written = true;
        CO_TRY(&s->publish, abort, tree_clear_copied(&s->count, img, &s->l1));
        CO_TRY(&s->publish, abort, list_it(s, img, info));
        if (s->replaced >= 0)
                CO_UNDO(&s->publish, snapshot_unlink(&s->unlink, img, s->old_pin, &s->old_l1));
        s->old_pin = NULL;
        CO_UNDO(&s->publish, motion_end(&s->motion, img));
        taking_forget(s, img);
        goto out;
abort:
        CO_UNDO(&s->publish, taking_abort(s, img));
out:
        CO_END(&s->publish);
}

/* ---- giving up ---- */

/* A tree of its own, unless the snapshot has taken it; somebody may be writing to it. */
static int give_up_state(struct taking *s, struct image *img)
{
        CO_BEGIN(&s->give_up);
        CO_UNDO(&s->give_up, gate_close(&img->saves, &s->saves));
        if (!s->has_state) {
                s->state = img->vmstate;
                img->vmstate = (struct l1_table) { .count = 0 };
        }
        vmstate_forget_saved(img);
        gate_open(&img->saves);
        if (s->state.count > 0)
                CO_UNDO(&s->give_up, tree_drop(&s->drop, img, &s->state));
        CO_END(&s->give_up);
}

int taking_abort(struct taking *s, struct image *img)
{
        CO_BEGIN(&s->abort);
        if (img->state != IMAGE_POISONED && img->walked_slots > 0)
                CO_UNDO(&s->abort, tree_unprepare(&s->count, img));
        if (img->state != IMAGE_POISONED)
                CO_UNDO(&s->abort, give_up_state(s, img));
        if (img->state != IMAGE_POISONED && s->is_switched) {
                CO_UNDO(&s->abort, tree_drop(&s->drop, img, &s->l1));
                CO_UNDO(&s->abort, meta_commit_counts(&s->commit, img));
                CO_UNDO(&s->abort, tree_refresh_copied(&s->count, img));
        }
        CO_UNDO(&s->abort, motion_end(&s->motion, img));
        taking_forget(s, img);
        CO_END(&s->abort);
}

void taking_forget(struct taking *s, struct image *img)
{
        if (s->old_pin)
                pin_put(img, s->old_pin);
        s->old_pin = NULL;
        snapshots_free_list(s->list, s->list_count);
        s->list = NULL;
        l1_clear(&s->l1);
        l1_clear(&s->old_l1);
        l1_clear(&s->state);
}
