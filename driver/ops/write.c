/*
 * write.c - writing guest data.
 *
 * The range is cut where clusters need another treatment.  Private clusters are
 * written in place, several pieces at a time; everything else goes through
 * extent.c, one extent at a time.
 *
 * Invariants:
 *  1. All of it happens inside the gate: no snapshot sees half a treatment.
 *  2. An in-place piece begins in the step that looked its clusters up.
 *  3. Nobody waits for a commit with a range locked.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/write.h"

#include <errno.h>

/* The tree becomes part of a snapshot's L1, behind the disk's entries, and all of them must fit. */
int write_grow_vmstate(struct image *img, uint64_t offset, uint64_t length_bytes)
{
        const struct geometry *g = image_geometry(img);
        uint64_t disk_entries = geometry_l1_entries(g, image_size(img));
        uint64_t end;
        uint64_t count;

        if (!u64_add(offset, length_bytes, &end))
                return -EFBIG;
        count = geometry_l1_entries(g, end);
        if (count + disk_entries > MAX_L1_BYTES / 8)
                return -EFBIG;
        return count > img->vmstate.count ? l1_grow(&img->vmstate, (uint32_t)count) : 0;
}

static int check_request(struct image *img, const struct l1_table *l1, uint64_t offset,
                         uint64_t length_bytes)
{
        int ret = image_check_writable(img);

        if (ret < 0)
                return ret;
        if (!file_takes(img, offset, length_bytes))
                return -EINVAL;
        return l1 == &img->vmstate ? write_grow_vmstate(img, offset, length_bytes) : 0;
}

static int check_going_on(const struct image *img)
{
        return task_is_cancelled(task_current()) ? -ECANCELED : image_check_writable(img);
}

static bool is_in_place(const struct mapping *map)
{
        return map->kind == CLUSTER_NORMAL && map->copied;
}

static int write_in_place(struct write_inside *s, struct image *img)
{
        int ret = pieces_transfer(&s->pieces, IO_WRITE, img, s->map.host_offset,
                                  s->map.length_bytes, &s->at, &s->begun_bytes);

        if (ret == 0)
                s->next_host_offset = round_up(s->map.host_offset + s->begun_bytes,
                                               image_geometry(img)->cluster_bytes);
        return ret;
}

static void after_extent(struct write_inside *s, struct image *img)
{
        iov_advance(&s->at, s->begun_bytes);
        s->next_host_offset = s->extent.host_offset +
                              s->extent.cluster_count * image_geometry(img)->cluster_bytes;
        commit_kick(img);
}

int write_inside(struct write_inside *s, struct image *img, struct l1_table *l1,
                 uint64_t offset, uint64_t length_bytes, const struct iovec *iov,
                 unsigned iov_count)
{
        CO_BEGIN(s);
        iov_start(&s->at, iov, iov_count);
        s->next_host_offset = 0;
        CO_TRY(s, out, check_request(img, l1, offset, length_bytes));
        for (s->position = 0; s->position < length_bytes; s->position += s->begun_bytes) {
                CO_TRY(s, drain, check_going_on(img));
                CO_TRY(s, drain, pieces_room(&s->pieces));
                CO_TRY(s, drain, map_lookup(&s->lookup, img, l1, offset + s->position,
                                            length_bytes - s->position, &s->map));
                if (is_in_place(&s->map)) {
                        CO_TRY(s, drain, write_in_place(s, img));
                        continue;
                }
                if (commit_needed(img))
                        CO_TRY(s, drain, meta_commit(&s->commit, img));
                CO_TRY(s, drain, extent_write(&s->extent, &s->pieces, img, l1,
                                              offset + s->position, length_bytes - s->position,
                                              &s->at, s->next_host_offset, &s->begun_bytes));
                after_extent(s, img);
        }
drain:
        CO_AWAIT(s, pieces_drain(&s->pieces));
        if (s->co.err == 0)
                s->co.err = s->co.ret;
out:
        CO_END(s);
}

int write_range(struct write *s, struct image *img, struct l1_table *l1, uint64_t offset,
                uint64_t length_bytes, const struct iovec *iov, unsigned iov_count)
{
        CO_BEGIN(s);
        CO_TRY(s, out, gate_enter(&img->writes, &s->waiter));
        CO_TRY(s, leave, image_check_change(img, l1, offset, length_bytes));
        CO_TRY(s, leave, write_inside(&s->inside, img, l1, offset, length_bytes, iov,
                                      iov_count));
leave:
        gate_leave(&img->writes);
out:
        CO_END(s);
}
