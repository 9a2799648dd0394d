/*
 * extent.c - writing to clusters that cannot be written in place: allocation and
 * copy-on-write.
 *
 *      lock the guest range -> get a private L2 slice, pinned -> judge its entries
 *        -> claim host clusters -> read the edges' old content
 *        -> write head + data + tail -> set the entries -> unpin, unlock
 *
 * Invariants:
 *  1. Entries are judged with the range locked and the slice pinned: they stay as
 *     judged.  They are set only after the data landed.
 *  2. Until then nothing refers to the new clusters, so failure gives them back.
 *  3. Every byte of a new cluster is written, but for zeros where the file was
 *     never written (clusters_take_fresh).
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/extent.h"

#include <errno.h>

#include "meta/commit.h"

enum { EXTENT_MAX_BYTES = 2 << 20 };

static uint64_t clusters_bytes(const struct image *img, uint64_t count)
{
        return count << image_geometry(img)->cluster_bits;
}

/* How far to go: whole clusters of one slice, and not too many. */
static void plan(struct extent *s, const struct image *img, uint64_t offset, uint64_t length_bytes)
{
        const struct geometry *g = image_geometry(img);
        uint64_t end = round_up(offset + length_bytes, g->cluster_bytes);
        uint64_t limit = u64_max(EXTENT_MAX_BYTES >> g->cluster_bits, 1);

        s->first = round_down(offset, g->cluster_bytes);
        s->cluster_count = u64_min((end - s->first) >> g->cluster_bits, limit);
        s->cluster_count = u64_min(s->cluster_count, map_entries_left(img, offset));
        s->index = map_index(img, offset);
}

/* ---- judging ---- */

static enum extent_treatment treatment_of(const struct image *img, const struct mapping *map)
{
        if (map->kind == CLUSTER_NORMAL && map->copied)
                return EXTENT_IN_PLACE;
        if (map->kind == CLUSTER_ZERO_ALLOCATED && map->copied && !img->grace.late_writes)
                return EXTENT_REUSE;
        return EXTENT_NEW;
}

/* Shortens the extent to clusters of one treatment; existing ones must lie together. */
static int judge(struct extent *s, struct image *img)
{
        struct mapping map;
        uint64_t n;
        int ret;

        for (n = 0; n < s->cluster_count; n++) {
                ret = map_decode(img, map_entry(s->slice, s->index + n),
                                 s->first + clusters_bytes(img, n), &map);
                if (ret < 0)
                        return ret;
                if (n == 0) {
                        s->treatment = treatment_of(img, &map);
                        s->host_offset = map.host_offset;
                }
                if (treatment_of(img, &map) != s->treatment)
                        break;
                if (s->treatment != EXTENT_NEW &&
                    map.host_offset != s->host_offset + clusters_bytes(img, n))
                        break;
        }
        g_assert(n > 0);
        s->cluster_count = n;
        s->is_fresh = false;
        return 0;
}

/* Behind the guest's cluster before this one, so that neighbours stay neighbours. */
static uint64_t preferred_place(const struct extent *s, struct image *img, uint64_t want)
{
        struct mapping before;

        if (s->index == 0 ||
            map_decode(img, map_entry(s->slice, s->index - 1), s->first, &before) < 0 ||
            before.host_offset == 0)
                return want;
        return before.host_offset + clusters_bytes(img, 1);
}

/* Coroutine: host clusters for as many of the extent's as lie together. */
static int claim(struct extent *s, struct image *img, uint64_t want_host_offset)
{
        CO_BEGIN(&s->claim);
        memset(&s->u.alloc, 0, sizeof(s->u.alloc));
        s->claim.want = preferred_place(s, img, want_host_offset);
        s->claim.why = clusters_alloc_cached(img, s->cluster_count, s->weight, s->claim.want,
                                             &s->host_offset, &s->claim.count);
        if (s->claim.why == -EAGAIN)
                CO_TRY(&s->claim, out, clusters_alloc_run(&s->u.alloc, img, s->cluster_count,
                                                          s->weight, s->claim.want,
                                                          &s->host_offset, &s->claim.count));
        else if (s->claim.why < 0)
                CO_FAIL(&s->claim, out, s->claim.why);
        g_assert(s->claim.count > 0 && s->claim.count <= s->cluster_count);
        s->cluster_count = s->claim.count;
        s->is_fresh = clusters_take_fresh(img, s->host_offset,
                                          clusters_bytes(img, s->cluster_count));
out:
        CO_END(&s->claim);
}

/* ---- edges ---- */

static bool chain_has_content(const struct image *img, const struct l1_table *l1,
                              uint64_t guest_offset)
{
        return chain_goes_on(img, l1) &&
               (img->backing_missing || guest_offset < image_size(img->backing));
}

static void plan_edge(const struct extent *s, struct extent_edge *edge, const struct image *img,
                      const struct l1_table *l1, uint64_t entry, uint64_t guest_offset)
{
        enum cluster_kind kind = entry_kind(image_geometry(img), entry);
        bool is_zero = kind == CLUSTER_ZERO_PLAIN || kind == CLUSTER_ZERO_ALLOCATED ||
                       (kind == CLUSTER_UNALLOCATED && !chain_has_content(img, l1, guest_offset));

        edge->fill = EDGE_NONE;
        edge->bytes = NULL;
        if (edge->length_bytes == 0 || s->treatment == EXTENT_IN_PLACE || (is_zero && s->is_fresh))
                return;
        edge->fill = is_zero ? EDGE_ZEROS : EDGE_CONTENT;
        if (is_zero)
                edge->bytes = iov_zeros();
}

static void plan_edges(struct extent *s, const struct image *img, const struct l1_table *l1,
                       uint64_t offset, uint64_t length_bytes)
{
        uint64_t end = s->first + clusters_bytes(img, s->cluster_count);

        s->data_bytes = u64_min(length_bytes, end - offset);
        s->head.length_bytes = offset - s->first;
        s->tail.length_bytes = end - (offset + s->data_bytes);
        plan_edge(s, &s->head, img, l1, map_entry(s->slice, s->index), s->first);
        plan_edge(s, &s->tail, img, l1, map_entry(s->slice, s->index + s->cluster_count - 1),
                  end - s->tail.length_bytes);
}

/* True: one read of the whole cluster gives both edges. */
static bool edges_share(const struct extent *s)
{
        return s->cluster_count == 1 && s->head.fill == EDGE_CONTENT &&
               s->tail.fill == EDGE_CONTENT;
}

static int edges_memory(struct extent *s, struct image *img)
{
        uint64_t head_bytes = s->head.fill == EDGE_CONTENT ? s->head.length_bytes : 0;
        uint64_t tail_bytes = s->tail.fill == EDGE_CONTENT ? s->tail.length_bytes : 0;
        uint64_t tail_at = edges_share(s) ? head_bytes + s->data_bytes : head_bytes;

        g_assert(!s->buffer && tail_at + tail_bytes <= clusters_bytes(img, 2));
        s->buffer = buffers_get(&img->copies, tail_at + tail_bytes);
        if (!s->buffer)
                return -ENOMEM;
        if (head_bytes > 0)
                s->head.bytes = s->buffer;
        if (tail_bytes > 0)
                s->tail.bytes = s->buffer + tail_at;
        return 0;
}

/* Coroutine: the old content around the data. */
static int read_edges(struct extent *s, struct pieces *w, struct image *img, struct l1_table *l1)
{
        CO_BEGIN(&s->edges);
        if (s->head.fill != EDGE_CONTENT && s->tail.fill != EDGE_CONTENT)
                goto out;
        CO_TRY(&s->edges, out, edges_memory(s, img));
        memset(&s->u.fetch, 0, sizeof(s->u.fetch));
        if (edges_share(s)) {
                CO_TRY(&s->edges, out, fetch_buffer(&s->u.fetch, w, img, l1, s->first, s->buffer,
                                                    clusters_bytes(img, 1)));
                goto out;
        }
        if (s->head.fill == EDGE_CONTENT)
                CO_TRY(&s->edges, out, fetch_buffer(&s->u.fetch, w, img, l1, s->first,
                                                    s->head.bytes, s->head.length_bytes));
        if (s->tail.fill == EDGE_CONTENT)
                CO_TRY(&s->edges, out, fetch_buffer(&s->u.fetch, w, img, l1,
                                                    s->first + s->head.length_bytes +
                                                    s->data_bytes,
                                                    s->tail.bytes, s->tail.length_bytes));
out:
        CO_END(&s->edges);
}

/* ---- writing ---- */

static struct iovec edge_iovec(const struct extent_edge *edge)
{
        return (struct iovec){ edge->bytes, edge->length_bytes };
}

/* Head, data and tail in one list.  False: the data has too many elements for that. */
static bool gather(struct extent *s, const struct iov_cursor *at)
{
        const struct iovec *iov;
        unsigned room = EXTENT_IOVECS - 2;
        unsigned data_count;
        unsigned n = 0;

        if (s->head.fill != EDGE_NONE)
                s->list[n++] = edge_iovec(&s->head);
        if (iov_slice(at, s->data_bytes, s->list + n, room, &iov, &data_count) < s->data_bytes ||
            data_count > room)
                return false;
        if (iov != s->list + n)
                memcpy(s->list + n, iov, data_count * sizeof(*iov));
        n += data_count;
        if (s->tail.fill != EDGE_NONE)
                s->list[n++] = edge_iovec(&s->tail);
        iov_start(&s->part[0].at, s->list, n);
        return true;
}

static void add_part(struct extent *s, const struct iov_cursor *at, uint64_t host_offset,
                     uint64_t length_bytes)
{
        s->part[s->part_count++] = (struct extent_part){ *at, host_offset, length_bytes };
}

static void add_edge(struct extent *s, const struct extent_edge *edge, struct iovec *iov,
                     uint64_t host_offset)
{
        struct iov_cursor at;

        if (edge->fill == EDGE_NONE)
                return;
        *iov = edge_iovec(edge);
        iov_start(&at, iov, 1);
        add_part(s, &at, host_offset, edge->length_bytes);
}

static void plan_parts(struct extent *s, const struct iov_cursor *at)
{
        uint64_t head_bytes = s->head.fill == EDGE_NONE ? 0 : s->head.length_bytes;
        uint64_t tail_bytes = s->tail.fill == EDGE_NONE ? 0 : s->tail.length_bytes;
        uint64_t data_offset = s->host_offset + s->head.length_bytes;

        s->part_count = 0;
        if (head_bytes + tail_bytes > 0 && gather(s, at)) {
                s->part[0].host_offset = data_offset - head_bytes;
                s->part[0].length_bytes = head_bytes + s->data_bytes + tail_bytes;
                s->part_count = 1;
                return;
        }
        add_edge(s, &s->head, &s->list[0], s->host_offset);
        add_part(s, at, data_offset, s->data_bytes);
        add_edge(s, &s->tail, &s->list[1], data_offset + s->data_bytes);
}

static int begin_part(struct extent *s, struct pieces *w, struct image *img)
{
        struct extent_part *part = &s->part[s->store.part];
        int ret;

        ret = pieces_transfer(w, IO_WRITE, img, part->host_offset, part->length_bytes, &part->at,
                              &s->store.begun_bytes);
        if (ret < 0)
                return ret;
        part->host_offset += s->store.begun_bytes;
        part->length_bytes -= s->store.begun_bytes;
        if (part->length_bytes == 0)
                s->store.part++;
        return 0;
}

/* Coroutine: all parts, landed. */
static int store(struct extent *s, struct pieces *w, struct image *img)
{
        CO_BEGIN(&s->store);
        s->store.part = 0;
        while (s->store.part < s->part_count) {
                CO_TRY(&s->store, drain, pieces_room(w));
                CO_TRY(&s->store, drain, begin_part(s, w, img));
        }
drain:
        CO_AWAIT(&s->store, pieces_drain(w));
        if (s->store.co.err == 0)
                s->store.co.err = s->store.co.ret;
        CO_END(&s->store);
}

/* The data landed: the guest's clusters are the host clusters from now on. */
static void link_clusters(struct extent *s, struct image *img)
{
        uint64_t n;

        if (s->treatment == EXTENT_IN_PLACE)
                return;
        for (n = 0; n < s->cluster_count; n++)
                map_set(img, s->slice, s->index + n,
                        (s->host_offset + clusters_bytes(img, n)) | ENTRY_COPIED, s->weight,
                        s->treatment == EXTENT_REUSE);
}

int extent_write(struct extent *s, struct pieces *w, struct image *img, struct l1_table *l1,
                 uint64_t offset, uint64_t length_bytes, const struct iov_cursor *at,
                 uint64_t want_host_offset, uint64_t *ret_bytes)
{
        CO_BEGIN(s);
        plan(s, img, offset, length_bytes);
        CO_TRY(s, done, range_lock(&s->lock, img, l1 != &img->active, s->first,
                                   s->first + clusters_bytes(img, s->cluster_count)));
        s->weight = map_weight(img, l1, s->first);
        memset(&s->u.prepare, 0, sizeof(s->u.prepare));
        CO_TRY(s, unlock, map_prepare(&s->u.prepare, img, l1, offset, &s->slice));
        CO_TRY(s, unpin, judge(s, img));
        if (s->treatment == EXTENT_NEW)
                CO_TRY(s, unpin, claim(s, img, want_host_offset));
        plan_edges(s, img, l1, offset, length_bytes);
        CO_TRY(s, give_back, read_edges(s, w, img, l1));
        plan_parts(s, at);
        CO_TRY(s, give_back, store(s, w, img));
        CO_TRY(s, give_back, map_check_slice(img, s->slice));
        link_clusters(s, img);
        *ret_bytes = s->data_bytes;
        goto unpin;

give_back:
        memset(&s->u.free, 0, sizeof(s->u.free));
        if (s->treatment == EXTENT_NEW)
                CO_UNDO(s, clusters_free(&s->u.free, img, s->host_offset,
                                         clusters_bytes(img, s->cluster_count), s->weight));
unpin:
        buffers_put(&img->copies, s->buffer);
        s->buffer = NULL;
        slice_unpin(&img->l2, s->slice);
unlock:
        range_unlock(&s->lock, img);
done:
        CO_END(s);
}
