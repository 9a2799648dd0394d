/*
 * snapshot-create.c - taking an internal snapshot, while the guest reads and writes.
 *
 * Prepare
 *   1. a v3 image is marked dirty; VM state that QEMU left in the active L1 goes
 *   2. the active tree's counts go up, an L2 table at a time.  In what is counted already
 *      a cluster that the guest allocates counts two, one that it frees loses two, so
 *      that nothing is left to be added at the switch (map_weight)
 * Switch, in memory: writes in flight land, new ones wait
 *   3. the snapshot takes the L1 entries, and those of the saved VM state behind them;
 *      COPIED goes from the active L1.  Whatever it maps is shared from now on: the guest
 *      copies a table before it changes it, and a cluster before it writes to it
 * Publish
 *   4. the snapshot's L1 is written, COPIED goes from its tables, which nobody changes any more
 *   5. counts, then flags and the active L1 are made stable
 *   6. the new snapshot table is written and the root switches to it
 *   7. the tree of a snapshot that was replaced is counted down, unless somebody reads it;
 *      the mark goes
 *
 * A crash before 6 leaves the old list and counts that are too high, which the dirty
 * bit (v3) or a check (v2) repairs: until then nothing on disk refers to what only the
 * snapshot has, and COPIED that is still set on a count of two has one reference.  The
 * guest's flushes are commits like any others, they order their own data and nothing
 * else.  After 6 the new list, and perhaps the replaced snapshot's clusters leaked.
 *
 * Failing before 3 counts down what was counted.  Failing between 3 and 6 is the
 * deletion of a snapshot that is in no list: its tree is counted down, and COPIED
 * comes back.  After 6 the snapshot exists: what fails leaks and is told, but is no failure.
 *
 * A saved VM state is for one attempt: if that fails past its arguments the state goes
 * too, so that the next one to be saved begins with nothing but holes.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/error.h"
#include "disk/planted.h"
#include "ops/snapshot-create.h"

/* ---- judging ---- */

static int check_name(const struct hvb_snapshot_info *info, struct hvb_error *err)
{
        size_t length = strnlen(info->name, sizeof(info->name));

        if (length == 0)
                return error_set(err, -EINVAL, "a snapshot needs a name");
        if (length == sizeof(info->name))
                return error_set(err, -EINVAL, "the snapshot's name is longer than %zu bytes",
                                 sizeof(info->name) - 1);
        return 0;
}

static int check_room(const struct image *img, int replaced, struct hvb_error *err)
{
        if (replaced < 0 && img->header.snapshot_count >= MAX_SNAPSHOTS)
                return error_set(err, -EFBIG, "%s has %u snapshots, which is the limit",
                                 img->name, img->header.snapshot_count);
        return 0;
}

static int check_request(struct snapshot_create *s, struct image *img,
                         const struct hvb_snapshot_info *info, uint32_t flags,
                         struct hvb_error *err)
{
        int ret = image_check_writable(img);

        if (ret < 0)
                return error_set(err, ret, "%s cannot be written: %s", img->name,
                                 g_strerror(-ret));
        ret = check_name(info, err);
        if (ret < 0)
                return ret;
        if ((flags & HVB_SNAPSHOT_REPLACE) && (flags & HVB_SNAPSHOT_DUPLICATE))
                return error_set(err, -EINVAL, "snapshot '%s' can replace another or stand beside "
                                 "it, not both", info->name);
        s->replaced = -1;
        if (!(flags & HVB_SNAPSHOT_DUPLICATE))
                s->replaced = snapshots_find(img, NULL, info->name);
        if (s->replaced >= 0 && !(flags & HVB_SNAPSHOT_REPLACE))
                return error_set(err, -EEXIST, "snapshot '%s' exists already in %s", info->name,
                                 img->name);
        ret = check_room(img, s->replaced, err);
        if (ret == 0 && s->replaced >= 0)
                ret = snapshot_validate_l1(&img->snapshots[s->replaced], image_geometry(img),
                                           (uint64_t)MAX(io_file_length(&img->file), 0), err);
        return ret;
}

/* ---- the snapshot's L1 and its entry in the list ---- */

static struct snapshot *new_entry(struct snapshot_create *s)
{
        return &s->list[s->list_count - 1];
}

/* VM state begins at the slot behind the disk's; it may be longer than what was saved,
 * or shorter: both are kept. */
static uint64_t l1_slots(const struct image *img, const struct hvb_snapshot_info *info)
{
        const struct geometry *g = image_geometry(img);
        uint64_t state_slots = u64_max(geometry_l1_entries(g, info->vm_state_bytes),
                                       img->vmstate.count);

        return u64_max(geometry_l1_entries(g, image_size(img)) + state_slots, 1);
}

static int check_slots(const struct image *img, const struct hvb_snapshot_info *info,
                       struct hvb_error *err)
{
        uint64_t slots = l1_slots(img, info);

        if (slots <= MAX_L1_BYTES / 8)
                return 0;
        return error_set(err, -EFBIG, "the disk of %" PRIu64 " bytes and %" PRIu64
                         " bytes of VM state need %" PRIu64 " L1 entries, limit %u",
                         image_size(img), info->vm_state_bytes, slots, MAX_L1_BYTES / 8);
}

static int make_list(struct snapshot_create *s, struct image *img,
                     struct hvb_snapshot_info *info)
{
        uint32_t kept = img->header.snapshot_count - (s->replaced >= 0);
        char id[SNAPSHOT_ID_BYTES];
        struct snapshot *entry;

        s->list = snapshots_copy(img, s->replaced);
        if (!s->list)
                return -ENOMEM;
        snapshots_next_id(img, id);
        s->list_count = kept + 1;
        entry = &s->list[kept];
        *entry = (struct snapshot) {
                .id = g_strdup(id),
                .name = g_strdup(info->name),
                .date_sec = info->date_sec,
                .date_nsec = info->date_nsec,
                .vm_clock_nsec = info->vm_clock_nsec,
                .vm_state_bytes = info->vm_state_bytes,
                .disk_bytes = image_size(img),
                .icount = info->icount,
                .extra_bytes = SNAPSHOT_EXTRA_BYTES,
        };
        return 0;
}

static void forget(struct snapshot_create *s, struct image *img)
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

static int count_overflow(const struct image *img, const struct hvb_snapshot_info *info, int code,
                          struct hvb_error *err)
{
        if (code != -EINVAL)
                return code;
        return error_set(err, code, "refcount_bits=%u of %s cannot count another snapshot ('%s')",
                         1u << image_geometry(img)->refcount_order, img->name, info->name);
}

/* ---- prepare ---- */

/* Counts of one bit have no second reference to give: then nothing may be mapped, or mapped
 * meanwhile. */
static bool counts_are_too_narrow(const struct image *img)
{
        return image_geometry(img)->refcount_max < 2;
}

static int prepare(struct snapshot_create *s, struct image *img, struct hvb_snapshot_info *info,
                   struct hvb_error *err)
{
        CO_BEGIN(&s->prepare);
        CO_UNDO(&s->prepare, vmstate_trim(&s->trim, img));
        CO_TRY(&s->prepare, out, check_slots(img, info, err));
        s->disk_slots = (uint32_t)u64_min(geometry_l1_entries(image_geometry(img),
                                                              image_size(img)),
                                          img->active.count);
        if (counts_are_too_narrow(img)) {
                CO_TRY(&s->prepare, out, gate_close(&img->writes, &s->gate));
                s->gate_held = true;
        }
        CO_AWAIT(&s->prepare, tree_prepare(&s->count, img, s->disk_slots));
        if (s->prepare.co.ret < 0)
                CO_FAIL(&s->prepare, out, count_overflow(img, info, s->prepare.co.ret, err));
out:
        CO_END(&s->prepare);
}

/* ---- switch ---- */

/* No write is in flight.  After an error nothing has changed. */
static int take_tree(struct snapshot_create *s, struct image *img,
                     const struct hvb_snapshot_info *info, struct hvb_error *err)
{
        uint64_t state_slot = geometry_l1_entries(image_geometry(img), image_size(img));
        uint32_t i;
        int ret = check_slots(img, info, err);

        if (ret == 0)
                ret = l1_init(&s->l1, (uint32_t)l1_slots(img, info), 0);
        if (ret < 0)
                return ret;
        new_entry(s)->l1_entries = s->l1.count;
        for (i = 0; i < s->disk_slots; i++) {
                s->l1.entries[i] = img->active.entries[i];
                if ((img->active.entries[i] & ENTRY_COPIED) && !PLANTED(SWITCH_KEEPS_COPIED))
                        l1_set(&img->active, i, img->active.entries[i] & ~ENTRY_COPIED);
        }
        for (i = 0; i < img->vmstate.count; i++)
                s->l1.entries[state_slot + i] = img->vmstate.entries[i];
        img->vmstate_taken = true;
        img->walked_slots = 0;
        img->compressed_next = 0;
        return 0;
}

static int wait_for_writes(struct snapshot_create *s, struct image *img)
{
        if (s->gate_held)
                return 0;
        return gate_close(&img->writes, &s->gate);
}

static int switch_over(struct snapshot_create *s, struct image *img,
                       struct hvb_snapshot_info *info, struct hvb_error *err)
{
        CO_BEGIN(&s->switch_over);
        CO_TRY(&s->switch_over, out, wait_for_writes(s, img));
        s->gate_held = true;
        CO_TRY(&s->switch_over, out, take_tree(s, img, info, err));
out:
        if (s->gate_held)
                gate_open(&img->writes);
        s->gate_held = false;
        CO_END(&s->switch_over);
}

/* ---- publish ---- */

static int read_replaced(struct snapshot_create *s, struct image *img)
{
        const struct snapshot *old;

        if (s->replaced < 0)
                return 0;
        old = &img->snapshots[s->replaced];
        return l1_read(&s->io, img, old->l1_offset, old->l1_entries, &s->old_l1);
}

/* Somebody may be reading what is to be replaced. */
static void hold_replaced(struct snapshot_create *s, struct image *img)
{
        if (s->replaced >= 0)
                s->old_pin = pin_take_listed(img, &img->snapshots[s->replaced]);
}

/* References to the VM state are the snapshot's now. */
static void hand_over(struct snapshot_create *s, struct image *img,
                      struct hvb_snapshot_info *info)
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

static int publish(struct snapshot_create *s, struct image *img, struct hvb_snapshot_info *info)
{
        static const struct root_change nothing_else = { .what = 0 };

        CO_BEGIN(&s->publish);
        CO_TRY(&s->publish, out, clusters_alloc(&s->alloc, img,
                                                tree_l1_clusters(img, s->l1.count), 1,
                                                &s->l1.offset));
        new_entry(s)->l1_offset = s->l1.offset;
        CO_TRY(&s->publish, out, l1_write(&s->io, img, &s->l1, s->l1.offset, ~ENTRY_COPIED));
        img->data_written = true;
        CO_TRY(&s->publish, out, tree_clear_copied(&s->count, img, &s->l1));
        CO_TRY(&s->publish, out, snapshots_publish(&s->publication, img, s->list, s->list_count,
                                                   &nothing_else));
        hand_over(s, img, info);
out:
        CO_END(&s->publish);
}

/* ---- giving up ---- */

/* Before the switch the VM state is a tree of its own; somebody may be writing to it. */
static int give_up_state(struct snapshot_create *s, struct image *img)
{
        CO_BEGIN(&s->give_up);
        CO_UNDO(&s->give_up, wait_for_writes(s, img));
        s->state = img->vmstate;
        img->vmstate = (struct l1_table) { .count = 0 };
        vmstate_forget_saved(img);
        gate_open(&img->writes);
        s->gate_held = false;
        if (s->state.count > 0)
                CO_UNDO(&s->give_up, tree_drop(&s->drop, img, &s->state));
        CO_END(&s->give_up);
}

/* After it the state is part of the tree. */
static int give_up_tree(struct snapshot_create *s, struct image *img)
{
        CO_BEGIN(&s->give_up);
        vmstate_forget_saved(img);
        CO_UNDO(&s->give_up, tree_drop(&s->drop, img, &s->l1));
        CO_UNDO(&s->give_up, meta_commit_counts(&s->commit, img));
        CO_UNDO(&s->give_up, tree_refresh_copied(&s->count, img));
        CO_END(&s->give_up);
}

/* ---- all of it ---- */

static int take(struct snapshot_create *s, struct image *img, struct hvb_snapshot_info *info,
                struct hvb_error *err)
{
        CO_BEGIN(&s->take);
        CO_TRY(&s->take, give_up_state, prepare(s, img, info, err));
        CO_TRY(&s->take, count_down, switch_over(s, img, info, err));
        CO_TRY(&s->take, give_up_tree, publish(s, img, info));
        goto out;
give_up_tree:
        if (img->state != IMAGE_POISONED)
                CO_UNDO(&s->take, give_up_tree(s, img));
        goto out;
count_down:
        if (img->state != IMAGE_POISONED)
                CO_UNDO(&s->take, tree_unprepare(&s->count, img));
give_up_state:
        if (img->state != IMAGE_POISONED)
                CO_UNDO(&s->take, give_up_state(s, img));
out:
        if (s->gate_held)
                gate_open(&img->writes);
        s->gate_held = false;
        CO_END(&s->take);
}

int snapshot_create(struct snapshot_create *s, struct image *img, struct hvb_snapshot_info *info,
                    uint32_t flags, struct hvb_error *err)
{
        image_assert(img);

        CO_BEGIN(s);
        CO_TRY(s, done, co_lock_acquire(&img->control, &s->control));
        CO_TRY(s, unlock, check_request(s, img, info, flags, err));
        CO_TRY(s, forget, read_replaced(s, img));
        CO_TRY(s, forget, make_list(s, img, info));
        CO_TRY(s, forget, motion_begin(&s->motion, img));
        hold_replaced(s, img);
        CO_TRY(s, end, take(s, img, info, err));
        if (s->replaced >= 0)
                CO_UNDO(s, snapshot_unlink(&s->unlink, img, s->old_pin, &s->old_l1));
        s->old_pin = NULL;
end:
        CO_UNDO(s, motion_end(&s->motion, img));
forget:
        forget(s, img);
unlock:
        co_lock_release(&img->control);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not create snapshot '%.255s' in %s: %s",
                          info->name, img->name, g_strerror(-s->co.err));
        CO_END(s);
}
