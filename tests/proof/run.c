/*
 * run.c - recording a run, and what it allows.
 *
 * SPDX-License-Identifier: MIT
 */
#include "proof/run.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "unit/sim-bed.h"

static int run_close(struct stage *s, const struct step *step)
{
        (void)step;
        return sim_close(&s->bed);
}

static const struct step closing = { "close", run_close, .durable = true };

static void parse(struct run *r, const char *names)
{
        g_auto(GStrv) words = g_strsplit(names, ", then ", RUN_STEPS_MAX + 1);
        unsigned i;

        for (i = 0; words[i]; i++) {
                g_assert_cmpuint(i, <, RUN_STEPS_MAX);
                r->steps[r->step_count++] = step_named(words[i]);
        }
        r->steps[r->step_count++] = &closing;
}

static bool is_refusal(const struct world *world, int error)
{
        return error == -ERANGE || error == -ENOENT || error == -EEXIST ||
               (error == -ENOTSUP && world->version == 2);
}

static int record_step(struct run *r, struct stage *s, unsigned i)
{
        int ret;

        r->models[i] = model_copy(s->model);
        r->begin[i] = simdisk_moments(r->disk);
        ret = step_run(s, r->steps[i]);
        r->end[i] = simdisk_moments(r->disk);
        r->durable[i] = r->steps[i]->durable && ret == 0;
        return ret;
}

bool run_record(struct run *r, const struct world *world, const char *names, uint64_t seed,
                uint64_t fail_fsync)
{
        const struct sim_fault fault = {
                .ops = 1 << IO_FSYNC, .file = -1, .nth = fail_fsync, .error = -EIO,
        };
        const struct sim_options options = {
                .seed = seed, .delay_max = 3, .reorder = true, .record = true,
                .short_percent = 5, .short_bytes = SIM_SECTOR_BYTES,
        };
        struct stage s = { .world = world };
        unsigned i;
        int ret = 0;

        *r = (struct run){ .world = world, .text = g_strdup(names) };
        parse(r, names);
        r->is_marked = world->version >= 3 && !fail_fsync;
        for (i = 0; i + 1 < r->step_count; i++)
                r->is_marked = r->is_marked && r->steps[i]->marked;
        r->disk = s.disk = world_disk(world, &world->image, &options);
        s.model = model_copy(world->model);
        sim_open(&s.bed, s.disk, HVB_OPEN_RDWR);
        if (fail_fsync)
                simdisk_fault_add(r->disk, &fault);
        for (i = 0; i < r->step_count && ret == 0; i++) {
                ret = record_step(r, &s, i);
                if (fail_fsync)
                        ret = 0;
        }
        if (s.live)
                live_finish(&s, NULL);
        stage_forget_phases(&s);
        r->models[i] = s.model;
        if (is_refusal(world, ret)) {
                sim_close(&s.bed);
                return false;
        }
        if (ret < 0)
                g_error("%s: %s: %s", world->format->name, names, g_strerror(-ret));
        g_assert_cmpuint(r->disk->changed_buffers, ==, 0);
        return true;
}

void run_clear(struct run *r)
{
        unsigned i;

        for (i = 0; i < G_N_ELEMENTS(r->models); i++)
                if (r->models[i])
                        model_free(r->models[i]);
        simdisk_free(r->disk);
        g_free(r->text);
}

/*
 * What was begun changes the list at some moment until its finish, which knows how.  A goto changes
 * the disk likewise, and what was written on top is durable with the next step that makes it so.
 */
static void allow_live(const struct run *r, struct allowed *a)
{
        unsigned begin = UINT_MAX;
        unsigned i;

        a->newest_list = a->newest;
        for (i = 0; i < r->step_count; i++) {
                if (step_begins(r->steps[i]))
                        begin = i;
                if (r->steps[i]->run != live_finish || begin >= a->newest)
                        continue;
                if (a->newest <= i + 1)
                        a->newest_list = i + 1;
                if (r->steps[begin]->run != live_begin_goto || a->oldest > i + 1)
                        continue;
                a->newest = MAX(a->newest, i + 1);
                a->mixes_with = model_snapshot_find(r->models[begin],
                                                    r->steps[begin]->snapshot)->disk;
        }
}

struct allowed run_allowed(const struct run *r, uint64_t moment)
{
        struct allowed a = { .oldest = 0 };
        unsigned i;

        for (i = 0; i < r->step_count && r->end[i] <= moment; i++) {
                if (r->durable[i])
                        a.oldest = i + 1;
                if (r->durable[i] || r->steps[i]->run == live_finish)
                        a.oldest_list = i + 1;
                a.newest = i + 1;
        }
        if (i < r->step_count) {
                a.newest = i + 1;
                a.goes = g_str_has_prefix(r->steps[i]->name, "goto");
        }
        allow_live(r, &a);
        return a;
}

static uint8_t byte_at(GBytes *disk, uint64_t offset)
{
        gsize bytes;
        const uint8_t *data = g_bytes_get_data(disk, &bytes);

        return offset < bytes ? data[offset] : 0;
}

/* Does the model have these bytes there, zeros behind its end? */
static bool has_bytes(GBytes *disk, uint64_t offset, const uint8_t *bytes, uint64_t length)
{
        gsize size;
        const uint8_t *data = g_bytes_get_data(disk, &size);
        uint64_t i;

        if (offset + length <= size)
                return memcmp(data + offset, bytes, length) == 0;
        for (i = 0; i < length; i++)
                if (byte_at(disk, offset + i) != bytes[i])
                        return false;
        return true;
}

/* A disk that is being shrunk may show its backing file where it will end no more. */
static bool may_be_backing(const struct run *r, unsigned newest, uint64_t offset, uint8_t byte)
{
        return r->world->backing && offset >= g_bytes_get_size(r->models[newest]->disk) &&
               byte_at(r->world->backing, offset) == byte;
}

static bool may_be_byte(const struct run *r, unsigned oldest, unsigned newest, uint64_t offset,
                        uint8_t byte)
{
        unsigned i;

        for (i = oldest; i <= newest; i++)
                if (byte_at(r->models[i]->disk, offset) == byte)
                        return true;
        return may_be_backing(r, newest, offset, byte);
}

/* For a goto among writes: no more than that each byte is somebody's. */
static char *judge_mixture_with(const struct run *r, const struct allowed *a, GBytes *disk)
{
        gsize bytes, i;
        const uint8_t *data = g_bytes_get_data(disk, &bytes);

        for (i = 0; i < bytes; i++)
                if (data[i] != byte_at(a->mixes_with, i) &&
                    !may_be_byte(r, a->oldest, a->newest, i, data[i]))
                        return g_strdup_printf("byte %zu of the disk is %u, of no step and not of "
                                               "the snapshot", i, data[i]);
        return NULL;
}

/* NULL if the bytes of a sector are of any of the models, each by itself. */
static char *judge_sector(const struct run *r, unsigned oldest, unsigned newest, uint64_t offset,
                          const uint8_t *bytes, uint64_t length)
{
        uint64_t i;

        for (i = newest + 1; i > oldest; i--)
                if (has_bytes(r->models[i - 1]->disk, offset, bytes, length))
                        return NULL;
        for (i = 0; i < length; i++)
                if (!may_be_byte(r, oldest, newest, offset + i, bytes[i]))
                        return g_strdup_printf("byte %" G_GUINT64_FORMAT " of the disk is %u; it "
                                               "was %u, is to be %u", offset + i, bytes[i],
                                               byte_at(r->models[oldest]->disk, offset + i),
                                               byte_at(r->models[newest]->disk, offset + i));
        return NULL;
}

static char *judge_mixture(const struct run *r, unsigned oldest, unsigned newest, GBytes *disk)
{
        gsize bytes;
        const uint8_t *data = g_bytes_get_data(disk, &bytes);
        bool size_known = false;
        char *why = NULL;
        uint64_t at;
        unsigned i;

        for (i = oldest; i <= newest; i++)
                size_known = size_known || g_bytes_get_size(r->models[i]->disk) == bytes;
        if (!size_known)
                return g_strdup_printf("the disk has %zu bytes", bytes);
        for (at = 0; at < bytes && !why; at += 512)
                why = judge_sector(r, oldest, newest, at, data + at, MIN(512, bytes - at));
        return why;
}

char *run_judge_disk(const struct run *r, struct allowed a, GBytes *disk)
{
        if (a.mixes_with)
                return judge_mixture_with(r, &a, disk);
        if (!a.goes)
                return judge_mixture(r, a.oldest, a.newest, disk);
        if (g_bytes_equal(r->models[a.newest]->disk, disk))
                return NULL;
        return judge_mixture(r, a.oldest, a.newest - 1, disk);
}
