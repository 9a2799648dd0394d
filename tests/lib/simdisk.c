/*
 * simdisk.c - simulated files: contents, faults and the log.
 *
 * SPDX-License-Identifier: MIT
 */
#include "lib/simdisk.h"

static void entry_clear(gpointer data)
{
        g_free(((struct sim_entry *)data)->data);
}

/* Splitmix64. */
uint64_t sim_random_next(struct sim_random *random)
{
        uint64_t x = random->state += 0x9e3779b97f4a7c15u;

        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        return x ^ (x >> 31);
}

uint64_t sim_random_below(struct sim_random *random, uint64_t limit)
{
        g_assert(limit > 0);
        return sim_random_next(random) % limit;
}

struct simdisk *simdisk_new(const struct sim_options *options)
{
        struct simdisk *disk = g_new0(struct simdisk, 1);

        if (options != NULL)
                disk->options = *options;
        if (disk->options.outstanding_max == 0)
                disk->options.outstanding_max = 64;
        disk->random.state = disk->options.seed;
        disk->faults = g_array_new(FALSE, TRUE, sizeof(struct sim_fault));
        disk->entries = g_array_new(FALSE, TRUE, sizeof(struct sim_entry));
        disk->moments = g_array_new(FALSE, TRUE, sizeof(struct sim_moment));
        g_array_set_clear_func(disk->entries, entry_clear);
        return disk;
}

void simdisk_free(struct simdisk *disk)
{
        unsigned i;

        for (i = 0; i < disk->file_count; i++) {
                sim_image_clear(&disk->files[i].image);
                sim_image_clear(&disk->files[i].at_start);
        }
        g_array_free(disk->faults, TRUE);
        g_array_free(disk->entries, TRUE);
        g_array_free(disk->moments, TRUE);
        g_free(disk);
}

int simdisk_file_new(struct simdisk *disk)
{
        g_assert(disk->file_count < SIM_FILES_MAX);
        return disk->file_count++;
}

void simdisk_file_load(struct simdisk *disk, int file, const struct sim_image *image)
{
        struct sim_file *f = &disk->files[file];

        g_assert(file >= 0 && (unsigned)file < disk->file_count);
        sim_image_clear(&f->image);
        sim_image_clear(&f->at_start);
        f->image = sim_image_clone(image);
        f->at_start = sim_image_clone(image);
}

void simdisk_forget(struct simdisk *disk)
{
        unsigned i;

        for (i = 0; i < disk->entries->len; i++)
                g_assert(simdisk_entry(disk, i)->completed != UINT64_MAX);
        for (i = 0; i < disk->file_count; i++) {
                sim_image_clear(&disk->files[i].at_start);
                disk->files[i].at_start = sim_image_clone(&disk->files[i].image);
        }
        g_array_set_size(disk->entries, 0);
        g_array_set_size(disk->moments, 0);
}

unsigned simdisk_fault_add(struct simdisk *disk, const struct sim_fault *fault)
{
        g_assert(fault->error < 0 && fault->nth > 0);
        g_array_append_val(disk->faults, *fault);
        return disk->faults->len - 1;
}

struct sim_fault *simdisk_fault(struct simdisk *disk, unsigned index)
{
        g_assert(index < disk->faults->len);
        return &g_array_index(disk->faults, struct sim_fault, index);
}

void simdisk_faults_clear(struct simdisk *disk)
{
        g_array_set_size(disk->faults, 0);
}

uint64_t simdisk_moments(const struct simdisk *disk)
{
        return disk->moments->len;
}

const struct sim_entry *simdisk_entry(const struct simdisk *disk, unsigned index)
{
        g_assert(index < disk->entries->len);
        return &g_array_index(disk->entries, struct sim_entry, index);
}

void sim_entry_apply(const struct sim_entry *entry, struct sim_image *image)
{
        if (entry->result < 0 && entry->op != IO_WRITE)
                return;
        switch (entry->op) {
        case IO_WRITE:
                if (entry->length > 0)
                        sim_image_write(image, entry->offset, entry->data, entry->length);
                break;
        case IO_ALLOCATE:
                if (entry->offset + entry->length > image->length_bytes)
                        sim_image_set_length(image, entry->offset + entry->length);
                break;
        case IO_ZERO:
        case IO_PUNCH:
                sim_image_zero(image, entry->offset, entry->length);
                break;
        case IO_TRUNCATE:
                sim_image_set_length(image, entry->offset);
                break;
        case IO_READ:
        case IO_FSYNC:
                break;
        }
}
