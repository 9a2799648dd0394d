/*
 * trial.c - see trial.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "fuzz/trial.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz/heap.h"

enum {
        BACKING_BYTES = 1 << 20,
        MIB = 1 << 20,
        CLUSTER_BYTES_MAX = 2 << 20,
        OPEN_BLOCK_BYTES = 4096,
};

void trial_fail(const struct trial *t, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        fprintf(stderr, "violated in mode %d, file of %" PRIu64 " bytes: ", (int)t->mode,
                t->file_bytes);
        vfprintf(stderr, format, args);
        fprintf(stderr, "\n");
        va_end(args);
        abort();
}

/* ---- the disk ---- */

static struct simdisk *disk_of(const struct sim_image *image)
{
        const struct sim_options options = { .record = true };
        struct sim_image backing = { .root = NULL };
        struct simdisk *disk = simdisk_new(&options);

        simdisk_file_load(disk, simdisk_file_new(disk), image);
        sim_image_set_length(&backing, BACKING_BYTES);
        sim_image_write(&backing, 4096, "backing", 7);
        simdisk_file_load(disk, simdisk_file_new(disk), &backing);
        sim_image_clear(&backing);
        simdisk_forget(disk);
        return disk;
}

static void judge_untouched(const struct trial *t, int file)
{
        unsigned i;

        for (i = 0; i < t->disk->entries->len; i++)
                if (simdisk_entry(t->disk, i)->file == (unsigned)file)
                        trial_fail(t, "file %d was opened read-only and is changed", file);
}

/* ---- bounds ---- */

/* Reads a count of snapshots and tables that the file itself must hold may cost. */
static uint64_t tables_in_file(const struct trial *t)
{
        return 4 + t->file_bytes / 4096;
}

static void judge_cost(const struct trial *t, const char *what, uint64_t allowed_reads,
                       uint64_t allowed_memory)
{
        if (t->disk->read_bytes > allowed_reads)
                trial_fail(t, "%s reads %" PRIu64 " bytes", what, t->disk->read_bytes);
        if (heap_peak() > allowed_memory)
                trial_fail(t, "%s takes %" PRIu64 " bytes of memory", what, heap_peak());
}

/* Reads: the header's cluster, the refcount table's, and what is rounded up to some blocks. */
static int open_within_bounds(struct trial *t, uint32_t flags)
{
        int ret;

        t->disk->read_bytes = 0;
        heap_peak_begin();
        ret = subject_open(&t->subject, t->disk, flags);
        if ((ret < 0) != (t->subject.err.text[0] != '\0') || ret > 0)
                trial_fail(t, "opening: %d with '%s'", ret, t->subject.err.text);
        if (!(flags & HVB_OPEN_RDWR))
                judge_cost(t, "opening", 3 * t->file_bytes + 2 * CLUSTER_BYTES_MAX +
                           16 * OPEN_BLOCK_BYTES, 16 * t->file_bytes + 8 * MIB);
        return ret;
}

static void judge_growth(const struct trial *t)
{
        uint64_t data = image_data_bytes(&t->disk->files[0].image);

        if (data > t->data_bytes + t->growth_bytes)
                trial_fail(t, "the file grew from %" PRIu64 " to %" PRIu64 " bytes of data, %"
                           PRIu64 " were to be written", t->data_bytes, data, t->growth_bytes);
}

/* ---- verdicts ---- */

struct verdict verdict_of(const struct sim_image *image, uint32_t flags)
{
        struct verdict v = { .found = { .struct_bytes = sizeof(v.found) } };
        struct hvb_image_info info = { .struct_bytes = sizeof(info) };
        struct trial t = { .mode = MODE_CHECK, .file_bytes = image->length_bytes };

        t.disk = disk_of(image);
        v.open_result = open_within_bounds(&t, flags | HVB_OPEN_NO_BACKING);
        if (v.open_result == 0) {
                t.subject.driver->get_info(t.subject.image, &info);
                v.is_marked = info.dirty || info.corrupt;
                v.has_bitmaps = info.autoclear_features & AUTOCLEAR_BITMAPS;
                if (flags & HVB_OPEN_CHECK)
                        v.check_result = subject_check(&t.subject, &v.found);
                judge_cost(&t, "checking", 16 * MIB + tables_in_file(&t) * t.file_bytes,
                           64 * t.file_bytes + 16 * MIB);
        }
        g_strlcpy(v.text, t.subject.err.text, sizeof(v.text));
        if (v.open_result == 0 && subject_close(&t.subject) < 0)
                trial_fail(&t, "closing what was only read fails");
        judge_untouched(&t, 0);
        simdisk_free(t.disk);
        return v;
}

bool verdict_is_clean(const struct verdict *v)
{
        return v->open_result == 0 && v->check_result == 0 && !v->is_marked &&
               v->found.corruptions == 0 && v->found.leaks == 0 && v->found.check_errors == 0;
}

/* ---- modes ---- */

static void try_read_only(struct trial *t, uint32_t flags)
{
        t->disk = disk_of(&t->in->image);
        if (open_within_bounds(t, flags) == 0) {
                actions_look(t);
                if (subject_close(&t->subject) < 0)
                        trial_fail(t, "closing what was only read fails");
        }
        judge_untouched(t, 0);
        judge_untouched(t, 1);
        simdisk_free(t->disk);
}

/* Counts of clusters behind the end are no leaks until the file reaches them. */
static bool is_clean_further_on(const struct trial *t)
{
        struct sim_image longer = sim_image_clone(&t->in->image);
        struct verdict v;

        sim_image_set_length(&longer, t->file_bytes + INPUT_FILE_BYTES_MAX);
        v = verdict_of(&longer, HVB_OPEN_CHECK);
        sim_image_clear(&longer);
        return verdict_is_clean(&v);
}

static void try_writing(struct trial *t)
{
        struct verdict before = verdict_of(&t->in->image, HVB_OPEN_CHECK);
        struct verdict after;

        t->disk = disk_of(&t->in->image);
        t->subject.discard_unmap = t->in->script[0] & 64;
        if (open_within_bounds(t, HVB_OPEN_RDWR) == 0) {
                t->standing = (struct standing){ .held = NULL };
                actions_run(t);
                subject_close(&t->subject);
        }
        judge_growth(t);
        judge_untouched(t, 1);
        after = verdict_of(&t->disk->files[0].image, HVB_OPEN_CHECK);
        if (before.has_bitmaps)
                after.found.leaks = 0;
        if (verdict_is_clean(&before) && !verdict_is_clean(&after) && is_clean_further_on(t))
                trial_fail(t, "a clean image has %" PRIu64 " corruptions and %" PRIu64 " leaks, "
                           "%s", after.found.corruptions, after.found.leaks, after.text);
        simdisk_free(t->disk);
}

/* What the repair says is left is what is found.  One that gave up, as its check_errors say, had
 * not looked at everything. */
static void judge_repair(const struct trial *t, const struct hvb_check_result *said)
{
        struct verdict v = verdict_of(&t->disk->files[0].image, HVB_OPEN_CHECK);

        if (v.open_result < 0 || v.check_result < 0)
                trial_fail(t, "a repaired image is refused: %s", v.text);
        if (said->check_errors > 0)
                return;
        if (v.found.corruptions != said->corruptions || v.found.leaks != said->leaks)
                trial_fail(t, "a repair leaves %" PRIu64 " corruptions and %" PRIu64 " leaks and "
                           "says %" PRIu64 " and %" PRIu64, v.found.corruptions, v.found.leaks,
                           said->corruptions, said->leaks);
}

static void try_repair(struct trial *t)
{
        static const uint32_t fixes[] = {
                HVB_CHECK_FIX_LEAKS, HVB_CHECK_FIX_LEAKS | HVB_CHECK_FIX_ERRORS,
                HVB_CHECK_FIX_ERRORS, HVB_CHECK_FIX_LEAKS | HVB_CHECK_FIX_ERRORS,
        };
        struct hvb_check_result said = { .struct_bytes = sizeof(said) };
        struct subject *s = &t->subject;
        struct subject_call c;
        int ret;

        t->disk = disk_of(&t->in->image);
        if (open_within_bounds(t, HVB_OPEN_RDWR | HVB_OPEN_CHECK) == 0) {
                subject_call_begin(s, &c);
                s->driver->check(s->image, c.request, fixes[t->in->script[0] % 4], &said, &s->err);
                ret = subject_call_end(s, &c);
                if (subject_close(s) < 0)
                        trial_fail(t, "closing after a repair fails: %s", s->err.text);
                judge_growth(t);
                if (ret == 0)
                        judge_repair(t, &said);
        }
        if (open_within_bounds(t, HVB_OPEN_RDWR) == 0) {
                t->standing = (struct standing){ .held = NULL };
                actions_run(t);
                subject_close(s);
        }
        judge_growth(t);
        judge_untouched(t, 1);
        simdisk_free(t->disk);
}

void trial_run(const struct input *in, enum mode mode)
{
        struct trial t = {
                .mode = mode,
                .in = in,
                .file_bytes = in->image.length_bytes,
                .data_bytes = image_data_bytes(&in->image),
        };

        /* A dirty image is repaired: counts may be written anew. */
        t.growth_bytes = t.file_bytes / 4 + 64 * SIM_PAGE_BYTES + 4 * CLUSTER_BYTES_MAX;
        switch (mode) {
        case MODE_OPEN:
                try_read_only(&t, 0);
                try_read_only(&t, HVB_OPEN_NO_BACKING);
                try_read_only(&t, HVB_OPEN_CHECK);
                break;
        case MODE_CHECK:
                verdict_of(&in->image, HVB_OPEN_CHECK);
                break;
        case MODE_DATA:
        case MODE_SNAPSHOTS:
        case MODE_VMSTATE:
                try_writing(&t);
                break;
        case MODE_REPAIR:
                try_repair(&t);
                break;
        }
}
