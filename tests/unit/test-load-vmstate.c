/*
 * test-load-vmstate.c - VM states of snapshots, loaded beside the disk.
 *
 * An image has snapshots a (VM state of 1s), b (none) and c (2s, and a hole in the middle).
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "unit/qemu-img.h"
#include "unit/sim-bed.h"
#include "unit/snapshot-bed.h"

enum { STATE_BYTES = 3 << 20, HOLE_END = 64 << 20, FAULTS_MAX = 100 };

/* Of a snapshot table entry: format section "Snapshots". */
enum { ENTRY_L1_OFFSET = 0, ENTRY_L1_ENTRIES = 8, ENTRY_DISK_BYTES = 48 };

static void save_pattern(struct bed *b, uint64_t offset, int pattern)
{
        g_autofree uint8_t *bytes = g_malloc(STATE_BYTES);

        memset(bytes, pattern, STATE_BYTES);
        g_assert_cmpint(bed_save(b, offset, bytes, STATE_BYTES), ==, 0);
}

static void expect_state(struct bed *b, uint64_t offset, int pattern)
{
        g_autofree uint8_t *bytes = g_malloc(STATE_BYTES);
        unsigned i;

        memset(bytes, 0xee, STATE_BYTES);
        g_assert_cmpint(bed_load(b, offset, bytes, STATE_BYTES), ==, 0);
        for (i = 0; i < STATE_BYTES; i++)
                g_assert_cmpint(bytes[i], ==, pattern);
}

static void expect_disk(struct bed *b, char pattern)
{
        char data[4096];

        g_assert_cmpint(bed_read(b, 100000, data, sizeof(data)), ==, 0);
        g_assert_cmpint(data[0], ==, pattern);
        g_assert_cmpmem(data, sizeof(data) - 1, data + 1, sizeof(data) - 1);
}

static void write_disk(struct bed *b, char pattern)
{
        char data[4096];

        memset(data, pattern, sizeof(data));
        g_assert_cmpint(bed_write(b, 100000, data, sizeof(data)), ==, 0);
}

/* Opened read-write. */
static char *new_image(struct bed *b, const char *options)
{
        g_autofree char *arguments = g_strdup_printf("create -q -f qcow2 -o %s", options);
        char *path = image_path();

        g_free(qemu_img(arguments, path, "3M"));
        bed_open(b, path, true, 0, 0);
        write_disk(b, 'a');
        save_pattern(b, 0, 1);
        g_assert_cmpint(bed_create(b, "a", STATE_BYTES, 0, NULL), ==, 0);
        write_disk(b, 'b');
        g_assert_cmpint(bed_create(b, "b", 0, 0, NULL), ==, 0);
        save_pattern(b, 0, 2);
        save_pattern(b, HOLE_END, 3);
        g_assert_cmpint(bed_create(b, "c", HOLE_END + STATE_BYTES, 0, NULL), ==, 0);
        write_disk(b, 'd');
        return path;
}

static void expect_each(struct bed *b)
{
        g_assert_cmpint(bed_load_vmstate(b, "a"), ==, 0);
        expect_state(b, 0, 1);
        expect_state(b, STATE_BYTES, 0);
        g_assert_cmpint(bed_load_vmstate(b, "c"), ==, 0);
        expect_state(b, 0, 2);
        expect_state(b, HOLE_END - STATE_BYTES, 0);
        expect_state(b, HOLE_END, 3);
        expect_state(b, UINT64_C(1) << 61, 0);
        g_assert_cmpint(bed_named(b, bed_load_vmstate_step, "2", NULL), ==, 0);
        expect_state(b, 0, 0);
        expect_disk(b, 'd');
}

/* Whatever is loaded, the disk and the state being saved stay; and nothing is written. */
static void test_beside(gconstpointer options)
{
        g_autofree uint8_t *before = NULL;
        g_autofree uint8_t *after = NULL;
        size_t before_bytes;
        size_t after_bytes;
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, options);
        expect_each(&b);
        save_pattern(&b, 0, 4);
        expect_each(&b);
        g_assert_cmpint(bed_create(&b, "d", STATE_BYTES, 0, NULL), ==, 0);
        g_assert_cmpint(bed_load_vmstate(&b, "d"), ==, 0);
        expect_state(&b, 0, 4);
        g_assert_cmpint(bed_load_vmstate(&b, "c"), ==, 0);
        g_assert_cmpint(bed_goto(&b, "a"), ==, 0);
        expect_state(&b, 0, 1);
        expect_disk(&b, 'a');
        write_disk(&b, 'd');
        bed_close(&b);

        before = image_read(path, &before_bytes);
        bed_open(&b, path, false, 0, 0);
        expect_each(&b);
        bed_close(&b);
        after = image_read(path, &after_bytes);
        g_assert_cmpmem(before, before_bytes, after, after_bytes);
        g_free(qemu_img("check -q", path, ""));
        image_remove(path);
}

/* QEMU puts VM state behind the disk of its active L1, and leaves COPIED there. */
static void test_qemu(void)
{
        const char *io[] = { "qemu-io", "-f", "qcow2", "-c", "write -q -b -P 7 0 3M", NULL, NULL };
        g_autoptr(GError) error = NULL;
        g_autofree char *qemu_io = g_find_program_in_path("qemu-io");
        char *path;
        struct bed b;
        int status;

        if (qemu_img_missing() || !qemu_io)
                return;
        path = image_path();
        io[5] = path;
        g_free(qemu_img("create -q -f qcow2", path, "3M"));
        g_spawn_sync(NULL, (char **)io, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status,
                     &error);
        g_assert_no_error(error);
        g_assert_true(g_spawn_check_wait_status(status, NULL));
        g_free(qemu_img("snapshot -c q", path, ""));
        bed_open(&b, path, true, 0, 0);
        g_assert_cmpint(bed_load_vmstate(&b, "q"), ==, 0);
        expect_state(&b, 0, 7);
        bed_close(&b);
        g_free(qemu_img("check -q", path, ""));
        image_remove(path);
}

/* ---- snapshots that make no sense ---- */

static void expect_refusal(struct bed *b, const char *name, int code, const char *text)
{
        g_assert_cmpint(bed_load_vmstate(b, name), ==, code);
        g_assert_nonnull(strstr(b->err.text, text));
        expect_state(b, 0, 2);
}

/* Byte offset of the first snapshot's entry, which is a's. */
static uint64_t first_entry(const struct bed *b)
{
        return b->img->header.snapshots_offset;
}

static void test_refusals(void)
{
        static const struct {
                unsigned at;
                unsigned bytes;
                uint64_t value;
                int code;
                const char *text;
        } patches[] = {
                { ENTRY_L1_OFFSET, 8, 0x10200, -EINVAL, "is not a multiple of the cluster size" },
                { ENTRY_L1_OFFSET, 8, UINT64_C(1) << 40, -EINVAL, "beyond the end of the file" },
                { ENTRY_L1_OFFSET, 8, UINT64_C(1) << 60, -EINVAL, "beyond the limit" },
                { ENTRY_L1_ENTRIES, 4, 0xffffffff, -EFBIG, "L1 table too large" },
                { ENTRY_DISK_BYTES, 8, (UINT64_C(1) << 62) + 1, -EFBIG, "has a disk of" },
                { ENTRY_DISK_BYTES, 8, UINT64_MAX, -EFBIG, "has a disk of" },
        };
        char *path;
        struct bed b;
        unsigned i;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        bed_close(&b);
        for (i = 0; i < G_N_ELEMENTS(patches); i++) {
                uint64_t raw = GUINT64_TO_BE(patches[i].value << (64 - 8 * patches[i].bytes));
                uint8_t good[8];
                uint64_t at;
                int fd = open(path, O_RDWR | O_CLOEXEC);

                bed_open(&b, path, false, 0, 0);
                at = first_entry(&b) + patches[i].at;
                g_assert_cmpint(pread(fd, good, sizeof(good), (off_t)at), ==, sizeof(good));
                bed_close(&b);
                g_assert_cmpint(pwrite(fd, &raw, patches[i].bytes, (off_t)at), ==,
                                patches[i].bytes);
                bed_open(&b, path, false, 0, 0);
                g_assert_cmpint(bed_load_vmstate(&b, "c"), ==, 0);
                expect_refusal(&b, "a", patches[i].code, patches[i].text);
                expect_refusal(&b, "e", -ENOENT, "snapshot 'e' not found");
                bed_close(&b);
                g_assert_cmpint(pwrite(fd, good, sizeof(good), (off_t)at), ==, sizeof(good));
                close(fd);
        }
        image_remove(path);
}

/* ---- on a simulated disk ---- */

static struct simdisk *sim_of(const char *path)
{
        struct sim_image image = { .root = NULL };
        struct simdisk *disk;
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        g_assert_cmpint(sim_image_import(&image, fd), ==, 0);
        close(fd);
        disk = disk_with(&image, NULL);
        sim_image_clear(&image);
        return disk;
}

/* False when it met no fault. */
static bool load_with_fault(struct simdisk *disk, const struct sim_fault *fault,
                            unsigned cancel_after)
{
        bool was_met;
        struct bed b;
        int ret;

        sim_open(&b, disk, HVB_OPEN_RDWR);
        g_assert_cmpint(bed_load_vmstate(&b, "a"), ==, 0);
        if (fault)
                simdisk_fault_add(disk, fault);
        b.cancel_after = cancel_after;
        ret = bed_load_vmstate(&b, "c");
        was_met = fault ? ret == fault->error : cancel_after > 0 && b.cancel_after == 0;
        g_assert_true(ret == 0 || (fault && ret == fault->error) || ret == -ECANCELED);
        simdisk_faults_clear(disk);
        b.cancel_after = 0;
        expect_state(&b, 0, ret == 0 ? 2 : 1);
        g_assert_cmpint(bed_load_vmstate(&b, "c"), ==, 0);
        expect_state(&b, HOLE_END, 3);
        expect_disk(&b, 'd');
        g_assert_cmpint(sim_close(&b), ==, 0);
        return was_met;
}

/* What was loaded stays loaded; nothing is held that the next attempt needs. */
static void test_faults(void)
{
        struct sim_fault fault = { .file = -1, .nth = 1, .error = -EIO };
        struct simdisk *disk;
        unsigned polls;
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        bed_close(&b);
        disk = sim_of(path);
        while (load_with_fault(disk, &fault, 0))
                g_assert_cmpuint(++fault.nth, <, FAULTS_MAX);
        g_assert_cmpuint(fault.nth, >, 1);
        for (polls = 1; load_with_fault(disk, NULL, polls); polls++)
                g_assert_cmpuint(polls, <, FAULTS_MAX);
        simdisk_free(disk);
        image_remove(path);
}

static uint64_t load_cost(struct bed *b, struct simdisk *disk, uint64_t offset, int pattern)
{
        uint64_t before = disk->io_count;

        expect_state(b, offset, pattern);
        return disk->io_count - before;
}

/* With the L2 tables in memory: one I/O for what lies together, none for holes. */
static void test_cost(void)
{
        struct simdisk *disk;
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        bed_close(&b);
        disk = sim_of(path);
        sim_open(&b, disk, 0);
        g_assert_cmpint(bed_load_vmstate(&b, "c"), ==, 0);
        expect_state(&b, 0, 2);
        g_assert_cmpuint(load_cost(&b, disk, 0, 2), ==, 1);
        g_assert_cmpuint(load_cost(&b, disk, 2 * STATE_BYTES, 0), ==, 0);
        g_assert_cmpuint(load_cost(&b, disk, UINT64_C(1) << 40, 0), ==, 0);
        g_assert_cmpint(sim_close(&b), ==, 0);
        simdisk_free(disk);
        image_remove(path);
}

int main(int argc, char **argv)
{
        static const char *const formats[] = {
                "cluster_size=4k", "cluster_size=64k", "cluster_size=2M",
                "cluster_size=4k,compat=0.10",
        };
        unsigned i;

        g_test_init(&argc, &argv, NULL);
        for (i = 0; i < G_N_ELEMENTS(formats); i++) {
                g_autofree char *beside = g_strdup_printf("/load-vmstate/beside/%s", formats[i]);

                g_test_add_data_func(beside, formats[i], test_beside);
        }
        g_test_add_func("/load-vmstate/qemu", test_qemu);
        g_test_add_func("/load-vmstate/refusals", test_refusals);
        g_test_add_func("/load-vmstate/faults", test_faults);
        g_test_add_func("/load-vmstate/cost", test_cost);
        return g_test_run();
}
