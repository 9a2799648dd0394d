/*
 * simdisk-cut-states.c - the states that a power cut could leave.
 *
 * A state is a clone of what is durable with a few sectors written, and a length.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "lib/simdisk-cut-parts.h"

static bool touches(const struct sim_entry *entry, int64_t sector)
{
        uint64_t start = sector * SIM_SECTOR_BYTES;

        return (entry->op == IO_WRITE ||
                ((entry->op == IO_ZERO || entry->op == IO_PUNCH) && entry->result == 0)) &&
               entry->offset < start + SIM_SECTOR_BYTES && start < entry->offset + entry->length;
}

static void add_choice(struct sim_cut *cut, const struct sim_choice *choice,
                       const struct candidate *candidate)
{
        g_assert(choice->option_count >= 2);
        g_array_append_val(cut->choices, *choice);
        g_array_append_val(cut->candidates, *candidate);
}

static void add_sector_choice(struct sim_cut *cut, unsigned file, int64_t index)
{
        struct candidate candidate = {
                .sector = g_hash_table_lookup(cut->files[file].sectors, &index),
        };
        struct sim_choice choice = { .file = file, .sector = index, .option_count = 1 };
        unsigned i;

        if (candidate.sector != NULL) {
                unsigned version_count = candidate.sector->versions->len;

                choice.option_count += version_count;
                choice.newest_entry = cut_version(candidate.sector, version_count - 1)->entry;
        }
        for (i = 0; i < cut->inflight->len && candidate.overlap_count < OVERLAP_MAX; i++) {
                const struct sim_entry *entry = simdisk_entry(cut->disk, cut_inflight(cut, i));

                if (entry->file != file || !touches(entry, index))
                        continue;
                choice.newest_entry = cut_inflight(cut, i);
                candidate.overlap[candidate.overlap_count++] = cut_inflight(cut, i);
        }
        choice.option_count += (1u << candidate.overlap_count) - 1;
        add_choice(cut, &choice, &candidate);
}

/* The length that the newest state gets when this happens too. */
static uint64_t length_after(const struct cut_file *file, const struct sim_entry *entry)
{
        uint64_t end = entry->offset + entry->length;

        if (entry->op == IO_TRUNCATE && entry->result == 0)
                return entry->offset;
        if ((entry->op == IO_WRITE && entry->length > 0) ||
            (entry->op == IO_ALLOCATE && entry->result == 0))
                return MAX(end, file->newest.length_bytes);
        return file->newest.length_bytes;
}

static void add_length_choice(struct sim_cut *cut, unsigned file_index)
{
        const struct cut_file *file = &cut->files[file_index];
        struct sim_choice choice = { .file = file_index, .sector = -1, .option_count = 1 };
        struct candidate candidate = { 0 };
        unsigned i;

        choice.option_count += file->lengths->len;
        if (file->lengths->len > 0)
                choice.newest_entry = cut_length(file, file->lengths->len - 1)->entry;
        for (i = 0; i < cut->inflight->len && candidate.overlap_count < OVERLAP_MAX; i++) {
                const struct sim_entry *entry = simdisk_entry(cut->disk, cut_inflight(cut, i));

                if (entry->file != file_index ||
                    length_after(file, entry) == file->newest.length_bytes)
                        continue;
                choice.newest_entry = cut_inflight(cut, i);
                candidate.overlap[candidate.overlap_count++] = cut_inflight(cut, i);
        }
        choice.option_count += candidate.overlap_count;
        if (choice.option_count > 1)
                add_choice(cut, &choice, &candidate);
}

static void add_file_choices(struct sim_cut *cut, unsigned file_index)
{
        const struct cut_file *file = &cut->files[file_index];
        GArray *indexes = g_array_new(FALSE, FALSE, sizeof(int64_t));
        GHashTableIter iter;
        struct sector *sector;
        unsigned i;

        g_hash_table_iter_init(&iter, file->sectors);
        while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&sector))
                g_array_append_val(indexes, sector->index);
        for (i = 0; i < cut->inflight->len; i++) {
                const struct sim_entry *entry = simdisk_entry(cut->disk, cut_inflight(cut, i));

                /* A truncation in flight shows in the length alone. */
                if (entry->file == file_index && entry->op != IO_TRUNCATE)
                        cut_touched_sectors(file, entry, indexes);
        }
        cut_sort_unique(indexes);
        for (i = 0; i < indexes->len; i++)
                add_sector_choice(cut, file_index, g_array_index(indexes, int64_t, i));
        g_array_free(indexes, TRUE);
        add_length_choice(cut, file_index);
}

const struct sim_choice *sim_cut_choices(struct sim_cut *cut, unsigned *ret_count)
{
        unsigned i;

        if (!cut->choices_valid) {
                g_array_set_size(cut->choices, 0);
                g_array_set_size(cut->candidates, 0);
                for (i = 0; i < cut->disk->file_count; i++)
                        add_file_choices(cut, i);
                cut->choices_valid = true;
        }
        *ret_count = cut->choices->len;
        return (const struct sim_choice *)cut->choices->data;
}

/* The length chosen for a file, and which truncations went with it. */
struct chosen_length {
        uint64_t length_bytes;
        uint64_t order;
};

static struct chosen_length pick_length(const struct sim_cut *cut, const struct sim_choice *choice,
                                        const struct candidate *candidate, unsigned option)
{
        const struct cut_file *file = &cut->files[choice->file];
        unsigned version_count = file->lengths->len;
        const struct sim_entry *entry;

        if (option == 0)
                return (struct chosen_length) { file->durable.length_bytes, 0 };
        if (option <= version_count)
                return (struct chosen_length) { cut_length(file, option - 1)->length_bytes,
                                                cut_length(file, option - 1)->order };
        entry = simdisk_entry(cut->disk, candidate->overlap[option - 1 - version_count]);
        return (struct chosen_length) { length_after(file, entry), UINT64_MAX };
}

/* Rule 5: not before a truncation that happened, not after one that did not. */
static unsigned clamp_option(const struct sector *sector, unsigned option, uint64_t order)
{
        unsigned i;

        for (i = 0; sector != NULL && i < sector->versions->len; i++) {
                const struct version *version = cut_version(sector, i);

                if (!version->shrink)
                        continue;
                if (version->order > order)
                        return MIN(option, i);
                option = MAX(option, i + 1);
        }
        return option;
}

/* Does to the bytes of one sector what the entry in flight would. */
static void overlay(const struct sim_entry *entry, int64_t sector, uint8_t *bytes)
{
        uint64_t start = sector * SIM_SECTOR_BYTES;
        uint64_t from = MAX(entry->offset, start);
        uint64_t to = MIN(entry->offset + entry->length, start + SIM_SECTOR_BYTES);

        if (entry->op == IO_WRITE)
                memcpy(bytes + (from - start), entry->data + (from - entry->offset), to - from);
        else
                memset(bytes + (from - start), 0, to - from);
}

static void build_sector(const struct sim_cut *cut, const struct sim_choice *choice,
                         const struct candidate *candidate, unsigned option,
                         struct sim_image *image)
{
        unsigned version_count = candidate->sector == NULL ? 0 : candidate->sector->versions->len;
        uint64_t offset = choice->sector * SIM_SECTOR_BYTES;
        uint8_t bytes[SIM_SECTOR_BYTES];
        unsigned i;

        if (option == 0)
                return;
        if (option <= version_count) {
                sim_image_write(image, offset, cut_version(candidate->sector, option - 1)->bytes,
                                SIM_SECTOR_BYTES);
                return;
        }
        sim_image_read(&cut->files[choice->file].newest, offset, bytes, sizeof(bytes));
        for (i = 0; i < candidate->overlap_count; i++)
                if (((option - version_count) & 1u << i) != 0)
                        overlay(simdisk_entry(cut->disk, candidate->overlap[i]), choice->sector,
                                bytes);
        sim_image_write(image, offset, bytes, sizeof(bytes));
}

void sim_cut_build(struct sim_cut *cut, const unsigned *picks, struct sim_image *images)
{
        struct chosen_length lengths[SIM_FILES_MAX];
        const struct candidate *candidates;
        const struct sim_choice *choices;
        unsigned count;
        unsigned i;

        choices = sim_cut_choices(cut, &count);
        candidates = (const struct candidate *)cut->candidates->data;
        for (i = 0; i < cut->disk->file_count; i++) {
                images[i] = sim_image_clone(&cut->files[i].durable);
                lengths[i].length_bytes = images[i].length_bytes;
                lengths[i].order = UINT64_MAX;
        }
        for (i = 0; i < count; i++) {
                g_assert(picks[i] < choices[i].option_count);
                if (choices[i].sector < 0)
                        lengths[choices[i].file] = pick_length(cut, &choices[i], &candidates[i],
                                                               picks[i]);
        }
        for (i = 0; i < count; i++) {
                uint64_t order = lengths[choices[i].file].order;

                if (choices[i].sector >= 0)
                        build_sector(cut, &choices[i], &candidates[i],
                                     clamp_option(candidates[i].sector, picks[i], order),
                                     &images[choices[i].file]);
        }
        for (i = 0; i < cut->disk->file_count; i++)
                sim_image_set_length(&images[i], lengths[i].length_bytes);
}
