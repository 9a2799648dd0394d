/*
 * test-create.c - a power cut while an image is made leaves the old file, one that is no image, or
 * all of the new one.
 *
 * Every state of every window is enumerated: there are few writes.  Made is an image on an empty
 * file, on the file of an older image, and on a block device with old bytes everywhere.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "lib/simdisk-cut.h"
#include "ops/create.h"
#include "proof/peek.h"
#include "unit/sim-bed.h"

enum { DEVICE_BYTES = 1 << 20, OLD_DISK_BYTES = 40 << 10, COMBINATIONS_MAX = 1 << 16 };

enum ground { EMPTY_FILE, OLD_IMAGE, OLD_DEVICE };

static const struct making {
        const char *name;
        enum ground ground;
        uint64_t cluster_bytes;
        uint64_t disk_bytes;
        uint32_t version;
} makings[] = {
        { "file/512", EMPTY_FILE, 512, 1 << 20, 3 },
        { "file/64k", EMPTY_FILE, 65536, 1 << 20, 2 },
        { "image/512", OLD_IMAGE, 512, 1 << 20, 3 },
        { "image/4k", OLD_IMAGE, 4096, 1 << 20, 2 },
        { "device/512", OLD_DEVICE, 512, 1 << 18, 3 },
        { "device/4k", OLD_DEVICE, 4096, 1 << 20, 3 },
};

static GHashTable *seen;                /* hashes of states judged */
static uint64_t state_count;            /* distinct ones */
static unsigned lost_count;

/* ---- making ---- */

struct create_task {
        struct bed_task base;
        struct create create;
        struct hvb_create_args args;
};

static int create_step(struct bed_task *base)
{
        struct create_task *t = (struct create_task *)base;

        return create_file(&t->create, &base->bed->loop, &base->bed->img->file, &t->args, NULL);
}

static void make(struct simdisk *disk, const struct making *m, uint64_t disk_bytes)
{
        struct bed b = { .err = { .struct_bytes = sizeof(b.err) } };
        struct create_task t = {
                .base = { .bed = &b, .step = create_step },
                .args = {
                        .struct_bytes = sizeof(t.args),
                        .cluster_bytes = m->cluster_bytes,
                        .size_bytes = disk_bytes,
                        .version = m->version,
                },
        };

        g_assert_cmpint(open_options_parse(&b.options, NULL, NULL), ==, 0);
        loop_init(&b.loop, simdisk_engine_new(disk), true);
        b.img = image_new(&b.loop, NULL, "sim", HVB_OPEN_RDWR | HVB_OPEN_NO_LOCK, &b.options);
        g_assert_cmpint(image_open_file(b.img, 0, NULL), ==, 0);
        task_start(&t.base.task, &b.loop, "create", bed_task_step, bed_task_done);
        bed_poll_until(&b, &t.base.ended);
        g_assert_cmpint(t.base.result, ==, 0);
        sim_abandon(&b);
}

/* What is there before; it is durable. */
static void lay_ground(struct simdisk *disk, const struct making *m)
{
        g_autofree uint8_t *junk = g_malloc(DEVICE_BYTES);
        struct sim_image image = { .root = NULL };

        if (m->ground == OLD_IMAGE)
                make(disk, m, OLD_DISK_BYTES);
        if (m->ground == OLD_DEVICE) {
                memset(junk, 0xa5, DEVICE_BYTES);
                memcpy(junk, "QFI\xfb", 4);
                sim_image_set_length(&image, DEVICE_BYTES);
                sim_image_write(&image, 0, junk, DEVICE_BYTES);
                simdisk_file_load(disk, 0, &image);
                disk->files[0].is_block_device = true;
                sim_image_clear(&image);
        }
        simdisk_forget(disk);
}

/* ---- judging ---- */

static bool is_zero(GBytes *bytes)
{
        gsize count, i;
        const uint8_t *data = g_bytes_get_data(bytes, &count);

        for (i = 0; i < count && data[i] == 0; i++)
                ;
        return i == count;
}

static bool begins_as_image(const struct sim_image *image)
{
        uint8_t magic[4];

        sim_image_read(image, 0, magic, sizeof(magic));
        return memcmp(magic, "QFI\xfb", sizeof(magic)) == 0;
}

/* NULL, or what is wrong with what begins as an image; owned by the caller. */
static char *judge_made(const struct making *m, const struct peek *p)
{
        struct peek_counts counts = peek_counts(p);
        GBytes *disk;
        bool is_empty;

        if (p->disk_bytes != m->disk_bytes &&
            (m->ground != OLD_IMAGE || p->disk_bytes != OLD_DISK_BYTES))
                return g_strdup_printf("a disk of %" G_GUINT64_FORMAT " bytes", p->disk_bytes);
        if (counts.below > 0 || counts.leaked > 0)
                return g_strdup_printf("%u clusters counted too low, %u leaked", counts.below,
                                       counts.leaked);
        disk = peek_disk(p, p->l1_offset, p->l1_entries, MIN(p->disk_bytes, OLD_DISK_BYTES));
        is_empty = is_zero(disk);
        g_bytes_unref(disk);
        return is_empty ? NULL : g_strdup("the new disk has old bytes");
}

static char *judge(const struct making *m, const struct sim_image *image, bool is_begun,
                   bool is_done)
{
        struct peek p;
        char *why;

        if (!begins_as_image(image))
                return is_done ? g_strdup("the image is gone") : NULL;
        if (m->ground == OLD_DEVICE && !is_begun)
                return NULL;            /* old bytes, as they were */
        why = peek_open(&p, image, NULL);
        if (!why)
                why = judge_made(m, &p);
        peek_clear(&p);
        return why;
}

/* ---- enumerating ---- */

/* What is allowed decides too whether a state is a new one. */
static bool is_new(const struct making *m, const struct sim_image *image, bool is_begun,
                   bool is_done)
{
        uint64_t key = sim_image_hash(image) ^
                       ((uint64_t)(m - makings) * 4 + is_begun * 2 + is_done + 1) *
                       UINT64_C(0x9e3779b97f4a7c15);

        return g_hash_table_add(seen, g_memdup2(&key, sizeof(key)));
}

static bool judge_picks(const struct making *m, struct sim_cut *cut, const unsigned *picks,
                        bool is_begun, bool is_done)
{
        struct sim_image images[SIM_FILES_MAX] = { { .root = NULL } };
        char *why = NULL;
        unsigned i;

        sim_cut_build(cut, picks, images);
        if (is_new(m, &images[0], is_begun, is_done)) {
                state_count++;
                why = judge(m, &images[0], is_begun, is_done);
        }
        if (why)
                g_print("# lost: %s: cut at moment %" G_GUINT64_FORMAT ": %s\n", m->name,
                        sim_cut_point(cut), why);
        for (i = 0; i < SIM_FILES_MAX; i++)
                sim_image_clear(&images[i]);
        g_free(why);
        return why == NULL;
}

/* All combinations, as far as there are no more than the limit: then the rest is sampled. */
static bool judge_point(const struct making *m, struct sim_cut *cut, bool is_begun, bool is_done)
{
        unsigned count, i;
        const struct sim_choice *choices = sim_cut_choices(cut, &count);
        g_autofree unsigned *picks = g_new0(unsigned, count + 1);
        struct sim_random random = { sim_cut_point(cut) };
        unsigned left = COMBINATIONS_MAX;

        do {
                if (!judge_picks(m, cut, picks, is_begun, is_done))
                        return false;
                if (count > 16)
                        for (i = 0; i < count; i++)
                                picks[i] = (unsigned)sim_random_below(&random,
                                                                      choices[i].option_count);
                else
                        for (i = 0; i < count && ++picks[i] == choices[i].option_count; i++)
                                picks[i] = 0;
        } while (i < count || (count > 16 && --left > COMBINATIONS_MAX - 2000));
        return true;
}

static bool is_erased(const struct simdisk *disk, uint64_t moment)
{
        guint i;

        for (i = 0; i < moment; i++) {
                const struct sim_moment *at = &g_array_index(disk->moments, struct sim_moment, i);

                if (at->completes && simdisk_entry(disk, at->entry)->op == IO_FSYNC)
                        return true;
        }
        return false;
}

static void test_making(gconstpointer data)
{
        const struct sim_options options = {
                .seed = 1, .delay_max = 3, .reorder = true, .record = true,
                .short_percent = 20, .short_bytes = SIM_SECTOR_BYTES,
        };
        const struct making *m = data;
        struct simdisk *disk = simdisk_new(&options);
        struct sim_cut *cut;
        uint64_t moments;
        uint64_t at;

        simdisk_file_new(disk);
        lay_ground(disk, m);
        make(disk, m, m->disk_bytes);
        moments = simdisk_moments(disk);
        cut = sim_cut_new(disk);
        for (at = 0; at <= moments; at++) {
                sim_cut_advance(cut, at);
                if (!judge_point(m, cut, is_erased(disk, at), at == moments)) {
                        lost_count++;
                        g_test_fail();
                        break;
                }
        }
        sim_cut_free(cut);
        simdisk_free(disk);
}

int main(int argc, char **argv)
{
        unsigned i;
        int ret;

        g_test_init(&argc, &argv, NULL);
        seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
        for (i = 0; i < G_N_ELEMENTS(makings); i++) {
                g_autofree char *path = g_strdup_printf("/create/%s", makings[i].name);

                g_test_add_data_func(path, &makings[i], test_making);
        }
        ret = g_test_run();
        g_print("# proof: crash states: %" G_GUINT64_FORMAT ", lost: %u\n", state_count,
                lost_count);
        g_hash_table_destroy(seen);
        return ret;
}
