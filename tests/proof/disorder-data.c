/*
 * disorder-data.c - data requests.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disorder.h"

#include <errno.h>
#include <stdlib.h>

static const char *const names[] = {
        [ACT_READ] = "read", [ACT_WRITE] = "write", [ACT_COMPRESS] = "write compressed",
        [ACT_ZERO] = "zero", [ACT_DISCARD] = "discard", [ACT_FLUSH] = "flush",
        [ACT_DRAIN] = "drain", [ACT_STATUS] = "status", [ACT_SAVE] = "save",
        [ACT_LOAD] = "load", [ACT_FORGET] = "forget state", [ACT_CREATE] = "create",
        [ACT_GOTO] = "goto", [ACT_DELETE] = "delete", [ACT_RESIZE] = "resize",
};

const char *act_name(const struct act *a)
{
        return names[a->kind];
}

/* ---- the life of an act ---- */

static void act_free(struct act *a)
{
        free(a->request);
        free(a->bytes);
        g_free(a);
}

static void on_complete(struct hvb_request *request)
{
        struct act *a = request->opaque;
        struct disorder *d = a->d;
        int result = request->result;

        d->now++;
        d->results_hash = (d->results_hash ^ (a->id + (uint64_t)(int64_t)result * 31)) *
                          UINT64_C(0x9e3779b97f4a7c15);
        disorder_step(d, "  %u ends: %d%s%s", a->id, result, a->err.code ? ", " : "",
                      a->err.code ? a->err.text : "");
        if (act_is_control(a->kind) && control_goes_on(a, &result))
                return;
        g_queue_unlink(&d->acts, &a->link);
        if (result == -ECANCELED && !a->cancelled)
                disorder_fail(d, "%s %u: was not cancelled", act_name(a), a->id);
        if (act_is_control(a->kind))
                control_end(a, result);
        else if (a->kind == ACT_SAVE || a->kind == ACT_LOAD)
                state_end(a, result);
        else
                data_end(a, result);
        act_free(a);
}

struct act *act_new(struct disorder *d, enum act_kind kind)
{
        struct act *a = g_new0(struct act, 1);

        a->d = d;
        a->kind = kind;
        a->id = d->next_id++;
        a->started = a->asked = ++d->now;
        a->err.struct_bytes = sizeof(a->err);
        a->request = subject_request_new();
        a->request->complete = on_complete;
        a->request->opaque = a;
        a->link.data = a;
        a->turn_link.data = a;
        g_queue_push_tail_link(&d->acts, &a->link);
        d->request_count++;
        return a;
}

void act_buffer(struct act *a)
{
        uint64_t bytes = a->count * UNIT_BYTES;
        uint64_t done = 0;

        a->bytes = aligned_alloc(4096, MAX(round_up(bytes, 4096), 4096));
        while (done < bytes) {
                uint64_t part = UNIT_BYTES * 4 * (1 + disorder_below(a->d, 16));

                if (part > bytes - done || a->iov_count == ACT_IOVECS - 1 ||
                    disorder_chance(a->d, 70))
                        part = bytes - done;
                a->iov[a->iov_count++] = (struct iovec){ a->bytes + done, part };
                done += part;
        }
}

/* ---- ranges ---- */

static uint64_t cluster_units(const struct disorder *d)
{
        return (UINT64_C(1) << d->form.cluster_bits) / UNIT_BYTES;
}

static uint64_t draw_grain(struct disorder *d)
{
        uint64_t least = MAX(d->form.alignment / UNIT_BYTES, 1);
        const uint64_t grains[] = { least, 512 / UNIT_BYTES, cluster_units(d) };

        return grains[disorder_below(d, G_N_ELEMENTS(grains))];
}

/* Half of all requests meet in a few clusters; most are small. */
static void draw_range(struct act *a)
{
        struct disorder *d = a->d;
        uint64_t end = image_size(d->subject.image->top) / UNIT_BYTES;
        uint64_t grain = draw_grain(d);
        uint64_t reach = disorder_chance(d, 50) ? MIN(end, 6 * cluster_units(d)) : end;
        uint64_t longest = disorder_chance(d, 70) ? MAX(cluster_units(d) / 2, grain)
                                                  : 4 * cluster_units(d);

        a->unit = round_down(disorder_below(d, reach), grain);
        a->count = round_up(1 + disorder_below(d, longest), grain);
        a->count = MIN(a->count, end - a->unit);
}

static void draw_cluster(struct act *a)
{
        struct disorder *d = a->d;
        uint64_t end = image_size(d->subject.image->top) / UNIT_BYTES;

        a->unit = round_down(disorder_below(d, end), cluster_units(d));
        a->count = MIN(cluster_units(d), end - a->unit);
}

/* ---- starting ---- */

static void begin_changes(struct act *a, uint64_t first, uint64_t end, uint32_t value, bool maybe)
{
        uint64_t oldest = disorder_oldest(a->d);
        const struct change change = {
                .value = value,
                .id = a->id,
                .maybe = maybe,
                .started = a->started,
                .happened = MOMENT_NEVER,
                .overwritten = MOMENT_NEVER,
        };
        uint64_t i;

        for (i = first; i < end; i++)
                area_begin(a->d->area, i, &change, oldest);
}

/* Whole clusters become zeros.  The rest may: the disk's last cluster can be whole.  Without zero
 * clusters a backing file would show through: nothing happens. */
static void begin_discard(struct act *a)
{
        struct disorder *d = a->d;
        uint64_t end = a->unit + a->count;
        uint64_t first_whole = MIN(round_up(a->unit, cluster_units(d)), end);
        uint64_t end_whole = MAX(round_down(end, cluster_units(d)), first_whole);

        if (d->form.version < 3 && d->form.backing_units > 0)
                return;
        begin_changes(a, first_whole, end_whole, 0, false);
        begin_changes(a, end_whole, end, 0, true);
}

static void start_write(struct act *a)
{
        uint64_t i;

        act_buffer(a);
        for (i = 0; i < a->count; i++)
                unit_fill(a->bytes + i * UNIT_BYTES, a->unit + i, a->id);
        begin_changes(a, a->unit, a->unit + a->count, a->id, false);
        a->d->subject.driver->pwritev(a->d->subject.queue, a->request, a->unit * UNIT_BYTES,
                                      a->iov, a->iov_count, a->flags);
}

static void start_act(struct act *a)
{
        const struct hvb_driver *driver = a->d->subject.driver;
        struct hvb_queue *queue = a->d->subject.queue;
        uint64_t offset = a->unit * UNIT_BYTES;
        uint64_t bytes = a->count * UNIT_BYTES;

        switch (a->kind) {
        case ACT_READ:
                act_buffer(a);
                driver->preadv(queue, a->request, offset, a->iov, a->iov_count, 0);
                break;
        case ACT_ZERO:
                begin_changes(a, a->unit, a->unit + a->count, 0, false);
                driver->pwrite_zeroes(queue, a->request, offset, bytes, a->flags);
                break;
        case ACT_DISCARD:
                begin_discard(a);
                driver->pdiscard(queue, a->request, offset, bytes);
                break;
        case ACT_FLUSH:
                driver->flush(queue, a->request);
                break;
        case ACT_DRAIN:
                driver->drain(queue, a->request);
                break;
        case ACT_STATUS:
                a->status.struct_bytes = sizeof(a->status);
                driver->block_status(queue, a->request, offset, bytes, &a->status);
                break;
        default:
                start_write(a);
                break;
        }
}

static enum act_kind draw_kind(struct disorder *d)
{
        static const struct {
                enum act_kind kind;
                unsigned weight;
        } mix[] = {
                { ACT_READ, 32 }, { ACT_WRITE, 36 }, { ACT_COMPRESS, 7 }, { ACT_ZERO, 8 },
                { ACT_DISCARD, 8 }, { ACT_FLUSH, 5 }, { ACT_DRAIN, 1 }, { ACT_STATUS, 3 },
        };
        uint64_t drawn = disorder_below(d, 100);
        unsigned i;

        for (i = 0; drawn >= mix[i].weight; i++)
                drawn -= mix[i].weight;
        return mix[i].kind;
}

static uint32_t draw_flags(struct act *a)
{
        struct disorder *d = a->d;
        uint32_t flags = a->kind == ACT_COMPRESS ? HVB_REQ_COMPRESS : 0;

        if (a->kind != ACT_READ && disorder_chance(d, 5))
                flags |= HVB_REQ_FUA;
        if (a->kind == ACT_ZERO && disorder_chance(d, 50))
                flags |= HVB_REQ_MAY_UNMAP;
        if (a->kind == ACT_ZERO && disorder_chance(d, 10))
                flags |= HVB_REQ_NO_FALLBACK;
        return flags;
}

void data_start(struct disorder *d)
{
        struct act *a = act_new(d, draw_kind(d));

        if (a->kind == ACT_COMPRESS)
                draw_cluster(a);
        else if (a->kind != ACT_FLUSH && a->kind != ACT_DRAIN)
                draw_range(a);
        a->flags = draw_flags(a);
        control_judge_size(a);
        disorder_step(d, "%u %s %#" PRIx64 "+%#" PRIx64 " flags %x", a->id, act_name(a),
                      a->unit * UNIT_BYTES, a->count * UNIT_BYTES, a->flags);
        start_act(a);
}

/* ---- judging ---- */

static void judge_read(struct act *a)
{
        struct disorder *d = a->d;
        uint64_t i;

        for (i = 0; i < a->count; i++) {
                uint32_t value = unit_value(a->bytes + i * UNIT_BYTES, a->unit + i);
                struct moments when = { a->started, d->now };

                if (area_see(d->area, a->unit + i, value, &when))
                        continue;
                disorder_fail(d, "read %u: unit at %#" PRIx64 " holds %u, must be %s", a->id,
                              (a->unit + i) * UNIT_BYTES, value,
                              area_describe(d->area, a->unit + i, a->started));
                return;
        }
}

static void judge_drain(const struct act *a)
{
        GList *l;

        for (l = a->d->acts.head; l; l = l->next) {
                const struct act *other = l->data;

                if (other->asked < a->asked) {
                        disorder_fail(a->d, "drain %u ended before %s %u", a->id,
                                      act_name(other), other->id);
                        return;
                }
        }
}

/* A part of a cluster can be compressed only while the disk ends with it. */
static bool may_fail(const struct act *a, int result)
{
        return (result == -ECANCELED && a->cancelled) || (result == -EIO && a->beyond) ||
               (result == -ENOTSUP && (a->flags & HVB_REQ_NO_FALLBACK)) ||
               (result == -EINVAL && a->kind == ACT_COMPRESS && a->count < cluster_units(a->d));
}

void data_end(struct act *a, int result)
{
        uint64_t i;

        if (result != 0 && !may_fail(a, result))
                disorder_fail(a->d, "%s %u: %s", act_name(a), a->id, g_strerror(-result));
        if (a->kind == ACT_READ && result == 0)
                judge_read(a);
        if (a->kind == ACT_DRAIN)
                judge_drain(a);
        if (a->kind == ACT_STATUS && result == 0 && a->status.length_bytes == 0)
                disorder_fail(a->d, "status %u: of no bytes", a->id);
        if (a->kind < ACT_WRITE || a->kind > ACT_DISCARD)
                return;
        for (i = a->unit; i < a->unit + a->count; i++)
                area_end(a->d->area, i, a->id, result == 0 ? CHANGE_DONE : CHANGE_MAYBE, a->d->now);
}
