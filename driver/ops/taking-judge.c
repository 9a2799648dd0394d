/*
 * taking-judge.c - whether a snapshot can be taken, as far as that can be said beforehand.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/error.h"
#include "ops/taking-parts.h"

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

int taking_judge(struct taking *s, struct image *img, const struct hvb_snapshot_info *info,
                 struct hvb_error *err)
{
        int ret = image_check_writable(img);

        if (ret < 0)
                return error_set(err, ret, "%s cannot be written: %s", img->name,
                                 g_strerror(-ret));
        ret = check_name(info, err);
        if (ret < 0)
                return ret;
        if ((s->flags & HVB_SNAPSHOT_REPLACE) && (s->flags & HVB_SNAPSHOT_DUPLICATE))
                return error_set(err, -EINVAL, "snapshot '%s' can replace another or stand beside "
                                 "it, not both", info->name);
        s->replaced = -1;
        if (!(s->flags & HVB_SNAPSHOT_DUPLICATE))
                s->replaced = snapshots_find(img, NULL, info->name);
        if (s->replaced >= 0 && !(s->flags & HVB_SNAPSHOT_REPLACE))
                return error_set(err, -EEXIST, "snapshot '%s' exists already in %s", info->name,
                                 img->name);
        ret = check_room(img, s->replaced, err);
        if (ret == 0 && s->replaced >= 0)
                ret = snapshot_validate_l1(&img->snapshots[s->replaced], image_geometry(img),
                                           (uint64_t)MAX(io_file_length(&img->file), 0), err);
        return ret;
}

uint64_t taking_l1_slots(const struct image *img, const struct hvb_snapshot_info *info)
{
        const struct geometry *g = image_geometry(img);
        uint64_t state_slots = u64_max(geometry_l1_entries(g, info->vm_state_bytes),
                                       img->vmstate.count);

        return u64_max(geometry_l1_entries(g, image_size(img)) + state_slots, 1);
}

int taking_check_slots(const struct image *img, const struct hvb_snapshot_info *info,
                       struct hvb_error *err)
{
        uint64_t slots = taking_l1_slots(img, info);

        if (slots <= MAX_L1_BYTES / 8)
                return 0;
        return error_set(err, -EFBIG, "the disk of %" PRIu64 " bytes and %" PRIu64
                         " bytes of VM state need %" PRIu64 " L1 entries, limit %u",
                         image_size(img), info->vm_state_bytes, slots, MAX_L1_BYTES / 8);
}
