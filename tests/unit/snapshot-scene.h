/*
 * snapshot-scene.h - for tests of snapshots: an image that qemu-img made, and memory models of
 * its disk and of each snapshot.
 *
 * scene_verify closes the image and lets qemu-img judge: its check finds neither corruption nor
 * leak, the disk and every snapshot read as their models, the list has their names.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef UNIT_SNAPSHOT_SCENE_H
#define UNIT_SNAPSHOT_SCENE_H

#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>

#include "unit/qemu-img.h"
#include "unit/snapshot-bed.h"

enum { SNAPSHOTS_MAX = 8 };

struct state {
        char *name;
        uint8_t *model;
        uint64_t disk_bytes;
};

struct scene {
        char *path;
        char *raw;
        uint8_t *model;
        uint64_t disk_bytes;
        struct state snapshots[SNAPSHOTS_MAX];
        unsigned snapshot_count;
        uint64_t seed;
        struct bed bed;
};

/* ---- scenes ---- */

static inline void scene_open(struct scene *s)
{
        bed_open(&s->bed, s->path, true, 0, 0);
}

static inline void scene_begin(struct scene *s, const char *options, uint64_t disk_bytes)
{
        g_autofree char *arguments = g_strdup_printf("create -q -f qcow2 -o %s", options);
        g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT, disk_bytes);

        *s = (struct scene){ .path = image_path(), .disk_bytes = disk_bytes, .seed = 1 };
        s->raw = g_strconcat(s->path, ".raw", NULL);
        s->model = g_malloc0(disk_bytes);
        g_free(qemu_img(arguments, s->path, size));
        scene_open(s);
}

static inline void state_clear(struct state *st)
{
        g_free(st->name);
        g_free(st->model);
}

static inline void scene_end(struct scene *s)
{
        unsigned i;

        bed_close(&s->bed);
        for (i = 0; i < s->snapshot_count; i++)
                state_clear(&s->snapshots[i]);
        g_remove(s->raw);
        g_free(s->raw);
        g_free(s->model);
        image_remove(s->path);
}

static inline uint64_t scene_random(struct scene *s, uint64_t limit)
{
        s->seed = s->seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        return (s->seed >> 33) % limit;
}

static inline void scene_write(struct scene *s, unsigned count)
{
        while (count-- > 0) {
                uint64_t length = 1 + scene_random(s, 40000);
                uint64_t offset = scene_random(s, s->disk_bytes - length);

                memset(s->model + offset, (int)scene_random(s, 256), length);
                g_assert_cmpint(bed_write(&s->bed, offset, s->model + offset, length), ==, 0);
        }
}

static inline void note_created(struct scene *s, const char *name)
{
        g_assert_cmpuint(s->snapshot_count, <, SNAPSHOTS_MAX);
        s->snapshots[s->snapshot_count++] = (struct state){
                g_strdup(name), g_memdup2(s->model, s->disk_bytes), s->disk_bytes,
        };
}

static inline struct state *state_of(struct scene *s, const char *name)
{
        unsigned i;

        for (i = 0; i < s->snapshot_count; i++)
                if (strcmp(s->snapshots[i].name, name) == 0)
                        return &s->snapshots[i];
        g_assert_not_reached();
}

static inline void note_deleted(struct scene *s, const char *name)
{
        struct state *st = state_of(s, name);

        state_clear(st);
        memmove(st, st + 1, (size_t)(&s->snapshots[--s->snapshot_count] - st) * sizeof(*st));
}

static inline void note_gone_to(struct scene *s, const char *name)
{
        struct state *st = state_of(s, name);

        g_free(s->model);
        s->disk_bytes = st->disk_bytes;
        s->model = g_memdup2(st->model, st->disk_bytes);
}

static inline void scene_create(struct scene *s, const char *name)
{
        g_assert_cmpint(bed_create(&s->bed, name, 0, 0, NULL), ==, 0);
        note_created(s, name);
}

static inline void scene_goto(struct scene *s, const char *name)
{
        g_assert_cmpint(bed_goto(&s->bed, name), ==, 0);
        note_gone_to(s, name);
        g_assert_cmpuint(image_size(s->bed.img), ==, s->disk_bytes);
}

static inline void scene_delete(struct scene *s, const char *name)
{
        g_assert_cmpint(bed_delete(&s->bed, name), ==, 0);
        note_deleted(s, name);
}

/* ---- judging ---- */

/* qemu-img shows snapshots with the active disk's size. */
static inline void expect_raw(struct scene *s, const char *convert, const uint8_t *model,
                       uint64_t disk_bytes)
{
        g_autofree uint8_t *bytes = NULL;
        size_t length;

        g_free(qemu_img(convert, s->path, s->raw));
        bytes = image_read(s->raw, &length);
        g_assert_cmpuint(length, ==, s->disk_bytes);
        g_assert_cmpint(memcmp(bytes, model, MIN(length, disk_bytes)), ==, 0);
}

static inline void expect_list(struct scene *s)
{
        struct hvb_snapshot_info infos[SNAPSHOTS_MAX];
        unsigned i;

        for (i = 0; i < SNAPSHOTS_MAX; i++)
                infos[i].struct_bytes = sizeof(infos[i]);
        g_assert_cmpuint(snapshot_list(s->bed.img, 0, infos, SNAPSHOTS_MAX), ==,
                         s->snapshot_count);
        for (i = 0; i < s->snapshot_count; i++) {
                g_assert_cmpstr(infos[i].name, ==, s->snapshots[i].name);
                g_assert_cmpuint(infos[i].disk_bytes, ==, s->snapshots[i].disk_bytes);
        }
}

static inline void scene_verify(struct scene *s)
{
        unsigned i;

        bed_compare(&s->bed, s->model, s->disk_bytes);
        expect_list(s);
        bed_close(&s->bed);
        g_free(qemu_img("check -q", s->path, ""));
        expect_raw(s, "convert -O raw", s->model, s->disk_bytes);
        for (i = 0; i < s->snapshot_count; i++) {
                g_autofree char *convert = g_strdup_printf("convert -O raw -l snapshot.name=%s",
                                                           s->snapshots[i].name);

                expect_raw(s, convert, s->snapshots[i].model, s->snapshots[i].disk_bytes);
        }
        scene_open(s);
        bed_compare(&s->bed, s->model, s->disk_bytes);
}

static inline void expect_error(const struct scene *s, int result, int code, const char *text)
{
        g_assert_cmpint(result, ==, code);
        if (!strstr(s->bed.err.text, text))
                g_error("\"%s\" does not say \"%s\"", s->bed.err.text, text);
}

static inline void qemu_snapshot(struct scene *s, const char *how)
{
        g_autofree char *arguments = g_strdup_printf("snapshot %s", how);

        bed_close(&s->bed);
        g_free(qemu_img(arguments, s->path, ""));
        scene_open(s);
}

#endif
