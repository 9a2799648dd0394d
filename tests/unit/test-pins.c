/*
 * test-pins.c - snapshots that are read while the image lives, and deleted meanwhile.
 *
 * An image has a disk of 'd's and snapshots a (a disk of 'a's, a VM state of 1s) and b (a disk of
 * 'b's, no VM state).
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "ops/check.h"
#include "ops/snapshot-pin.h"
#include "unit/qemu-img.h"
#include "unit/sim-bed.h"
#include "unit/snapshot-bed.h"

enum { DISK_BYTES = 3 << 20, STATE_BYTES = 300000, FAULTS_MAX = 500 };

/* Of a snapshot table entry: format section "Snapshots". */
enum { ENTRY_L1_OFFSET = 0, ENTRY_L1_ENTRIES = 8 };

struct pin_task {
        struct bed_task base;
        const char *name;
        struct pin *pin;
        struct hvb_snapshot_info info;
        uint64_t offset;
        uint64_t length_bytes;
        struct iovec iov;
        struct hvb_block_status status;
        struct hvb_check_result result;
        union {
                struct snapshot_pin pin;
                struct snapshot_unpin unpin;
                struct read read;
                struct status status;
                struct check check;
                struct image_close close;
                struct image_open open;
        } u;
};

static int run(struct bed *b, struct pin_task *t, int (*step)(struct bed_task *base))
{
        b->err = (struct hvb_error){ .struct_bytes = sizeof(b->err) };
        t->base.bed = b;
        t->base.step = step;
        task_start(&t->base.task, &b->loop, "pins", bed_task_step, bed_task_done);
        bed_poll_until(b, &t->base.ended);
        return t->base.result;
}

static int pin_step(struct bed_task *base)
{
        struct pin_task *t = (struct pin_task *)base;

        return snapshot_pin(&t->u.pin, base->bed->img, NULL, t->name, &t->info, &t->pin,
                            &base->bed->err);
}

static int unpin_step(struct bed_task *base)
{
        struct pin_task *t = (struct pin_task *)base;

        return snapshot_unpin(&t->u.unpin, base->bed->img, t->pin, &base->bed->err);
}

static int read_disk_step(struct bed_task *base)
{
        struct pin_task *t = (struct pin_task *)base;

        return read_range(&t->u.read, base->bed->img, &t->pin->disk, t->offset, t->iov.iov_len,
                          &t->iov, 1);
}

static int read_state_step(struct bed_task *base)
{
        struct pin_task *t = (struct pin_task *)base;

        return read_range(&t->u.read, base->bed->img, &t->pin->vm_state, t->offset,
                          t->iov.iov_len, &t->iov, 1);
}

static int status_step(struct bed_task *base)
{
        struct pin_task *t = (struct pin_task *)base;

        return status_range(&t->u.status, base->bed->img, &t->pin->disk, t->offset,
                            t->length_bytes, &t->status);
}

static int check_step(struct bed_task *base)
{
        struct pin_task *t = (struct pin_task *)base;

        return check_image(&t->u.check, base->bed->img,
                           HVB_CHECK_FIX_LEAKS | HVB_CHECK_FIX_ERRORS, &t->result,
                           &base->bed->err);
}

static int inactivate_step(struct bed_task *base)
{
        struct pin_task *t = (struct pin_task *)base;

        return image_inactivate(&t->u.close, base->bed->img, &base->bed->err);
}

static int activate_step(struct bed_task *base)
{
        struct pin_task *t = (struct pin_task *)base;

        return image_activate(&t->u.open, base->bed->img, &base->bed->options, &base->bed->err);
}

static int run_alone(struct bed *b, int (*step)(struct bed_task *base))
{
        struct pin_task t = { .name = NULL };

        return run(b, &t, step);
}

static struct pin *pin_named(struct bed *b, const char *name)
{
        struct pin_task t = { .name = name, .info = { .struct_bytes = sizeof(t.info) } };

        g_assert_cmpint(run(b, &t, pin_step), ==, 0);
        g_assert_cmpstr(t.info.name, ==, name);
        g_assert_cmpuint(t.info.disk_bytes, ==, DISK_BYTES);
        return t.pin;
}

static int unpin(struct bed *b, struct pin *pin)
{
        struct pin_task t = { .pin = pin };

        return run(b, &t, unpin_step);
}

static void expect_bytes(struct bed *b, struct pin *pin, int (*step)(struct bed_task *base),
                         uint64_t offset, uint64_t length_bytes, uint8_t value)
{
        g_autofree uint8_t *bytes = g_malloc(length_bytes);
        struct pin_task t = { .pin = pin, .offset = offset, .iov = { bytes, length_bytes } };
        uint64_t i;

        memset(bytes, 0xee, length_bytes);
        g_assert_cmpint(run(b, &t, step), ==, 0);
        for (i = 0; i < length_bytes; i++)
                g_assert_cmpint(bytes[i], ==, value);
}

/* All of snapshot a. */
static void expect_a(struct bed *b, struct pin *pin)
{
        expect_bytes(b, pin, read_disk_step, 0, DISK_BYTES, 'a');
        expect_bytes(b, pin, read_state_step, 0, STATE_BYTES, 1);
        expect_bytes(b, pin, read_state_step, STATE_BYTES, DISK_BYTES, 0);
}

/* Nothing leaks, nothing is missing, whoever reads what: and a repair finds nothing to do. */
static void expect_sound(struct bed *b)
{
        struct pin_task t = { .result = { .struct_bytes = sizeof(t.result) } };

        g_assert_cmpint(run(b, &t, check_step), ==, 0);
        g_assert_cmpuint(t.result.corruptions + t.result.corruptions_fixed, ==, 0);
        g_assert_cmpuint(t.result.leaks + t.result.leaks_fixed, ==, 0);
        g_assert_cmpuint(t.result.check_errors, ==, 0);
}

static bool is_marked(const struct bed *b)
{
        return (b->img->header.incompatible & INCOMPAT_DIRTY) != 0;
}

static void write_disk(struct bed *b, char value)
{
        g_autofree char *data = g_malloc(DISK_BYTES);

        memset(data, value, DISK_BYTES);
        g_assert_cmpint(bed_write(b, 0, data, DISK_BYTES), ==, 0);
}

static void save_state(struct bed *b, int value)
{
        g_autofree uint8_t *bytes = g_malloc(STATE_BYTES);

        memset(bytes, value, STATE_BYTES);
        g_assert_cmpint(bed_save(b, 0, bytes, STATE_BYTES), ==, 0);
}

static int load_state(struct bed *b, int value)
{
        g_autofree uint8_t *bytes = g_malloc(STATE_BYTES);
        unsigned i;
        int ret;

        memset(bytes, 0xee, STATE_BYTES);
        ret = bed_load(b, 0, bytes, STATE_BYTES);
        for (i = 0; i < STATE_BYTES; i++)
                g_assert_cmpint(bytes[i], ==, ret == 0 ? value : 0xee);
        return ret;
}

/* Opened read-write. */
static char *new_image(struct bed *b, const char *options)
{
        g_autofree char *arguments = g_strdup_printf("create -q -f qcow2 -o %s", options);
        char *path = image_path();

        g_free(qemu_img(arguments, path, "3M"));
        bed_open(b, path, true, 0, 0);
        write_disk(b, 'a');
        save_state(b, 1);
        g_assert_cmpint(bed_create(b, "a", STATE_BYTES, 0, NULL), ==, 0);
        write_disk(b, 'b');
        g_assert_cmpint(bed_create(b, "b", 0, 0, NULL), ==, 0);
        write_disk(b, 'd');
        return path;
}

static void end(struct bed *b, char *path)
{
        bed_close(b);
        g_free(qemu_img("check -q", path, ""));
        image_remove(path);
}

/* ---- reading ---- */

static void test_read(gconstpointer options)
{
        struct pin_task t = { .length_bytes = DISK_BYTES };
        struct pin *again;
        struct pin *a;
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, options);
        a = pin_named(&b, "a");
        expect_a(&b, a);
        t.pin = pin_named(&b, "b");
        expect_bytes(&b, t.pin, read_disk_step, 0, DISK_BYTES, 'b');
        expect_bytes(&b, t.pin, read_state_step, 0, DISK_BYTES, 0);
        g_assert_cmpint(run(&b, &t, status_step), ==, 0);
        g_assert_cmpuint(t.status.flags & HVB_STATUS_DATA, !=, 0);
        again = pin_named(&b, "a");
        g_assert_true(again == a);
        g_assert_cmpint(unpin(&b, again), ==, 0);
        expect_a(&b, a);
        g_assert_cmpint(unpin(&b, a), ==, 0);
        g_assert_cmpint(unpin(&b, t.pin), ==, 0);
        g_assert_cmpuint(b.img->pins.length, ==, 1);    /* what is loaded */
        end(&b, path);
}

/* What a snapshot's disk does not map shows the backing file; its VM state never does. */
static void test_backing(void)
{
        struct sim_image empty = { .root = NULL };
        g_autofree uint8_t *below = g_malloc(8 << 20);
        g_autoptr(GBytes) backing = NULL;
        g_autofree char *made = NULL;
        struct simdisk *disk;
        struct pin *pin;
        char *path;
        struct bed b;
        int fd;

        if (qemu_img_missing())
                return;
        memset(below, 'x', 8 << 20);
        backing = g_bytes_new(below, 8 << 20);
        path = image_path();
        made = qemu_img("create -q -f qcow2 -u -b below -F raw", path, "3M");
        fd = open(path, O_RDONLY | O_CLOEXEC);
        g_assert_cmpint(sim_image_import(&empty, fd), ==, 0);
        close(fd);
        disk = disk_with(&empty, NULL);
        sim_add_backing(disk, backing);
        sim_open(&b, disk, HVB_OPEN_RDWR);
        save_state(&b, 1);
        g_assert_cmpint(bed_create(&b, "a", 6 << 20, 0, NULL), ==, 0);
        write_disk(&b, 'd');
        pin = pin_named(&b, "a");
        expect_bytes(&b, pin, read_disk_step, 0, DISK_BYTES, 'x');
        expect_bytes(&b, pin, read_state_step, 0, STATE_BYTES, 1);
        expect_bytes(&b, pin, read_state_step, 1 << 20, 1 << 20, 0);
        g_assert_cmpint(unpin(&b, pin), ==, 0);
        g_assert_cmpint(sim_close(&b), ==, 0);
        simdisk_free(disk);
        sim_image_clear(&empty);
        image_remove(path);
}

/* ---- deleting ---- */

/* The last of two holders frees the space, and the mark goes. */
static void test_delete(gconstpointer options)
{
        bool has_mark = strstr(options, "compat=0.10") == NULL;
        struct pin *second;
        struct pin *a;
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, options);
        a = pin_named(&b, "a");
        second = pin_named(&b, "a");
        g_assert_cmpint(bed_delete(&b, "a"), ==, 0);
        g_assert_cmpint(bed_delete(&b, "a"), ==, -ENOENT);
        g_assert_cmpint(is_marked(&b), ==, has_mark);
        write_disk(&b, 'e');
        g_assert_cmpint(bed_create(&b, "c", 0, 0, NULL), ==, 0);
        g_assert_cmpint(bed_delete(&b, "b"), ==, 0);
        g_assert_cmpint(bed_goto(&b, "c"), ==, 0);
        write_disk(&b, 'f');
        expect_sound(&b);
        expect_a(&b, a);
        g_assert_cmpint(unpin(&b, a), ==, 0);
        g_assert_cmpint(is_marked(&b), ==, has_mark);
        expect_a(&b, second);
        g_assert_cmpint(unpin(&b, second), ==, 0);
        g_assert_false(is_marked(&b));
        expect_sound(&b);
        end(&b, path);
}

static void test_replace(void)
{
        struct pin *a;
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        a = pin_named(&b, "a");
        save_state(&b, 2);
        g_assert_cmpint(bed_create(&b, "a", STATE_BYTES, HVB_SNAPSHOT_REPLACE, NULL), ==, 0);
        write_disk(&b, 'e');
        expect_sound(&b);
        expect_a(&b, a);
        g_assert_cmpint(load_state(&b, 2), ==, 0);
        g_assert_cmpint(unpin(&b, a), ==, 0);
        expect_sound(&b);
        a = pin_named(&b, "a");
        expect_bytes(&b, a, read_disk_step, 0, DISK_BYTES, 'd');
        expect_bytes(&b, a, read_state_step, 0, STATE_BYTES, 2);
        g_assert_cmpint(unpin(&b, a), ==, 0);
        end(&b, path);
}

/* Leaving the image ends the reading, and frees what was deleted. */
static void test_leave(void)
{
        struct pin *a;
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        a = pin_named(&b, "a");
        g_assert_cmpint(bed_delete(&b, "a"), ==, 0);
        g_assert_cmpint(run_alone(&b, inactivate_step), ==, 0);
        g_assert_cmpint(load_state(&b, 0), ==, -EINPROGRESS);
        g_free(qemu_img("check -q", path, ""));
        g_assert_cmpint(run_alone(&b, activate_step), ==, 0);
        g_assert_cmpint(a->state, ==, PIN_STALE);
        g_assert_cmpint(unpin(&b, a), ==, 0);
        expect_sound(&b);
        a = pin_named(&b, "b");
        g_assert_cmpint(bed_delete(&b, "b"), ==, 0);
        g_assert_cmpint(bed_run(&b, bed_close_step), ==, 0);
        g_assert_cmpint(unpin(&b, a), ==, 0);
        image_free(b.img);
        loop_clear(&b.loop);
        g_free(qemu_img("check -q", path, ""));
        image_remove(path);
}

/* ---- what is loaded ---- */

/* Neither zeros nor the state being saved pass for the state of a snapshot that is gone. */
static void test_loaded(void)
{
        g_autofree uint8_t *bytes = g_malloc(STATE_BYTES);
        struct snapshot_task load = { .base.step = bed_load_step, .iov = { bytes, STATE_BYTES } };
        char *path;
        struct bed b;
        unsigned i;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        g_assert_cmpint(bed_load_vmstate(&b, "a"), ==, 0);
        load.base.bed = &b;
        task_start(&load.base.task, &b.loop, "load", bed_task_step, bed_task_done);
        g_assert_cmpint(bed_delete(&b, "a"), ==, 0);
        snapshot_poll(&b, &load);
        g_assert_cmpint(load.base.result, ==, 0);
        for (i = 0; i < STATE_BYTES; i++)
                g_assert_cmpint(bytes[i], ==, 1);
        g_assert_cmpint(load_state(&b, 0), ==, -ESTALE);
        save_state(&b, 2);
        g_assert_cmpint(load_state(&b, 0), ==, -ESTALE);
        g_assert_cmpint(bed_create(&b, "c", STATE_BYTES, 0, NULL), ==, 0);
        g_assert_cmpint(load_state(&b, 2), ==, 0);
        g_assert_cmpint(bed_load_vmstate(&b, "b"), ==, 0);
        g_assert_cmpint(load_state(&b, 0), ==, 0);
        end(&b, path);
}

/* A lazy load of one state goes on while another is judged, and while its snapshot is deleted. */
static void test_lazy(void)
{
        struct pin *a;
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        g_assert_cmpint(bed_goto(&b, "a"), ==, 0);
        a = pin_named(&b, "a");
        g_assert_cmpint(bed_load_vmstate(&b, "b"), ==, 0);
        g_assert_cmpint(load_state(&b, 0), ==, 0);
        g_assert_cmpint(bed_delete(&b, "a"), ==, 0);
        expect_bytes(&b, a, read_state_step, 0, STATE_BYTES, 1);
        g_assert_cmpint(unpin(&b, a), ==, 0);
        expect_sound(&b);
        end(&b, path);
}

/* An entry without an L1 table is a snapshot, too: its VM state is zeros. */
static void test_no_l1(void)
{
        static const uint8_t zeros[8];
        char *path;
        struct bed b;
        uint64_t at;
        int fd;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        at = b.img->header.snapshots_offset;
        bed_close(&b);
        fd = open(path, O_RDWR | O_CLOEXEC);
        g_assert_cmpint(pwrite(fd, zeros, 8, (off_t)at + ENTRY_L1_OFFSET), ==, 8);
        g_assert_cmpint(pwrite(fd, zeros, 4, (off_t)at + ENTRY_L1_ENTRIES), ==, 4);
        close(fd);
        bed_open(&b, path, true, 0, 0);
        save_state(&b, 2);
        g_assert_cmpint(load_state(&b, 2), ==, 0);
        g_assert_cmpint(bed_load_vmstate(&b, "a"), ==, 0);
        g_assert_cmpint(load_state(&b, 0), ==, 0);
        bed_close(&b);
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

/* The image is dropped without a word, as by a crash, while a deleted snapshot is read. */
static void test_crash(void)
{
        struct pin *a;
        struct simdisk *disk;
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        bed_close(&b);
        disk = sim_of(path);
        sim_open(&b, disk, HVB_OPEN_RDWR);
        a = pin_named(&b, "a");
        g_assert_cmpint(bed_delete(&b, "a"), ==, 0);
        write_disk(&b, 'e');
        pins_forget(b.img);
        pin_put(b.img, a);
        sim_abandon(&b);
        sim_open(&b, disk, HVB_OPEN_RDWR);
        expect_sound(&b);
        g_assert_cmpint(sim_close(&b), ==, 0);
        simdisk_free(disk);
        image_remove(path);
}

/* False when the fault was not met.  Whatever fails, reading is over; what leaks is marked. */
static bool unpin_with_fault(const char *path, const struct sim_fault *fault)
{
        struct simdisk *disk = sim_of(path);
        unsigned index;
        struct pin *a;
        struct bed b;
        bool was_met;
        int ret;

        sim_open(&b, disk, HVB_OPEN_RDWR);
        a = pin_named(&b, "a");
        g_assert_cmpint(bed_delete(&b, "a"), ==, 0);
        index = simdisk_fault_add(disk, fault);
        ret = unpin(&b, a);
        was_met = simdisk_fault(disk, index)->hits > 0;
        g_assert_true(ret == 0 || (was_met && ret == fault->error));
        simdisk_faults_clear(disk);
        sim_close(&b);
        sim_open(&b, disk, HVB_OPEN_RDWR);
        expect_sound(&b);
        g_assert_cmpint(sim_close(&b), ==, 0);
        simdisk_free(disk);
        return was_met;
}

static void test_faults(void)
{
        struct sim_fault fault = { .file = -1, .nth = 1, .error = -EIO };
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        bed_close(&b);
        while (unpin_with_fault(path, &fault))
                g_assert_cmpuint(++fault.nth, <, FAULTS_MAX);
        g_assert_cmpuint(fault.nth, >, 4);
        image_remove(path);
}

/* What was leaked holds the dirty mark, as long as this image is not read anew. */
static void test_leave_leaking(void)
{
        char *path;
        struct bed b;

        if (qemu_img_missing())
                return;
        path = new_image(&b, "cluster_size=64k");
        b.img->dirty_holders++;
        g_assert_cmpint(run_alone(&b, inactivate_step), ==, 0);
        g_assert_cmpint(run_alone(&b, activate_step), ==, 0);
        g_assert_cmpuint(b.img->dirty_holders, ==, 0);
        end(&b, path);
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
                g_autofree char *read = g_strdup_printf("/pins/read/%s", formats[i]);
                g_autofree char *delete = g_strdup_printf("/pins/delete/%s", formats[i]);

                g_test_add_data_func(read, formats[i], test_read);
                g_test_add_data_func(delete, formats[i], test_delete);
        }
        g_test_add_func("/pins/backing", test_backing);
        g_test_add_func("/pins/replace", test_replace);
        g_test_add_func("/pins/leave", test_leave);
        g_test_add_func("/pins/leave/leaking", test_leave_leaking);
        g_test_add_func("/pins/loaded", test_loaded);
        g_test_add_func("/pins/lazy", test_lazy);
        g_test_add_func("/pins/no-l1", test_no_l1);
        g_test_add_func("/pins/crash", test_crash);
        g_test_add_func("/pins/faults", test_faults);
        return g_test_run();
}
