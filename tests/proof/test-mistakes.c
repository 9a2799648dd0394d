/*
 * test-mistakes.c - each mistake that a qcow2 driver is known to have made, and what is right.
 *
 * The images are forge.h's with some bytes changed, laid by hand from the format.  Which mistakes
 * have their test elsewhere is in README.md.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "proof/disorder-subject.h"
#include "proof/forge.h"

struct change {
        uint64_t offset;
        unsigned width_bytes;           /* 0: none */
        uint64_t value;
};

/* ---- images that are refused ---- */

/* Declared sizes cost nothing: not even reading, beyond what every opening reads. */
enum { REFUSAL_READ_BYTES_MAX = FORGE_END };

struct refusal {
        const char *name;
        struct change changes[3];
        int error;
        const char *text;
};

static const struct refusal refusals[] = {
        { "CVE-2014-0143: L1 table so large that its bytes overflow",
          { { 36, 4, 0xffffffff } }, -EFBIG, "L1 table too large: 4294967295 entries" },
        { "CVE-2014-0143: refcount table so large that its entries overflow",
          { { 56, 4, 0x80000001 } }, -EFBIG, "Refcount table too large: 2147483649 clusters" },
        { "CVE-2014-0143: snapshots so many that their memory overflows",
          { { 60, 4, 0x20000001 } }, -EFBIG, "536870913 snapshots, limit 65536" },
        { "CVE-2014-0144: cluster bits that shift too far",
          { { 20, 4, 63 } }, -EINVAL, "2^63" },
        { "CVE-2014-0144: header longer than its cluster",
          { { 100, 4, 0xfffffff8 } }, -EINVAL, "header length 4294967288" },
        { "CVE-2014-0144: backing file name behind the header cluster",
          { { 8, 8, 0x7fffffffffffffff }, { 16, 4, 8 } }, -EINVAL,
          "backing file offset: 0x7fffffffffffffff" },
        { "CVE-2014-0144: backing file name of 4 GiB",
          { { 8, 8, 512 }, { 16, 4, 0xffffffff } }, -EINVAL, "name too long: 4294967295 bytes" },
        { "CVE-2014-0144: extension longer than the header cluster",
          { { 104, 4, 0x12345678 }, { 108, 4, 0xfffffff0 } }, -EINVAL,
          "extension too large: type 0x12345678 has 4294967280 bytes" },
        { "CVE-2014-0144: L1 table too small for the disk",
          { { 24, 8, UINT64_C(1) << 50 } }, -EINVAL, "L1 table is too small: 1 entries" },
        { "CVE-2014-0144: L1 table at no cluster",
          { { 40, 8, FORGE_L1 + 1 } }, -EINVAL, "0x3001 is not a multiple" },
        { "CVE-2014-0145: snapshot with more extra data than there may be",
          { { FORGE_SNAPSHOTS + 36, 4, 0xffffffff } }, -EFBIG, "xtra" },
        { "CVE-2014-0146: opening fails late, when much is there to be given back",
          { { FORGE_SNAPSHOTS + 14, 2, 0xffff } }, -EINVAL, "napshot" },
        { "CVE-2014-0147: refcount table where offsets overflow",
          { { 48, 8, UINT64_C(0xfffffffffffff000) } }, -EINVAL, "0xfffffffffffff000" },
        { "CVE-2014-0147: refcounts wider than 64 bits",
          { { 96, 4, 31 } }, -EINVAL, "refcount_order 31, limit 6" },
        { "CVE-2014-0222, CVE-2014-0223: version 1, whose limits nobody checked",
          { { 4, 4, 1 } }, -ENOTSUP, "version 1" },
        { "CVE-2015-5162: a small file that declares an L1 table of 32 MiB",
          { { 36, 4, 4194304 } }, -EINVAL, "beyond the end of the file" },
        { "CVE-2015-5162: a small file that declares 65,536 snapshots",
          { { 60, 4, 65536 } }, -EINVAL, "beyond the end of the file" },
        { "CVE-2024-4467, CVE-2024-32498: a data file that the image names",
          { { 72, 8, 4 }, { 104, 8, UINT64_C(0x4441544100000008) },
            { 112, 8, UINT64_C(0x2f6574632f706164) } }, -ENOTSUP, "external data file" },
};

static void change_image(struct sim_image *image, const struct change *changes, unsigned count)
{
        unsigned i;

        for (i = 0; i < count && changes[i].width_bytes > 0; i++)
                forge_put(image, changes[i].offset, changes[i].width_bytes, changes[i].value);
}

static struct simdisk *disk_with(const struct change *changes, unsigned change_count)
{
        struct sim_image image = forge_image();
        const struct sim_options options = { .record = true };
        struct simdisk *disk = simdisk_new(&options);

        change_image(&image, changes, change_count);
        simdisk_file_load(disk, simdisk_file_new(disk), &image);
        simdisk_forget(disk);
        sim_image_clear(&image);
        return disk;
}

static void test_refusal(gconstpointer data)
{
        static const uint32_t ways[] = {
                0, HVB_OPEN_RDWR, HVB_OPEN_CHECK, HVB_OPEN_RDWR | HVB_OPEN_CHECK,
        };
        const struct refusal *r = data;
        unsigned i;

        for (i = 0; i < G_N_ELEMENTS(ways); i++) {
                struct simdisk *disk = disk_with(r->changes, G_N_ELEMENTS(r->changes));
                struct subject s = { 0 };

                if (subject_open(&s, disk, ways[i]) != r->error || s.err.code != r->error)
                        g_error("%s (%d)", s.err.text, s.err.code);
                if (!strstr(s.err.text, r->text))
                        g_error("'%s' does not say '%s'", s.err.text, r->text);
                g_assert_cmpuint(disk->entries->len, ==, 0);
                g_assert_cmpuint(disk->read_bytes, <=, REFUSAL_READ_BYTES_MAX);
                simdisk_free(disk);
        }
}

/* ---- images that are opened ---- */

struct scene {
        struct simdisk *disk;
        struct subject s;
};

static void scene_open(struct scene *scene, const struct change *changes, unsigned change_count,
                       uint32_t flags)
{
        *scene = (struct scene){ .disk = disk_with(changes, change_count) };
        if (subject_open(&scene->s, scene->disk, flags) < 0)
                g_error("cannot open: %s", scene->s.err.text);
}

static int scene_write(struct scene *scene, uint64_t offset, uint8_t value, size_t length)
{
        g_autofree uint8_t *bytes = g_malloc(length);
        struct iovec iov = { bytes, length };
        struct subject_call c;

        memset(bytes, value, length);
        subject_call_begin(&scene->s, &c);
        scene->s.driver->pwritev(scene->s.queue, c.request, offset, &iov, 1, 0);
        return subject_call_end(&scene->s, &c);
}

static int scene_flush(struct scene *scene)
{
        struct subject_call c;

        subject_call_begin(&scene->s, &c);
        scene->s.driver->flush(scene->s.queue, c.request);
        return subject_call_end(&scene->s, &c);
}

static int scene_create(struct scene *scene, const char *name)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        struct subject_call c;

        g_strlcpy(info.name, name, sizeof(info.name));
        subject_call_begin(&scene->s, &c);
        scene->s.driver->snapshot_create(scene->s.image, c.request, &info, 0, &scene->s.err);
        return subject_call_end(&scene->s, &c);
}

static int scene_goto(struct scene *scene, const char *name)
{
        struct subject_call c;

        subject_call_begin(&scene->s, &c);
        scene->s.driver->snapshot_goto(scene->s.image, c.request, NULL, name, &scene->s.err);
        return subject_call_end(&scene->s, &c);
}

static int scene_delete(struct scene *scene, const char *name)
{
        struct subject_call c;

        subject_call_begin(&scene->s, &c);
        scene->s.driver->snapshot_delete(scene->s.image, c.request, NULL, name, &scene->s.err);
        return subject_call_end(&scene->s, &c);
}

static uint8_t byte_at(struct scene *scene, uint64_t offset)
{
        uint8_t bytes[512];

        g_assert_cmpint(subject_read(&scene->s, offset, bytes, sizeof(bytes)), ==, 0);
        return bytes[0];
}

static unsigned snapshot_count(struct scene *scene)
{
        return scene->s.driver->snapshot_list(scene->s.image, 0, NULL, 0);
}

static void scene_end(struct scene *scene)
{
        g_assert_cmpint(subject_close(&scene->s), ==, 0);
        simdisk_free(scene->disk);
}

/* Closes; the file is as it was, though it may have been made stable. */
static void scene_end_unwritten(struct scene *scene)
{
        unsigned i;

        g_assert_cmpint(subject_close(&scene->s), ==, 0);
        for (i = 0; i < scene->disk->entries->len; i++)
                g_assert_cmpint(simdisk_entry(scene->disk, i)->op, ==, IO_FSYNC);
        simdisk_free(scene->disk);
}

/* Closes, and what is in the file then is sound. */
static void scene_end_clean(struct scene *scene)
{
        struct hvb_check_result found;

        g_assert_cmpint(subject_close(&scene->s), ==, 0);
        g_assert_cmpint(subject_open(&scene->s, scene->disk, HVB_OPEN_CHECK), ==, 0);
        g_assert_cmpint(subject_check(&scene->s, &found), ==, 0);
        g_assert_cmpuint(found.corruptions + found.leaks + found.check_errors, ==, 0);
        scene_end(scene);
}

/* The bed itself: unspoiled, the image is sound and holds what it says. */
static void sound_image(void)
{
        struct scene scene;

        scene_open(&scene, NULL, 0, HVB_OPEN_RDWR);
        g_assert_cmpint(byte_at(&scene, 0), ==, FORGE_DATA);
        g_assert_cmpint(byte_at(&scene, FORGE_CLUSTER), ==, 0);
        g_assert_cmpuint(snapshot_count(&scene), ==, 1);
        scene_end_clean(&scene);
}

/* CVE-2014-0145.  The snapshot's L1 has 512 entries, the active one. */
static void load_tmp_of_a_larger_l1(void)
{
        const struct change changes[] = {
                { FORGE_SNAPSHOTS + 8, 4, 512 }, { FORGE_SNAPSHOTS + 48, 8, UINT64_C(1) << 30 },
        };
        struct hvb_image_info info = { .struct_bytes = sizeof(info) };
        struct scene scene;

        scene_open(&scene, changes, G_N_ELEMENTS(changes), 0);
        g_assert_cmpint(subject_load_tmp(&scene.s, "one"), ==, 0);
        g_assert_cmpint(byte_at(&scene, 0), ==, FORGE_DATA);
        g_assert_cmpint(byte_at(&scene, (UINT64_C(1) << 30) - 512), ==, 0);
        scene.s.driver->get_info(scene.s.image, &info);
        g_assert_cmpuint(info.virtual_bytes, ==, UINT64_C(1) << 30);
        scene_end(&scene);
}

/* The flag says that the table may be written in place, and the offset that there is none: at
 * offset 0 lies the header. */
static void write_through_a_private_nothing(void)
{
        const struct change changes[] = {
                { 24, 8, 1024 * FORGE_CLUSTER }, { 36, 4, 2 },
                { FORGE_L1 + 8, 8, UINT64_C(1) << 63 },
        };
        const uint64_t at = 517 * FORGE_CLUSTER;        /* entry 5: byte 40 of its table */
        struct scene scene;

        scene_open(&scene, changes, G_N_ELEMENTS(changes), HVB_OPEN_RDWR);
        g_assert_cmpint(byte_at(&scene, at), ==, 0);
        g_assert_cmpint(scene_write(&scene, at, 7, FORGE_CLUSTER), ==, 0);
        g_assert_cmpint(subject_close(&scene.s), ==, 0);
        g_assert_cmpint(subject_open(&scene.s, scene.disk, HVB_OPEN_RDWR), ==, 0);
        g_assert_cmpint(byte_at(&scene, at), ==, 7);
        g_assert_cmpint(byte_at(&scene, 0), ==, FORGE_DATA);
        scene_end_clean(&scene);
}

/* The L1 is its own L2 table: a new entry of the one would be one of the other. */
static void write_through_the_l1(void)
{
        const struct change change = { FORGE_L1, 8, UINT64_C(1) << 63 | FORGE_L1 };
        struct scene scene;

        scene_open(&scene, &change, 1, HVB_OPEN_RDWR);
        g_assert_cmpint(scene_write(&scene, 5 * FORGE_CLUSTER, 7, FORGE_CLUSTER), ==, -EIO);
        g_assert_cmpint(scene_create(&scene, "two"), ==, -EIO);
        g_assert_cmpuint(snapshot_count(&scene), ==, 1);
        scene_end(&scene);
}

/* Whatever is written, it is not the L1. */
static void assert_l1_unwritten(const struct simdisk *disk)
{
        unsigned i;

        for (i = 0; i < disk->entries->len; i++) {
                const struct sim_entry *e = simdisk_entry(disk, i);

                g_assert_false(e->op != IO_FSYNC && e->offset < FORGE_L1 + FORGE_CLUSTER &&
                               FORGE_L1 < e->offset + e->length);
        }
}

/* The L1 is the block that counts everything, and what follows its only entry are counts that a
 * delete would lower. */
static void count_in_the_l1(void)
{
        const struct change changes[] = {
                { FORGE_REFTABLE, 8, FORGE_L1 }, { FORGE_L1 + 8, 8, UINT64_C(0x0002000200010001) },
        };
        struct scene scene;

        scene_open(&scene, changes, G_N_ELEMENTS(changes), HVB_OPEN_RDWR);
        g_assert_cmpint(byte_at(&scene, 0), ==, FORGE_DATA);
        scene_delete(&scene, "one");
        g_assert_cmpint(scene_write(&scene, 5 * FORGE_CLUSTER, 7, FORGE_CLUSTER), ==, -EIO);
        g_assert_cmpint(byte_at(&scene, 0), ==, FORGE_DATA);
        g_assert_cmpint(subject_close(&scene.s), ==, 0);
        assert_l1_unwritten(scene.disk);
        simdisk_free(scene.disk);
}

/* Whoever writes the one of these tables destroys the other: nobody writes, a repair neither. */
static void tables_on_each_other(void)
{
        static const struct change changes[] = {
                { 40, 8, FORGE_SNAPSHOTS },     /* the L1 is the list of snapshots */
                { 40, 8, FORGE_REFTABLE },
                { 64, 8, FORGE_L1 },            /* the list is the L1: a name of no length */
                { 56, 4, 3 },                   /* the refcount table reaches into the L1 */
        };
        struct hvb_check_result found = { .struct_bytes = sizeof(found) };
        unsigned i;

        for (i = 0; i < G_N_ELEMENTS(changes); i++) {
                struct scene scene;
                struct subject_call c;

                scene_open(&scene, &changes[i], 1, 0);
                g_assert_cmpint(subject_close(&scene.s), ==, 0);
                g_assert_cmpint(subject_open(&scene.s, scene.disk, HVB_OPEN_RDWR), ==, -EIO);
                g_assert_nonnull(strstr(scene.s.err.text, "overlap"));
                g_assert_cmpint(subject_open(&scene.s, scene.disk,
                                             HVB_OPEN_RDWR | HVB_OPEN_CHECK), ==, 0);
                subject_call_begin(&scene.s, &c);
                scene.s.driver->check(scene.s.image, c.request,
                                      HVB_CHECK_FIX_LEAKS | HVB_CHECK_FIX_ERRORS, &found,
                                      &scene.s.err);
                g_assert_cmpint(subject_call_end(&scene.s, &c), ==, 0);
                g_assert_cmpuint(found.check_errors, >, 0);
                g_assert_cmpuint(found.corruptions_fixed + found.leaks_fixed, ==, 0);
                scene_end_unwritten(&scene);
        }
}

/* The table that maps the disk's first clusters is free by its count: whoever needs a table next
 * gets it, while a writer to those clusters has it in its hands. */
static void table_allocated_while_in_use(void)
{
        const struct change changes[] = {
                { 24, 8, 1024 * FORGE_CLUSTER }, { 36, 4, 2 },
                { FORGE_L1, 8, UINT64_C(1) << 63 | FORGE_L2 },
                { FORGE_REFBLOCK + FORGE_L2 / FORGE_CLUSTER * 2, 2, 0 },
        };
        g_autofree uint8_t *bytes = g_malloc0(FORGE_CLUSTER);
        struct iovec iov = { bytes, FORGE_CLUSTER };
        struct subject_call other_table;
        struct subject_call c;
        struct scene scene;

        scene_open(&scene, changes, G_N_ELEMENTS(changes), HVB_OPEN_RDWR);
        subject_call_begin(&scene.s, &other_table);
        subject_call_begin(&scene.s, &c);
        scene.s.driver->pwritev(scene.s.queue, other_table.request, 600 * FORGE_CLUSTER, &iov, 1,
                                0);
        scene.s.driver->pwritev(scene.s.queue, c.request, 5 * FORGE_CLUSTER, &iov, 1, 0);
        g_assert_cmpint(subject_call_end(&scene.s, &other_table), ==, 0);
        g_assert_cmpint(subject_call_end(&scene.s, &c), ==, -EIO);
        scene_end(&scene);
}

/* CVE-2014-0147.  Every cluster that the only block counts is taken: the next block must count
 * itself. */
static void refcount_block_counts_itself(void)
{
        struct simdisk *disk = disk_with(NULL, 0);
        struct sim_image image = sim_image_clone(&disk->files[0].image);
        struct scene scene = { .disk = disk };
        unsigned i;

        for (i = FORGE_END / FORGE_CLUSTER; i < FORGE_CLUSTER / 2; i++)
                forge_put(&image, FORGE_REFBLOCK + 2 * i, 2, 1);
        simdisk_file_load(disk, 0, &image);
        simdisk_forget(disk);
        sim_image_clear(&image);
        g_assert_cmpint(subject_open(&scene.s, disk, HVB_OPEN_RDWR), ==, 0);
        g_assert_cmpint(scene_write(&scene, 0, 7, FORGE_CLUSTER), ==, 0);
        g_assert_cmpint(byte_at(&scene, 0), ==, 7);
        g_assert_cmpint(subject_close(&scene.s), ==, 0);
        {
                struct hvb_check_result found;

                g_assert_cmpint(subject_open(&scene.s, disk, HVB_OPEN_CHECK), ==, 0);
                g_assert_cmpint(subject_check(&scene.s, &found), ==, 0);
                g_assert_cmpuint(found.corruptions + found.check_errors, ==, 0);
                g_assert_cmpuint(found.leaks, ==, FORGE_CLUSTER / 2 - FORGE_END / FORGE_CLUSTER);
        }
        scene_end(&scene);
}

/* CVE-2014-0143 and its like: an entry points behind what the refcount table can count. */
static void create_with_an_entry_beyond_the_refcounts(void)
{
        const struct change change = { FORGE_L2 + 8, 8, (UINT64_C(1) << 56) - FORGE_CLUSTER };
        struct scene scene;

        scene_open(&scene, &change, 1, HVB_OPEN_RDWR);
        g_assert_cmpint(scene_create(&scene, "two"), ==, -EIO);
        g_assert_cmpuint(snapshot_count(&scene), ==, 1);
        g_assert_cmpint(byte_at(&scene, 0), ==, FORGE_DATA);
        g_assert_cmpuint(scene.disk->files[0].image.length_bytes, <=, 2 * FORGE_END);
        scene_end(&scene);
}

/* CVE-2015-5162: a huge disk whose L1 the file does hold is checked by what is in it. */
static void check_costs_what_the_file_holds(void)
{
        const struct change changes[] = {
                { 24, 8, UINT64_C(512) * 512 * FORGE_CLUSTER }, { 36, 4, 512 },
        };
        struct hvb_check_result found;
        struct scene scene;

        scene_open(&scene, changes, G_N_ELEMENTS(changes), 0);
        g_assert_cmpint(subject_check(&scene.s, &found), ==, 0);
        g_assert_cmpuint(found.corruptions + found.leaks + found.check_errors, ==, 0);
        g_assert_cmpuint(found.total_clusters, ==, 512 * 512);
        g_assert_cmpuint(scene.disk->read_bytes, <=, 4 * FORGE_END);
        scene_end(&scene);
}

/* CVE-2015-5162: the format lets the end of the file cut a refcount table; what is missing is
 * zero, and nobody reads it. */
static void refcount_table_beyond_the_file(void)
{
        const struct change change = { 56, 4, (8 << 20) / FORGE_CLUSTER };
        struct scene scene;

        scene_open(&scene, &change, 1, 0);
        g_assert_cmpuint(scene.disk->read_bytes, <=, 3 * FORGE_END);
        g_assert_cmpint(byte_at(&scene, 0), ==, FORGE_DATA);
        scene_end(&scene);
}

/* Two monitors write in place what a snapshot holds: they look at no count. */
static void write_beside_a_snapshot(void)
{
        struct scene scene;

        scene_open(&scene, NULL, 0, HVB_OPEN_RDWR);
        g_assert_cmpint(scene_write(&scene, 512, 9, 512), ==, 0);
        g_assert_cmpint(byte_at(&scene, 512), ==, 9);
        g_assert_cmpint(byte_at(&scene, 0), ==, FORGE_DATA);
        g_assert_cmpint(scene_goto(&scene, "one"), ==, 0);
        g_assert_cmpint(byte_at(&scene, 512), ==, FORGE_DATA);
        scene_end_clean(&scene);
}

static void flushes_do_not_grow_the_file(void)
{
        struct scene scene;
        uint64_t length;
        unsigned i;

        scene_open(&scene, NULL, 0, HVB_OPEN_RDWR);
        g_assert_cmpint(scene_write(&scene, 0, 1, 512), ==, 0);
        g_assert_cmpint(scene_flush(&scene), ==, 0);
        length = scene.disk->files[0].image.length_bytes;
        for (i = 0; i < 64; i++) {
                g_assert_cmpint(scene_write(&scene, 0, (uint8_t)i, 512), ==, 0);
                g_assert_cmpint(scene_flush(&scene), ==, 0);
        }
        g_assert_cmpuint(scene.disk->files[0].image.length_bytes, ==, length);
        scene_end_clean(&scene);
}

/* The 32-bit field is 0, the extra data has the length. */
static void vmstate_above_4_gib(void)
{
        const struct change change = { FORGE_SNAPSHOTS + 40, 8, UINT64_C(5) << 30 };
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        uint8_t bytes[512];
        struct scene scene;

        scene_open(&scene, &change, 1, HVB_OPEN_RDWR);
        g_assert_cmpuint(scene.s.driver->snapshot_list(scene.s.image, 0, &info, 1), ==, 1);
        g_assert_cmpuint(info.vm_state_bytes, ==, UINT64_C(5) << 30);
        g_assert_cmpint(scene_goto(&scene, "one"), ==, 0);
        memset(bytes, 1, sizeof(bytes));
        g_assert_cmpint(subject_load_vmstate(&scene.s, (UINT64_C(5) << 30) - 512, bytes, 512), ==,
                        0);
        g_assert_cmpint(bytes[0], ==, 0);
        scene_end_clean(&scene);
}

/* The active disk has two L2 tables, the snapshot's L1 one entry. */
static void goto_a_smaller_l1(void)
{
        const uint64_t bytes = UINT64_C(2) * 512 * FORGE_CLUSTER;
        const struct change changes[] = { { 24, 8, bytes }, { 36, 4, 2 } };
        struct hvb_image_info info = { .struct_bytes = sizeof(info) };
        struct scene scene;

        scene_open(&scene, changes, G_N_ELEMENTS(changes), HVB_OPEN_RDWR);
        g_assert_cmpint(scene_write(&scene, bytes - 512, 3, 512), ==, 0);
        g_assert_cmpint(scene_goto(&scene, "one"), ==, 0);
        scene.s.driver->get_info(scene.s.image, &info);
        g_assert_cmpuint(info.virtual_bytes, ==, FORGE_DISK_BYTES);
        g_assert_cmpint(byte_at(&scene, 0), ==, FORGE_DATA);
        scene_end_clean(&scene);
}

struct leave {
        bool writes;                    /* the image is written to, and by the request too */
        bool inactivates;
        bool cancels;
};

/* A request is loading its table when the image is left, which waits for it, cancelled or not;
 * what comes after that is refused. */
static void leave_beside_a_request(const struct leave *how)
{
        g_autofree uint8_t *bytes = g_malloc0(FORGE_CLUSTER);
        struct iovec iov = { bytes, FORGE_CLUSTER };
        struct subject_call before;
        struct subject_call leaving;
        struct subject_call after;
        struct scene scene;
        const struct hvb_driver *driver;

        scene_open(&scene, NULL, 0, how->writes ? HVB_OPEN_RDWR : 0);
        driver = scene.s.driver;
        subject_call_begin(&scene.s, &before);
        subject_call_begin(&scene.s, &leaving);
        subject_call_begin(&scene.s, &after);
        (how->writes ? driver->pwritev : driver->preadv)(scene.s.queue, before.request, 0, &iov, 1,
                                                         0);
        (how->inactivates ? driver->inactivate : driver->close)(scene.s.image, leaving.request,
                                                                &scene.s.err);
        driver->preadv(scene.s.queue, after.request, 0, &iov, 1, 0);
        if (how->cancels)
                driver->cancel(scene.s.queue, leaving.request);
        g_assert_cmpint(subject_call_end(&scene.s, &leaving), ==, 0);
        g_assert_true(before.ended);
        g_assert_cmpint(subject_call_end(&scene.s, &before), ==, 0);
        g_assert_cmpint(subject_call_end(&scene.s, &after), ==, -EINPROGRESS);
        if (how->inactivates) {
                g_assert_cmpint(subject_activate(&scene.s), ==, 0);
                g_assert_cmpint(byte_at(&scene, 0), ==, how->writes ? 0 : FORGE_DATA);
                g_assert_cmpint(subject_close(&scene.s), ==, 0);
        } else {
                subject_release(&scene.s);
        }
        simdisk_free(scene.disk);
}

static void left_beside_a_request(void)
{
        unsigned bits;

        for (bits = 0; bits < 8; bits++)
                leave_beside_a_request(&(struct leave){ bits & 1, bits & 2, bits & 4 });
}

/* A delete waits for what is prepared, and the close for the delete. */
static void closed_while_prepared(void)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info), .name = "two" };
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        struct subject_call waits;
        struct scene scene;

        scene_open(&scene, NULL, 0, HVB_OPEN_RDWR);
        subject_call_begin(&scene.s, &waits);
        scene.s.driver->snapshot_prepare(scene.s.image, waits.request, &info, 0, &err);
        g_assert_cmpint(subject_call_end(&scene.s, &waits), ==, 0);
        subject_call_begin(&scene.s, &waits);
        scene.s.driver->snapshot_delete(scene.s.image, waits.request, NULL, "one", &err);
        g_assert_cmpint(subject_close(&scene.s), ==, 0);
        g_assert_true(waits.ended);
        g_assert_cmpint(subject_call_end(&scene.s, &waits), ==, 0);
        simdisk_free(scene.disk);
}

/* Another process deletes the only snapshot meanwhile.  The list that there was has no place now:
 * to give it back would free what lies at offset 0, the header. */
static void list_deleted_while_inactive(void)
{
        const struct change deleted[] = {
                { 60, 4, 0 }, { 64, 8, 0 },
                { FORGE_L1, 8, UINT64_C(1) << 63 | FORGE_L2 },
                { FORGE_L2, 8, UINT64_C(1) << 63 | FORGE_DATA_AT },
                { FORGE_REFBLOCK + FORGE_L2 / FORGE_CLUSTER * 2, 8, UINT64_C(0x0001000100000000) },
        };
        struct sim_image image = forge_image();
        struct scene scene;

        scene_open(&scene, NULL, 0, HVB_OPEN_RDWR);
        g_assert_cmpint(subject_inactivate(&scene.s), ==, 0);
        change_image(&image, deleted, G_N_ELEMENTS(deleted));
        simdisk_file_load(scene.disk, 0, &image);
        simdisk_forget(scene.disk);
        sim_image_clear(&image);
        if (subject_activate(&scene.s) < 0)
                g_error("%s", scene.s.err.text);
        g_assert_cmpuint(snapshot_count(&scene), ==, 0);
        g_assert_cmpint(scene_create(&scene, "two"), ==, 0);
        scene_end_clean(&scene);
}

/* Counts of 1 bit cannot count a second reference. */
static void failed_create_leaves_the_list(void)
{
        const struct change changes[] = {
                { 96, 4, 0 }, { 60, 4, 0 }, { FORGE_REFBLOCK, 8, UINT64_C(0x3f00000000000000) },
                { FORGE_REFBLOCK + 8, 8, 0 }, { FORGE_L1, 8, UINT64_C(1) << 63 | FORGE_L2 },
                { FORGE_L2, 8, UINT64_C(1) << 63 | FORGE_DATA_AT },
                { 64, 8, 0 },
        };
        struct scene scene;

        scene_open(&scene, changes, G_N_ELEMENTS(changes), HVB_OPEN_RDWR);
        g_assert_cmpint(scene_create(&scene, "two"), ==, -EINVAL);
        g_assert_nonnull(strstr(scene.s.err.text, "refcount_bits=1"));
        g_assert_cmpuint(snapshot_count(&scene), ==, 0);
        scene_end_clean(&scene);
}

/* Bit 0 of its descriptor belongs to the offset: the cluster is no zero cluster. */
static void compressed_at_an_odd_offset(void)
{
        const unsigned at = FORGE_DATA_AT + 1;
        const struct change change = { FORGE_L2, 8, UINT64_C(1) << 62 | at };
        struct hvb_block_status status = { .struct_bytes = sizeof(status) };
        uint8_t plain[FORGE_CLUSTER];
        uint8_t packed[512];
        z_stream z = { .next_in = plain, .avail_in = sizeof(plain), .next_out = packed,
                       .avail_out = sizeof(packed) };
        struct scene scene = { .disk = disk_with(&change, 1) };
        struct subject_call c;

        memset(plain, 0xc5, sizeof(plain));
        g_assert_cmpint(deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), ==, Z_OK);
        g_assert_cmpint(deflate(&z, Z_FINISH), ==, Z_STREAM_END);
        deflateEnd(&z);
        sim_image_write(&scene.disk->files[0].image, at, packed, sizeof(packed) - z.avail_out);

        g_assert_cmpint(subject_open(&scene.s, scene.disk, HVB_OPEN_RDWR), ==, 0);
        g_assert_cmpint(byte_at(&scene, 0), ==, 0xc5);
        subject_call_begin(&scene.s, &c);
        scene.s.driver->block_status(scene.s.queue, c.request, 0, FORGE_CLUSTER, &status);
        g_assert_cmpint(subject_call_end(&scene.s, &c), ==, 0);
        g_assert_cmpuint(status.flags & (HVB_STATUS_COMPRESSED | HVB_STATUS_ZERO), ==,
                         HVB_STATUS_COMPRESSED);
        g_assert_cmpint(scene_write(&scene, 512, 1, 512), ==, 0);
        g_assert_cmpint(byte_at(&scene, 0), ==, 0xc5);
        scene_end_clean(&scene);
}

/* CVE-2026-45782: requests are in flight when the image is closed; all end before it has. */
static void close_with_requests_in_flight(void)
{
        enum { READS = 32 };
        struct subject_call reads[READS];
        uint8_t bytes[READS][512];
        struct iovec iov[READS];
        struct subject_call last;
        struct scene scene;
        unsigned i;

        scene_open(&scene, NULL, 0, HVB_OPEN_RDWR);
        for (i = 0; i < READS; i++) {
                iov[i] = (struct iovec){ bytes[i], sizeof(bytes[i]) };
                subject_call_begin(&scene.s, &reads[i]);
                scene.s.driver->preadv(scene.s.queue, reads[i].request, i * UINT64_C(64), &iov[i],
                                       1, 0);
        }
        subject_call_begin(&scene.s, &last);
        scene.s.driver->close(scene.s.image, last.request, &scene.s.err);
        g_assert_cmpint(subject_call_end(&scene.s, &last), ==, 0);
        for (i = 0; i < READS; i++) {
                g_assert_true(reads[i].ended);
                g_assert_cmpint(subject_call_end(&scene.s, &reads[i]), ==, 0);
                g_assert_cmpint(bytes[i][511], ==, FORGE_DATA);
        }
        subject_release(&scene.s);
        simdisk_free(scene.disk);
}

/* Version 3 wants 16 bytes of extra data: the table is written anew, and the old one's clusters
 * are free again when the repair ends. */
static void repaired_list_leaks_nothing(void)
{
        const struct change changes[] = {
                { FORGE_SNAPSHOTS + 36, 4, 0 }, { FORGE_SNAPSHOTS + 40, 4, 0x316f6e65 },
        };
        struct hvb_check_result found = { .struct_bytes = sizeof(found) };
        struct scene scene;
        struct subject_call c;

        scene_open(&scene, changes, G_N_ELEMENTS(changes), HVB_OPEN_RDWR | HVB_OPEN_CHECK);
        subject_call_begin(&scene.s, &c);
        scene.s.driver->check(scene.s.image, c.request,
                              HVB_CHECK_FIX_LEAKS | HVB_CHECK_FIX_ERRORS, &found, &scene.s.err);
        g_assert_cmpint(subject_call_end(&scene.s, &c), ==, 0);
        g_assert_cmpuint(found.corruptions_fixed, ==, 1);
        g_assert_cmpuint(found.corruptions + found.leaks + found.check_errors, ==, 0);
        scene_end_clean(&scene);
}

static const struct {
        const char *name;
        void (*run)(void);
} behaviours[] = {
        { "none: the image before it is spoiled is sound", sound_image },
        { "CVE-2014-0145: a snapshot's L1 is larger than the active one", load_tmp_of_a_larger_l1 },
        { "CVE-2014-0147: a refcount block counts itself", refcount_block_counts_itself },
        { "CVE-2014-0143: snapshot of an entry beyond the refcount table",
          create_with_an_entry_beyond_the_refcounts },
        { "CVE-2015-5162: a check costs what the file holds", check_costs_what_the_file_holds },
        { "CVE-2015-5162: a refcount table is longer than the file",
          refcount_table_beyond_the_file },
        { "CVE-2026-45782: closed with requests in flight", close_with_requests_in_flight },
        { "written in place: clusters of a snapshot", write_beside_a_snapshot },
        { "written in place: the header, as the table of an L1 entry that has none",
          write_through_a_private_nothing },
        { "written in place: the L1, as an L2 table of its own", write_through_the_l1 },
        { "written in place: the L1, as a refcount block", count_in_the_l1 },
        { "written in place: a table that lies on another one", tables_on_each_other },
        { "written in place: a table whose cluster was free", table_allocated_while_in_use },
        { "grown by each flush: the file", flushes_do_not_grow_the_file },
        { "cut at 4 GiB: a VM state", vmstate_above_4_gib },
        { "kept too long: the L1, going to a smaller one", goto_a_smaller_l1 },
        { "freed too early: tables that a request loads, by close and inactivate",
          left_beside_a_request },
        { "waited for in a ring: a snapshot that is prepared, by delete, by close",
          closed_while_prepared },
        { "kept too long: the list of snapshots, deleted while the image was inactive",
          list_deleted_while_inactive },
        { "changed by a failed create: the list", failed_create_leaves_the_list },
        { "taken for zeros: a compressed cluster at an odd offset", compressed_at_an_odd_offset },
        { "counted before it was given back: the list that a repair replaced",
          repaired_list_leaks_nothing },
};

int main(int argc, char **argv)
{
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(refusals); i++) {
                g_autofree char *path = g_strdup_printf("/mistakes/%s", refusals[i].name);

                g_test_add_data_func(path, &refusals[i], test_refusal);
        }
        for (i = 0; i < G_N_ELEMENTS(behaviours); i++) {
                g_autofree char *path = g_strdup_printf("/mistakes/%s", behaviours[i].name);

                g_test_add_func(path, behaviours[i].run);
        }
        return g_test_run();
}
