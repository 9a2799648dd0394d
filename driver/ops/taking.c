/*
 * taking.c - taking an internal snapshot, while the guest reads and writes: up to the switch.
 *
 * Prepare
 *   1. a v3 image is marked dirty; VM state that QEMU left in the active L1 goes
 *   2. the active tree's counts go up, an L2 table at a time.  In what is counted already
 *      a cluster that the guest allocates counts two, one that it frees loses two, so
 *      that nothing is left to be added at the switch (map_weight)
 * Switch, in memory: writes in flight land, new ones wait
 *   3. the snapshot takes the L1 entries; COPIED goes from the active L1.  Whatever it maps is
 *      shared from now on: the guest copies a table before it changes it, and a cluster before it
 *      writes to it
 * Publish (taking-publish.c)
 *   4. the snapshot takes the saved VM state, behind the disk; its L1 is written, COPIED goes from
 *      its tables, which nobody changes any more
 *   5. counts, flags and the active L1 are made stable
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

#include "disk/error.h"
#include "disk/planted.h"
#include "ops/taking-parts.h"

/* ---- prepare ---- */

static int tell_overflow(const struct image *img, int code, struct hvb_error *err)
{
        if (code != -EINVAL)
                return code;
        return error_set(err, code, "refcount_bits=%u of %s cannot count another snapshot",
                         1u << image_geometry(img)->refcount_order, img->name);
}

/* Counts of one bit have no second reference to give: then nothing may be mapped. */
static bool counts_are_too_narrow(const struct image *img)
{
        return image_geometry(img)->refcount_max < 2;
}

static int check_unmapped(const struct taking *s, const struct image *img)
{
        uint32_t i;

        for (i = 0; i < s->disk_slots; i++)
                if (img->active.entries[i] != 0)
                        return -EINVAL;
        return 0;
}

static int count_tree(struct taking *s, struct image *img)
{
        if (counts_are_too_narrow(img))
                return check_unmapped(s, img);
        return tree_prepare(&s->count, img, s->disk_slots);
}

/* Memory that the switch fills, once used: what is new costs page faults, and then the guest
 * waits. */
static int make_l1(struct taking *s, const struct image *img)
{
        int ret = l1_init(&s->l1, s->disk_slots, 0);

        if (ret == 0 && s->disk_slots > 0)
                memcpy(s->l1.entries, img->active.entries, s->disk_slots * sizeof(uint64_t));
        return ret;
}

int taking_prepare(struct taking *s, struct image *img, const struct hvb_snapshot_info *info,
                   uint32_t flags, struct hvb_error *err)
{
        CO_BEGIN(&s->prepare);
        s->flags = flags;
        CO_TRY(&s->prepare, out, taking_judge(s, img, info, err));
        CO_TRY(&s->prepare, out, motion_begin(&s->motion, img));
        CO_UNDO(&s->prepare, vmstate_trim(&s->trim, img));
        CO_TRY(&s->prepare, give_up, taking_check_slots(img, info, err));
        s->disk_slots = (uint32_t)u64_min(geometry_l1_entries(image_geometry(img),
                                                              image_size(img)),
                                          img->active.count);
        CO_TRY(&s->prepare, give_up, make_l1(s, img));
        task_expect(s->disk_slots);
        CO_AWAIT(&s->prepare, count_tree(s, img));
        if (s->prepare.co.ret < 0)
                CO_FAIL(&s->prepare, give_up, tell_overflow(img, s->prepare.co.ret, err));
        if (!task_is_cancelled(task_current()))
                goto out;
        s->prepare.co.err = -ECANCELED;
give_up:
        CO_UNDO(&s->prepare, taking_abort(s, img));
out:
        CO_END(&s->prepare);
}

/* ---- switch ---- */

/* No write is in flight.  After an error nothing has changed. */
static int take_tree(struct taking *s, struct image *img, struct hvb_error *err)
{
        uint32_t i;
        int ret = 0;

        if (counts_are_too_narrow(img))
                ret = tell_overflow(img, check_unmapped(s, img), err);
        if (ret < 0)
                return ret;
        for (i = 0; i < s->disk_slots; i++) {
                s->l1.entries[i] = img->active.entries[i];
                if ((img->active.entries[i] & ENTRY_COPIED) && !PLANTED(SWITCH_KEEPS_COPIED))
                        l1_set(&img->active, i, img->active.entries[i] & ~ENTRY_COPIED);
        }
        img->walked_slots = 0;
        img->compressed_next = 0;
        s->is_switched = true;
        return 0;
}

int taking_switch(struct taking *s, struct image *img, struct hvb_error *err)
{
        CO_BEGIN(&s->switch_over);
        CO_TRY(&s->switch_over, out, image_check_writable(img));
        CO_TRY(&s->switch_over, out, gate_close(&img->writes, &s->gate));
        CO_TRY(&s->switch_over, open_gate, take_tree(s, img, err));
open_gate:
        gate_open(&img->writes);
out:
        CO_END(&s->switch_over);
}
