/*
 * qemu-img.h - images made by qemu-img, for unit tests that want a second opinion.
 *
 * A test first calls qemu_img_missing(), which skips it where there is no qemu-img.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef UNIT_QEMU_IMG_H
#define UNIT_QEMU_IMG_H

#include <glib.h>
#include <glib/gstdio.h>
#include <stdbool.h>
#include <stdint.h>

static inline bool qemu_img_missing(void)
{
        g_autofree char *path = g_find_program_in_path("qemu-img");

        if (!path)
                g_test_skip("qemu-img is not installed");
        return !path;
}

/* A file name in a directory of its own; image_remove() it. */
static inline char *image_path(void)
{
        g_autofree char *directory = g_dir_make_tmp("unit-XXXXXX", NULL);

        g_assert_nonnull(directory);
        return g_build_filename(directory, "image.qcow2", NULL);
}

static inline void image_remove(char *path)
{
        g_autofree char *directory = g_path_get_dirname(path);

        g_remove(path);
        g_rmdir(directory);
        g_free(path);
}

/* Runs "qemu-img <arguments> <path> <last>", which must succeed; last may be "".  Returns
 * what it printed. */
static inline char *qemu_img(const char *arguments, const char *path, const char *last)
{
        g_autofree char *line = g_strdup_printf("qemu-img %s %s %s", arguments, path, last);
        g_autoptr(GError) error = NULL;
        char *output = NULL;
        int status;

        g_spawn_command_line_sync(line, &output, NULL, &status, &error);
        g_assert_no_error(error);
        g_spawn_check_wait_status(status, &error);
        g_assert_no_error(error);
        return output;
}

static inline uint8_t *image_read(const char *path, size_t *ret_bytes)
{
        g_autoptr(GError) error = NULL;
        char *bytes;

        g_file_get_contents(path, &bytes, ret_bytes, &error);
        g_assert_no_error(error);
        return (uint8_t *)bytes;
}

#endif
