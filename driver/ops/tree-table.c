/*
 * tree-table.c - counting the references of one L2 table, and its COPIED flags.
 *
 * A disk of 1 TiB has 16 million entries, so they are looked at in blocks: one pass
 * without branches tells whether a block references nothing, or one run of
 * clusters that are neighbours on the host, as sequentially written data is.  Runs
 * grow over blocks and are counted at once.  Only what is neither goes entry by entry.
 *
 * References come in a fixed order: entries, then the table itself.  So a number
 * says how far a walk has come, and the same walk downwards, limited to that
 * number, takes it back exactly.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/planted.h"
#include "disk/refcount.h"
#include "ops/tree-table.h"

/* Entries looked at together; the smallest table has as many. */
enum { BLOCK = 64 };

#define COPIED_BYTE 0x80        /* of an entry's first byte in the file */

void tree_table_begin(struct tree_table *t, uint8_t *bytes, uint64_t host_offset)
{
        *t = (struct tree_table) { .bytes = bytes, .host_offset = host_offset };
}

static uint64_t entry_at(const struct tree_table *t, uint64_t index)
{
        return be64_load(t->bytes + index * 8);
}

struct block_look {
        uint64_t bits;                  /* set in any entry */
        uint64_t first;                 /* the first entry without COPIED */
        bool is_run;                    /* each entry is the one before plus a cluster */
};

static struct block_look look(const uint8_t *raw, uint64_t cluster_bytes)
{
        uint64_t first = be64_load(raw) & ~ENTRY_COPIED;
        uint64_t differs = 0;
        uint64_t bits = 0;

        for (unsigned i = 0; i < BLOCK; i++) {
                uint64_t entry = be64_load(raw + i * 8);

                bits |= entry;
                differs |= entry ^ (first + i * cluster_bytes);
        }
        return (struct block_look) { bits, first, (differs & ~ENTRY_COPIED) == 0 };
}

static bool references_nothing(const struct block_look *l)
{
        return (l->bits & (ENTRY_OFFSET_MASK | ENTRY_COMPRESSED)) == 0;
}

static bool is_cluster_run(const struct geometry *g, const struct block_look *l)
{
        return l->is_run && !(l->bits & ENTRY_COMPRESSED) && entry_host_offset(l->first) != 0 &&
               (entry_host_offset(l->first) & (g->cluster_bytes - 1)) == 0;
}

static void clear_copied(struct tree_table *t, const struct block_look *l)
{
        if (!(l->bits & ENTRY_COPIED) || PLANTED(COPIED_KEPT))
                return;
        for (unsigned i = 0; i < BLOCK; i++)
                t->bytes[(t->entry + i) * 8] &= (uint8_t)~COPIED_BYTE;
        t->changed = true;
}

static int misaligned(struct image *img, const struct tree_table *t, uint64_t entry)
{
        return image_corrupt(img, "%s: L2 entry %" PRIu64 " of the table at 0x%" PRIx64
                             " has offset 0x%" PRIx64 ", which is not cluster-aligned",
                             img->name, t->entry, t->host_offset, entry_host_offset(entry));
}

/* ---- counting ---- */

static int delta_of(const struct tree_tally *tally)
{
        return tally->mode == TREE_COUNT_DOWN ? -1 : 1;
}

static void note_refusal(struct tree_tally *tally, int why)
{
        if (tally->refused++ == 0)
                tally->first_refusal = why;
}

/* Counts what the run holds.  0 also when the limit is reached: the rest is dropped. */
static int run_flush(struct tree_table *t, struct tree_tally *tally, struct image *img)
{
        struct cluster_run *run = &t->run;

        run->cluster_count = u64_min(run->cluster_count, tally->limit - tally->counted);
        while (run->cluster_count > 0) {
                int why = 0;
                uint64_t done = refs_add_cached(img, run->cluster_index, run->cluster_count,
                                                delta_of(tally), &why);

                run->cluster_index += done;
                run->cluster_count -= done;
                tally->counted += done;
                if (run->cluster_count == 0)
                        break;
                if (why == -EAGAIN) {
                        tally->missing = run->cluster_index;
                        return why;
                }
                if (delta_of(tally) > 0)
                        return why;
                note_refusal(tally, why);
                run->cluster_index++;
                run->cluster_count--;
                tally->counted++;
        }
        return 0;
}

static int run_add(struct tree_table *t, struct tree_tally *tally, struct image *img,
                   uint64_t cluster_index, uint64_t cluster_count)
{
        struct cluster_run *run = &t->run;
        int ret;

        if (run->cluster_count > 0 && run->cluster_index + run->cluster_count == cluster_index) {
                run->cluster_count += cluster_count;
                return 0;
        }
        ret = run_flush(t, tally, img);
        if (ret == 0)
                *run = (struct cluster_run) { cluster_index, cluster_count };
        return ret;
}

static int count_entry(struct tree_table *t, struct tree_tally *tally, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        uint64_t entry = entry_at(t, t->entry);
        struct cluster_run refs;

        if (!(entry & ENTRY_COMPRESSED)) {
                if (entry_host_offset(entry) == 0)
                        return 0;
                if ((entry & ENTRY_OFFSET_MASK & (g->cluster_bytes - 1)) == 0)
                        return run_add(t, tally, img, entry_host_offset(entry) >> g->cluster_bits,
                                       1);
                if (delta_of(tally) > 0)
                        return misaligned(img, t, entry);
                note_refusal(tally, misaligned(img, t, entry));
                return 0;
        }
        refs = map_entry_clusters(img, entry);
        return run_add(t, tally, img, refs.cluster_index, refs.cluster_count);
}

/* Advances t->entry by a block, or by one where the block is mixed. */
static int count_next(struct tree_table *t, struct tree_tally *tally, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        struct block_look l;
        int ret;

        if (t->entry % BLOCK == 0) {
                l = look(t->bytes + t->entry * 8, g->cluster_bytes);
                if (tally->mode == TREE_COUNT_UP || tally->mode == TREE_CLEAR_COPIED)
                        clear_copied(t, &l);
                if (tally->mode == TREE_CLEAR_COPIED || references_nothing(&l)) {
                        t->entry += BLOCK;
                        return 0;
                }
                if (is_cluster_run(g, &l)) {
                        ret = run_add(t, tally, img, entry_host_offset(l.first) >> g->cluster_bits,
                                      BLOCK);
                        t->entry += ret == 0 ? BLOCK : 0;
                        return ret;
                }
        }
        ret = count_entry(t, tally, img);
        t->entry += ret == 0 ? 1 : 0;
        return ret;
}

static int count_table(struct tree_table *t, struct tree_tally *tally, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        int ret;

        while (t->entry < g->l2_entries) {
                ret = count_next(t, tally, img);
                if (ret < 0)
                        return ret;
        }
        if (tally->mode == TREE_CLEAR_COPIED)
                return 0;
        if (!t->own_seen) {
                ret = run_add(t, tally, img, t->host_offset >> g->cluster_bits, 1);
                if (ret < 0)
                        return ret;
                t->own_seen = true;
        }
        return run_flush(t, tally, img);
}

/* ---- COPIED as the counts say ---- */

static int count_of(struct tree_tally *tally, struct image *img, uint64_t cluster_index,
                    uint64_t *ret_count)
{
        int ret = refs_get_cached(img, cluster_index, ret_count);

        tally->missing = cluster_index;
        return ret;
}

static void set_copied(struct tree_table *t, uint64_t index, bool copied)
{
        uint8_t *p = t->bytes + index * 8;
        uint8_t wanted = (uint8_t)((*p & ~COPIED_BYTE) | (copied ? COPIED_BYTE : 0));

        t->changed |= *p != wanted;
        *p = wanted;
}

static int refresh_entry(struct tree_table *t, struct tree_tally *tally, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        uint64_t entry = entry_at(t, t->entry);
        uint64_t count = 0;
        int ret = 0;

        if ((entry & ENTRY_COMPRESSED) || entry_host_offset(entry) == 0)
                goto set;
        if (entry & ENTRY_OFFSET_MASK & (g->cluster_bytes - 1)) {
                misaligned(img, t, entry);
                return 0;
        }
        ret = count_of(tally, img, entry_host_offset(entry) >> g->cluster_bits, &count);
        if (ret < 0)
                return ret;
set:
        set_copied(t, t->entry, count == 1);
        return 0;
}

/* True if the block's counts are all alike; then its flags are set. */
static bool refresh_run(struct tree_table *t, struct image *img, const struct block_look *l)
{
        const struct geometry *g = image_geometry(img);
        uint64_t first = entry_host_offset(l->first) >> g->cluster_bits;
        uint64_t in_slice = first % refs_slice_counts(img);
        struct slice *slice;
        uint64_t offset;
        uint64_t count;

        if (in_slice + BLOCK > refs_slice_counts(img) ||
            refs_slice_offset(img, first, &offset) < 0 || offset == 0)
                return false;
        slice = slices_find(&img->refs.cache, offset);
        if (!slice)
                return false;
        count = refcount_get(slice->bytes, g->refcount_order, in_slice);
        if (!refcount_all(slice->bytes, g->refcount_order, in_slice, BLOCK, count))
                return false;
        for (unsigned i = 0; i < BLOCK; i++)
                set_copied(t, t->entry + i, count == 1);
        return true;
}

static int refresh_next(struct tree_table *t, struct tree_tally *tally, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        struct block_look l;
        int ret;

        if (t->entry % BLOCK == 0) {
                l = look(t->bytes + t->entry * 8, g->cluster_bytes);
                if (l.bits == 0 || (is_cluster_run(g, &l) && refresh_run(t, img, &l))) {
                        t->entry += BLOCK;
                        return 0;
                }
        }
        ret = refresh_entry(t, tally, img);
        t->entry += ret == 0 ? 1 : 0;
        return ret;
}

static int refresh_table(struct tree_table *t, struct tree_tally *tally, struct image *img)
{
        const struct geometry *g = image_geometry(img);
        uint64_t count;
        int ret;

        if (t->entry == 0) {
                ret = count_of(tally, img, t->host_offset >> g->cluster_bits, &count);
                if (ret < 0)
                        return ret;
                t->is_private = count == 1;
        }
        while (t->entry < g->l2_entries) {
                ret = refresh_next(t, tally, img);
                if (ret < 0)
                        return ret;
        }
        return 0;
}

int tree_table_step(struct tree_table *t, struct tree_tally *tally, struct image *img)
{
        if (tally->mode == TREE_REFRESH_COPIED)
                return refresh_table(t, tally, img);
        return count_table(t, tally, img);
}
