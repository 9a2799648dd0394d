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

static inline int sim_open_begin(struct bed *b, struct simdisk *disk, unsigned flags)
{
        *b = (struct bed){
                .host = { .struct_bytes = sizeof(b->host), .log = sim_log },
                .err = { .struct_bytes = sizeof(b->err) },
        };
        g_assert_cmpint(open_options_parse(&b->options, NULL, &b->err), ==, 0);
        loop_init(&b->loop, simdisk_engine_new(disk), true);
        b->img = image_new(&b->loop, &b->host, "sim", flags | HVB_OPEN_NO_LOCK, &b->options);
        g_assert_cmpint(image_open_file(b->img, 0, &b->err), ==, 0);
        return bed_run(b, bed_open_step);
}

static inline void sim_open(struct bed *b, struct simdisk *disk, unsigned flags)
{
        int ret = sim_open_begin(b, disk, flags);

        if (ret < 0)
                g_error("cannot open: %s", b->err.text);
}

/* Whatever becomes of it. */
static inline int sim_close(struct bed *b)
{
        int ret = bed_run(b, bed_close_step);

        image_free(b->img);
        loop_clear(&b->loop);
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

#endif
