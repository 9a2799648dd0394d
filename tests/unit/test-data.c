/*
 * test-data.c - the data path on images that qemu-img made, against a memory model.
 *
 * After each run three hold: the disk reads as the model, through us; it does so
 * through qemu-img; and qemu-img check finds neither corruption nor leak.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "data-bed.h"
#include "lib/effort.h"
#include "qemu-img.h"

#define FMT64 G_GINT64_MODIFIER

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

static void run_shell(const char *format, ...) G_GNUC_PRINTF(1, 2);
static void run_shell(const char *format, ...)
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

static void put_file(const char *path, const uint8_t *bytes, uint64_t length_bytes)
{
        g_autoptr(GError) error = NULL;

        g_unlink(path);                 /* or a longer one would keep its end */
        g_file_set_contents_full(path, (const char *)bytes, (gssize)length_bytes,
                                 G_FILE_SET_CONTENTS_NONE, 0600, &error);
        g_assert_no_error(error);
}

/* Half noise, half text: some clusters deflate, some do not, some are zeros. */
static void fill(GRand *rand, uint8_t *bytes, uint64_t length_bytes)
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

static void make_base(struct scene *s)
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

static struct scene *scene_new(const struct setup *setup)
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

static void scene_open(struct scene *s)
{
        bed_open(&s->bed, s->image, true, s->setup->open_flags, 0);
}

/* Reads with us; then qemu-img compares and checks. */
static void scene_verify(struct scene *s)
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

static void scene_snapshot(struct scene *s)
{
        run_shell("qemu-img snapshot -c old %s", s->image);
        s->snapshot = g_memdup2(s->model, s->setup->disk_bytes);
}

static void scene_free(struct scene *s)
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

static bool model_discards(const struct setup *u)
{
        return u->backing == NO_BACKING || !strstr(u->options, "compat=0.10");
}

static void model_discard(struct scene *s, uint64_t offset, uint64_t length_bytes)
{
        uint64_t cluster_bytes = UINT64_C(1) << s->setup->cluster_bits;
        uint64_t end = offset + length_bytes;
        uint64_t first = round_up(offset, cluster_bytes);

        if (end != s->setup->disk_bytes)
                end = round_down(end, cluster_bytes);
        if (first < end && model_discards(s->setup))
                memset(s->model + first, 0, end - first);
}

/* ---- random runs: batches of requests, disjoint in bytes, overlapping in clusters ---- */

enum { BATCH = 32 };

struct batch {
        struct op *op[BATCH];
        uint8_t *buffer[BATCH];
        unsigned count;
};

static enum op_kind random_kind(struct scene *s)
{
        static const enum op_kind kinds[] = {
                OP_READ, OP_READ, OP_READ, OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE,
                OP_ZERO, OP_DISCARD, OP_COMPRESS,
        };
        unsigned last = s->setup->may_compress ? G_N_ELEMENTS(kinds) : G_N_ELEMENTS(kinds) - 1;

        return kinds[g_rand_int_range(s->rand, 0, (gint32)last)];
}

static void apply_to_model(struct scene *s, const struct op *op, const uint8_t *buffer)
{
        if (op->kind == OP_WRITE || op->kind == OP_COMPRESS)
                memcpy(s->model + op->offset, buffer, op->length_bytes);
        else if (op->kind == OP_ZERO)
                memset(s->model + op->offset, 0, op->length_bytes);
        else if (op->kind == OP_DISCARD)
                model_discard(s, op->offset, op->length_bytes);
}

static void start_random(struct scene *s, struct batch *b, uint64_t offset, uint64_t length_bytes)
{
        enum op_kind kind = random_kind(s);
        uint64_t cluster_bytes = UINT64_C(1) << s->setup->cluster_bits;
        uint8_t *buffer;
        struct op *op;

        if (kind == OP_COMPRESS) {      /* a cluster inside what was given, if there is one */
                uint64_t first = round_up(offset, cluster_bytes);

                if (first + cluster_bytes > offset + length_bytes)
                        kind = OP_WRITE;
                else
                        offset = first, length_bytes = cluster_bytes;
        }
        op = op_new(&s->bed, kind, offset, length_bytes);
        buffer = io_buffer_try_new(length_bytes);
        fill(s->rand, buffer, length_bytes);
        op_buffer(op, buffer, g_rand_boolean(s->rand) ? 0
                  : 512 * (uint64_t)g_rand_int_range(s->rand, 1, 20));
        op->flags = g_rand_boolean(s->rand) ? HVB_REQ_MAY_UNMAP : 0;
        apply_to_model(s, op, buffer);
        b->op[b->count] = op;
        b->buffer[b->count++] = buffer;
        if (g_rand_boolean(s->rand))
                op_start(op);
        else
                op_start_fast(op);
        if (g_rand_int_range(s->rand, 0, 8) == 0)
                loop_poll(&s->bed.loop, 0);
}

static void end_batch(struct scene *s, struct batch *b)
{
        unsigned i;

        for (i = 0; i < b->count; i++) {
                uint64_t offset = b->op[i]->offset;
                uint64_t length_bytes = b->op[i]->length_bytes;
                bool is_read = b->op[i]->kind == OP_READ;

                g_assert_cmpint(op_end(b->op[i]), ==, 0);
                if (is_read)
                        g_assert_cmpmem(b->buffer[i], length_bytes, s->model + offset,
                                        length_bytes);
                free(b->buffer[i]);
        }
        b->count = 0;
}

/* Cuts a window of the disk into disjoint pieces and lets requests loose on them. */
static void random_batch(struct scene *s)
{
        struct batch b = { .count = 0 };
        uint64_t disk_sectors = s->setup->disk_bytes / 512;
        uint64_t longest = u64_min(disk_sectors / BATCH,
                                   (uint64_t)1 << g_rand_int_range(s->rand, 1, 14));
        uint64_t at = (uint64_t)(g_rand_double(s->rand) * (double)disk_sectors);

        while (b.count < BATCH && at < disk_sectors) {
                uint64_t n = 1 + (uint64_t)(g_rand_double(s->rand) * (double)longest);

                n = MIN(n, disk_sectors - at);
                start_random(s, &b, at * 512, n * 512);
                at += n;
        }
        end_batch(s, &b);
}

static void random_runs(gconstpointer data)
{
        struct scene *s;
        unsigned round;
        unsigned i;

        if (qemu_img_missing())
                return;
        s = scene_new(data);
        for (round = 0; round < EFFORT(6); round++) {
                scene_open(s);
                for (i = 0; i < EFFORT(16); i++) {
                        random_batch(s);
                        if (i % 8 == 5)
                                bed_commit(&s->bed);
                }
                scene_verify(s);
                if (round == 1 && s->setup->has_snapshot)
                        scene_snapshot(s);
        }
        scene_free(s);
}

#define MiB(n) ((uint64_t)(n) << 20)

static const struct setup random_setups[] = {
        { "v3", "compat=1.1", 16, MiB(20) + 512, NO_BACKING, 0, true, true, 0 },
        { "v3-direct", "compat=1.1", 16, MiB(20) + 4096, NO_BACKING, 0, true, true, O_DIRECT },
        { "v2", "compat=0.10", 16, MiB(20), NO_BACKING, 0, true, true, 0 },
        { "cluster-512", "cluster_size=512", 9, MiB(3), NO_BACKING, 0, true, true, 0 },
        { "cluster-4k", "cluster_size=4096", 12, MiB(8) + 1024, NO_BACKING, 0, true, true, 0 },
        { "cluster-2m", "cluster_size=2M", 21, MiB(40), NO_BACKING, 0, true, true, 0 },
        { "v3-on-qcow2", "compat=1.1", 16, MiB(20), QCOW2_BACKING, MiB(12), true, true, 0 },
        { "v2-on-qcow2", "compat=0.10", 16, MiB(20), QCOW2_BACKING, MiB(24), true, true, 0 },
        { "v3-on-compressed", "compat=1.1,cluster_size=4096", 12, MiB(8), COMPRESSED_BACKING,
          MiB(6), true, false, 0 },
        { "v3-on-raw", "compat=1.1", 16, MiB(20), RAW_BACKING, MiB(7) + 1000, true, true, 0 },
        { "v3-on-raw-direct", "compat=1.1", 16, MiB(20), RAW_BACKING, MiB(7) + 1000, true, true,
          O_DIRECT },
        { "2m-on-qcow2", "cluster_size=2M", 21, MiB(40), QCOW2_BACKING, MiB(33), true, true, 0 },
        { "lazy", "lazy_refcounts=on", 16, MiB(20), NO_BACKING, 0, false, true, 0 },
        { "refcount-1", "refcount_bits=1", 16, MiB(20), NO_BACKING, 0, false, true, 0 },
        { "refcount-64", "refcount_bits=64,cluster_size=4096", 12, MiB(8), QCOW2_BACKING, MiB(8),
          true, true, 0 },
        { "zstd", "compression_type=zstd", 16, MiB(20), NO_BACKING, 0, true, true, 0 },
};

/* ---- writes, one at a time ---- */

static const struct setup plain = { "plain", "compat=1.1", 16, MiB(4), NO_BACKING, 0, false,
                                    false, 0 };
static const struct setup overlay = { "overlay", "compat=1.1", 16, MiB(4), QCOW2_BACKING, MiB(2),
                                      false, false, 0 };
static const struct setup overlay_v2 = { "overlay", "compat=0.10", 16, MiB(4), QCOW2_BACKING,
                                         MiB(2), false, false, 0 };
static const struct setup plain_v2 = { "plain", "compat=0.10", 16, MiB(4), NO_BACKING, 0, false,
                                       false, 0 };

static struct scene *open_scene(const struct setup *setup)
{
        struct scene *s = scene_new(setup);

        scene_open(s);
        return s;
}

static void scene_write(struct scene *s, uint64_t offset, uint64_t length_bytes, int byte)
{
        memset(s->model + offset, byte, length_bytes);
        g_assert_cmpint(bed_write(&s->bed, offset, s->model + offset, length_bytes), ==, 0);
}

/* The entry that maps offset; the image has one L2 slice. */
static struct mapping mapping_at(struct scene *s, uint64_t offset)
{
        struct mapping map;

        g_assert_cmpint(map_lookup_cached(s->bed.img, &s->bed.img->active, offset, 1, &map), ==,
                        0);
        return map;
}

static void write_odd_bytes(void)
{
        static const uint64_t places[][2] = {
                { 1, 1 }, { 65535, 2 }, { 100000, 200000 }, { 65536 * 10 - 3, 65536 + 6 },
                { MiB(4) - 1, 1 }, { MiB(2) - 5, 10 },
        };
        struct scene *s;
        unsigned i;

        if (qemu_img_missing())
                return;
        s = open_scene(&overlay);
        for (i = 0; i < G_N_ELEMENTS(places); i++)
                scene_write(s, places[i][0], places[i][1], 'A' + (int)i);
        scene_verify(s);
        scene_free(s);
}

static void write_keeps_the_file_contiguous(void)
{
        struct scene *s;
        uint64_t first;
        uint64_t at;

        if (qemu_img_missing())
                return;
        s = open_scene(&plain);
        for (at = 0; at < MiB(2); at += 4096)
                scene_write(s, at, 4096, 1 + (int)(at / 4096 % 200));
        first = mapping_at(s, 0).host_offset;
        for (at = 65536; at < MiB(2); at += 65536)
                g_assert_cmphex(mapping_at(s, at).host_offset, ==, first + at);
        scene_verify(s);
        scene_free(s);
}

static void write_reuses_zero_clusters(void)
{
        struct scene *s;
        uint64_t host_offset;

        if (qemu_img_missing())
                return;
        s = open_scene(&overlay);
        scene_write(s, 0, 65536, 'x');
        host_offset = mapping_at(s, 0).host_offset;
        g_assert_cmpint(bed_zero(&s->bed, 0, 65536, 0), ==, 0);
        memset(s->model, 0, 65536);
        g_assert_cmpint(mapping_at(s, 0).kind, ==, CLUSTER_ZERO_ALLOCATED);
        g_assert_cmphex(mapping_at(s, 0).host_offset, ==, host_offset);
        bed_compare(&s->bed, s->model, MiB(4));
        scene_write(s, 1000, 10, 'y');
        g_assert_cmpint(mapping_at(s, 0).kind, ==, CLUSTER_NORMAL);
        g_assert_cmphex(mapping_at(s, 0).host_offset, ==, host_offset);
        scene_verify(s);
        scene_free(s);
}

static void write_refusals(void)
{
        struct scene *s;
        uint8_t byte = 1;

        if (qemu_img_missing())
                return;
        s = scene_new(&plain);
        bed_open(&s->bed, s->image, false, 0, 0);
        g_assert_cmpint(bed_write(&s->bed, 0, &byte, 1), ==, -EROFS);
        g_assert_cmpint(bed_discard(&s->bed, 0, 65536), ==, -EROFS);
        g_assert_cmpint(bed_zero(&s->bed, 0, 65536, 0), ==, -EROFS);
        g_assert_cmpint(bed_transfer(&s->bed, OP_COMPRESS, 0, s->model, 65536), ==, -EROFS);
        bed_close(&s->bed);
        scene_open(s);
        g_assert_cmpint(bed_transfer(&s->bed, OP_COMPRESS, 512, s->model, 65536), ==, -EINVAL);
        g_assert_cmpint(bed_transfer(&s->bed, OP_COMPRESS, 0, s->model, 65535), ==, -EINVAL);
        scene_verify(s);
        scene_free(s);
}

/* ---- zeroing and discarding ---- */

struct remap_case {
        const char *name;
        const struct setup *setup;
        bool is_written;                /* before */
        int action;                     /* -1: discard; else flags of zero */
        int result;
        enum cluster_kind kind;         /* afterwards */
};

/* The cluster at 64 KiB, with something in the backing file below, if there is one. */
static const struct remap_case remap_cases[] = {
        { "discard", &plain, true, -1, 0, CLUSTER_UNALLOCATED },
        { "discard-nothing", &plain, false, -1, 0, CLUSTER_UNALLOCATED },
        { "discard-over-backing", &overlay, true, -1, 0, CLUSTER_ZERO_PLAIN },
        { "discard-backing", &overlay, false, -1, 0, CLUSTER_ZERO_PLAIN },
        { "discard-v2", &plain_v2, true, -1, 0, CLUSTER_UNALLOCATED },
        { "discard-v2-over-backing", &overlay_v2, true, -1, 0, CLUSTER_NORMAL },
        { "zero", &plain, true, 0, 0, CLUSTER_ZERO_ALLOCATED },
        { "zero-unmap", &plain, true, HVB_REQ_MAY_UNMAP, 0, CLUSTER_ZERO_PLAIN },
        { "zero-nothing", &plain, false, 0, 0, CLUSTER_UNALLOCATED },
        { "zero-over-backing", &overlay, true, 0, 0, CLUSTER_ZERO_ALLOCATED },
        { "zero-backing", &overlay, false, HVB_REQ_NO_FALLBACK, 0, CLUSTER_ZERO_PLAIN },
        { "zero-v2", &plain_v2, true, 0, 0, CLUSTER_NORMAL },
        { "zero-v2-no-fallback", &plain_v2, true, HVB_REQ_NO_FALLBACK, -ENOTSUP,
          CLUSTER_NORMAL },
        { "zero-v2-unmap", &plain_v2, true, HVB_REQ_MAY_UNMAP, 0, CLUSTER_UNALLOCATED },
        { "zero-v2-nothing", &plain_v2, false, HVB_REQ_NO_FALLBACK, 0, CLUSTER_UNALLOCATED },
        { "zero-v2-backing", &overlay_v2, false, HVB_REQ_MAY_UNMAP, 0, CLUSTER_NORMAL },
        { "zero-v2-backing-no-fallback", &overlay_v2, false,
          HVB_REQ_MAY_UNMAP | HVB_REQ_NO_FALLBACK, -ENOTSUP, CLUSTER_UNALLOCATED },
};

static void remap(gconstpointer data)
{
        const struct remap_case *c = data;
        struct scene *s;

        if (qemu_img_missing())
                return;
        s = scene_new(c->setup);
        if (c->setup->backing != NO_BACKING) {
                memset(s->model, 'b', c->setup->backing_bytes);
                run_shell("qemu-io -f qcow2 -c 'write -P 0x62 0 %" FMT64 "u' %s",
                          c->setup->backing_bytes, s->base);
        }
        scene_open(s);
        if (c->is_written)
                scene_write(s, 65536, 65536, 'w');
        if (c->action < 0)
                g_assert_cmpint(bed_discard(&s->bed, 65530, 2 * 65536), ==, c->result);
        else
                g_assert_cmpint(bed_zero(&s->bed, 65536, 65536, (uint32_t)c->action), ==,
                                c->result);
        if (c->result == 0 && (c->action >= 0 || model_discards(c->setup)))
                memset(s->model + 65536, 0, 65536);
        g_assert_cmpint(mapping_at(s, 65536).kind, ==, c->kind);
        g_assert_cmpint(mapping_at(s, 0).kind, ==, CLUSTER_UNALLOCATED);
        g_assert_cmpint(mapping_at(s, 131072).kind, ==, CLUSTER_UNALLOCATED);
        scene_verify(s);
        scene_free(s);
}

static void add_remap_cases(void)
{
        unsigned i;

        for (i = 0; i < G_N_ELEMENTS(remap_cases); i++) {
                g_autofree char *path = g_strdup_printf("/data/remap/%s", remap_cases[i].name);

                g_test_add_data_func(path, &remap_cases[i], remap);
        }
}

static void discard_adds_no_tables(void)
{
        static const struct setup huge = { "huge", "compat=1.1", 16, MiB(4096), NO_BACKING, 0,
                                           false, false, 0 };
        struct scene *s;
        uint32_t i;

        if (qemu_img_missing())
                return;
        s = open_scene(&huge);
        g_assert_cmpint(bed_discard(&s->bed, 0, huge.disk_bytes), ==, 0);
        g_assert_cmpint(bed_zero(&s->bed, 0, huge.disk_bytes, 0), ==, 0);
        for (i = 0; i < s->bed.img->active.count; i++)
                g_assert_cmphex(s->bed.img->active.entries[i], ==, 0);
        bed_close(&s->bed);
        scene_free(s);
}

/* ---- block status ---- */

/* As qemu-img map --output=json prints it. */
static char *our_map(struct bed *b, uint64_t disk_bytes)
{
        GString *out = g_string_new("[");
        uint64_t at = 0;

        while (at < disk_bytes) {
                struct op *op = op_new(b, OP_STATUS, at, disk_bytes - at);
                const struct hvb_block_status *t = &op->status;

                op_start(op);
                bed_poll_until(b, &op->ended);
                g_assert_cmpint(op->result, ==, 0);
                g_assert_cmpuint(t->length_bytes, >, 0);
                g_string_append_printf(out, "%s{ \"start\": %" FMT64 "u, \"length\": %" FMT64 "u, "
                                       "\"depth\": %u, \"present\": %s, \"zero\": %s, "
                                       "\"data\": %s, \"compressed\": %s",
                                       at ? ",\n" : "", at, t->length_bytes, t->depth,
                                       t->flags & HVB_STATUS_ALLOCATED ? "true" : "false",
                                       t->flags & HVB_STATUS_ZERO ? "true" : "false",
                                       t->flags & HVB_STATUS_DATA ? "true" : "false",
                                       t->flags & HVB_STATUS_COMPRESSED ? "true" : "false");
                if (t->flags & HVB_STATUS_OFFSET_VALID)
                        g_string_append_printf(out, ", \"offset\": %" FMT64 "u", t->host_offset);
                g_string_append(out, "}");
                at += t->length_bytes;
                op_end(op);
        }
        g_string_append(out, "]\n");
        return g_string_free(out, FALSE);
}

/* QEMU before 8.2 does not say what is compressed. */
static char *without_compressed(const char *map)
{
        g_autoptr(GRegex) regex = g_regex_new(", \"compressed\": (true|false)", 0, 0, NULL);

        return g_regex_replace_literal(regex, map, -1, 0, "", 0, NULL);
}

/* Of a chain of three, with every kind of cluster in it. */
static void status_as_qemu_sees_it(void)
{
        static const struct setup low = { "low", "compat=1.1", 16, MiB(3), COMPRESSED_BACKING,
                                          MiB(3), false, false, 0 };
        struct scene *s;
        g_autofree char *top = NULL;
        g_autofree char *theirs = NULL;
        g_autofree char *ours = NULL;

        if (qemu_img_missing())
                return;
        s = scene_new(&low);
        top = g_strdup_printf("%s.top", s->image);
        run_shell("qemu-io -f qcow2 -c 'write 0 64k' -c 'write 1M 256k' -c 'write -z 1088k 64k' "
                  "-c 'write -zu 2M 128k' -c 'discard 1216k 64k' %s", s->image);
        run_shell("qemu-img create -f qcow2 -b %s -F qcow2 %s 5M", s->image, top);
        run_shell("qemu-io -f qcow2 -c 'write 64k 192k' -c 'write -z 128k 64k' "
                  "-c 'write -c 512k 64k' -c 'write -c 576k 64k' -c 'write 4M 64k' "
                  "-c 'write -z 2560k 64k' -c 'write -z 4160k 64k' %s", top);
        bed_open(&s->bed, top, false, 0, 0);
        ours = our_map(&s->bed, MiB(5));
        bed_close(&s->bed);
        theirs = qemu_img("map --output=json", top, "");
        if (!strstr(theirs, "compressed")) {
                char *older = without_compressed(ours);

                g_free(ours);
                ours = older;
        }
        g_assert_cmpstr(ours, ==, theirs);
        g_remove(top);
        scene_free(s);
}

static void missing_backing(void)
{
        struct scene *s;
        uint8_t bytes[512];
        struct op *op;

        if (qemu_img_missing())
                return;
        s = scene_new(&overlay);
        bed_open(&s->bed, s->image, true, 0, HVB_OPEN_NO_BACKING);
        g_assert_cmpint(bed_read(&s->bed, 0, bytes, 512), ==, -ENOMEDIUM);
        g_assert_cmpint(bed_write(&s->bed, 0, bytes, 512), ==, -ENOMEDIUM);
        memset(s->model + 65536, 'n', 65536);
        g_assert_cmpint(bed_write(&s->bed, 65536, s->model + 65536, 65536), ==, 0);
        g_assert_cmpint(bed_read(&s->bed, 65536, bytes, 512), ==, 0);
        g_assert_cmpmem(bytes, 512, s->model + 65536, 512);
        op = op_new(&s->bed, OP_STATUS, 0, MiB(1));
        op_start(op);
        bed_poll_until(&s->bed, &op->ended);
        g_assert_cmpuint(op->status.flags, ==, 0);
        g_assert_cmpuint(op->status.length_bytes, ==, 65536);
        op_end(op);
        bed_close(&s->bed);
        scene_open(s);
        scene_verify(s);
        scene_free(s);
}

/* ---- compressed images ---- */

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
        { "zlib-512", "cluster_size=512", 9, MiB(2), NO_BACKING, 0, false, true, 0 },
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

/* ---- VM state ---- */

static int vmstate_transfer(struct bed *b, enum op_kind kind, uint64_t offset, void *buffer,
                            uint64_t length_bytes)
{
        struct op *op = op_new(b, kind, offset, length_bytes);

        op->l1 = &b->img->vmstate;
        op_buffer(op, buffer, 0);
        return op_run(op);
}

/* Holes are zeros, whatever the backing file holds at the same offsets. */
static void vmstate_holes_are_zeros(void)
{
        static const uint8_t nothing[65536];
        uint8_t text[] = "state";
        uint8_t bytes[65536];
        struct scene *s;

        if (qemu_img_missing())
                return;
        s = open_scene(&overlay);
        g_assert_cmpint(vmstate_transfer(&s->bed, OP_WRITE, MiB(1024) + 7, text, 5), ==, 0);
        s->bed.img->vmstate_pending = true;     /* close gives it back */
        g_assert_cmpint(vmstate_transfer(&s->bed, OP_READ, MiB(1024) + 7, bytes, 5), ==, 0);
        g_assert_cmpmem(bytes, 5, text, 5);
        g_assert_cmpint(vmstate_transfer(&s->bed, OP_READ, 0, bytes, 65536), ==, 0);
        g_assert_cmpmem(bytes, 65536, nothing, 65536);
        g_assert_cmpint(vmstate_transfer(&s->bed, OP_READ, MiB(1024) + 12, bytes, 65536), ==, 0);
        g_assert_cmpmem(bytes, 65536, nothing, 65536);
        g_assert_cmpint(vmstate_transfer(&s->bed, OP_WRITE, UINT64_C(1) << 61, text, 5), ==,
                        -EFBIG);
        scene_verify(s);
        scene_free(s);
}

int main(int argc, char **argv)
{
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/data/write/odd-bytes", write_odd_bytes);
        g_test_add_func("/data/write/contiguous", write_keeps_the_file_contiguous);
        g_test_add_func("/data/write/reuses-zero-clusters", write_reuses_zero_clusters);
        g_test_add_func("/data/write/refusals", write_refusals);
        add_remap_cases();
        g_test_add_func("/data/discard/adds-no-tables", discard_adds_no_tables);
        g_test_add_func("/data/status/as-qemu-sees-it", status_as_qemu_sees_it);
        g_test_add_func("/data/missing-backing", missing_backing);
        for (i = 0; i < G_N_ELEMENTS(compressed_setups); i++) {
                g_autofree char *name = g_strdup_printf("/data/compressed/read/%s",
                                                        compressed_setups[i].name);
                g_autofree char *other = g_strdup_printf("/data/compressed/write/%s",
                                                         compressed_setups[i].name);

                g_test_add_data_func(name, &compressed_setups[i], read_compressed);
                g_test_add_data_func(other, &compressed_setups[i], write_all_compressed);
        }
        g_test_add_func("/data/compressed/hostile", read_hostile_streams);
        g_test_add_func("/data/vmstate/holes-are-zeros", vmstate_holes_are_zeros);
        for (i = 0; i < G_N_ELEMENTS(random_setups); i++) {
                g_autofree char *name = g_strdup_printf("/data/random/%s", random_setups[i].name);

                g_test_add_data_func(name, &random_setups[i], random_runs);
        }
        return g_test_run();
}
