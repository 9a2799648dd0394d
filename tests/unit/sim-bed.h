/*
 * sim-bed.h - for tests of operations: an image opened on a simulated disk.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef UNIT_SIM_BED_H
#define UNIT_SIM_BED_H

#include "lib/simdisk.h"
#include "unit/data-bed.h"

static inline void sim_log(void *opaque, enum hvb_log_level level, const char *text)
{
        (void)opaque;
        if (level <= HVB_LOG_WARNING)
                g_test_message("%s", text);
}

enum { SIM_BACKING = SIM_FILES_MAX - 1 };

/* Every image has the same backing file; see sim_add_backing. */
static inline int sim_open_child(void *opaque, const struct hvb_child_query *query,
                                 struct hvb_child *ret_child, struct hvb_error *err)
{
        (void)opaque;
        (void)query;
        (void)err;
        ret_child->fd = SIM_BACKING;
        ret_child->format = "raw";
        return 0;
}

static inline void sim_close_child(void *opaque, const struct hvb_child *child)
{
        (void)opaque;
        (void)child;
}

static inline int sim_open_begin(struct bed *b, struct simdisk *disk, unsigned flags)
{
        *b = (struct bed){
                .host = {
                        .struct_bytes = sizeof(b->host),
                        .log = sim_log,
                        .open_child = sim_open_child,
                        .close_child = sim_close_child,
                },
                .err = { .struct_bytes = sizeof(b->err) },
        };
        g_assert_cmpint(open_options_parse(&b->options, NULL, &b->err), ==, 0);
        loop_init(&b->loop, simdisk_engine_new(disk), true);
        b->img = image_new(&b->loop, &b->host, "sim", flags | HVB_OPEN_NO_LOCK, &b->options);
        if (!b->img)
                return -ENOMEM;
        g_assert_cmpint(image_open_file(b->img, 0, &b->err), ==, 0);
        return bed_run(b, bed_open_step);
}

static inline void sim_open(struct bed *b, struct simdisk *disk, unsigned flags)
{
        int ret = sim_open_begin(b, disk, flags);

        if (ret < 0)
                g_error("cannot open: %s", b->err.text);
}

/* After an open that failed. */
static inline void sim_abandon(struct bed *b)
{
        image_free(b->img);
        loop_clear(&b->loop);
}

/* Whatever becomes of it. */
static inline int sim_close(struct bed *b)
{
        int ret = bed_run(b, bed_close_step);

        sim_abandon(b);
        return ret;
}

static inline struct simdisk *disk_with(const struct sim_image *image,
                                        const struct sim_options *options)
{
        struct simdisk *disk = simdisk_new(options);

        g_assert_cmpint(simdisk_file_new(disk), ==, 0);
        simdisk_file_load(disk, 0, image);
        simdisk_forget(disk);
        return disk;
}

/* A raw file that all images on the disk name as their backing file. */
static inline void sim_add_backing(struct simdisk *disk, GBytes *content)
{
        struct sim_image image = { .root = NULL };

        while (simdisk_file_new(disk) != SIM_BACKING)
                ;
        sim_image_set_length(&image, g_bytes_get_size(content));
        sim_image_write(&image, 0, g_bytes_get_data(content, NULL), g_bytes_get_size(content));
        simdisk_file_load(disk, SIM_BACKING, &image);
        simdisk_forget(disk);
        sim_image_clear(&image);
}

#endif
