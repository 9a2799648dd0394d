/*
 * test-data-random.c - the data path: batches of random requests, disjoint in bytes, overlapping
 * in clusters.
 *
 * SPDX-License-Identifier: MIT
 */
#include "lib/effort.h"
#include "unit/data-scene.h"

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
        for (round = 0; round < EFFORT(4); round++) {
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

int main(int argc, char **argv)
{
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(random_setups); i++) {
                g_autofree char *name = g_strdup_printf("/data-random/%s", random_setups[i].name);

                g_test_add_data_func(name, &random_setups[i], random_runs);
        }
        return g_test_run();
}
