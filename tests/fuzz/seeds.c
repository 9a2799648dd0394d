/*
 * seeds.c - the images that fuzzing starts from: qemu-img's, small, of every kind.
 *
 * SPDX-License-Identifier: MIT
 */
#include "fuzz/seeds.h"

#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <unistd.h>

#include "disk/format.h"
#include "fuzz/shape.h"
#include "lib/simdisk.h"

enum { SCRIPTS_PER_IMAGE = 2, ENCODED_BYTES_MAX = 1 << 20 };

struct seed {
        const char *name;
        const char *create;             /* options of qemu-img create */
        const char *size;
        const char *commands;           /* of qemu-io, separated by "; " */
        unsigned snapshots;
        uint64_t incompatible;          /* header bits set afterwards */
        bool has_vmstate;
        bool has_bitmap;
};

#define DATA "write -P 1 0 2k; write -z 8k 8k; write -P 2 20k 512"
#define LARGE "write -P 1 0 512; write -z 128k 128k; write -P 2 200k 512"

static const struct seed seeds[] = {
        { "v3-64k", "-o cluster_size=64k", "1M", LARGE, 2, 0, true, false },
        { "v2-64k", "-o cluster_size=64k,compat=0.10", "1M", LARGE, 1, 0, true, false },
        { "v3-4k", "-o cluster_size=4k", "4M", DATA "; write -c -P 3 4k 4k", 2, 0, true, false },
        { "v2-4k", "-o cluster_size=4k,compat=0.10", "4M", DATA "; write -c -P 3 4k 4k", 1, 0,
          false, false },
        { "v3-512", "-o cluster_size=512", "96k", DATA "; write -c -P 3 4k 512", 2, 0, true,
          false },
        { "v2-512", "-o cluster_size=512,compat=0.10", "96k", DATA, 1, 0, false, false },
        { "1bit", "-o cluster_size=512,refcount_bits=1", "64k", DATA, 0, 0, false, false },
        { "2bit", "-o cluster_size=512,refcount_bits=2", "64k", DATA, 2, 0, false, false },
        { "8bit", "-o cluster_size=4k,refcount_bits=8", "1M", DATA, 1, 0, false, false },
        { "32bit", "-o cluster_size=4k,refcount_bits=32", "1M", DATA, 1, 0, false, false },
        { "64bit", "-o cluster_size=512,refcount_bits=64", "64k", DATA, 1, 0, true, false },
        { "compressed", "-o cluster_size=4k", "1M", "write -c -P 1 0 4k; write -c -P 2 4k 4k; "
          "write -c -P 3 8k 4k", 1, 0, false, false },
        { "zstd", "-o cluster_size=4k,compression_type=zstd", "1M",
          "write -c -P 1 0 4k; write -c -P 2 4k 4k", 1, INCOMPAT_COMPRESSION, false, false },
        { "backing", "-o cluster_size=4k -b base -F raw", "2M", DATA, 1, 0, false, false },
        { "v2-backing", "-o cluster_size=512,compat=0.10 -b base -F raw", "1088k", DATA, 1, 0,
          false, false },
        { "lazy", "-o cluster_size=512,lazy_refcounts=on", "64k", DATA, 1, 0, false, false },
        { "dirty", "-o cluster_size=512,lazy_refcounts=on", "64k", DATA, 1, INCOMPAT_DIRTY, false,
          false },
        { "corrupt", "-o cluster_size=4k", "64k", DATA, 1, INCOMPAT_CORRUPT, false, false },
        { "metadata", "-o cluster_size=512,preallocation=metadata", "64k", "read 0 512", 1, 0,
          false, false },
        { "falloc", "-o cluster_size=4k,preallocation=falloc", "128k", "write 0 512", 0, 0, false,
          false },
        { "bitmap", "-o cluster_size=4k", "1M", DATA, 0, 0, false, true },
        { "large", "-o cluster_size=512", "1G", "write -P 1 1000M 512", 1, 0, false, false },
        { "empty", "-o cluster_size=512", "0", "flush", 0, 0, false, false },
        { "extended", "-o cluster_size=16k,extended_l2=on", "64k", "write -P 1 0 512", 0,
          INCOMPAT_EXTENDED_L2, false, false },
};

static void run(const char *directory, char **argv)
{
        g_autoptr(GError) error = NULL;
        g_autofree char *said = NULL;
        int status;

        if (!g_spawn_sync(directory, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL,
                          NULL, NULL, NULL, &said, &status, &error) ||
            !g_spawn_check_wait_status(status, &error))
                g_error("%s: %s %s", argv[0], error->message, said ? said : "");
}

static void run_words(const char *directory, const char *program, const char *words,
                      const char *more)
{
        g_autofree char *line = g_strconcat(program, " ", words, " image ", more, NULL);
        g_auto(GStrv) argv = g_strsplit(line, " ", -1);

        run(directory, argv);
}

static void run_commands(const char *directory, const char *commands)
{
        g_auto(GStrv) words = g_strsplit(commands, "; ", -1);
        g_autoptr(GPtrArray) argv = g_ptr_array_new();
        unsigned i;

        g_ptr_array_add(argv, (char *)"qemu-io");
        g_ptr_array_add(argv, (char *)"-f");
        g_ptr_array_add(argv, (char *)"qcow2");
        for (i = 0; words[i]; i++) {
                g_ptr_array_add(argv, (char *)"-c");
                g_ptr_array_add(argv, words[i]);
        }
        g_ptr_array_add(argv, (char *)"image");
        g_ptr_array_add(argv, NULL);
        run(directory, (char **)argv->pdata);
}

/* The first snapshot's VM state is what QEMU left there: it gets its length. */
static void poke(struct sim_image *image, const struct seed *seed)
{
        struct shape s;

        if (seed->incompatible)
                image_store(image, 72, 8, image_load(image, 72, 8) | seed->incompatible);
        if (!seed->has_vmstate)
                return;
        shape_read(&s, image);
        image_store(image, s.snapshots_offset + 32, 4, 1024);
        image_store(image, s.snapshots_offset + 40, 8, 1024);
}

static void make_image(const struct seed *seed, const char *directory, struct sim_image *ret)
{
        g_autofree char *path = g_build_filename(directory, "image", NULL);
        g_autofree char *create = g_strconcat("create -q -f qcow2 ", seed->create, NULL);
        unsigned i;
        int fd;

        run_words(directory, "qemu-img", create, seed->size);
        run_commands(directory, seed->commands);
        if (seed->has_vmstate)
                run_commands(directory, "write -b -P 7 0 1k");
        for (i = 0; i < seed->snapshots; i++) {
                run_words(directory, "qemu-img", i ? "snapshot -c second" : "snapshot -c first",
                          "-q");
                run_commands(directory, "write -P 9 1k 512");
        }
        if (seed->has_bitmap)
                run_words(directory, "qemu-img", "bitmap --add --enable -f qcow2", "map");
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || sim_image_import(ret, fd) < 0)
                g_error("cannot read what qemu-img made");
        close(fd);
        g_unlink(path);
        poke(ret, seed);
}

static void write_seed(const char *directory, const char *name, unsigned number,
                       const struct sim_image *image)
{
        g_autofree uint8_t *bytes = g_malloc(ENCODED_BYTES_MAX);
        g_autofree char *path = g_strdup_printf("%s/%s-%u", directory, name, number);
        g_autoptr(GError) error = NULL;
        struct sim_random random = { number };
        struct input in = { .image = sim_image_clone(image) };
        size_t length;
        unsigned i;

        for (i = 0; i < SCRIPT_BYTES; i++)
                in.script[i] = (uint8_t)sim_random_next(&random);
        length = input_encode(&in, bytes, ENCODED_BYTES_MAX);
        input_clear(&in);
        if (!g_file_set_contents(path, (char *)bytes, (gssize)length, &error))
                g_error("%s", error->message);
}

void seeds_make(const char *directory)
{
        g_autofree char *work = g_dir_make_tmp("seeds-XXXXXX", NULL);
        g_autofree char *base = g_build_filename(work, "base", NULL);
        unsigned i;
        unsigned k;

        g_file_set_contents(base, "base", -1, NULL);
        if (g_mkdir_with_parents(directory, 0755) < 0 || truncate(base, 1 << 20) < 0)
                g_error("cannot make the directories of the seeds");
        for (i = 0; i < G_N_ELEMENTS(seeds); i++) {
                struct sim_image image = { .root = NULL };

                make_image(&seeds[i], work, &image);
                for (k = 0; k < SCRIPTS_PER_IMAGE; k++)
                        write_seed(directory, seeds[i].name, i * SCRIPTS_PER_IMAGE + k, &image);
                sim_image_clear(&image);
        }
        g_unlink(base);
        g_rmdir(work);
}
