/*
 * test-data.c - the data path: writes, zeroes, discards, block status, VM state.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "unit/data-scene.h"

/* ---- writes, one at a time ---- */

static const struct setup plain = { "plain", "compat=1.1", 16, MiB(4), NO_BACKING, 0, false,
                                    false, 0 };
static const struct setup overlay = { "overlay", "compat=1.1", 16, MiB(4), QCOW2_BACKING, MiB(2),
                                      false, false, 0 };
static const struct setup overlay_v2 = { "overlay", "compat=0.10", 16, MiB(4), QCOW2_BACKING,
                                         MiB(2), false, false, 0 };
static const struct setup plain_v2 = { "plain", "compat=0.10", 16, MiB(4), NO_BACKING, 0, false,
                                       false, 0 };
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
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/data/write/odd-bytes", write_odd_bytes);
        g_test_add_func("/data/write/contiguous", write_keeps_the_file_contiguous);
        g_test_add_func("/data/write/reuses-zero-clusters", write_reuses_zero_clusters);
        g_test_add_func("/data/write/refusals", write_refusals);
        add_remap_cases();
        g_test_add_func("/data/discard/adds-no-tables", discard_adds_no_tables);
        g_test_add_func("/data/status/as-qemu-sees-it", status_as_qemu_sees_it);
        g_test_add_func("/data/missing-backing", missing_backing);
        g_test_add_func("/data/vmstate/holes-are-zeros", vmstate_holes_are_zeros);
        return g_test_run();
}
