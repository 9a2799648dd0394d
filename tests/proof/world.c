/*
 * world.c - the images that proofs start from.
 *
 * SPDX-License-Identifier: MIT
 */
#include "proof/world.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "unit/qemu-img.h"
#include "unit/sim-bed.h"

const struct world_format world_formats[] = {
        { "v3-512", "cluster_size=512", 512, 160, true },
        { "v2-512", "cluster_size=512,compat=0.10", 512, 100, true },
        { "v3-512-lazy", "cluster_size=512,lazy_refcounts=on", 512, 100, false },
        { "v3-512-64bit", "cluster_size=512,refcount_bits=64", 512, 160, false },
        { "v3-4k", "cluster_size=4k", 4096, 20, true },
        { "v2-4k", "cluster_size=4k,compat=0.10", 4096, 20, false },
        { "v3-4k-lazy", "cluster_size=4k,lazy_refcounts=on", 4096, 20, true },
        { "v3-64k", "cluster_size=64k", 65536, 5, true },
        { "v2-64k", "cluster_size=64k,compat=0.10", 65536, 5, true },
};

const unsigned world_format_count = G_N_ELEMENTS(world_formats);

static GBytes *make_backing(const struct world_format *f)
{
        uint64_t bytes = f->disk_clusters * f->cluster_bytes / 4 * 3;
        uint8_t *data = g_malloc(bytes);
        uint64_t i;

        for (i = 0; i < bytes; i++)
                data[i] = (uint8_t)(0x80 | i / 512);
        return g_bytes_new_take(data, bytes);
}

static void create_by_qemu(struct world *w, struct sim_image *image)
{
        const struct world_format *f = w->format;
        g_autofree char *arguments = g_strdup_printf("create -q -f qcow2 -o %s %s", f->options,
                                                     f->has_backing ? "-u -b base -F raw" : "");
        g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT,
                                                f->disk_clusters * f->cluster_bytes);
        char *path = image_path();
        int fd;

        g_free(qemu_img(arguments, path, size));
        fd = open(path, O_RDONLY | O_CLOEXEC);
        g_assert_cmpint(sim_image_import(image, fd), ==, 0);
        close(fd);
        image_remove(path);
}

static void must(struct stage *s, const char *name, int cluster, unsigned start, unsigned length)
{
        struct step step = *step_named(name);
        int ret;

        step.cluster = cluster;
        step.start_eighths = start;
        step.length_eighths = length;
        ret = step_run(s, &step);
        if (ret < 0)
                g_error("%s: %s", name, g_strerror(-ret));
}

/* The five kinds of clusters; see the head of world.h. */
static void fill(struct stage *s)
{
        int group = (int)s->world->format->disk_clusters / 4;
        int first;

        for (first = 0; first == 0 || (group > 5 && first < 4 * group); first += group) {
                must(s, "write", first, 0, 16);
                must(s, "write compressed", first + 2, 0, 8);
        }
        must(s, "create with state as a", 0, 0, 0);
        for (first = 0; first == 0 || (group > 5 && first < 4 * group); first += group)
                must(s, "write", first + 1, 2, 4);
        must(s, "create as b", 0, 0, 0);
        for (first = 0; first == 0 || (group > 5 && first < 4 * group); first += group)
                must(s, "write", first + 3, 0, 8);
}

void world_init(struct world *w, const struct world_format *f)
{
        g_autofree uint8_t *zeros = g_malloc0(f->disk_clusters * f->cluster_bytes);
        struct sim_image created = { .root = NULL };
        g_autoptr(GBytes) disk = NULL;
        struct stage s = { .world = w };

        *w = (struct world){ .format = f };
        if (f->has_backing) {
                w->backing = make_backing(f);
                memcpy(zeros, g_bytes_get_data(w->backing, NULL), g_bytes_get_size(w->backing));
        }
        disk = g_bytes_new(zeros, f->disk_clusters * f->cluster_bytes);
        create_by_qemu(w, &created);
        s.model = model_new(disk);
        s.disk = world_disk(w, &created, NULL);
        sim_open(&s.bed, s.disk, HVB_OPEN_RDWR);
        w->version = s.bed.img->header.version;
        w->lazy = s.bed.img->lazy;
        fill(&s);
        g_assert_cmpint(sim_close(&s.bed), ==, 0);
        w->model = s.model;
        w->image = sim_image_clone(&s.disk->files[0].image);
        simdisk_free(s.disk);
        sim_image_clear(&created);
}

void world_clear(struct world *w)
{
        sim_image_clear(&w->image);
        if (w->backing)
                g_bytes_unref(w->backing);
        model_free(w->model);
}

struct simdisk *world_disk(const struct world *w, const struct sim_image *image,
                           const struct sim_options *options)
{
        struct simdisk *disk = disk_with(image, options);

        if (w->backing)
                sim_add_backing(disk, w->backing);
        return disk;
}
