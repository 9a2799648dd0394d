/*
 * simdisk-cut.c - what is durable and what is not, at each point of the log.
 *
 * For each file the cut keeps two images, what is durable and what a read would
 * see, and between them the versions of every sector that is not settled.  A
 * completion adds versions; an fsync moves the covered ones into the durable image.
 *
 * Invariants:
 *  1. A sector without versions is the same in both images, as far as it is below
 *     both lengths.
 *  2. Versions of a sector, and lengths of a file, are in order of completion.
 *  3. A truncation that shrinks gives the file a length and the sectors it cut off a
 *     version, of the same order; they are settled together.
 *
 * SPDX-License-Identifier: MIT
 */
#include "lib/simdisk-cut-parts.h"

#include <string.h>

static void sector_free(gpointer data)
{
        struct sector *sector = data;

        g_array_free(sector->versions, TRUE);
        g_free(sector);
}

struct sim_cut *sim_cut_new(const struct simdisk *disk)
{
        struct sim_cut *cut = g_new0(struct sim_cut, 1);
        unsigned i;

        g_assert(disk->options.record);
        cut->disk = disk;
        for (i = 0; i < disk->file_count; i++) {
                struct cut_file *file = &cut->files[i];

                file->durable = sim_image_clone(&disk->files[i].at_start);
                file->newest = sim_image_clone(&disk->files[i].at_start);
                file->sectors = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL,
                                                      sector_free);
                file->lengths = g_array_new(FALSE, FALSE, sizeof(struct length_version));
        }
        cut->inflight = g_array_new(FALSE, FALSE, sizeof(unsigned));
        cut->choices = g_array_new(FALSE, FALSE, sizeof(struct sim_choice));
        cut->candidates = g_array_new(FALSE, FALSE, sizeof(struct candidate));
        return cut;
}

void sim_cut_free(struct sim_cut *cut)
{
        unsigned i;

        for (i = 0; i < cut->disk->file_count; i++) {
                sim_image_clear(&cut->files[i].durable);
                sim_image_clear(&cut->files[i].newest);
                g_hash_table_destroy(cut->files[i].sectors);
                g_array_free(cut->files[i].lengths, TRUE);
        }
        g_array_free(cut->inflight, TRUE);
        g_array_free(cut->choices, TRUE);
        g_array_free(cut->candidates, TRUE);
        g_free(cut);
}

uint64_t sim_cut_point(const struct sim_cut *cut)
{
        return cut->point;
}

static int compare_sectors(gconstpointer a, gconstpointer b)
{
        const int64_t *x = a;
        const int64_t *y = b;

        return (*x > *y) - (*x < *y);
}

void cut_sort_unique(GArray *indexes)
{
        unsigned kept = 0;
        unsigned i;

        g_array_sort(indexes, compare_sectors);
        for (i = 0; i < indexes->len; i++) {
                int64_t index = g_array_index(indexes, int64_t, i);

                if (kept == 0 || g_array_index(indexes, int64_t, kept - 1) != index)
                        g_array_index(indexes, int64_t, kept++) = index;
        }
        g_array_set_size(indexes, kept);
}

static bool sector_is_zero(const struct sim_image *image, int64_t index)
{
        static const uint8_t zeros[SIM_SECTOR_BYTES];
        uint8_t bytes[SIM_SECTOR_BYTES];

        sim_image_read(image, index * SIM_SECTOR_BYTES, bytes, sizeof(bytes));
        return memcmp(bytes, zeros, sizeof(bytes)) == 0;
}

/* Sectors of [offset, end) that zeroing changes: those with data or versions. */
static void add_zeroed_sectors(const struct cut_file *file, uint64_t offset, uint64_t end,
                               GArray *indexes)
{
        const uint64_t step = SIM_SECTOR_BYTES;
        GHashTableIter iter;
        struct sector *sector;
        uint64_t page;
        uint64_t at;

        for (page = sim_image_next_data(&file->newest, offset); page < end;
             page = sim_image_next_data(&file->newest, page + SIM_PAGE_BYTES)) {
                at = MAX(page, offset / step * step);
                for (; at < MIN(page + SIM_PAGE_BYTES, end); at += step) {
                        int64_t index = at / step;

                        if (!sector_is_zero(&file->newest, index))
                                g_array_append_val(indexes, index);
                }
        }
        g_hash_table_iter_init(&iter, file->sectors);
        while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&sector))
                if ((uint64_t)sector->index >= offset / step &&
                    (uint64_t)sector->index * step < end)
                        g_array_append_val(indexes, sector->index);
}

/* Sectors whose content the entry changes, or sets again. */
void cut_touched_sectors(const struct cut_file *file, const struct sim_entry *entry,
                                GArray *indexes)
{
        uint64_t length = file->newest.length_bytes;
        uint64_t end = entry->offset + entry->length;
        int64_t index;

        switch (entry->op) {
        case IO_WRITE:
                index = entry->offset / SIM_SECTOR_BYTES;
                for (; (uint64_t)index * SIM_SECTOR_BYTES < end && entry->length > 0; index++)
                        g_array_append_val(indexes, index);
                break;
        case IO_ZERO:
        case IO_PUNCH:
                if (entry->result == 0)
                        add_zeroed_sectors(file, entry->offset, MIN(end, length), indexes);
                break;
        case IO_TRUNCATE:
                if (entry->result == 0)
                        add_zeroed_sectors(file, entry->offset, length, indexes);
                break;
        case IO_READ:
        case IO_FSYNC:
        case IO_ALLOCATE:
                break;
        }
}

static void add_version(struct cut_file *file, int64_t index, const struct sim_entry *entry,
                        unsigned entry_index)
{
        struct sector *sector = g_hash_table_lookup(file->sectors, &index);
        struct version version = {
                .order = entry->completed,
                .entry = entry_index,
                .shrink = entry->op == IO_TRUNCATE,
        };

        if (sector == NULL) {
                sector = g_new0(struct sector, 1);
                sector->index = index;
                sector->versions = g_array_new(FALSE, FALSE, sizeof(struct version));
                g_hash_table_insert(file->sectors, &sector->index, sector);
        }
        sim_image_read(&file->newest, index * SIM_SECTOR_BYTES, version.bytes,
                       sizeof(version.bytes));
        g_array_append_val(sector->versions, version);
}

/* A change completes. */
static void land(struct cut_file *file, const struct sim_entry *entry, unsigned entry_index)
{
        GArray *indexes = g_array_new(FALSE, FALSE, sizeof(int64_t));
        uint64_t length_before = file->newest.length_bytes;
        struct length_version length = { .order = entry->completed, .entry = entry_index };
        unsigned i;

        cut_touched_sectors(file, entry, indexes);
        cut_sort_unique(indexes);
        sim_entry_apply(entry, &file->newest);
        for (i = 0; i < indexes->len; i++)
                add_version(file, g_array_index(indexes, int64_t, i), entry, entry_index);
        g_array_free(indexes, TRUE);

        length.length_bytes = file->newest.length_bytes;
        if (length.length_bytes != length_before)
                g_array_append_val(file->lengths, length);
}

/* How many versions an fsync submitted at that time makes durable. */
static unsigned covered_count(const struct sector *sector, uint64_t submitted)
{
        unsigned i;

        for (i = sector->versions->len; i > 0; i--) {
                const struct version *version = cut_version(sector, i - 1);

                if (version->order < submitted && !version->lost)
                        return i;
        }
        return 0;
}

static gboolean settle_sector(gpointer key, gpointer value, gpointer data)
{
        struct sector *sector = value;
        const struct sim_entry *fsync = ((gpointer *)data)[0];
        struct cut_file *file = ((gpointer *)data)[1];
        unsigned count = covered_count(sector, fsync->submitted);

        (void)key;
        if (count == 0)
                return FALSE;
        sim_image_write(&file->durable, sector->index * SIM_SECTOR_BYTES,
                        cut_version(sector, count - 1)->bytes, SIM_SECTOR_BYTES);
        g_array_remove_range(sector->versions, 0, count);
        return sector->versions->len == 0;
}

/* An fsync succeeded. */
static void settle(struct cut_file *file, const struct sim_entry *fsync)
{
        uint64_t length = file->durable.length_bytes;
        gpointer data[] = { (gpointer)fsync, file };

        g_hash_table_foreach_remove(file->sectors, settle_sector, data);
        while (file->lengths->len > 0 && cut_length(file, 0)->order < fsync->submitted) {
                length = cut_length(file, 0)->length_bytes;
                g_array_remove_index(file->lengths, 0);
        }
        sim_image_set_length(&file->durable, length);
}

/* An fsync failed.  Lengths and truncations are the journal's and come through. */
static void lose(struct cut_file *file)
{
        GHashTableIter iter;
        struct sector *sector;
        unsigned i;

        g_hash_table_iter_init(&iter, file->sectors);
        while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&sector))
                for (i = 0; i < sector->versions->len; i++)
                        cut_version(sector, i)->lost = !cut_version(sector, i)->shrink;
}

static void complete(struct sim_cut *cut, unsigned entry_index)
{
        const struct sim_entry *entry = simdisk_entry(cut->disk, entry_index);
        struct cut_file *file = &cut->files[entry->file];
        unsigned i = 0;

        while (cut_inflight(cut, i) != entry_index)
                i++;
        g_array_remove_index(cut->inflight, i);

        if (entry->op != IO_FSYNC)
                land(file, entry, entry_index);
        else if (entry->result == 0)
                settle(file, entry);
        else
                lose(file);
}

void sim_cut_advance(struct sim_cut *cut, uint64_t point)
{
        g_assert(point >= cut->point && point <= simdisk_moments(cut->disk));

        for (; cut->point < point; cut->point++) {
                const struct sim_moment *moment =
                        &g_array_index(cut->disk->moments, struct sim_moment, cut->point);

                if (moment->completes)
                        complete(cut, moment->entry);
                else
                        g_array_append_val(cut->inflight, moment->entry);
                cut->choices_valid = false;
        }
}
