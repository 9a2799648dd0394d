/*
 * disorder.c - one run: its form, and the order of its steps.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disorder.h"

#include <errno.h>
#include <string.h>

enum { SESSIONS = 2, POLLS_MAX = 1000000 };

/* ---- chance, steps, differences ---- */

uint64_t disorder_below(struct disorder *d, uint64_t limit)
{
        return sim_random_below(&d->random, limit);
}

bool disorder_chance(struct disorder *d, unsigned percent)
{
        return disorder_below(d, 100) < percent;
}

uint64_t disorder_oldest(const struct disorder *d)
{
        const struct act *oldest = g_queue_peek_head((GQueue *)&d->acts);

        return oldest ? oldest->started : d->now;
}

void disorder_step(struct disorder *d, const char *format, ...)
{
        gsize before = d->steps->len;
        va_list args;

        g_string_append_printf(d->steps, "%" PRIu64 ": ", d->now);
        va_start(args, format);
        g_string_append_vprintf(d->steps, format, args);
        va_end(args);
        g_string_append_c(d->steps, '\n');
        if (d->log)
                fputs(d->steps->str + before, d->log);
}

void disorder_fail(struct disorder *d, const char *format, ...)
{
        va_list args;

        if (d->difference)
                return;
        va_start(args, format);
        d->difference = g_strdup_vprintf(format, args);
        va_end(args);
        disorder_step(d, "DIFFERENCE: %s", d->difference);
}

/* ---- the form ---- */

static struct sim_options draw_disk(struct disorder *d)
{
        return (struct sim_options){
                .seed = d->seed,
                .outstanding_max = 1 + (unsigned)disorder_below(d, 64),
                .delay_max = (unsigned)disorder_below(d, 12),
                .reorder = disorder_chance(d, 90),
                .short_percent = disorder_chance(d, 50) ? (unsigned)disorder_below(d, 30) : 0,
                .short_bytes = UNIT_BYTES,
                .retry_percent = disorder_chance(d, 50) ? (unsigned)disorder_below(d, 20) : 0,
        };
}

static void draw_sizes(struct disorder *d)
{
        static const unsigned cluster_bits[] = { 9, 12, 16 };
        static const uint64_t cluster_counts[] = { 200, 64, 7 };
        unsigned i = (unsigned)disorder_below(d, G_N_ELEMENTS(cluster_bits));
        struct form *f = &d->form;

        f->cluster_bits = cluster_bits[i];
        f->units_max = (cluster_counts[i] << cluster_bits[i]) / UNIT_BYTES;
        f->unit_count = f->units_max / 8 * (3 + disorder_below(d, 5));
        f->unit_count = round_up(f->unit_count, 4);
        if (disorder_chance(d, 30))
                f->backing_units = 4 * (1 + disorder_below(d, f->units_max / 4));
}

static void draw_form(struct disorder *d)
{
        static const unsigned refcount_bits[] = { 16, 16, 16, 8, 32, 64 };
        static const unsigned depths[] = { 1, 2, 4, 8, 16, 32, 64 };
        struct form *f = &d->form;

        draw_sizes(d);
        f->version = disorder_chance(d, 75) ? 3 : 2;
        f->refcount_bits = f->version < 3
                ? 16 : refcount_bits[disorder_below(d, G_N_ELEMENTS(refcount_bits))];
        f->lazy = f->version >= 3 && disorder_chance(d, 30);
#ifdef HAVE_ZSTD
        f->zstd = f->version >= 3 && disorder_chance(d, 25);
#endif
        f->alignment = disorder_chance(d, 25) ? 512 : 1;
        f->depth = depths[disorder_below(d, G_N_ELEMENTS(depths))];
        f->step_count = 30 + (unsigned)disorder_below(d, 70);
        f->control_percent = disorder_chance(d, 80) ? 1 + (unsigned)disorder_below(d, 20) : 0;
        f->cancel_percent = disorder_chance(d, 50) ? 1 + (unsigned)disorder_below(d, 15) : 0;
        f->disk = draw_disk(d);
}

static void describe_form(struct disorder *d)
{
        const struct form *f = &d->form;

        disorder_step(d, "cluster %u, version %u, refcount bits %u%s%s, disk alignment %u, "
                      "backing %#" PRIx64 " bytes, %#" PRIx64 " bytes, %u in flight, %u steps",
                      1u << f->cluster_bits, f->version, f->refcount_bits,
                      f->lazy ? ", lazy" : "", f->zstd ? ", zstd" : "", f->alignment,
                      f->backing_units * UNIT_BYTES, f->unit_count * UNIT_BYTES, f->depth,
                      f->step_count);
}

/* ---- the world ---- */

static void fill_backing(struct disorder *d)
{
        uint8_t bytes[UNIT_BYTES];
        uint64_t i;

        simdisk_file_new(d->disk);
        for (i = 0; i < d->form.backing_units; i++) {
                const struct change change = {
                        .value = VALUE_BACKING, .started = 1, .happened = 2,
                        .overwritten = MOMENT_NEVER,
                };

                unit_fill(bytes, i, VALUE_BACKING);
                sim_image_write(&d->disk->files[1].image, i * UNIT_BYTES, bytes, UNIT_BYTES);
                if (i >= d->unit_count)
                        continue;
                d->area->units[i].count = 0;
                area_begin(d->area, i, &change, 0);
        }
        simdisk_forget(d->disk);
}

static int create(struct disorder *d)
{
        const struct form *f = &d->form;
        const struct hvb_create_args args = {
                .struct_bytes = sizeof(args),
                .size_bytes = f->unit_count * UNIT_BYTES,
                .cluster_bytes = UINT64_C(1) << f->cluster_bits,
                .refcount_bits = f->refcount_bits,
                .version = f->version,
                .lazy_refcounts = f->lazy,
                .compression = f->zstd ? HVB_COMPRESSION_ZSTD : HVB_COMPRESSION_ZLIB,
                .backing_name = f->backing_units > 0 ? "below" : NULL,
                .backing_format = f->backing_units > 0 ? "raw" : NULL,
                .preallocation = f->backing_units == 0 && disorder_chance(d, 20)
                        ? HVB_PREALLOC_METADATA : HVB_PREALLOC_OFF,
        };

        return subject_create(&d->subject, d->disk, &args);
}

static void world_begin(struct disorder *d)
{
        struct form *f = &d->form;

        draw_form(d);
        d->steps = g_string_new(NULL);
        describe_form(d);
        d->disk = simdisk_new(&f->disk);
        simdisk_file_new(d->disk);
        d->disk->files[0].alignment = f->alignment;
        d->disk->files[0].no_zero = disorder_chance(d, 50);
        d->disk->files[0].no_punch = disorder_chance(d, 30);
        d->area = area_new(f->units_max);
        d->unit_count = f->unit_count;
        d->shots = g_ptr_array_new_with_free_func(shot_free);
        d->now = 10;
        d->next_id = VALUE_BACKING + 1;
        if (disorder_chance(d, 30))
                d->subject.l2_cache_bytes = 4096 + disorder_below(d, 16384);
        d->subject.discard_unmap = disorder_chance(d, 30);
        if (f->backing_units > 0)
                fill_backing(d);
        if (create(d) < 0)
                disorder_fail(d, "create: %s", d->subject.err.text);
}

static void world_end(struct disorder *d)
{
        d->results_hash ^= d->disk->trace_hash;
        g_ptr_array_free(d->shots, TRUE);
        area_free(d->area);
        simdisk_free(d->disk);
}

/* ---- steps ---- */

static bool poll_once(struct disorder *d, int timeout_ms)
{
        int ret = d->subject.driver->poll(d->subject.queue, timeout_ms);

        if (ret >= 0)
                return true;
        g_error("seed %" PRIu64 ": %s, with %u requests in flight\n%s", d->seed,
                g_strerror(-ret), d->acts.length, d->steps->str);
}

static void settle(struct disorder *d)
{
        unsigned polls = 0;

        while (d->acts.length > 0 && poll_once(d, -1))
                g_assert(++polls < POLLS_MAX);
}

static void cancel_one(struct disorder *d)
{
        struct act *a;

        if (d->acts.length == 0)
                return;
        a = g_queue_peek_nth(&d->acts, (guint)disorder_below(d, d->acts.length));
        a->cancelled = true;
        disorder_step(d, "cancel %u (%s)", a->id, act_name(a));
        d->subject.driver->cancel(d->subject.queue, a->request);
}

/* Any that no operation is about to delete or replace. */
static void look_at_one(struct disorder *d)
{
        const struct shot *shot = d->shots->pdata[disorder_below(d, d->shots->len)];
        GList *l;

        for (l = d->controls.head; l; l = l->next)
                if (strcmp(((struct act *)l->data)->info.name, shot->name) == 0)
                        return;
        verify_shot(d, shot);
}

static void step(struct disorder *d)
{
        const struct form *f = &d->form;

        if (disorder_chance(d, f->control_percent))
                control_start(d);
        if (disorder_chance(d, f->control_percent))
                state_start(d);
        while (d->acts.length < f->depth && !disorder_chance(d, 15))
                data_start(d);
        if (disorder_chance(d, f->cancel_percent))
                cancel_one(d);
        if (d->acts.length > 0)
                poll_once(d, d->acts.length >= f->depth || disorder_chance(d, 50) ? -1 : 0);
        if (d->shots->len > 0 && disorder_chance(d, 1))
                look_at_one(d);
        if (disorder_chance(d, 3)) {
                settle(d);
                if (!d->difference)
                        verify_quiet(d);
        }
}

static void forget_state(struct disorder *d)
{
        memset(d->saved, 0, sizeof(d->saved));
        d->has_saved = false;
        d->has_loaded = false;
        d->loaded_is_gone = false;
}

/* Sometimes only inactivated, which must leave the file in the same state. */
static void session_end(struct disorder *d)
{
        bool stays = disorder_chance(d, 30);
        int ret = stays ? subject_inactivate(&d->subject) : subject_close(&d->subject);

        disorder_step(d, "%s: %d", stays ? "inactivated" : "closed", ret);
        if (ret < 0)
                disorder_fail(d, "%s", d->subject.err.text);
        forget_state(d);
        if (!d->difference)
                verify_closed(d);
        if (stays && subject_activate(&d->subject) < 0)
                disorder_fail(d, "%s", d->subject.err.text);
}

static void session(struct disorder *d)
{
        unsigned i;

        if (!d->subject.image && subject_open(&d->subject, d->disk, HVB_OPEN_RDWR) < 0) {
                disorder_fail(d, "%s", d->subject.err.text);
                return;
        }
        for (i = 0; i < d->form.step_count && !d->difference; i++)
                step(d);
        settle(d);
        if (!d->difference)
                verify_quiet(d);
        session_end(d);
}

struct outcome disorder_run(uint64_t seed, FILE *log)
{
        struct disorder d = { .seed = seed, .random = { seed }, .log = log };
        unsigned i;

        world_begin(&d);
        for (i = 0; i < SESSIONS && !d.difference; i++)
                session(&d);
        if (d.subject.image)
                subject_close(&d.subject);
        world_end(&d);
        return (struct outcome){
                .difference = d.difference,
                .steps = g_string_free(d.steps, FALSE),
                .hash = d.results_hash,
                .request_count = d.request_count,
        };
}
