/*
 * machine-bed.c - images for a fake machine, and what tests say about it.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/machine-bed.h"

#include <glib/gstdio.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/ram-lazy.h"

enum { FIRST_STEPS = 300 };

#define DISK_BYTES (UINT64_C(4) << 20)

static void make_image(const char *path, uint64_t cluster_bytes)
{
        struct hvb_create_args args = {
                .struct_bytes = sizeof(args),
                .size_bytes = DISK_BYTES,
                .cluster_bytes = cluster_bytes,
        };
        struct drive_options how = { .format = "qcow2", .flags = HVB_OPEN_RDWR };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;

        if (drive_create(path, &args, &how, &drive, &err) < 0)
                g_error("%s", err.text);
        g_assert_cmpint(drive_close(drive, &err), ==, 0);
}

void bed_machine_open(struct bed *b)
{
        struct fake_disk_options disks[FAKE_MAX_DISKS] = { { 0 } };

        for (unsigned i = 0; i < b->disk_count; i++)
                disks[i].path = b->paths[i];
        b->m = fake_new(b->ram_bytes, disks, b->disk_count);
}

void bed_machine_close(struct bed *b)
{
        fake_free(b->m);
        b->m = NULL;
}

void bed_open(struct bed *b, unsigned disk_count, uint64_t ram_bytes)
{
        bed_open_with(b, disk_count, ram_bytes, 0);
}

void bed_open_with(struct bed *b, unsigned disk_count, uint64_t ram_bytes, uint64_t cluster_bytes)
{
        *b = (struct bed) {
                .directory = g_dir_make_tmp("machine-XXXXXX", NULL),
                .disk_count = disk_count,
                .ram_bytes = ram_bytes,
        };
        for (unsigned i = 0; i < disk_count; i++) {
                b->paths[i] = g_strdup_printf("%s/disk%u.qcow2", b->directory, i);
                make_image(b->paths[i], cluster_bytes);
        }
        bed_machine_open(b);
        fake_advance(b->m, FIRST_STEPS);
}

void bed_close(struct bed *b)
{
        if (b->m != NULL)
                bed_machine_close(b);
        for (unsigned i = 0; i < b->disk_count; i++) {
                g_unlink(b->paths[i]);
                g_free(b->paths[i]);
        }
        g_rmdir(b->directory);
        g_free(b->directory);
}

int bed_save(struct bed *b, const char *tag, bool replace)
{
        struct vm_snapshot_options options = {
                .tag = tag, .replace = replace, .stopped = b->stopped,
        };

        b->job = (struct vm_job) { .cancelled = 0 };
        return vm_savevm(b->m, &options, &b->job, &b->err);
}

int bed_load(struct bed *b, const char *tag)
{
        struct vm_snapshot_options options = { .tag = tag, .eager = b->eager };

        b->job = (struct vm_job) { .cancelled = 0 };
        return vm_loadvm(b->m, &options, &b->job, &b->err);
}

int bed_del(struct bed *b, const char *tag)
{
        struct vm_snapshot_options options = { .tag = tag };

        return vm_delvm(b->m, &options, NULL, &b->err);
}

int bed_wait_loaded(struct bed *b)
{
        struct ram_guard *guard = ram_guard_of(machine_memory(b->m));
        struct vm_job job = { .cancelled = 0 };

        return guard == NULL ? 0 : ram_lazy_wait(guard, &job, &b->err);
}

static gint compare_words(gconstpointer a, gconstpointer b)
{
        return strcmp(*(char *const *) a, *(char *const *) b);
}

char *bed_list(struct bed *b)
{
        g_autoptr(GPtrArray) rows = vm_snapshots(b->m, &b->err);
        g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);

        g_assert_nonnull(rows);
        for (guint i = 0; i < rows->len; i++) {
                const struct vm_snapshot_row *row = rows->pdata[i];

                g_assert_true(row->on_all_disks == (row->disk_id == NULL));
                g_assert_true(row->on_all_disks || !row->loadable);
                g_ptr_array_add(words, g_strconcat(row->info.name,
                                                   row->disk_id != NULL ? "@" : "",
                                                   row->disk_id != NULL ? row->disk_id : "",
                                                   row->on_all_disks && !row->loadable ? "?" : "",
                                                   NULL));
        }
        g_ptr_array_sort(words, compare_words);
        g_ptr_array_add(words, NULL);
        return g_strjoinv(" ", (char **) words->pdata);
}

struct checking {
        struct hvb_check_result result;
        struct hvb_error err;
};

static void start_check(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct checking *c = opaque;

        drive_driver(drive)->check(drive_image(drive), request, 0, &c->result, &c->err);
}

static struct hvb_check_result check(struct bed *b, unsigned i)
{
        struct checking c = { .result = { .struct_bytes = sizeof(c.result) }, .err = ERROR_INIT };
        struct drive_control control = { .start = start_check, .opaque = &c };
        unsigned count;
        struct machine_disk *disks = machine_disks(b->m, &count);

        g_assert_cmpint(drive_thread_run(disks[i].thread, &control), ==, 0);
        return c.result;
}

void bed_expect_clean(struct bed *b)
{
        for (unsigned i = 0; i < b->disk_count; i++) {
                struct hvb_check_result result = check(b, i);

                g_assert_cmpuint(result.corruptions, ==, 0);
                g_assert_cmpuint(result.leaks, ==, 0);
                g_assert_cmpuint(result.check_errors, ==, 0);
        }
}

uint64_t bed_allocated_clusters(struct bed *b)
{
        uint64_t count = 0;

        for (unsigned i = 0; i < b->disk_count; i++) {
                struct hvb_check_result result = check(b, i);

                count += result.image_end_offset >> 16;
        }
        return count;
}
