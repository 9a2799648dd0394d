/*
 * handoff.c - the image is closed, the peer works on it, the driver takes it back.
 *
 * SPDX-License-Identifier: MIT
 */
#include "sequence.h"

#include <errno.h>
#include <string.h>

#include <glib.h>

typedef unsigned long long ull;         /* for printf only */

enum { PEER_COMMANDS_MAX = 24 };

/* Ranges that leave the peer a choice, to be settled once we have the image back. */
struct open_range {
        uint64_t offset, length_bytes;
        bool compressed;                /* all or nothing, else byte by byte */
};

struct handoff {
        struct sequence *seq;
        struct open_range open_ranges[PEER_COMMANDS_MAX];
        unsigned open_range_count;
        bool may_fail;                  /* a compressed write may be refused */
};

/* Free of ranges that are open: their settling would mix with what follows. */
static bool range_is_settled(const struct handoff *handoff, uint64_t offset, uint64_t length)
{
        for (unsigned i = 0; i < handoff->open_range_count; i++) {
                const struct open_range *range = &handoff->open_ranges[i];

                if (offset < range->offset + range->length_bytes && range->offset < offset + length)
                        return false;
        }
        return true;
}

static void add_open_range(struct handoff *handoff, uint64_t offset, uint64_t length,
                           bool compressed)
{
        handoff->open_ranges[handoff->open_range_count++] = (struct open_range) {
                .offset = offset, .length_bytes = length, .compressed = compressed,
        };
}

/* One qemu-io command into args and into the model. */
static void draw_command(struct handoff *handoff, GPtrArray *args)
{
        struct sequence *seq = handoff->seq;
        struct model_disk *disk = seq->model.disk;
        uint64_t cluster = 1ull << seq->plan.cluster_bits;
        uint64_t offset = rng_below(&seq->rng, disk->size_bytes) / 512 * 512;
        uint64_t length = rng_between(&seq->rng, 1, 2 * cluster / 512) * 512;
        unsigned draw = rng_below(&seq->rng, 100);
        unsigned byte = rng_between(&seq->rng, 1, 255);

        if (draw >= 75 && rng_chance(&seq->rng, 70)) {
                offset = offset / cluster * cluster;
                length = cluster * rng_between(&seq->rng, 1, 3);
        }
        if (draw >= 90) {
                offset = offset / cluster * cluster;
                length = cluster;
        }
        length = MIN(length, disk->size_bytes - offset);
        if (!range_is_settled(handoff, offset, length))
                return;
        peer_args_add(args, "-c");
        if (draw < 60) {
                peer_args_add(args, "write -q -P %u %llu %llu", byte, (ull)offset, (ull)length);
                disk_fill(disk, offset, byte, length);
        } else if (draw < 75) {
                peer_args_add(args, "write -q -z %s %llu %llu", draw & 1 ? "-u" : "", (ull)offset,
                              (ull)length);
                disk_fill(disk, offset, 0, length);
        } else if (draw < 90) {
                peer_args_add(args, "discard -q %llu %llu", (ull)offset, (ull)length);
                add_open_range(handoff, offset, length, false);
        } else {
                peer_args_add(args, "write -q -c -P %u %llu %llu", byte, (ull)offset, (ull)length);
                add_open_range(handoff, offset, length, true);
                handoff->may_fail = true;
                seq->compressed = true;
        }
        sequence_log(seq, "  peer: %s", (char *)args->pdata[args->len - 1]);
}

static int io_turn(struct handoff *handoff)
{
        struct sequence *seq = handoff->seq;
        GPtrArray *args = peer_args_new("qemu-io");
        struct peer_result result = {};
        unsigned count = rng_between(&seq->rng, 4, PEER_COMMANDS_MAX);
        int ret = 0;

        peer_args_add(args, "-f");
        peer_args_add(args, "qcow2");
        for (unsigned i = 0; i < count; i++)
                draw_command(handoff, args);
        peer_args_add(args, "-c");
        peer_args_add(args, "flush");
        peer_args_add(args, "%s", seq->path);
        if (peer_args_run(args, seq->directory, &result) && !handoff->may_fail)
                ret = sequence_fail(seq, "qemu-io exits with %d: %s%s", result.status, result.out,
                                    result.err);
        peer_result_clear(&result);
        return ret;
}

static int snapshot_command(struct sequence *seq, const char *flag, const char *name)
{
        struct peer_result result = {};
        int status;

        sequence_log(seq, "peer: qemu-img snapshot %s '%s'", flag, name);
        status = peer(seq->directory, &result, "qemu-img", "snapshot", flag, name, seq->path);
        if (status)
                sequence_log(seq, "peer: %s", result.err);
        peer_result_clear(&result);
        return status;
}

/* QEMU leaks the new tables of a snapshot operation that overflows a count. */
int handoff_repair_leaks(struct sequence *seq)
{
        struct peer_result result = {};

        sequence_log(seq, "peer: qemu-img check -r leaks");
        peer(seq->directory, &result, "qemu-img", "check", "-q", "-r", "leaks", seq->path);
        peer_result_clear(&result);
        return subject_check(seq);
}

static int peer_create(struct sequence *seq)
{
        g_autofree char *name = control_new_name(seq);

        if (snapshot_command(seq, "-c", name) == 0) {
                model_snapshot_create(&seq->model, name);
                tally_add(snapshots_created, 1);
                return 0;
        }
        if (!control_may_overflow(seq))
                return sequence_fail(seq, "the peer cannot create snapshot '%s'", name);
        tally_add(snapshots_refused, 1);
        return handoff_repair_leaks(seq);
}

bool handoff_may_go(const struct sequence *seq, const struct model_snapshot *snapshot)
{
        return !control_may_overflow(seq) ||
               snapshot->disk->size_bytes == seq->model.disk->size_bytes;
}

/* Not for a snapshot whose content we have not read yet. */
static int peer_goto(struct sequence *seq, struct model_snapshot *snapshot)
{
        if (snapshot->other || !handoff_may_go(seq, snapshot))
                return 0;
        if (snapshot_command(seq, "-a", snapshot->name) == 0) {
                model_snapshot_goto(&seq->model, snapshot);
                return 0;
        }
        if (control_may_overflow(seq) ||
            (seq->plan.version == 2 && snapshot->disk->size_bytes != seq->model.disk->size_bytes))
                return handoff_repair_leaks(seq);
        return sequence_fail(seq, "the peer cannot go to snapshot '%s'", snapshot->name);
}

int handoff_snapshot_delete(struct sequence *seq, struct model_snapshot *snapshot)
{
        if (snapshot_command(seq, "-d", snapshot->name))
                return sequence_fail(seq, "the peer cannot delete snapshot '%s'", snapshot->name);
        model_snapshot_delete(&seq->model, snapshot);
        return 0;
}

static int snapshot_turn(struct sequence *seq)
{
        struct model_snapshot *snapshot = control_pick(seq);
        unsigned draw = rng_below(&seq->rng, 100);

        if (!snapshot || (draw < 50 && seq->model.snapshot_count < 6))
                return peer_create(seq);
        if (draw < 80)
                return peer_goto(seq, snapshot);
        return handoff_snapshot_delete(seq, snapshot);
}

static int resize_turn(struct sequence *seq)
{
        uint64_t old_bytes = seq->model.disk->size_bytes;
        uint64_t new_bytes = rng_between(&seq->rng, old_bytes / 2, old_bytes * 5 / 4) / 512 * 512;
        g_autofree char *command = NULL;
        struct peer_result result = {};
        int status;

        new_bytes = MIN(MAX(new_bytes, 64u << 10), 48u << 20);
        command = g_strdup_printf("truncate %llu", (ull)new_bytes);
        sequence_log(seq, "peer: %s", command);
        status = peer(seq->directory, &result, "qemu-io", "-f", "qcow2", "-c", command, seq->path);
        peer_result_clear(&result);
        if (status == 0)
                disk_resize(seq->model.disk, new_bytes);
        else if (seq->plan.version == 3)
                return sequence_fail(seq, "the peer cannot resize to %llu", (ull)new_bytes);
        return 0;
}

/* A compressed write by the peer is there as a whole or not at all. */
static int settle_compressed(struct handoff *handoff, const struct open_range *range)
{
        struct sequence *seq = handoff->seq;
        g_autofree uint8_t *bytes = g_malloc(range->length_bytes);
        int ret = drive_pread(seq->drive, range->offset, bytes, range->length_bytes);
        uint64_t bad;

        if (ret < 0)
                return sequence_fail(seq, "read of a compressed cluster: %s", g_strerror(-ret));
        if (disk_allows(seq->model.disk, NULL, range->offset, bytes, range->length_bytes, &bad))
                return 0;
        if (!bytes[0] || memcmp(bytes, bytes + 1, range->length_bytes - 1))
                return sequence_fail(seq, "the peer's compressed cluster at %#llx is wrong",
                                     (ull)range->offset);
        disk_fill(seq->model.disk, range->offset, bytes[0], range->length_bytes);
        return 0;
}

static int settle(struct handoff *handoff)
{
        int ret = 0;

        for (unsigned i = 0; ret == 0 && i < handoff->open_range_count; i++) {
                const struct open_range *range = &handoff->open_ranges[i];

                if (range->compressed)
                        ret = settle_compressed(handoff, range);
                else
                        ret = batch_settle_discard(handoff->seq, handoff->seq->model.disk,
                                                   range->offset, range->length_bytes);
        }
        return ret;
}

int handoff_run(struct sequence *seq)
{
        struct handoff handoff = { .seq = seq };
        unsigned draw = rng_below(&seq->rng, 100);
        int ret = subject_close(seq);

        tally_add(handoffs, 1);
        seq->op_count++;
        if (ret == 0 && rng_chance(&seq->rng, 50))
                ret = subject_check(seq);
        if (ret == 0 && draw >= 90)
                ret = resize_turn(seq);
        if (ret == 0 && draw >= 30 && draw < 90)
                ret = snapshot_turn(seq);
        if (ret == 0 && draw < 70)
                ret = io_turn(&handoff);
        if (ret == 0)
                ret = subject_open(seq, true);
        return ret == 0 ? settle(&handoff) : ret;
}
