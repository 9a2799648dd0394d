/*
 * verify.c - the end of a sequence: both sides must see what the model says.
 *
 * SPDX-License-Identifier: MIT
 */
#include "sequence.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

typedef unsigned long long ull;         /* for printf only */

enum { PEER_EXPORTS_MAX = 3, DUMPED_STATE_MAX = 64 << 10 };

/* The active disk, by the peer: its own compare with the model's raw file. */
static int compare_by_peer(struct sequence *seq)
{
        g_autofree char *raw = g_build_filename(seq->directory, "model.raw", NULL);
        struct peer_result result = {};
        int ret = disk_export(seq->model.disk, raw);

        if (ret < 0)
                return sequence_fail(seq, "cannot write %s: %s", raw, g_strerror(-ret));
        if (peer(seq->directory, &result, "qemu-img", "compare", "-f", "qcow2", "-F", "raw",
                 seq->path, raw))
                ret = sequence_fail(seq, "qemu-img compare: %s%s", result.out, result.err);
        peer_result_clear(&result);
        unlink(raw);
        return ret;
}

/*
 * Rows look like "ID TAG VM_SIZE DATE TIME VM_CLOCK ICOUNT"; tags may have blanks,
 * and the width of the first column depends on QEMU's version.
 */
static bool row_matches(const char *row, const struct model_snapshot *snapshot)
{
        g_autofree char *name = g_strdup_printf("%s ", snapshot->name);
        size_t id_length = strlen(snapshot->id);

        if (!g_str_has_prefix(row, snapshot->id) || row[id_length] != ' ')
                return false;
        return g_str_has_prefix(row + id_length + strspn(row + id_length, " "), name);
}

int verify_peer_list(struct sequence *seq)
{
        struct peer_result result = {};
        g_auto(GStrv) lines = NULL;
        unsigned row = 0;
        int ret = 0;

        if (peer(seq->directory, &result, "qemu-img", "snapshot", "-l", seq->path))
                ret = sequence_fail(seq, "qemu-img snapshot -l: %s", result.err);
        lines = g_strsplit(result.out, "\n", -1);
        peer_result_clear(&result);
        for (unsigned i = 2; ret == 0 && lines[0] && lines[1] && lines[i] && *lines[i]; i++, row++)
                if (row >= seq->model.snapshot_count ||
                    !row_matches(lines[i], seq->model.snapshots[row]))
                        ret = sequence_fail(seq, "qemu-img snapshot -l has the row: %s", lines[i]);
        if (ret == 0 && row != seq->model.snapshot_count)
                ret = sequence_fail(seq, "qemu-img snapshot -l has %u rows, not %u", row,
                                    seq->model.snapshot_count);
        return ret;
}

/* Each snapshot through the driver, on one read-only image. */
static int snapshots_by_driver(struct sequence *seq)
{
        int ret = subject_open(seq, false);

        for (unsigned i = 0; ret == 0 && i < seq->model.snapshot_count; i++) {
                struct model_snapshot *snapshot = seq->model.snapshots[i];
                struct hvb_error err = ERROR_INIT;
                struct model_disk *got;

                sequence_log(seq, "load_tmp %s '%s'", snapshot->id, snapshot->name);
                ret = drive_snapshot_load_tmp(seq->drive, snapshot->id, NULL, &err);
                if (ret < 0)
                        return sequence_fail(seq, "load_tmp '%s': %s", snapshot->name,
                                             error_text(&err, ret));
                if (drive_bytes(seq->drive) != snapshot->disk->size_bytes)
                        return sequence_fail(seq, "snapshot '%s' has %llu bytes, not %llu",
                                             snapshot->name, (ull)drive_bytes(seq->drive),
                                             (ull)snapshot->disk->size_bytes);
                ret = subject_compare(seq, snapshot->disk, snapshot->other, snapshot->name, &got);
                if (ret < 0)
                        return ret;
                snapshot_settle(snapshot, got);
                tally_add(snapshots_verified, 1);
                ret = control_check_vm_state(seq, snapshot->vm_state, snapshot->name);
        }
        return ret == 0 ? subject_close(seq) : ret;
}

/* A raw file's first bytes against the disk's. */
static int compare_file(struct sequence *seq, const char *path, const struct model_disk *disk,
                        uint64_t length_bytes, const char *what)
{
        enum { STEP = 1 << 20 };
        g_autofree uint8_t *bytes = g_malloc(STEP);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        uint64_t bad;
        int ret = 0;

        if (fd < 0)
                return sequence_fail(seq, "%s: %s", path, g_strerror(errno));
        for (uint64_t at = 0; ret == 0 && at < length_bytes; at += STEP) {
                size_t length = MIN(STEP, length_bytes - at);

                if (pread(fd, bytes, length, at) != (ssize_t)length)
                        ret = sequence_fail(seq, "%s: %s ends early", what, path);
                else if (!disk_allows(disk, NULL, at, bytes, length, &bad))
                        ret = sequence_fail(seq, "%s, by the peer: wrong byte at %#llx", what,
                                            (ull)bad);
        }
        close(fd);
        return ret;
}

/*
 * `qemu-img convert -l` gives a snapshot as many bytes as the active disk has, so
 * of one with another size only the common part is compared.
 */
static int snapshot_by_peer(struct sequence *seq, const struct model_snapshot *snapshot)
{
        g_autofree char *raw = g_build_filename(seq->directory, "snapshot.raw", NULL);
        g_autofree char *which = g_strdup_printf("snapshot.id=%s", snapshot->id);
        uint64_t length = MIN(snapshot->disk->size_bytes, seq->model.disk->size_bytes);
        struct peer_result result = {};
        int ret = 0;

        if (peer(seq->directory, &result, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-l",
                 which, seq->path, raw))
                ret = sequence_fail(seq, "qemu-img convert -l %s: %s", which, result.err);
        peer_result_clear(&result);
        if (ret == 0)
                ret = compare_file(seq, raw, snapshot->disk, length, snapshot->name);
        unlink(raw);
        return ret;
}

static int snapshots_by_peer(struct sequence *seq)
{
        unsigned first = seq->model.snapshot_count
                                 ? rng_below(&seq->rng, seq->model.snapshot_count) : 0;
        int ret = 0;

        for (unsigned i = 0; ret == 0 && i < MIN(seq->model.snapshot_count, PEER_EXPORTS_MAX); i++)
                ret = snapshot_by_peer(seq, seq->model.snapshots[(first + i) %
                                                                 seq->model.snapshot_count]);
        return ret;
}

/* The bytes of a dump by `qemu-io -c 'read -v'`, compared with the state's. */
static int compare_dump(struct sequence *seq, const char *dump, const struct model_disk *state)
{
        uint64_t at = 0, bad;

        while (at < state->size_bytes) {
                const char *cell = strstr(dump, ":  ");
                uint8_t row[16];
                size_t n = MIN(sizeof(row), state->size_bytes - at);

                if (!cell)
                        return sequence_fail(seq, "the peer's dump ends at %llu", (ull)at);
                for (size_t i = 0; i < n; i++)
                        row[i] = strtoul(cell + 3 + 3 * i, NULL, 16);
                if (!disk_allows(state, NULL, at, row, n, &bad))
                        return sequence_fail(seq, "VM state, by the peer: wrong byte at %#llx",
                                             (ull)bad);
                dump = cell + 3;
                at += n;
        }
        tally_add(vm_states_verified, 1);
        return 0;
}

/*
 * VM state by the peer: it goes to the snapshot and reads what lies behind the
 * disk.  That changes the image, so it comes late.
 */
static int vm_state_by_peer(struct sequence *seq, struct model_snapshot *snapshot)
{
        uint64_t rounded = (snapshot->vm_state->size_bytes + 511) / 512 * 512;
        g_autofree char *command = g_strdup_printf("read -v -b 0 %llu", (ull)rounded);
        struct peer_result result = {};
        int ret = 0;

        sequence_log(seq, "peer: goes to '%s' for its VM state", snapshot->name);
        if (peer(seq->directory, &result, "qemu-img", "snapshot", "-a", snapshot->id, seq->path)) {
                if (!control_may_overflow(seq) && seq->plan.version != 2)
                        ret = sequence_fail(seq, "qemu-img snapshot -a: %s", result.err);
                else
                        ret = handoff_repair_leaks(seq);
                peer_result_clear(&result);
                return ret;
        }
        model_snapshot_goto(&seq->model, snapshot);
        if (peer(seq->directory, &result, "qemu-io", "-f", "qcow2", "-c", command, seq->path))
                ret = sequence_fail(seq, "qemu-io read -b: %s%s", result.out, result.err);
        if (ret == 0)
                ret = compare_dump(seq, result.out, snapshot->vm_state);
        peer_result_clear(&result);
        return ret == 0 ? subject_check(seq) : ret;
}

static int some_vm_state_by_peer(struct sequence *seq)
{
        for (unsigned i = 0; i < seq->model.snapshot_count; i++) {
                struct model_snapshot *snapshot = seq->model.snapshots[i];
                uint64_t size = snapshot->vm_state->size_bytes;

                if (size && size <= DUMPED_STATE_MAX && handoff_may_go(seq, snapshot))
                        return vm_state_by_peer(seq, snapshot);
        }
        return 0;
}

/* All snapshots go, half of them by the peer's hand; nothing may leak. */
static int delete_all(struct sequence *seq)
{
        int ret = 0;

        while (ret == 0 && seq->model.snapshot_count > 0 && rng_chance(&seq->rng, 50))
                ret = handoff_snapshot_delete(seq, control_pick(seq));
        if (ret == 0)
                ret = subject_check(seq);
        if (ret == 0)
                ret = subject_open(seq, true);
        while (ret == 0 && seq->model.snapshot_count > 0)
                ret = control_delete(seq, control_pick(seq));
        if (ret == 0)
                ret = subject_compare(seq, seq->model.disk, NULL, "the disk that remains", NULL);
        if (ret == 0)
                ret = subject_close(seq);
        return ret == 0 ? subject_check(seq) : ret;
}

int verify_all(struct sequence *seq)
{
        int ret = subject_compare(seq, seq->model.disk, NULL, "the disk at the end", NULL);

        if (ret == 0)
                ret = control_status_walk(seq);
        if (ret == 0)
                ret = subject_close(seq);
        if (ret == 0)
                ret = subject_check(seq);
        if (ret == 0)
                ret = compare_by_peer(seq);
        if (ret == 0)
                ret = verify_peer_list(seq);
        if (ret == 0 && seq->model.snapshot_count)
                ret = snapshots_by_driver(seq);
        if (ret == 0)
                ret = snapshots_by_peer(seq);
        if (ret == 0)
                ret = some_vm_state_by_peer(seq);
        return ret == 0 && rng_chance(&seq->rng, 50) ? delete_all(seq) : ret;
}
