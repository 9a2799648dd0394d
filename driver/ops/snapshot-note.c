/*
 * snapshot-note.c - see snapshot-note.h.
 *
 * One kind of write: over clusters that nothing but the snapshot refers to, so no metadata
 * changes, and no other reader can see it.  A crash leaves some sectors old and some new.
 *
 * A count of one is what makes that safe: the snapshot is held, so its own reference stays.  Only
 * share_vmstate could add one before the write has ended, of bytes that hosts are told to keep
 * apart; it would then be of what is written.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "ops/snapshot-note.h"

static int check_request(struct image *img, const struct pin *pin, uint64_t offset,
                         uint64_t length_bytes)
{
        uint64_t end;
        int ret = image_check_writable(img);

        if (ret < 0)
                return ret;
        if (pin->state == PIN_STALE)
                return -ESTALE;
        if (offset < pin->vm_state_bytes || !u64_add(offset, length_bytes, &end) ||
            !file_takes(img, offset, length_bytes))
                return -EINVAL;
        return 0;
}

static int check_place(struct image *img, const struct mapping *map)
{
        const struct geometry *g = image_geometry(img);
        uint64_t cluster = round_down(map->host_offset, g->cluster_bytes);

        if (map->kind != CLUSTER_NORMAL)
                return -ENOTSUP;
        if (image_is_metadata(img, cluster, map->host_offset + map->length_bytes - cluster))
                return image_corrupt(img, "%s: a snapshot's VM state is mapped to metadata at host "
                                     "offset 0x%" PRIx64, img->name, map->host_offset);
        return 0;
}

static int check_going_on(const struct image *img)
{
        return task_is_cancelled(task_current()) ? -ECANCELED : image_check_writable(img);
}

/* Bytes from host_offset to the end of its cluster. */
static uint64_t cluster_left(const struct image *img, uint64_t host_offset)
{
        uint64_t cluster_bytes = image_geometry(img)->cluster_bytes;

        return cluster_bytes - (host_offset & (cluster_bytes - 1));
}

/* Coroutine: s->map is what lies at offset, at most max_bytes, all in clusters with a count of
 * one.  No wait lies between the last count and the caller's next line. */
static int find_place(struct snapshot_note *s, struct image *img, struct pin *pin, uint64_t offset,
                      uint64_t max_bytes)
{
        CO_BEGIN(&s->find);
        CO_TRY(&s->find, out, map_lookup(&s->lookup, img, &pin->vm_state, offset, max_bytes,
                                         &s->map));
        CO_TRY(&s->find, out, check_place(img, &s->map));
        for (s->checked = 0; s->checked < s->map.length_bytes;
             s->checked += cluster_left(img, s->map.host_offset + s->checked)) {
                CO_TRY(&s->find, out, refs_get(&s->get, img,
                                               (s->map.host_offset + s->checked) >>
                                               image_geometry(img)->cluster_bits, &s->count));
                if (s->count != 1)
                        CO_FAIL(&s->find, out, -ENOTSUP);
        }
out:
        CO_END(&s->find);
}

int snapshot_note(struct snapshot_note *s, struct image *img, struct pin *pin, uint64_t offset,
                  uint64_t length_bytes, const struct iovec *iov, unsigned iov_count)
{
        CO_BEGIN(s);
        CO_TRY(s, out, gate_enter(&img->writes, &s->waiter));
        CO_TRY(s, leave, check_request(img, pin, offset, length_bytes));
        iov_start(&s->at, iov, iov_count);
        for (s->position = 0; s->position < length_bytes; s->position += s->begun_bytes) {
                CO_TRY(s, drain, pieces_room(&s->pieces));
                CO_TRY(s, drain, find_place(s, img, pin, offset + s->position,
                                            length_bytes - s->position));
                CO_TRY(s, drain, check_going_on(img));
                CO_TRY(s, drain, pieces_transfer(&s->pieces, IO_WRITE, img, s->map.host_offset,
                                                 s->map.length_bytes, &s->at, &s->begun_bytes));
        }
drain:
        CO_AWAIT(s, pieces_drain(&s->pieces));
        if (s->co.err == 0)
                s->co.err = s->co.ret;
leave:
        gate_leave(&img->writes);
out:
        CO_END(s);
}
