/*
 * test-alloc.c - where new clusters come from, when the counts are not in memory.
 *
 * The image is full, but for the guest clusters that a test discards.  Its clusters are so small
 * that a block of counts covers 128 KiB: a search goes from one to the next, forty of them.
 *
 * SPDX-License-Identifier: MIT
 */
#include "meta/refs.h"
#include "unit/data-bed.h"
#include "unit/qemu-img.h"

enum { CLUSTER = 512, DISK_BYTES = 4 << 20, FAR = DISK_BYTES - CLUSTER, MANY = 64 };

struct scene {
        struct bed bed;
        char *path;
        uint64_t hole;                  /* host offset of the free cluster */
        uint64_t end;                   /* of the file, when it was opened */
};

static uint64_t file_bytes(const struct scene *s)
{
        GStatBuf st;

        g_assert_cmpint(g_stat(s->path, &st), ==, 0);
        return (uint64_t)st.st_size;
}

static uint64_t host_offset_of(struct scene *s, uint64_t guest_offset)
{
        struct op *op = op_new(&s->bed, OP_STATUS, guest_offset, CLUSTER);
        uint64_t host_offset;

        op_start(op);
        bed_poll_until(&s->bed, &op->ended);
        host_offset = op->status.host_offset;
        g_assert_cmpint(op_end(op), ==, 0);
        return host_offset;
}

/* Opened anew: no counts are in memory. */
static void begin(struct scene *s, uint64_t guest_hole)
{
        g_autofree char *options = g_strdup_printf("create -q -f qcow2 -o cluster_size=%d,"
                                                   "preallocation=metadata", CLUSTER);
        g_autofree char *size = g_strdup_printf("%d", DISK_BYTES);

        s->path = image_path();
        g_free(qemu_img(options, s->path, size));
        bed_open(&s->bed, s->path, true, 0, 0);
        s->hole = host_offset_of(s, guest_hole);
        g_assert_cmpuint(s->hole, >, 0);
        g_assert_cmpint(bed_discard(&s->bed, guest_hole, CLUSTER), ==, 0);
        bed_close(&s->bed);
        s->end = file_bytes(s);
        bed_open(&s->bed, s->path, true, 0, 0);
}

static void end(struct scene *s)
{
        bed_close(&s->bed);
        g_free(qemu_img("check -q -r leaks", s->path, ""));
        image_remove(s->path);
}

/* ---- allocating ---- */

struct asked {
        struct task task;
        struct clusters_alloc alloc;
        struct image *img;
        uint64_t host_offset;
        uint64_t count;
        bool ended;
};

static int ask_step(struct task *task)
{
        struct asked *a = (struct asked *)task;

        return clusters_alloc_run(&a->alloc, a->img, 1, 1, 0, &a->host_offset, &a->count);
}

static void ask_done(struct task *task, int result)
{
        g_assert_cmpint(result, ==, 0);
        ((struct asked *)task)->ended = true;
}

static void ask_start(struct scene *s, struct asked *a)
{
        *a = (struct asked){ .img = s->bed.img };
        task_start(&a->task, &s->bed.loop, "alloc", ask_step, ask_done);
}

static uint64_t ask(struct scene *s)
{
        struct asked a;

        ask_start(s, &a);
        bed_poll_until(&s->bed, &a.ended);
        g_assert_cmpuint(a.count, ==, 1);
        return a.host_offset;
}

/* ---- tests ---- */

/* What is known of the file's end when somebody asks. */
enum end { FREE, UNKNOWN, USED };

static const struct hole {
        const char *name;
        uint64_t guest_offset;
        enum end end;
} holes[] = {
        { "near", 0, FREE },
        { "far, on a block device", FAR, UNKNOWN },
        /* A cluster that is counted is not free, wherever the file ends. */
        { "far, the end in use", FAR, USED },
};

static void finds_the_hole(gconstpointer data)
{
        const struct hole *hole = data;
        struct scene s;

        if (qemu_img_missing())
                return;
        begin(&s, hole->guest_offset);
        if (hole->end == UNKNOWN)
                s.bed.img->refs.fresh_offset = UINT64_MAX;
        if (hole->end == USED)
                s.bed.img->refs.fresh_offset = s.end - CLUSTER;
        g_assert_cmpuint(ask(&s), ==, s.hole);
        end(&s);
}

/* Not the first that asks has to find it, but it is found. */
static void far_hole(void)
{
        struct scene s;
        unsigned asked = 1;
        uint64_t got;

        if (qemu_img_missing())
                return;
        begin(&s, FAR);
        got = ask(&s);
        g_assert_cmpuint(got, >=, s.end);
        for (; got != s.hole && asked < MANY; asked++)
                got = ask(&s);
        g_assert_cmpuint(got, ==, s.hole);
        g_assert_cmpuint(asked, <, 10);
        end(&s);
}

/* All at once: each gets another cluster, and one of them the hole. */
static void many_at_once(void)
{
        g_autoptr(GHashTable) seen = g_hash_table_new(g_int64_hash, g_int64_equal);
        g_autofree struct asked *asked = g_new(struct asked, MANY);
        struct scene s;
        unsigned i;

        if (qemu_img_missing())
                return;
        begin(&s, DISK_BYTES / 8);
        for (i = 0; i < MANY; i++)
                ask_start(&s, &asked[i]);
        for (i = 0; i < MANY; i++) {
                bed_poll_until(&s.bed, &asked[i].ended);
                g_assert_true(g_hash_table_add(seen, &asked[i].host_offset));
                g_assert_true(asked[i].host_offset == s.hole || asked[i].host_offset >= s.end);
        }
        g_assert_true(g_hash_table_contains(seen, &s.hole));
        end(&s);
}

int main(int argc, char **argv)
{
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(holes); i++) {
                g_autofree char *path = g_strdup_printf("/alloc/hole/%s", holes[i].name);

                g_test_add_data_func(path, &holes[i], finds_the_hole);
        }
        g_test_add_func("/alloc/far-hole", far_hole);
        g_test_add_func("/alloc/many-at-once", many_at_once);
        return g_test_run();
}
