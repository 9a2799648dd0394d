/*
 * snapshot-create.c - taking an internal snapshot, guest writes held off.
 *
 *   1. everything is settled, a v3 image is marked dirty; VM state that QEMU left in the
 *      active L1 goes
 *   2. the active tree's counts go up, its COPIED flags are cleared
 *   3. the snapshot's L1 is written: the disk's entries, and behind them those of the
 *      saved VM state, whose references it takes over
 *   4. counts and flags are made stable
 *   5. the new snapshot table is written and the root switches to it
 *   6. the tree of a snapshot that was replaced is counted down
 *
 * A crash before 5 leaves the old list and counts that are too high, which the dirty
 * bit (v3) or a check (v2) repairs; after 5 the new list, and perhaps the replaced
 * snapshot's clusters leaked.  Failing before 5 is undone in reverse order.
 * After 5 the snapshot exists: what fails in 6 leaks and is told, but is no failure.
 *
 * A saved VM state is for one attempt: if that fails past its arguments the state goes
 * too, so that the next one to be saved begins with nothing but holes.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/error.h"
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
static int make_l1(struct snapshot_create *s, struct image *img,
                   const struct hvb_snapshot_info *info, struct hvb_error *err)
{
        const struct geometry *g = image_geometry(img);
        uint64_t state_slot = geometry_l1_entries(g, image_size(img));
        uint64_t state_slots = u64_max(geometry_l1_entries(g, info->vm_state_bytes),
                                       img->vmstate.count);
        uint64_t slots = u64_max(state_slot + state_slots, 1);
        uint32_t i;

        if (slots > MAX_L1_BYTES / 8)
                return error_set(err, -EFBIG, "the disk of %" PRIu64 " bytes and %" PRIu64
                                 " bytes of VM state need %" PRIu64 " L1 entries, limit %u",
                                 image_size(img), info->vm_state_bytes, slots,
                                 MAX_L1_BYTES / 8);
        if (l1_init(&s->l1, (uint32_t)slots, 0) < 0)
                return -ENOMEM;
        new_entry(s)->l1_entries = (uint32_t)slots;
        s->disk_slots = (uint32_t)u64_min(state_slot, img->active.count);
        for (i = 0; i < s->disk_slots; i++)
                s->l1.entries[i] = img->active.entries[i];
        for (i = 0; i < img->vmstate.count; i++)
                s->l1.entries[state_slot + i] = img->vmstate.entries[i];
        return 0;
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

static void forget(struct snapshot_create *s)
{
        snapshots_free_list(s->list, s->list_count);
        s->list = NULL;
        l1_clear(&s->l1);
        l1_clear(&s->old_l1);
}

/* ---- the steps ---- */

/* References to the VM state are the snapshot's now; a compressed cluster that was being
 * filled up stays as it is. */
static void hand_over(struct snapshot_create *s, struct image *img,
                      struct hvb_snapshot_info *info)
{
        const struct snapshot *entry = &img->snapshots[s->list_count - 1];

        s->list = NULL;
        l1_clear(&img->vmstate);
        img->vmstate_pending = false;
        img->compressed_next = 0;
        if (s->replaced >= 0)
                vmstate_forget_loaded(img, s->old_l1.offset);
        if (img->loaded.offset == 0)
                vmstate_take_loaded(img, entry, &s->l1);
        g_strlcpy(info->id_str, entry->id, sizeof(info->id_str));
        info->disk_bytes = entry->disk_bytes;
}

static int count_overflow(const struct image *img, const struct hvb_snapshot_info *info, int code,
                          struct hvb_error *err)
{
        if (code != -EINVAL)
                return code;
        return error_set(err, code, "refcount_bits=%u of %s cannot count another snapshot ('%s')",
                         1u << image_geometry(img)->refcount_order, img->name, info->name);
}

static int read_replaced(struct snapshot_create *s, struct image *img)
{
        const struct snapshot *old;

        if (s->replaced < 0)
                return 0;
        old = &img->snapshots[s->replaced];
        return l1_read(&s->io, img, old->l1_offset, old->l1_entries, &s->old_l1);
}

/* From 2 to 5, or back. */
static int take(struct snapshot_create *s, struct image *img, struct hvb_snapshot_info *info,
                struct hvb_error *err)
{
        static const struct root_change nothing_else = { .what = 0 };

        CO_BEGIN(&s->take);
        CO_AWAIT(&s->take, tree_count_up(&s->count, img, &img->active, s->disk_slots));
        if (s->take.co.ret < 0)
                CO_FAIL(&s->take, refresh, count_overflow(img, info, s->take.co.ret, err));
        CO_TRY(&s->take, count_down, tree_clear_copied(&s->count, img, &img->vmstate));
        CO_TRY(&s->take, count_down, clusters_alloc(&s->alloc, img,
                                                    tree_l1_clusters(img, s->l1.count),
                                                    &new_entry(s)->l1_offset));
        CO_TRY(&s->take, free_l1, l1_write(&s->io, img, &s->l1, new_entry(s)->l1_offset,
                                           ~ENTRY_COPIED));
        img->data_written = true;
        CO_TRY(&s->take, free_l1, snapshots_publish(&s->publish, img, s->list, s->list_count,
                                                    &nothing_else));
        hand_over(s, img, info);
        goto out;

free_l1:
        if (img->state == IMAGE_POISONED)
                goto out;
        CO_UNDO(&s->take, clusters_free(&s->free, img, new_entry(s)->l1_offset,
                                        s->l1.count * UINT64_C(8)));
count_down:
        if (img->state == IMAGE_POISONED)
                goto out;
        CO_UNDO(&s->take, tree_count_down(&s->count, img, &img->active, s->disk_slots));
refresh:
        if (img->state == IMAGE_POISONED)
                goto out;
        CO_UNDO(&s->take, tree_refresh_copied(&s->refresh, img, &img->active));
        CO_UNDO(&s->take, vmstate_drop(&s->drop_state, img));
out:
        CO_END(&s->take);
}

int snapshot_create(struct snapshot_create *s, struct image *img, struct hvb_snapshot_info *info,
                    uint32_t flags, struct hvb_error *err)
{
        image_assert(img);

        CO_BEGIN(s);
        CO_TRY(s, done, co_lock_acquire(&img->control, &s->waiter));
        CO_TRY(s, unlock, check_request(s, img, info, flags, err));
        CO_TRY(s, forget, read_replaced(s, img));
        CO_TRY(s, forget, make_list(s, img, info));
        CO_TRY(s, forget, exclusive_begin(&s->exclusive, img));
        CO_UNDO(s, vmstate_trim(&s->trim, img));
        CO_TRY(s, end, make_l1(s, img, info, err));
        CO_TRY(s, end, take(s, img, info, err));
        if (s->replaced >= 0)
                CO_UNDO(s, tree_drop(&s->drop, img, &s->old_l1));
end:
        CO_UNDO(s, exclusive_end(&s->exclusive, img));
forget:
        forget(s);
unlock:
        co_lock_release(&img->control);
done:
        if (s->co.err)
                error_set(err, s->co.err, "could not create snapshot '%.255s' in %s: %s",
                          info->name, img->name, g_strerror(-s->co.err));
        CO_END(s);
}
