/*
 * data-scene.h - for tests of the data path: an image that qemu-img made, and a memory model.
 *
 * After each run three hold: the disk reads as the model, through us; it does so
 * through qemu-img; and qemu-img check finds neither corruption nor leak.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef UNIT_DATA_SCENE_H
#define UNIT_DATA_SCENE_H

#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "unit/data-bed.h"
#include "unit/qemu-img.h"

#define FMT64 G_GINT64_MODIFIER
#define MiB(n) ((uint64_t)(n) << 20)

/* ---- images ---- */

struct setup {
        const char *name;
        const char *options;            /* qemu-img create/convert -o */
        unsigned cluster_bits;
        uint64_t disk_bytes;
        enum { NO_BACKING, QCOW2_BACKING, COMPRESSED_BACKING, RAW_BACKING } backing;
        uint64_t backing_bytes;
        bool has_snapshot;
        bool may_compress;
        int open_flags;
};

struct scene {
        const struct setup *setup;
        char *directory;
        char *image;
        char *base;
        char *raw;                      /* the model, for qemu-img */
        uint8_t *model;
        uint8_t *snapshot;              /* model at the time of the snapshot */
        GRand *rand;
        struct bed bed;
};

static inline void run_shell(const char *format, ...) G_GNUC_PRINTF(1, 2);
static inline void run_shell(const char *format, ...)
{
        g_autoptr(GError) error = NULL;
        g_autofree char *line = NULL;
        g_autofree char *output = NULL;
        g_autofree char *complaint = NULL;
        const char *argv[] = { "sh", "-c", NULL, NULL };
        va_list args;
        int status;

        va_start(args, format);
        line = g_strdup_vprintf(format, args);
        va_end(args);
        argv[2] = line;
        g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &output,
                     &complaint, &status, &error);
        g_assert_no_error(error);
        if (!g_spawn_check_wait_status(status, &error))
                g_error("%s: %s\n%s%s", line, error->message, output, complaint);
}

static inline void put_file(const char *path, const uint8_t *bytes, uint64_t length_bytes)
{
        g_autoptr(GError) error = NULL;

        g_unlink(path);                 /* or a longer one would keep its end */
        g_file_set_contents_full(path, (const char *)bytes, (gssize)length_bytes,
                                 G_FILE_SET_CONTENTS_NONE, 0600, &error);
        g_assert_no_error(error);
}

/* Half noise, half text: some clusters deflate, some do not, some are zeros. */
static inline void fill(GRand *rand, uint8_t *bytes, uint64_t length_bytes)
{
        uint64_t at = 0;

        while (at < length_bytes) {
                uint64_t n = u64_min((uint64_t)g_rand_int_range(rand, 1, 150000),
                                     length_bytes - at);
                int kind = g_rand_int_range(rand, 0, 4);
                uint64_t i;

                for (i = at; i < at + n; i++)
                        bytes[i] = kind == 0 ? g_rand_int(rand) & 0xff
                                : kind == 1 ? 0 : 'a' + (i / 7 + at) % 23;
                at += n;
        }
}

static inline void make_base(struct scene *s)
{
        const struct setup *u = s->setup;

        if (u->backing == NO_BACKING)
                return;
        fill(s->rand, s->model, MIN(u->backing_bytes, u->disk_bytes));
        put_file(s->raw, s->model, u->backing_bytes);
        if (u->backing == RAW_BACKING)
                run_shell("cp %s %s", s->raw, s->base);
        else
                run_shell("qemu-img convert -O qcow2 %s %s %s",
                          u->backing == COMPRESSED_BACKING ? "-c" : "", s->raw, s->base);
}

static inline struct scene *scene_new(const struct setup *setup)
{
        struct scene *s = g_new0(struct scene, 1);

        s->setup = setup;
        s->directory = g_dir_make_tmp("data-XXXXXX", NULL);
        g_assert_nonnull(s->directory);
        s->image = g_build_filename(s->directory, "image.qcow2", NULL);
        s->base = g_build_filename(s->directory, "base", NULL);
        s->raw = g_build_filename(s->directory, "model.raw", NULL);
        s->model = g_malloc0(MAX(setup->disk_bytes, setup->backing_bytes));
        s->rand = g_rand_new_with_seed((guint32)g_test_rand_int());
        make_base(s);
        if (setup->backing == NO_BACKING)
                run_shell("qemu-img create -f qcow2 -o %s %s %" FMT64 "u", setup->options,
                          s->image, setup->disk_bytes);
        else
                run_shell("qemu-img create -f qcow2 -o %s -b %s -F %s %s %" FMT64 "u",
                          setup->options, s->base,
                          setup->backing == RAW_BACKING ? "raw" : "qcow2", s->image,
                          setup->disk_bytes);
        return s;
}

static inline void scene_open(struct scene *s)
{
        bed_open(&s->bed, s->image, true, s->setup->open_flags, 0);
}

/* Reads with us; then qemu-img compares and checks. */
static inline void scene_verify(struct scene *s)
{
        bed_compare(&s->bed, s->model, s->setup->disk_bytes);
        bed_close(&s->bed);
        put_file(s->raw, s->model, s->setup->disk_bytes);
        run_shell("qemu-img check %s", s->image);
        run_shell("qemu-img compare -f raw -F qcow2 %s %s", s->raw, s->image);
        if (!s->snapshot)
                return;
        put_file(s->raw, s->snapshot, s->setup->disk_bytes);
        run_shell("cd %s && qemu-img convert -f qcow2 -O raw -l old %s old.raw && "
                  "cmp old.raw model.raw && rm old.raw", s->directory, s->image);
}

static inline void scene_snapshot(struct scene *s)
{
        run_shell("qemu-img snapshot -c old %s", s->image);
        s->snapshot = g_memdup2(s->model, s->setup->disk_bytes);
}

static inline void scene_free(struct scene *s)
{
        g_remove(s->image);
        g_remove(s->base);
        g_remove(s->raw);
        g_rmdir(s->directory);
        g_rand_free(s->rand);
        g_free(s->directory);
        g_free(s->image);
        g_free(s->base);
        g_free(s->raw);
        g_free(s->model);
        g_free(s->snapshot);
        g_free(s);
}

/* ---- the model ---- */

static inline bool model_discards(const struct setup *u)
{
        return u->backing == NO_BACKING || !strstr(u->options, "compat=0.10");
}

static inline void model_discard(struct scene *s, uint64_t offset, uint64_t length_bytes)
{
        uint64_t cluster_bytes = UINT64_C(1) << s->setup->cluster_bits;
        uint64_t end = offset + length_bytes;
        uint64_t first = round_up(offset, cluster_bytes);

        if (end != s->setup->disk_bytes)
                end = round_down(end, cluster_bytes);
        if (first < end && model_discards(s->setup))
                memset(s->model + first, 0, end - first);
}
static inline struct scene *open_scene(const struct setup *setup)
{
        struct scene *s = scene_new(setup);

        scene_open(s);
        return s;
}

static inline void scene_write(struct scene *s, uint64_t offset, uint64_t length_bytes, int byte)
{
        memset(s->model + offset, byte, length_bytes);
        g_assert_cmpint(bed_write(&s->bed, offset, s->model + offset, length_bytes), ==, 0);
}

/* The entry that maps offset; the image has one L2 slice. */
static inline struct mapping mapping_at(struct scene *s, uint64_t offset)
{
        struct mapping map;

        g_assert_cmpint(map_lookup_cached(s->bed.img, &s->bed.img->active, offset, 1, &map), ==,
                        0);
        return map;
}

#endif
