/*
 * disorder-verify.c - looking at the image from outside.
 *
 * A snapshot is read from a copy of the file as it is at that moment, opened read-only: what
 * is published must be in the file, whatever else is going on.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disorder.h"

#include <stdlib.h>
#include <string.h>

/* ---- a copy of the file ---- */

struct peek {
        struct simdisk *disk;
        struct subject subject;
};

static int peek_open(struct peek *p, const struct disorder *d)
{
        unsigned i;
        int ret;

        *p = (struct peek){ .disk = simdisk_new(NULL) };
        for (i = 0; i < d->disk->file_count; i++) {
                simdisk_file_new(p->disk);
                simdisk_file_load(p->disk, (int)i, &d->disk->files[i].image);
        }
        ret = subject_open(&p->subject, p->disk, 0);
        if (ret < 0)
                simdisk_free(p->disk);
        return ret;
}

static void peek_close(struct peek *p)
{
        if (p->subject.image)
                subject_close(&p->subject);
        simdisk_free(p->disk);
}

/* The values of count units.  Those beyond what can be read are torn. */
static uint32_t *values_of(const uint8_t *bytes, uint64_t count)
{
        uint32_t *values = g_new(uint32_t, count);
        uint64_t i;

        for (i = 0; i < count; i++)
                values[i] = unit_value(bytes + i * UNIT_BYTES, i);
        return values;
}

static uint32_t *read_disk(struct subject *s, uint64_t unit_count)
{
        uint64_t bytes = unit_count * UNIT_BYTES;
        uint8_t *buffer = aligned_alloc(4096, round_up(bytes, 4096));
        uint32_t *values = NULL;

        if (subject_read(s, 0, buffer, bytes) == 0)
                values = values_of(buffer, unit_count);
        free(buffer);
        return values;
}

static uint32_t *read_state(struct subject *s)
{
        uint8_t *buffer = aligned_alloc(4096, STATE_UNITS * UNIT_BYTES);
        uint32_t *values = NULL;

        if (subject_load_vmstate(s, 0, buffer, STATE_UNITS * UNIT_BYTES) == 0)
                values = values_of(buffer, STATE_UNITS);
        free(buffer);
        return values;
}

/* The snapshot's disk and VM state, out of a copy of the file; false: failed, and told. */
static bool read_shot(struct disorder *d, const struct shot *shot, uint32_t **ret_disk,
                      uint32_t **ret_state)
{
        struct peek p;
        int ret = peek_open(&p, d);

        *ret_disk = *ret_state = NULL;
        if (ret < 0) {
                disorder_fail(d, "a copy of the file cannot be opened: %s", p.subject.err.text);
                return false;
        }
        ret = subject_load_tmp(&p.subject, shot->name);
        if (ret < 0)
                disorder_fail(d, "in the file: %s", p.subject.err.text);
        else if (image_size(p.subject.image->top) != shot->unit_count * UNIT_BYTES)
                disorder_fail(d, "snapshot %s is %#" PRIx64 " bytes long, must be %#" PRIx64,
                              shot->name, image_size(p.subject.image->top),
                              shot->unit_count * UNIT_BYTES);
        else
                *ret_disk = read_disk(&p.subject, shot->unit_count);
        if (*ret_disk)
                *ret_state = read_state(&p.subject);
        peek_close(&p);
        if (!*ret_state)
                disorder_fail(d, "snapshot %s cannot be read", shot->name);
        return *ret_state != NULL;
}

/* ---- snapshots ---- */

/* All units must have been so at one moment. */
static void adopt_disk(struct act *create, const struct shot *shot)
{
        struct disorder *d = create->d;
        const struct moments possible = {
                create->moment ? create->moment : create->turn,
                create->moment_end ? create->moment_end : d->now,
        };
        struct moments all = possible;
        uint64_t i;

        for (i = 0; i < shot->unit_count; i++) {
                struct moments when = possible;

                if (!area_see(d->area, i, shot->values[i], &when)) {
                        disorder_fail(d, "create %u: unit at %#" PRIx64 " is %u, must be %s",
                                      create->id, i * UNIT_BYTES, shot->values[i],
                                      area_describe(d->area, i, possible.begin));
                        return;
                }
                all.begin = MAX(all.begin, when.begin);
                all.end = MIN(all.end, when.end);
                if (all.begin >= all.end) {
                        disorder_fail(d, "create %u: the unit at %#" PRIx64 " is of another moment "
                                      "than those before", create->id, i * UNIT_BYTES);
                        return;
                }
        }
}

static void adopt_state(struct disorder *d, struct shot *shot, const uint32_t *state)
{
        unsigned i;

        for (i = 0; i < STATE_UNITS; i++) {
                if (state[i] != shot->state[i] && shot->state[i] != VALUE_TORN)
                        disorder_fail(d, "snapshot %s: unit %u of the VM state is %u, must be %u",
                                      shot->name, i, state[i], shot->state[i]);
                shot->state[i] = state[i];
        }
}

void verify_adopt(struct act *create, struct shot *shot)
{
        g_autofree uint32_t *state = NULL;

        if (!read_shot(create->d, shot, &shot->values, &state))
                return;
        adopt_disk(create, shot);
        adopt_state(create->d, shot, state);
}

void verify_shot(struct disorder *d, const struct shot *shot)
{
        g_autofree uint32_t *values = NULL;
        g_autofree uint32_t *state = NULL;
        uint64_t i;

        if (!read_shot(d, shot, &values, &state))
                return;
        for (i = 0; i < shot->unit_count && values[i] == shot->values[i]; i++)
                ;
        if (i < shot->unit_count)
                disorder_fail(d, "snapshot %s changed: unit at %#" PRIx64 " is %u, was %u",
                              shot->name, i * UNIT_BYTES, values[i], shot->values[i]);
        if (memcmp(state, shot->state, sizeof(shot->state)) != 0)
                disorder_fail(d, "the VM state of snapshot %s changed", shot->name);
}

/* ---- the active disk ---- */

static void verify_disk(struct disorder *d, struct subject *s)
{
        uint64_t began = ++d->now;
        g_autofree uint32_t *values = NULL;
        uint64_t i;

        if (image_size(s->image->top) != d->unit_count * UNIT_BYTES) {
                disorder_fail(d, "the disk is %#" PRIx64 " bytes long, must be %#" PRIx64,
                              image_size(s->image->top), d->unit_count * UNIT_BYTES);
                return;
        }
        values = read_disk(s, d->unit_count);
        d->now++;
        if (!values)
                disorder_fail(d, "the disk cannot be read");
        for (i = 0; values && i < d->unit_count; i++) {
                struct moments when = { began, d->now };

                if (area_see(d->area, i, values[i], &when))
                        continue;
                disorder_fail(d, "at rest: unit at %#" PRIx64 " holds %u, must be %s",
                              i * UNIT_BYTES, values[i], area_describe(d->area, i, began));
                return;
        }
}

static void verify_list(struct disorder *d, struct subject *s)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        unsigned count = s->driver->snapshot_list(s->image, 0, NULL, 0);
        unsigned i;

        if (count != d->shots->len)
                disorder_fail(d, "the list has %u snapshots, must have %u", count, d->shots->len);
        for (i = 0; i < count && !d->difference; i++) {
                const struct shot *shot = d->shots->pdata[i];

                s->driver->snapshot_list(s->image, i, &info, 1);
                if (strcmp(info.name, shot->name) != 0)
                        disorder_fail(d, "snapshot %u is '%s', must be '%s'", i, info.name,
                                      shot->name);
        }
}

static void verify_counts(struct disorder *d, struct subject *s)
{
        struct hvb_check_result result;
        int ret = subject_check(s, &result);

        if (ret < 0)
                disorder_fail(d, "the check failed: %s", s->err.text);
        else if (result.corruptions + result.leaks + result.check_errors > 0)
                disorder_fail(d, "the check found %" PRIu64 " corruptions, %" PRIu64 " leaks, %"
                              PRIu64 " errors", result.corruptions, result.leaks,
                              result.check_errors);
}

void verify_quiet(struct disorder *d)
{
        g_assert(d->acts.length == 0);
        verify_disk(d, &d->subject);
        verify_list(d, &d->subject);
        if (d->subject.image->loop.leaks > 0)
                disorder_fail(d, "something leaked");
        if (!d->has_saved)
                verify_counts(d, &d->subject);
}

void verify_closed(struct disorder *d)
{
        struct peek p;
        guint i;

        if (peek_open(&p, d) < 0) {
                disorder_fail(d, "the closed image cannot be opened: %s", p.subject.err.text);
                return;
        }
        verify_disk(d, &p.subject);
        verify_list(d, &p.subject);
        verify_counts(d, &p.subject);
        peek_close(&p);
        for (i = 0; i < d->shots->len && !d->difference; i++)
                verify_shot(d, d->shots->pdata[i]);
}
