/*
 * map.c - the two-level map from guest to host offsets.
 *
 * An L2 table is written in place only while it is private (COPIED in its L1 entry);
 * a shared one is copied first.  The copy is complete on disk before the L1
 * entry in memory points to it; the L1 entry reaches the disk with a commit.
 *
 * In a table that is not private no cluster is, whatever its entry says: so a snapshot takes
 * the whole disk by clearing COPIED in the L1 alone, in memory.  The entries follow before
 * it is published.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/planted.h"
#include "meta/map.h"

static uint64_t l1_index(const struct image *img, uint64_t guest_offset)
{
        const struct geometry *g = image_geometry(img);

        return guest_offset >> (g->cluster_bits + g->l2_bits);
}

static uint64_t l2_index(const struct image *img, uint64_t guest_offset)
{
        const struct geometry *g = image_geometry(img);

        return (guest_offset >> g->cluster_bits) & (g->l2_entries - 1);
}

static uint64_t slice_entries(const struct image *img)
{
        return image_geometry(img)->slice_bytes / 8;
}

uint64_t map_index(const struct image *img, uint64_t guest_offset)
{
        return l2_index(img, guest_offset) % slice_entries(img);
}

uint64_t map_entries_left(const struct image *img, uint64_t guest_offset)
{
        return slice_entries(img) - map_index(img, guest_offset);
}

/* A flag without a table, as a damaged image may have it, is no table of ours. */
static bool is_private(const struct image *img, const struct l1_table *l1, uint64_t guest_offset)
{
        uint64_t entry = l1->entries[l1_index(img, guest_offset)];

        return (entry & ENTRY_COPIED) && entry_host_offset(entry) != 0;
}

unsigned map_weight(const struct image *img, const struct l1_table *l1, uint64_t guest_offset)
{
        bool is_counted = l1 == &img->active && l1_index(img, guest_offset) < img->walked_slots;

        return is_counted && !PLANTED(DELTA_LOST) ? 2 : 1;
}

/* 0 with *ret_offset 0: no L2 table. */
static int l2_slice_offset(struct image *img, const struct l1_table *l1, uint64_t guest_offset,
                           uint64_t *ret_offset)
{
        const struct geometry *g = image_geometry(img);
        uint64_t index = l1_index(img, guest_offset);
        uint64_t l2_offset = index < l1->count ? entry_host_offset(l1->entries[index]) : 0;

        if (l2_offset & (g->cluster_bytes - 1))
                return image_corrupt(img, "%s: L2 table offset 0x%" PRIx64 " in L1 entry %" PRIu64
                                     " is not cluster-aligned", img->name, l2_offset, index);
        *ret_offset = l2_offset == 0 ? 0
                : l2_offset + round_down(l2_index(img, guest_offset) * 8, g->slice_bytes);
        return 0;
}

int map_decode(struct image *img, uint64_t entry, uint64_t guest_offset, struct mapping *ret)
{
        const struct geometry *g = image_geometry(img);
        enum cluster_kind kind = entry_kind(g, entry);

        *ret = (struct mapping) {
                .kind = kind,
                .entry = entry,
                .length_bytes = g->cluster_bytes,
        };
        if (kind != CLUSTER_NORMAL && kind != CLUSTER_ZERO_ALLOCATED)
                return 0;
        ret->host_offset = entry_host_offset(entry);
        ret->copied = (entry & ENTRY_COPIED) != 0;
        if (ret->host_offset & (g->cluster_bytes - 1))
                return image_corrupt(img, "%s: host offset 0x%" PRIx64 " of guest offset 0x%" PRIx64
                                     " is not cluster-aligned", img->name, ret->host_offset,
                                     guest_offset);
        if (ret->copied && image_is_metadata(img, ret->host_offset, g->cluster_bytes))
                return image_corrupt(img, "%s: guest offset 0x%" PRIx64 " is mapped to metadata at "
                                     "host offset 0x%" PRIx64, img->name, guest_offset,
                                     ret->host_offset);
        return 0;
}

/* Does the entry, n clusters on, continue the run that began with `first`? */
static bool continues(const struct geometry *g, const struct mapping *first, uint64_t entry,
                      uint64_t n)
{
        if (entry_kind(g, entry) != first->kind)
                return false;
        switch (first->kind) {
        case CLUSTER_NORMAL:
        case CLUSTER_ZERO_ALLOCATED:
                return entry == first->entry + n * g->cluster_bytes;
        case CLUSTER_COMPRESSED:
                return false;
        default:
                return true;
        }
}

static int map_empty(struct image *img, const struct l1_table *l1, uint64_t guest_offset,
                     uint64_t max_bytes, struct mapping *ret)
{
        const struct geometry *g = image_geometry(img);
        uint64_t end = l1_index(img, guest_offset) < l1->count
                ? round_down(guest_offset, g->l2_span_bytes) + g->l2_span_bytes
                : UINT64_MAX;

        *ret = (struct mapping) {
                .kind = CLUSTER_UNALLOCATED,
                .length_bytes = u64_min(max_bytes, end - guest_offset),
        };
        return 0;
}

int map_lookup_cached(struct image *img, struct l1_table *l1, uint64_t guest_offset,
                      uint64_t max_bytes, struct mapping *ret)
{
        const struct geometry *g = image_geometry(img);
        uint64_t in_cluster = guest_offset & (g->cluster_bytes - 1);
        uint64_t index = map_index(img, guest_offset);
        uint64_t left = map_entries_left(img, guest_offset);
        uint64_t offset;
        uint64_t n;
        struct slice *slice;
        int code;

        code = l2_slice_offset(img, l1, guest_offset, &offset);
        if (code < 0)
                return code;
        if (offset == 0)
                return map_empty(img, l1, guest_offset, max_bytes, ret);
        slice = slices_find(&img->l2, offset);
        if (!slice)
                return -EAGAIN;
        code = map_decode(img, map_entry(slice, index), guest_offset, ret);
        if (code < 0)
                return code;
        ret->copied = ret->copied && is_private(img, l1, guest_offset);
        for (n = 1; n < left && n * g->cluster_bytes - in_cluster < max_bytes; n++)
                if (!continues(g, ret, map_entry(slice, index + n), n))
                        break;
        if (n > 1 && ret->copied && image_is_metadata(img, ret->host_offset, n * g->cluster_bytes))
                n = 1;                  /* who comes to that one hears of it */
        ret->length_bytes = u64_min(max_bytes, n * g->cluster_bytes - in_cluster);
        if (ret->host_offset)
                ret->host_offset += in_cluster;
        return 0;
}

int map_lookup(struct map_lookup *s, struct image *img, struct l1_table *l1,
               uint64_t guest_offset, uint64_t max_bytes, struct mapping *ret)
{
        CO_BEGIN(s);
        while ((s->found = map_lookup_cached(img, l1, guest_offset, max_bytes, ret)) == -EAGAIN) {
                l2_slice_offset(img, l1, guest_offset, &s->offset);
                CO_TRY(s, out, slices_load(&s->load, &img->l2, s->offset, &s->slice));
                slice_unpin(&img->l2, s->slice);
        }
        if (s->found < 0)
                CO_FAIL(s, out, s->found);
out:
        CO_END(s);
}

/* ---- making an L2 table private ---- */

/*
 * Entries of a table that was shared cannot be private; a stale COPIED, as other
 * programs leave it, must not survive into a table that we write through.
 */
static void mask_copied(uint8_t *table, uint64_t entry_count)
{
        uint64_t i;

        for (i = 0; i < entry_count; i++)
                table[i * 8] &= 0x7f;
}

/* Memory gets the slice that is wanted, in place of the old table's, which only a snapshot needs
 * now: writes at random would fill the cache with the others. */
static void link_table(struct map_prepare *s, struct image *img, struct l1_table *l1,
                       uint64_t guest_offset)
{
        const struct geometry *g = image_geometry(img);
        uint64_t at = round_down(l2_index(img, guest_offset) * 8, g->slice_bytes);
        uint32_t index = (uint32_t)l1_index(img, guest_offset);
        uint64_t old_offset = entry_host_offset(l1->entries[index]);

        slices_drop(&img->l2, s->new_offset, g->cluster_bytes);
        if (old_offset)
                slices_forget(&img->l2, old_offset + at);
        slices_add(&img->l2, s->new_offset + at, s->buffer + at);
        l1_set(l1, index, s->new_offset | ENTRY_COPIED);
        if (old_offset)
                clusters_free_later(img, old_offset, g->cluster_bytes,
                                    map_weight(img, l1, guest_offset));
}

static int table_add(struct map_prepare *s, struct image *img, struct l1_table *l1,
                     uint64_t guest_offset)
{
        const struct geometry *g = image_geometry(img);

        CO_BEGIN(&s->add);
        s->old_offset = entry_host_offset(l1->entries[l1_index(img, guest_offset)]);
        s->buffer = buffers_get(&img->copies, g->cluster_bytes);
        if (!s->buffer)
                CO_FAIL(&s->add, out, -ENOMEM);
        if (!s->old_offset) {
                memset(s->buffer, 0, g->cluster_bytes);
        } else {
                CO_TRY(&s->add, out, slices_read(&s->read, &img->l2, s->old_offset, s->buffer,
                                                 g->cluster_bytes));
                if (s->read.io.eof_bytes == g->cluster_bytes)
                        CO_FAIL(&s->add, out, image_corrupt(img, "%s: L2 table at 0x%" PRIx64
                                                            " lies beyond the end of the file",
                                                            img->name, s->old_offset));
                mask_copied(s->buffer, g->l2_entries);
        }
        CO_TRY(&s->add, out, clusters_alloc(&s->alloc, img, 1,
                                               map_weight(img, l1, guest_offset),
                                               &s->new_offset));
        CO_TRY(&s->add, give_back, io_write(&s->io, &img->file, s->new_offset, s->buffer,
                                            g->cluster_bytes));
        img->data_written = true;       /* stable before the L1 entry, lazy counts or not */
        link_table(s, img, l1, guest_offset);
        goto out;
give_back:
        CO_UNDO(&s->add, clusters_free(&s->free, img, s->new_offset, g->cluster_bytes,
                                       map_weight(img, l1, guest_offset)));
out:
        buffers_put(&img->copies, s->buffer);
        s->buffer = NULL;
        CO_END(&s->add);
}

/* Somebody else's that is to take the place of the same table, or NULL. */
static struct new_table *find_new_table(const struct image *img, const struct l1_table *l1,
                                        uint32_t index)
{
        GList *l;

        for (l = img->new_tables.head; l; l = l->next) {
                struct new_table *t = l->data;

                if (t->l1 == l1 && t->index == index)
                        return t;
        }
        return NULL;
}

static void begin_table(struct new_table *t, struct image *img, const struct l1_table *l1,
                        uint32_t index)
{
        *t = (struct new_table) { .link = { .data = t }, .l1 = l1, .index = index };
        g_queue_push_tail_link(&img->new_tables, &t->link);
}

static void end_table(struct new_table *t, struct image *img)
{
        g_queue_unlink(&img->new_tables, &t->link);
        waitq_wake_all(&t->made);
}

/* A table that lies on the header or another table, as a hostile image may say, is not written. */
static int check_table(struct image *img, const struct l1_table *l1, uint64_t guest_offset)
{
        uint64_t index = l1_index(img, guest_offset);
        uint64_t l2_offset = entry_host_offset(l1->entries[index]);

        if (!image_is_metadata(img, l2_offset, image_geometry(img)->cluster_bytes))
                return 0;
        return image_corrupt(img, "%s: L2 table offset 0x%" PRIx64 " in L1 entry %" PRIu64
                             " lies on metadata", img->name, l2_offset, index);
}

int map_prepare(struct map_prepare *s, struct image *img, struct l1_table *l1,
                uint64_t guest_offset, struct slice **ret_slice)
{
        CO_BEGIN(s);
        g_assert(l1_index(img, guest_offset) < l1->count);
        while (!is_private(img, l1, guest_offset)) {
                s->other = find_new_table(img, l1, (uint32_t)l1_index(img, guest_offset));
                if (s->other) {
                        CO_TRY(s, out, waitq_wait(&s->other->made, &s->waiter));
                        continue;
                }
                begin_table(&s->table, img, l1, (uint32_t)l1_index(img, guest_offset));
                CO_AWAIT(s, table_add(s, img, l1, guest_offset));
                end_table(&s->table, img);
                if (s->co.ret < 0)
                        CO_FAIL(s, out, s->co.ret);
        }
        CO_TRY(s, out, check_table(img, l1, guest_offset));
        CO_TRY(s, out, l2_slice_offset(img, l1, guest_offset, &s->slice_offset));
        CO_TRY(s, out, slices_load(&s->load, &img->l2, s->slice_offset, ret_slice));
out:
        CO_END(s);
}

struct cluster_run map_entry_clusters(const struct image *img, uint64_t entry)
{
        const struct geometry *g = image_geometry(img);
        struct cluster_run run = { 0, 0 };
        struct compressed_place place;

        switch (entry_kind(g, entry)) {
        case CLUSTER_NORMAL:
        case CLUSTER_ZERO_ALLOCATED:
                run.cluster_index = entry_host_offset(entry) >> g->cluster_bits;
                run.cluster_count = 1;
                break;
        case CLUSTER_COMPRESSED:
                place = entry_compressed_place(g, entry);
                run.cluster_index = place.host_offset >> g->cluster_bits;
                run.cluster_count = ((place.host_offset + place.length_bytes - 1) >>
                                     g->cluster_bits) - run.cluster_index + 1;
                break;
        default:
                break;
        }
        return run;
}

int map_check_slice(struct image *img, const struct slice *slice)
{
        if (!slice->dropped)
                return 0;
        return image_corrupt(img, "%s: the L2 table at 0x%" PRIx64 " was freed, or allocated once "
                             "more, while it was in use", img->name,
                             round_down(slice->host_offset, image_geometry(img)->cluster_bytes));
}

void map_set(struct image *img, struct slice *slice, uint64_t index, uint64_t entry,
             unsigned weight, bool keep_cluster)
{
        struct cluster_run old = map_entry_clusters(img, map_entry(slice, index));
        unsigned cluster_bits = image_geometry(img)->cluster_bits;

        g_assert(slice->pins > 0 && !slice->dropped);
        be64_store(slice->bytes + index * 8, entry);
        slice_mark_dirty(&img->l2, slice);
        if (old.cluster_count > 0 && !keep_cluster)
                clusters_free_later(img, old.cluster_index << cluster_bits,
                                    old.cluster_count << cluster_bits, weight);
}
