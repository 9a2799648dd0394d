/*
 * control.c - control operations through the driver, none of them beside data
 * requests (that is MODE_LIVE in batch.c); see sequence.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "sequence.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

typedef unsigned long long ull;         /* for printf only */

enum { SNAPSHOTS_WANTED_MAX = 6 };

/*
 * How often one cluster can be referenced: by the active disk and each snapshot,
 * and once more by the one to come (goto counts its target up before it lets the
 * old disk go).  Compressed clusters share host clusters besides.
 */
bool control_may_overflow(const struct sequence *seq)
{
        unsigned bits = seq->plan.refcount_bits;
        uint64_t max = bits == 64 ? UINT64_MAX : (1ull << bits) - 1;

        if (seq->compressed && bits <= 8)
                return true;
        return seq->model.snapshot_count + 2 > max;
}

/* An image with anything in it has an L2 table, which cannot be shared. */
bool control_must_overflow(const struct sequence *seq)
{
        return seq->plan.refcount_bits == 1 && seq->plan.backing == BACKING_NONE &&
               !disk_is_zero(seq->model.disk, 0, seq->model.disk->size_bytes);
}

void control_forget_vm_state(struct sequence *seq)
{
        disk_free(seq->vm_state);
        seq->vm_state = NULL;
}

char *control_new_name(struct sequence *seq)
{
        static const char *const forms[] = { "s%u", "snap shot %u", "schn\303\266n-%u", "-%u" };

        return g_strdup_printf(forms[rng_chance(&seq->rng, 70) ? 0 : rng_below(&seq->rng, 4)],
                               1000 + seq->next_name++);
}

struct model_snapshot *control_pick(struct sequence *seq)
{
        if (seq->model.snapshot_count == 0)
                return NULL;
        return seq->model.snapshots[rng_below(&seq->rng, seq->model.snapshot_count)];
}

/* A VM state of odd size with holes, and its bytes into the image. */
int control_draw_vm_state(struct sequence *seq, struct model_disk **ret_state)
{
        uint64_t cluster = 1ull << seq->plan.cluster_bits;
        uint64_t most = MIN(MAX(4 * cluster, 200000u), 2u << 20);
        uint64_t size = rng_between(&seq->rng, 1, most);
        struct model_disk *state = disk_new(size);
        unsigned pieces = rng_between(&seq->rng, 1, 6);

        for (unsigned i = 0; i < pieces; i++) {
                uint64_t offset = i ? rng_below(&seq->rng, size) : size - 1;
                uint64_t draw = rng_between(&seq->rng, 1, 100000);
                uint64_t length = MIN(draw, size - offset);
                g_autofree uint8_t *bytes = g_malloc(length);
                struct iovec iov = { .iov_base = bytes, .iov_len = length };
                int ret;

                batch_pattern(bytes, offset, length, rng_next(&seq->rng), false);
                disk_write(state, offset, bytes, length);
                sequence_log(seq, "save_vmstate 0x%llx +%llu", (ull)offset, (ull)length);
                ret = drive_save_vmstate(seq->drive, offset, &iov, 1);
                if (ret < 0) {
                        disk_free(state);
                        return sequence_fail(seq, "save_vmstate of %llu at %#llx: %s",
                                             (ull)length, (ull)offset, g_strerror(-ret));
                }
        }
        *ret_state = state;
        return 0;
}

int control_check_vm_state(struct sequence *seq, const struct model_disk *state, const char *what)
{
        uint64_t beyond = 1000;
        g_autofree uint8_t *bytes = g_malloc(state->size_bytes + beyond);
        struct iovec iov = { .iov_base = bytes, .iov_len = state->size_bytes + beyond };
        int ret = drive_load_vmstate(seq->drive, 0, &iov, 1);
        uint64_t bad;

        if (ret < 0)
                return sequence_fail(seq, "%s: load_vmstate: %s", what, g_strerror(-ret));
        if (!disk_allows(state, NULL, 0, bytes, state->size_bytes, &bad))
                return sequence_fail(seq, "%s: wrong byte of the VM state at %#llx of %llu", what,
                                     (ull)bad, (ull)state->size_bytes);
        for (uint64_t i = 0; i < beyond; i++)
                if (bytes[state->size_bytes + i])
                        return sequence_fail(seq, "%s: byte %llu behind the VM state is not zero",
                                             what, (ull)i);
        tally_add(vm_states_verified, 1);
        return 0;
}

/* After the disk has become the snapshot's: what it is, of what it may be. */
int control_settle(struct sequence *seq, struct model_snapshot *snapshot)
{
        struct model_disk *got;
        int ret;

        if (!snapshot->other)
                return 0;
        ret = subject_compare(seq, snapshot->disk, snapshot->other, snapshot->name, &got);
        if (ret == 0)
                snapshot_settle(snapshot, got);
        return ret;
}

static int created(struct sequence *seq, const struct hvb_snapshot_info *info,
                   struct model_snapshot *replaced, struct model_disk *state)
{
        struct model_snapshot *snapshot = model_snapshot_create(&seq->model, info->name);

        disk_free(snapshot->vm_state);
        snapshot->vm_state = state;
        if (replaced)
                model_snapshot_delete(&seq->model, replaced);
        tally_add(snapshots_created, 1);
        control_forget_vm_state(seq);
        if (strcmp(snapshot->id, info->id_str))
                return sequence_fail(seq, "snapshot got id '%s', not '%s'", info->id_str,
                                     snapshot->id);
        return 0;
}

static int create_step(struct sequence *seq)
{
        struct model_snapshot *replaced = rng_chance(&seq->rng, 20) ? control_pick(seq) : NULL;
        g_autofree char *name = replaced ? g_strdup(replaced->name) : control_new_name(seq);
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info), .icount = UINT64_MAX };
        struct hvb_error err = ERROR_INIT;
        struct model_disk *state = disk_new(0);
        int ret = 0;

        if (rng_chance(&seq->rng, 40)) {
                disk_free(state);
                control_forget_vm_state(seq);
                ret = control_draw_vm_state(seq, &state);
                if (ret < 0)
                        return ret;
        }
        g_strlcpy(info.name, name, sizeof(info.name));
        info.vm_state_bytes = state->size_bytes;
        info.date_sec = 1700000000 + seq->op_count;
        info.vm_clock_nsec = 1000000ull * seq->op_count;
        sequence_log(seq, "snapshot create '%s'%s, VM state %llu", name,
                     replaced ? " (replaces)" : "", (ull)state->size_bytes);
        ret = drive_snapshot_create(seq->drive, &info, replaced ? HVB_SNAPSHOT_REPLACE : 0, &err);
        if (ret == 0 && control_must_overflow(seq))
                ret = sequence_fail(seq, "snapshot of a non-empty image with 1-bit counts made");
        else if (ret == 0)
                return created(seq, &info, replaced, state);
        else if (ret == -EINVAL && control_may_overflow(seq)) {
                tally_add(snapshots_refused, 1);
                ret = 0;
        } else {
                ret = sequence_fail(seq, "snapshot create: %s", error_text(&err, ret));
        }
        disk_free(state);
        return ret;
}

static int goto_step(struct sequence *seq, struct model_snapshot *snapshot)
{
        bool by_id = rng_chance(&seq->rng, 50);
        bool resizes = snapshot->disk->size_bytes != seq->model.disk->size_bytes;
        struct hvb_error err = ERROR_INIT;
        int ret;

        sequence_log(seq, "snapshot goto %s '%s'", snapshot->id, snapshot->name);
        ret = drive_snapshot_goto(seq->drive, by_id ? snapshot->id : NULL,
                                  by_id ? NULL : snapshot->name, &err);
        if (ret < 0 && resizes && seq->plan.version == 2)
                return 0;
        if (ret == -EINVAL && control_may_overflow(seq)) {
                tally_add(snapshots_refused, 1);
                return 0;
        }
        if (ret < 0)
                return sequence_fail(seq, "snapshot goto '%s': %s", snapshot->name,
                                     error_text(&err, ret));
        ret = control_settle(seq, snapshot);
        if (ret < 0)
                return ret;
        model_snapshot_goto(&seq->model, snapshot);
        control_forget_vm_state(seq);
        seq->vm_state = disk_clone(snapshot->vm_state);
        if (drive_bytes(seq->drive) != seq->model.disk->size_bytes)
                return sequence_fail(seq, "goto leaves a disk of %llu bytes, not %llu",
                                     (ull)drive_bytes(seq->drive),
                                     (ull)seq->model.disk->size_bytes);
        return control_check_vm_state(seq, seq->vm_state, "after goto");
}

int control_delete(struct sequence *seq, struct model_snapshot *snapshot)
{
        struct hvb_error err = ERROR_INIT;
        int ret;

        sequence_log(seq, "snapshot delete %s '%s'", snapshot->id, snapshot->name);
        ret = drive_snapshot_delete(seq->drive, rng_chance(&seq->rng, 50) ? snapshot->id : NULL,
                                    snapshot->name, &err);
        if (ret < 0)
                return sequence_fail(seq, "snapshot delete '%s': %s", snapshot->name,
                                     error_text(&err, ret));
        model_snapshot_delete(&seq->model, snapshot);
        control_forget_vm_state(seq);
        return 0;
}

static int list_step(struct sequence *seq)
{
        g_autofree struct hvb_snapshot_info *infos = NULL;
        int count = drive_snapshot_list(seq->drive, &infos);

        sequence_log(seq, "snapshot list");
        if (count != (int)seq->model.snapshot_count)
                return sequence_fail(seq, "%d snapshots listed, not %u", count,
                                     seq->model.snapshot_count);
        for (int i = 0; i < count; i++) {
                const struct model_snapshot *snapshot = seq->model.snapshots[i];

                if (strcmp(infos[i].id_str, snapshot->id) ||
                    strcmp(infos[i].name, snapshot->name) ||
                    infos[i].vm_state_bytes != snapshot->vm_state->size_bytes ||
                    infos[i].disk_bytes != snapshot->disk->size_bytes)
                        return sequence_fail(seq, "snapshot %d is listed as %s '%s' disk %llu VM "
                                             "state %llu, not %s '%s' %llu %llu", i,
                                             infos[i].id_str, infos[i].name,
                                             (ull)infos[i].disk_bytes,
                                             (ull)infos[i].vm_state_bytes, snapshot->id,
                                             snapshot->name, (ull)snapshot->disk->size_bytes,
                                             (ull)snapshot->vm_state->size_bytes);
        }
        return seq->vm_state ? control_check_vm_state(seq, seq->vm_state, "long after goto") : 0;
}

static int truncate_step(struct sequence *seq)
{
        uint64_t old_bytes = seq->model.disk->size_bytes;
        uint64_t new_bytes = rng_between(&seq->rng, old_bytes / 2,
                                         MIN(old_bytes + old_bytes / 2, 48u << 20)) / 512 * 512;
        bool version_2 = seq->plan.version == 2;
        struct hvb_error err = ERROR_INIT;
        int ret;

        new_bytes = MAX(new_bytes, 64u << 10);
        sequence_log(seq, "truncate %llu -> %llu", (ull)old_bytes, (ull)new_bytes);
        ret = drive_truncate(seq->drive, new_bytes, HVB_PREALLOC_OFF, &err);
        if (ret == 0 && version_2 && seq->model.snapshot_count && new_bytes != old_bytes)
                return sequence_fail(seq, "a version 2 image with snapshots was resized");
        if (ret < 0) {
                bool allowed = version_2 && (seq->model.snapshot_count ||
                                             (new_bytes > old_bytes &&
                                              seq->plan.backing_bytes > old_bytes));

                if (!allowed)
                        return sequence_fail(seq, "truncate: %s", error_text(&err, ret));
                new_bytes = old_bytes;
        }
        disk_resize(seq->model.disk, new_bytes);
        if (drive_bytes(seq->drive) != new_bytes)
                return sequence_fail(seq, "the disk has %llu bytes, not %llu",
                                     (ull)drive_bytes(seq->drive), (ull)new_bytes);
        return 0;
}

/* The bytes that a status points at, in the file that it points into. */
static int compare_host_bytes(struct sequence *seq, const struct hvb_block_status *status,
                              uint64_t offset)
{
        g_autofree uint8_t *bytes = NULL;
        size_t length = MIN(status->length_bytes, 1u << 20);
        int fd = drive_fd(seq->drive);
        ssize_t got;
        uint64_t bad;

        if (status->depth > 0)
                return 0;
        bytes = g_malloc0(length);
        got = pread(fd, bytes, length, status->host_offset);
        if (got < 0)
                return sequence_fail(seq, "pread at host offset %#llx: %s",
                                     (ull)status->host_offset, g_strerror(errno));
        if (!disk_allows(seq->model.disk, NULL, offset, bytes, length, &bad))
                return sequence_fail(seq, "status of %#llx says host offset %#llx, but %#llx has "
                                     "another byte there", (ull)offset,
                                     (ull)status->host_offset, (ull)bad);
        return 0;
}

static int check_status(struct sequence *seq, const struct hvb_block_status *status,
                        uint64_t offset, uint64_t asked)
{
        bool zero = status->flags & HVB_STATUS_ZERO;
        bool data = status->flags & HVB_STATUS_DATA;

        if (status->length_bytes == 0 || status->length_bytes > asked)
                return sequence_fail(seq, "status of %llu at %#llx covers %llu bytes", (ull)asked,
                                     (ull)offset, (ull)status->length_bytes);
        if (!zero && !data)
                return sequence_fail(seq, "status at %#llx is neither data nor zero", (ull)offset);
        if (zero && !disk_is_zero(seq->model.disk, offset, status->length_bytes))
                return sequence_fail(seq, "status says %llu bytes at %#llx are zero",
                                     (ull)status->length_bytes, (ull)offset);
        if (data && !zero && (status->flags & HVB_STATUS_OFFSET_VALID) &&
            !(status->flags & HVB_STATUS_COMPRESSED))
                return compare_host_bytes(seq, status, offset);
        return 0;
}

int control_status_walk(struct sequence *seq)
{
        uint64_t disk = seq->model.disk->size_bytes;
        uint64_t offset = rng_chance(&seq->rng, 50) ? 0 : rng_below(&seq->rng, disk);
        uint64_t end = rng_chance(&seq->rng, 50) ? disk : offset + (disk - offset) / 2;

        sequence_log(seq, "block status 0x%llx .. 0x%llx", (ull)offset, (ull)end);
        while (offset < end) {
                struct hvb_block_status status = { .struct_bytes = sizeof(status) };
                int ret = drive_block_status(seq->drive, offset, end - offset, &status);

                if (ret < 0)
                        return sequence_fail(seq, "block status at %#llx: %s", (ull)offset,
                                             g_strerror(-ret));
                ret = check_status(seq, &status, offset, end - offset);
                if (ret < 0)
                        return ret;
                offset += status.length_bytes;
        }
        return 0;
}

/* Sometimes with a read-only visit in between. */
static int reopen_step(struct sequence *seq)
{
        int ret = subject_close(seq);

        if (ret == 0 && rng_chance(&seq->rng, 50))
                ret = subject_check(seq);
        if (ret == 0 && rng_chance(&seq->rng, 30)) {
                ret = subject_open(seq, false);
                if (ret == 0)
                        ret = subject_compare(seq, seq->model.disk, NULL, "read-only", NULL);
                if (ret == 0)
                        ret = subject_close(seq);
        }
        return ret == 0 ? subject_open(seq, true) : ret;
}

int control_step(struct sequence *seq)
{
        struct model_snapshot *snapshot = control_pick(seq);
        unsigned draw = rng_below(&seq->rng, 100);

        seq->op_count++;
        if (draw < 35)
                return seq->model.snapshot_count < SNAPSHOTS_WANTED_MAX
                               ? create_step(seq) : control_delete(seq, snapshot);
        if (draw < 50)
                return snapshot ? goto_step(seq, snapshot) : create_step(seq);
        if (draw < 60)
                return snapshot ? control_delete(seq, snapshot) : list_step(seq);
        if (draw < 67)
                return list_step(seq);
        if (draw < 76)
                return truncate_step(seq);
        if (draw < 88)
                return control_status_walk(seq);
        return reopen_step(seq);
}
