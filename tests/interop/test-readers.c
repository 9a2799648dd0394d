/*
 * test-readers.c - snapshots read beside the drive, through the plugin's door.
 *
 * Properties: what is read is what qemu-img extracts, with the disk being overwritten and the
 * snapshot being deleted meanwhile; afterwards the image is clean.  A handle says why it cannot
 * read, and goes with its image.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "host/drive.h"
#include "unit/qemu-img.h"

enum { DISK_BYTES = 16 << 20, READ_BYTES = 256 << 10, IN_FLIGHT = 16, STATE_BYTES = 3 << 20 };

/* A backup under way. */
struct backup {
        struct drive *drive;
        struct hvb_snapshot *snapshot;
        uint8_t *bytes;
        uint64_t next;                  /* offset not asked for yet */
        unsigned busy;
};

struct reader {
        struct backup *backup;
        struct iovec iov;
};

static uint8_t *pattern_new(size_t length_bytes, uint8_t seed)
{
        uint8_t *bytes = g_malloc(length_bytes);
        size_t i;

        for (i = 0; i < length_bytes; i++)
                bytes[i] = (uint8_t)(seed + i / 512);
        return bytes;
}

static void overwrite(struct drive *drive, uint8_t seed)
{
        g_autofree uint8_t *bytes = pattern_new(DISK_BYTES / 2, seed);

        g_assert_cmpint(drive_pwrite(drive, 100000, bytes, DISK_BYTES / 2, 0), ==, 0);
}

static void take(struct drive *drive, const char *name, bool has_state)
{
        struct hvb_snapshot_info info = { .icount = UINT64_MAX };
        g_autofree uint8_t *state = pattern_new(STATE_BYTES, 77);
        struct iovec iov = { state, STATE_BYTES };
        struct hvb_error err = ERROR_INIT;

        if (has_state) {
                g_assert_cmpint(drive_save_vmstate(drive, 0, &iov, 1), ==, 0);
                info.vm_state_bytes = STATE_BYTES;
        }
        g_strlcpy(info.name, name, sizeof(info.name));
        g_assert_cmpint(drive_snapshot_create(drive, &info, 0, &err), ==, 0);
}

/* $TEST_ENGINE, or the driver's choice. */
static char *engine_option(void)
{
        const char *wanted = g_getenv("TEST_ENGINE");

        return g_strdup_printf("engine=%s", wanted ? wanted : "auto");
}

static struct drive *open_drive(const char *path)
{
        g_autofree char *engine = engine_option();
        const char *options[] = { engine, NULL };
        struct drive_options how = {
                .format = "qcow2", .flags = HVB_OPEN_RDWR, .options = options,
        };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;

        g_assert_cmpint(drive_open(path, &how, &drive, &err), ==, 0);
        return drive;
}

/* Closed: snapshots a (with VM state) and b of a disk that changed in between. */
static char *new_image(void)
{
        char *path = image_path();
        struct drive *drive;

        g_free(qemu_img("create -q -f qcow2", path, "16M"));
        drive = open_drive(path);
        overwrite(drive, 1);
        take(drive, "a", true);
        overwrite(drive, 2);
        take(drive, "b", false);
        overwrite(drive, 3);
        g_assert_cmpint(drive_close(drive, NULL), ==, 0);
        return path;
}

static struct hvb_snapshot *open_snapshot(struct drive *drive, const char *name)
{
        struct hvb_error err = ERROR_INIT;
        struct hvb_snapshot_info info;
        struct hvb_snapshot *snapshot;

        g_assert_cmpint(drive_snapshot_open(drive, NULL, name, &info, &snapshot, &err), ==, 0);
        g_assert_cmpstr(info.name, ==, name);
        g_assert_cmpuint(info.disk_bytes, ==, DISK_BYTES);
        return snapshot;
}

/* ---- a backup ---- */

static void read_next(struct drive_op *op)
{
        struct reader *r = op->opaque;
        struct backup *b = r->backup;

        g_assert_cmpint(op->result, ==, 0);
        b->busy--;
        if (b->next == DISK_BYTES)
                return;
        r->iov = (struct iovec){ b->bytes + b->next, READ_BYTES };
        b->busy++;
        drive_op_snapshot_preadv(op, b->snapshot, b->next, &r->iov, 1, 0);
        b->next += READ_BYTES;
}

/* Many reads in flight, and in between the disk is overwritten and the snapshot deleted. */
static void back_up(struct backup *b, const char *name)
{
        struct drive_op *ops[IN_FLIGHT];
        struct reader readers[IN_FLIGHT];
        struct hvb_error err = ERROR_INIT;
        unsigned i;

        for (i = 0; i < IN_FLIGHT; i++) {
                readers[i] = (struct reader){ .backup = b };
                ops[i] = drive_op_new(b->drive);
                ops[i]->opaque = &readers[i];
                ops[i]->done = read_next;
                b->busy++;
                read_next(ops[i]);
        }
        overwrite(b->drive, 4);
        g_assert_cmpint(drive_snapshot_delete(b->drive, NULL, name, &err), ==, 0);
        overwrite(b->drive, 5);
        while (b->busy > 0)
                g_assert_cmpint(drive_poll(b->drive, -1), >=, 0);
        for (i = 0; i < IN_FLIGHT; i++)
                drive_op_free(ops[i]);
}

static void test_backup(void)
{
        struct backup b = { .bytes = NULL };
        struct hvb_error err = ERROR_INIT;
        struct hvb_block_status status;
        g_autofree char *raw = NULL;
        g_autofree uint8_t *expected = NULL;
        size_t expected_bytes;
        char *path;

        if (qemu_img_missing())
                return;
        path = new_image();
        raw = g_strconcat(path, ".raw", NULL);
        g_free(qemu_img("convert -f qcow2 -O raw -l snapshot.name=a", path, raw));
        expected = image_read(raw, &expected_bytes);
        g_assert_cmpuint(expected_bytes, ==, DISK_BYTES);
        b.bytes = g_malloc0(DISK_BYTES);
        b.drive = open_drive(path);
        b.snapshot = open_snapshot(b.drive, "a");
        back_up(&b, "a");
        g_assert_cmpmem(b.bytes, DISK_BYTES, expected, expected_bytes);

        g_assert_cmpint(drive_snapshot_block_status(b.drive, b.snapshot, 0, DISK_BYTES, 0,
                                                    &status), ==, 0);
        g_assert_true(status.flags & HVB_STATUS_ZERO);
        g_assert_cmpuint(status.length_bytes, ==, 65536);
        g_assert_cmpint(drive_snapshot_block_status(b.drive, b.snapshot, 0, DISK_BYTES,
                                                    HVB_REQ_VMSTATE, &status), ==, 0);
        g_assert_true(status.flags & HVB_STATUS_DATA);
        g_assert_cmpuint(status.length_bytes, ==, STATE_BYTES);
        g_assert_cmpint(drive_snapshot_close(b.drive, b.snapshot, &err), ==, 0);
        g_assert_cmpint(drive_close(b.drive, NULL), ==, 0);
        g_free(qemu_img("check -q", path, ""));
        g_free(b.bytes);
        g_remove(raw);
        image_remove(path);
}

/* ---- what a handle says ---- */

static int read_at(struct drive *drive, struct hvb_snapshot *snapshot, uint64_t offset,
                   uint32_t flags)
{
        uint8_t bytes[4096];
        struct iovec iov = { bytes, sizeof(bytes) };
        int ret;

        memset(bytes, 0xee, sizeof(bytes));
        ret = drive_snapshot_preadv(drive, snapshot, offset, &iov, 1, flags);
        g_assert_true(ret == 0 || bytes[0] == 0xee);
        return ret;
}

static void test_refusals(void)
{
        struct hvb_error err = ERROR_INIT;
        struct hvb_block_status status;
        struct hvb_snapshot *a, *none;
        struct drive *drive;
        char *path;

        if (qemu_img_missing())
                return;
        path = new_image();
        drive = open_drive(path);
        g_assert_cmpint(drive_snapshot_open(drive, NULL, "no", NULL, &none, &err), ==, -ENOENT);
        g_assert_nonnull(strstr(err.text, "snapshot 'no' not found"));
        a = open_snapshot(drive, "a");
        g_assert_cmpint(read_at(drive, a, DISK_BYTES - 4096, 0), ==, 0);
        g_assert_cmpint(read_at(drive, a, DISK_BYTES - 4095, 0), ==, -EIO);
        g_assert_cmpint(read_at(drive, a, UINT64_MAX, 0), ==, -EIO);
        g_assert_cmpint(read_at(drive, a, UINT64_C(1) << 61, HVB_REQ_VMSTATE), ==, 0);
        g_assert_cmpint(read_at(drive, a, UINT64_MAX, HVB_REQ_VMSTATE), ==, -EIO);
        g_assert_cmpint(drive_snapshot_block_status(drive, a, UINT64_C(1) << 61, 4096,
                                                    HVB_REQ_VMSTATE, &status), ==, 0);
        g_assert_cmpuint(status.length_bytes, ==, 0);
        g_assert_cmpint(drive_snapshot_block_status(drive, a, DISK_BYTES + 1, 1, 0, &status), ==,
                        -EIO);

        g_assert_cmpint(drive_inactivate(drive, &err), ==, 0);
        g_assert_cmpint(read_at(drive, a, 0, 0), ==, -EINPROGRESS);
        g_assert_cmpint(drive_activate(drive, &err), ==, 0);
        g_assert_cmpint(read_at(drive, a, 0, 0), ==, -ESTALE);
        g_assert_cmpint(drive_snapshot_block_status(drive, a, 0, 1, 0, &status), ==, -ESTALE);
        g_assert_cmpint(drive_snapshot_close(drive, a, &err), ==, 0);
        a = open_snapshot(drive, "a");
        g_assert_cmpint(read_at(drive, a, 0, 0), ==, 0);
        g_assert_cmpint(drive_snapshot_close(drive, a, &err), ==, 0);
        g_assert_cmpint(drive_close(drive, NULL), ==, 0);
        image_remove(path);
}

/* Left open: one of a snapshot, one of another that was deleted. */
static void test_left_open(void)
{
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;
        char *path;

        if (qemu_img_missing())
                return;
        path = new_image();
        drive = open_drive(path);
        open_snapshot(drive, "a");
        open_snapshot(drive, "b");
        g_assert_cmpint(drive_snapshot_delete(drive, NULL, "b", &err), ==, 0);
        g_assert_cmpint(drive_close(drive, NULL), ==, 0);
        g_free(qemu_img("check -q", path, ""));
        image_remove(path);
}

/* ---- beside a snapshot that is being taken ---- */

static void expect_extracted(const char *path, const char *name, const uint8_t *bytes)
{
        g_autofree char *raw = g_strconcat(path, ".raw", NULL);
        g_autofree char *convert = g_strdup_printf("convert -f qcow2 -O raw -l snapshot.name=%s",
                                                   name);
        g_autofree uint8_t *expected = NULL;
        size_t expected_bytes;

        g_free(qemu_img(convert, path, raw));
        expected = image_read(raw, &expected_bytes);
        g_assert_cmpmem(bytes, DISK_BYTES, expected, expected_bytes);
        g_remove(raw);
}

/* Opened, read and closed between the phases: also one that was deleted before them. */
static void test_between_phases(void)
{
        struct hvb_snapshot_info info = { .name = "c", .icount = UINT64_MAX };
        g_autofree uint8_t *bytes = g_malloc(DISK_BYTES);
        g_autofree uint8_t *disk = g_malloc(DISK_BYTES);
        struct hvb_error err = ERROR_INIT;
        struct iovec iov = { bytes, DISK_BYTES };
        struct hvb_snapshot *a, *b;
        struct drive *drive;
        char *path;

        if (qemu_img_missing())
                return;
        path = new_image();
        drive = open_drive(path);
        b = open_snapshot(drive, "b");
        g_assert_cmpint(drive_snapshot_delete(drive, NULL, "b", &err), ==, 0);
        g_assert_cmpint(drive_snapshot_prepare(drive, &info, 0, &err), ==, 0);
        a = open_snapshot(drive, "a");
        overwrite(drive, 6);
        g_assert_cmpint(drive_pread(drive, 0, disk, DISK_BYTES), ==, 0);
        g_assert_cmpint(drive_snapshot_close(drive, b, &err), ==, 0);
        g_assert_cmpint(drive_snapshot_switch(drive, &err), ==, 0);
        overwrite(drive, 7);
        g_assert_cmpint(drive_snapshot_preadv(drive, a, 0, &iov, 1, 0), ==, 0);
        g_assert_cmpint(drive_snapshot_close(drive, a, &err), ==, 0);
        g_assert_cmpint(drive_snapshot_publish(drive, &info, &err), ==, 0);
        g_assert_cmpstr(info.id_str, ==, "2");
        g_assert_cmpint(drive_snapshot_abort(drive, &err), ==, -EINVAL);
        g_assert_cmpint(drive_close(drive, NULL), ==, 0);
        g_free(qemu_img("check -q", path, ""));
        expect_extracted(path, "a", bytes);
        expect_extracted(path, "c", disk);
        image_remove(path);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/readers/backup", test_backup);
        g_test_add_func("/readers/refusals", test_refusals);
        g_test_add_func("/readers/left-open", test_left_open);
        g_test_add_func("/readers/between-phases", test_between_phases);
        return g_test_run();
}
