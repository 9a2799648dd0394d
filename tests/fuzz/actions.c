/*
 * actions.c - what a script does with an image: a few requests at a time.
 *
 * An action has four bytes: what, where, how much, and flags.  Actions whose flags say so
 * are in flight together with the next one.  Results are the driver's business; what they must
 * not do is in trial.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/trial.h"

enum action_kind {
        READ, WRITE, COMPRESS, ZERO, UNMAP, DISCARD, FLUSH, STATUS, TRUNCATE,
        CREATE, REPLACE, GOTO, DELETE, SAVE, LOAD,
        HELD_READ, HELD_LOAD, HELD_STATUS, NOTE, SHARE, HOLD, PREPARE,
};

enum {
        WITH_NEXT = 1 << 7,             /* of the flags byte */
        BY_ID = 1 << 6,
        UNALIGNED = 1 << 5,
        TOGETHER_MAX = 4,
        LISTED_MAX = 8,
        LOOKED_MAX = 64,
        TRUNCATE_BYTES_MAX = 1 << 30,
};

static const struct {
        unsigned count;
        uint8_t kinds[32];
} actions_of[] = {
        [MODE_DATA] = { 16, {
                READ, WRITE, WRITE, WRITE, COMPRESS, COMPRESS, ZERO, ZERO,
                UNMAP, DISCARD, DISCARD, FLUSH, STATUS, TRUNCATE, TRUNCATE, WRITE } },
        [MODE_SNAPSHOTS] = { 32, {
                READ, WRITE, WRITE, COMPRESS, ZERO, DISCARD, FLUSH, TRUNCATE,
                CREATE, CREATE, REPLACE, GOTO, GOTO, DELETE, DELETE, STATUS,
                PREPARE, PREPARE, PREPARE, WRITE, HOLD, HELD_READ, HELD_STATUS, DELETE,
                PREPARE, WRITE, DISCARD, CREATE, HOLD, HELD_READ, GOTO, DELETE } },
        [MODE_VMSTATE] = { 32, {
                READ, WRITE, DISCARD, TRUNCATE, CREATE, CREATE, REPLACE, GOTO,
                GOTO, DELETE, SAVE, SAVE, SAVE, LOAD, LOAD, LOAD,
                HOLD, HOLD, SHARE, SHARE, NOTE, NOTE, HELD_LOAD, HELD_LOAD,
                PREPARE, PREPARE, PREPARE, SAVE, SHARE, NOTE, DELETE, CREATE } },
        [MODE_REPAIR] = { 16, {
                READ, WRITE, WRITE, COMPRESS, ZERO, DISCARD, FLUSH, CREATE,
                GOTO, DELETE, READ, WRITE, STATUS, TRUNCATE, DELETE, GOTO } },
};

struct action {
        struct trial *t;
        enum action_kind kind;
        uint8_t flags;
        uint64_t offset;
        uint64_t length;
        struct subject_call call;
        struct hvb_error err;
        struct iovec iov;
        struct hvb_snapshot_info info;
        struct hvb_block_status status;
};

/* ---- where, and what it may cost ---- */

static struct hvb_image_info info_of(struct trial *t)
{
        struct hvb_image_info info = { .struct_bytes = sizeof(info) };

        t->subject.driver->get_info(t->subject.image, &info);
        return info;
}

static bool is_vmstate(enum action_kind kind)
{
        return kind == SAVE || kind == LOAD || kind == HELD_LOAD || kind == NOTE || kind == SHARE;
}

static bool uses_held(enum action_kind kind)
{
        return kind >= HELD_READ && kind <= SHARE;
}

/* What moves counts would wait for the end of what is prepared; and nobody can use what is not
 * held. */
static enum action_kind kind_now(const struct trial *t, enum action_kind kind)
{
        if (t->standing.is_prepared && kind >= TRUNCATE && kind <= DELETE)
                return PREPARE;
        return uses_held(kind) && !t->standing.held ? HOLD : kind;
}

/* The first clusters, or anywhere. */
static void place(struct action *a, const uint8_t *bytes, const struct hvb_image_info *info)
{
        uint64_t size = is_vmstate(a->kind) ? info->cluster_bytes * 1024 : info->virtual_bytes;

        if (bytes[1] < 128)
                a->offset = bytes[1] % (is_vmstate(a->kind) ? 16 : 128) * info->cluster_bytes;
        else
                a->offset = round_down(size / 128 * (bytes[1] - 128), 512);
        a->length = (1 + (uint64_t)bytes[2]) * 512;
        if (a->flags & UNALIGNED) {
                a->offset += bytes[2];
                a->length -= bytes[1];
        }
        if (a->kind == COMPRESS || (a->kind == SHARE && !(a->flags & UNALIGNED))) {
                a->offset = round_down(a->offset, info->cluster_bytes);
                a->length = info->cluster_bytes * (a->kind == SHARE ? 1 + bytes[2] % 8 : 1);
        }
        a->length = u64_min(a->length, size - u64_min(a->offset, size));
        if (a->kind == TRUNCATE)
                a->offset = u64_min(a->offset + a->length, TRUNCATE_BYTES_MAX);
}

/* Data in whole clusters, tables on the way to it, and all tables that an operation copies. */
static void allow_growth(struct trial *t, const struct action *a,
                         const struct hvb_image_info *info)
{
        uint64_t cluster = info->cluster_bytes;
        uint64_t l1_span = cluster * (cluster / 8);
        uint64_t disk_bytes = a->kind == TRUNCATE ? u64_max(info->virtual_bytes, a->offset)
                                                  : info->virtual_bytes;
        uint64_t l1_bytes = div_up(disk_bytes, l1_span) * 8;

        t->growth_bytes += round_up(a->length, cluster) + 2 * cluster;
        t->growth_bytes += 16 * u64_max(cluster, SIM_PAGE_BYTES);
        if (a->kind >= TRUNCATE)
                t->growth_bytes += 2 * round_up(l1_bytes, SIM_PAGE_BYTES) +
                                   2 * round_up(t->file_bytes / 4, SIM_PAGE_BYTES);
}

/* ---- starting ---- */

static void start_data(struct action *a)
{
        const struct hvb_driver *driver = a->t->subject.driver;
        struct hvb_queue *queue = a->t->subject.queue;
        struct hvb_request *r = a->call.request;

        switch (a->kind) {
        case READ:
                driver->preadv(queue, r, a->offset, &a->iov, 1, 0);
                break;
        case ZERO:
        case UNMAP:
                driver->pwrite_zeroes(queue, r, a->offset, a->length,
                                      a->kind == UNMAP ? HVB_REQ_MAY_UNMAP : 0);
                break;
        case DISCARD:
                driver->pdiscard(queue, r, a->offset, a->length);
                break;
        case FLUSH:
                driver->flush(queue, r);
                break;
        case STATUS:
                a->status.struct_bytes = sizeof(a->status);
                driver->block_status(queue, r, a->offset, a->length, &a->status);
                break;
        default:
                driver->pwritev(queue, r, a->offset, &a->iov, 1,
                                a->kind == COMPRESS ? HVB_REQ_COMPRESS : 0);
                break;
        }
}

/* A snapshot of the list, or a name that is not there. */
static void choose_snapshot(struct action *a)
{
        struct subject *s = &a->t->subject;
        struct hvb_snapshot_info infos[LISTED_MAX];
        unsigned count;
        unsigned i;

        for (i = 0; i < LISTED_MAX; i++)
                infos[i].struct_bytes = sizeof(infos[i]);
        count = MIN(s->driver->snapshot_list(s->image, 0, infos, LISTED_MAX), LISTED_MAX);
        i = a->flags % (LISTED_MAX + 1);
        if (i < count)
                a->info = infos[i];
        else
                g_snprintf(a->info.name, sizeof(a->info.name), "new-%u", i);
        a->info.struct_bytes = sizeof(a->info);
}

static void start_control(struct action *a)
{
        struct subject *s = &a->t->subject;
        const struct hvb_driver *driver = s->driver;
        struct hvb_request *r = a->call.request;
        const char *id = a->flags & BY_ID ? a->info.id_str : NULL;
        const char *name = a->flags & BY_ID ? NULL : a->info.name;

        switch (a->kind) {
        case TRUNCATE:
                driver->truncate(s->image, r, round_down(a->offset, 512), HVB_PREALLOC_OFF,
                                 &a->err);
                break;
        case GOTO:
                driver->snapshot_goto(s->image, r, id, name, &a->err);
                break;
        case DELETE:
                driver->snapshot_delete(s->image, r, id, name, &a->err);
                break;
        case SAVE:
                driver->save_vmstate(s->image, r, a->offset, &a->iov, 1);
                break;
        case LOAD:
                driver->load_vmstate(s->image, r, a->offset, &a->iov, 1);
                break;
        default:
                if (a->t->mode == MODE_VMSTATE)
                        a->info.vm_state_bytes = a->length;
                driver->snapshot_create(s->image, r, &a->info,
                                        a->kind == REPLACE ? HVB_SNAPSHOT_REPLACE : 0, &a->err);
                break;
        }
}

/* The handle is not closed while they are in flight. */
static void start_held(struct action *a)
{
        struct subject *s = &a->t->subject;
        struct hvb_snapshot *held = a->t->standing.held;
        struct hvb_request *r = a->call.request;

        a->t->standing.held_users++;
        switch (a->kind) {
        case HELD_STATUS:
                a->status.struct_bytes = sizeof(a->status);
                s->driver->snapshot_block_status(s->queue, r, held, a->offset, a->length, 0,
                                                 &a->status);
                break;
        case NOTE:
                s->driver->snapshot_note(s->queue, r, held, a->offset, &a->iov, 1);
                break;
        case SHARE:
                s->driver->share_vmstate(s->image, r, held, a->offset,
                                         a->flags & BY_ID ? 0 : a->offset, a->length);
                break;
        default:
                s->driver->snapshot_preadv(s->queue, r, held, a->offset, &a->iov, 1,
                                           a->kind == HELD_LOAD ? HVB_REQ_VMSTATE : 0);
                break;
        }
}

/* These wait for their end. */
static void do_standing(struct action *a)
{
        if (a->kind == HOLD)
                standing_hold(a->t, &a->info);
        else
                standing_prepare(a->t, &a->info, a->flags);
}

static struct action *action_start(struct trial *t, const uint8_t *bytes)
{
        struct hvb_image_info info = info_of(t);
        struct action *a = g_new0(struct action, 1);

        a->t = t;
        a->kind = kind_now(t, actions_of[t->mode].kinds[bytes[0] % actions_of[t->mode].count]);
        a->flags = bytes[3];
        a->err.struct_bytes = sizeof(a->err);
        place(a, bytes, &info);
        allow_growth(t, a, &info);
        a->iov = (struct iovec){ g_malloc(a->length + 1), a->length };
        memset(a->iov.iov_base, bytes[2] | 1, a->length);
        choose_snapshot(a);
        if (a->kind >= HOLD) {
                do_standing(a);
                return a;
        }
        subject_call_begin(&t->subject, &a->call);
        if (a->kind < TRUNCATE)
                start_data(a);
        else if (uses_held(a->kind))
                start_held(a);
        else
                start_control(a);
        return a;
}

/* ---- ending ---- */

static int read_again(struct action *a, uint8_t *bytes)
{
        struct subject *s = &a->t->subject;

        struct iovec iov = { bytes, a->length };
        struct subject_call c;

        if (a->kind == READ)
                return subject_read(s, a->offset, bytes, a->length);
        if (a->kind == LOAD)
                return subject_load_vmstate(s, a->offset, bytes, a->length);
        subject_call_begin(s, &c);
        s->driver->snapshot_preadv(s->queue, c.request, a->t->standing.held, a->offset, &iov, 1,
                                   a->kind == HELD_LOAD ? HVB_REQ_VMSTATE : 0);
        return subject_call_end(s, &c);
}

/* Alone in flight: nobody changes what it reads. */
static void judge_read(struct action *a)
{
        g_autofree uint8_t *again = g_malloc(a->length);
        const uint8_t *bytes = a->iov.iov_base;

        memset(again, ~bytes[0], a->length);
        if (read_again(a, again) < 0)
                trial_fail(a->t, "a read succeeds only once");
        if (memcmp(again, bytes, a->length) != 0)
                trial_fail(a->t, "a read of [0x%" PRIx64 ", +0x%" PRIx64 ") differs from another",
                           a->offset, a->length);
}

static bool is_read(enum action_kind kind)
{
        return kind == READ || kind == LOAD || kind == HELD_READ || kind == HELD_LOAD;
}

static bool is_status(enum action_kind kind)
{
        return kind == STATUS || kind == HELD_STATUS;
}

static void judge(struct action *a, int ret, bool alone)
{
        if (ret > 0 || (a->err.code < 0) != (a->err.text[0] != '\0'))
                trial_fail(a->t, "result %d with error %d '%s'", ret, a->err.code, a->err.text);
        if (ret == 0 && alone && a->length > 0 && is_read(a->kind))
                judge_read(a);
        if (ret == 0 && is_status(a->kind) && a->length > 0 &&
            ((a->status.length_bytes == 0 && a->kind == STATUS) ||
             a->status.length_bytes > a->length))
                trial_fail(a->t, "a status of %" PRIu64 " bytes", a->status.length_bytes);
}

static void action_end(struct action *a, bool alone)
{
        if (a->kind < HOLD) {
                int ret = subject_call_end(&a->t->subject, &a->call);

                if (uses_held(a->kind))
                        a->t->standing.held_users--;
                judge(a, ret, alone);
        }
        g_free(a->iov.iov_base);
        g_free(a);
}

void actions_run(struct trial *t)
{
        struct action *together[TOGETHER_MAX];
        unsigned count = 0;
        unsigned i;

        for (i = 0; i < SCRIPT_ACTIONS; i++) {
                const uint8_t *bytes = t->in->script + i * SCRIPT_ACTION_BYTES;
                bool alone;

                together[count++] = action_start(t, bytes);
                if ((bytes[3] & WITH_NEXT) && count < TOGETHER_MAX && i + 1 < SCRIPT_ACTIONS)
                        continue;
                alone = count == 1;
                while (count > 0)
                        action_end(together[--count], alone);
        }
}

/* ---- looking ---- */

static void look_at_map(struct trial *t, uint64_t disk_bytes)
{
        struct subject *s = &t->subject;
        uint64_t offset = 0;
        unsigned i;

        for (i = 0; i < LOOKED_MAX && offset < disk_bytes; i++) {
                struct hvb_block_status status = { .struct_bytes = sizeof(status) };
                struct subject_call c;

                subject_call_begin(s, &c);
                s->driver->block_status(s->queue, c.request, offset, disk_bytes - offset, &status);
                if (subject_call_end(s, &c) < 0)
                        return;
                if (status.length_bytes == 0 || status.length_bytes > disk_bytes - offset)
                        trial_fail(t, "a status of %" PRIu64 " bytes", status.length_bytes);
                offset += status.length_bytes;
        }
}

static void look_at_data(struct trial *t, uint64_t disk_bytes)
{
        uint8_t bytes[3 * 512];
        unsigned i;

        for (i = 0; i < 16; i++) {
                uint64_t offset = i < 8 ? (uint64_t)i * 4096 : disk_bytes / 16 * i;

                if (offset + sizeof(bytes) <= disk_bytes)
                        subject_read(&t->subject, offset, bytes, sizeof(bytes));
                subject_load_vmstate(&t->subject, offset, bytes, sizeof(bytes));
        }
}

void actions_look(struct trial *t)
{
        struct subject *s = &t->subject;
        struct hvb_snapshot_info infos[LISTED_MAX];
        uint64_t disk_bytes = info_of(t).virtual_bytes;
        unsigned count;
        unsigned i;

        for (i = 0; i < LISTED_MAX; i++)
                infos[i].struct_bytes = sizeof(infos[i]);
        count = MIN(s->driver->snapshot_list(s->image, 0, infos, LISTED_MAX), LISTED_MAX);
        look_at_map(t, disk_bytes);
        look_at_data(t, disk_bytes);
        if (t->mode == MODE_DATA || info_of(t).read_only == 0)
                return;
        for (i = 0; i < count; i++) {
                if (subject_load_tmp(s, infos[i].name) < 0)
                        continue;
                disk_bytes = info_of(t).virtual_bytes;
                look_at_map(t, disk_bytes);
                look_at_data(t, disk_bytes);
        }
}
