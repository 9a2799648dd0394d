/*
 * test-data-compressed.c - the data path: compressed clusters, ours, QEMU's and damaged ones.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "unit/data-scene.h"

enum { BATCH = 32 };

static void read_compressed(gconstpointer data)
{
        const struct setup *u = data;
        struct scene *s;

        if (qemu_img_missing())
                return;
        s = scene_new(u);
        fill(s->rand, s->model, u->disk_bytes);
        put_file(s->raw, s->model, u->disk_bytes);
        run_shell("qemu-img convert -c -f raw -O qcow2 -o %s %s %s", u->options, s->raw, s->image);
        scene_open(s);
        bed_compare(&s->bed, s->model, u->disk_bytes);
        scene_write(s, 4096, 4096, 'c');        /* copy-on-write of decoded content */
        scene_verify(s);
        scene_free(s);
}

static const struct setup compressed_setups[] = {
        { "zlib", "compat=1.1", 16, MiB(9) + 512, NO_BACKING, 0, false, true, 0 },
        { "zlib-direct", "compat=1.1", 16, MiB(9) + 4096, NO_BACKING, 0, false, true, O_DIRECT },
        { "zlib-v2", "compat=0.10", 16, MiB(9), NO_BACKING, 0, false, true, 0 },
        { "zlib-2m", "cluster_size=2M", 21, MiB(33), NO_BACKING, 0, false, true, 0 },
        { "zlib-512", "cluster_size=512", 9, MiB(1), NO_BACKING, 0, false, true, 0 },
        { "zstd", "compression_type=zstd", 16, MiB(9), NO_BACKING, 0, false, true, 0 },
        { "zstd-4k", "compression_type=zstd,cluster_size=4k", 12, MiB(3), NO_BACKING, 0, false,
          true, 0 },
};

/* Every cluster compressed by us, several at a time, twice over. */
static void write_all_compressed(gconstpointer data)
{
        const struct setup *u = data;
        uint64_t cluster_bytes = UINT64_C(1) << u->cluster_bits;
        struct scene *s;
        unsigned round;

        if (qemu_img_missing())
                return;
        s = open_scene(u);
        for (round = 0; round < 2; round++) {
                struct op *ops[BATCH];
                unsigned count = 0;
                uint64_t at;

                fill(s->rand, s->model, u->disk_bytes);
                for (at = 0; at < u->disk_bytes; at += cluster_bytes) {
                        uint64_t n = MIN(cluster_bytes, u->disk_bytes - at);

                        ops[count] = op_new(&s->bed, OP_COMPRESS, at, n);
                        op_buffer(ops[count], s->model + at, 0);
                        op_start(ops[count++]);
                        while (count > 0 && (count == BATCH || at + n == u->disk_bytes))
                                g_assert_cmpint(op_end(ops[--count]), ==, 0);
                }
        }
        scene_verify(s);
        scene_free(s);
}

/* Streams overwritten with nonsense: an error or wrong bytes, nothing else. */
static void read_hostile_streams(void)
{
        g_autofree uint8_t *bytes = g_malloc(65536);
        struct scene *s;
        unsigned errors = 0;
        uint64_t at;

        if (qemu_img_missing())
                return;
        s = scene_new(&compressed_setups[0]);
        memset(s->model, 'h', MiB(1));
        put_file(s->raw, s->model, MiB(1));
        run_shell("qemu-img convert -c -f raw -O qcow2 %s %s", s->raw, s->image);
        scene_open(s);
        for (at = 0; at < MiB(1); at += 65536) {
                struct mapping map = mapping_at(s, (bed_read(&s->bed, at, bytes, 1), at));
                struct compressed_place place =
                        entry_compressed_place(image_geometry(s->bed.img), map.entry);
                uint8_t noise[8];
                unsigned i;

                for (i = 0; i < sizeof(noise); i++)
                        noise[i] = g_rand_int(s->rand) & 0xff;
                if (at == 0)
                        memset(noise, 0xff, sizeof(noise));
                g_assert_cmpint(pwrite(s->bed.fd, noise, 8, (off_t)place.host_offset), ==, 8);
        }
        for (at = 0; at < MiB(1); at += 65536) {
                int ret = bed_read(&s->bed, at, bytes, 65536);

                g_assert_true(ret == 0 || ret == -EIO);
                errors += ret < 0;
        }
        g_assert_cmpuint(errors, >, 0);
        bed_close(&s->bed);
        scene_free(s);
}

int main(int argc, char **argv)
{
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(compressed_setups); i++) {
                g_autofree char *name = g_strdup_printf("/data-compressed/read/%s",
                                                        compressed_setups[i].name);
                g_autofree char *other = g_strdup_printf("/data-compressed/write/%s",
                                                         compressed_setups[i].name);

                g_test_add_data_func(name, &compressed_setups[i], read_compressed);
                g_test_add_data_func(other, &compressed_setups[i], write_all_compressed);
        }
        g_test_add_func("/data-compressed/hostile", read_hostile_streams);
        return g_test_run();
}
