/*
 * image.c - telling the host, poisoning, L1 tables in memory.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "disk/error.h"
#include "disk/planted.h"
#include "meta/image.h"

enum { TEXT_BYTES = 1024 };

void image_log(struct image *img, enum hvb_log_level level, const char *format, ...)
{
        char text[TEXT_BYTES];
        va_list args;

        if (!img->host || !img->host->log)
                return;
        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        img->host->log(img->host->opaque, level, text);
}

static void send_event(struct image *img, enum hvb_event_type type, int code, const char *text)
{
        struct hvb_event event = {
                .struct_bytes = sizeof(event),
                .type = type,
                .code = code,
                .text = text,
        };

        if (img->host && img->host->event)
                img->host->event(img->host->opaque, &event);
}

void image_event(struct image *img, enum hvb_event_type type, int code, const char *format, ...)
{
        char text[TEXT_BYTES];
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        send_event(img, type, code, text);
}

int64_t image_now_usec(const struct image *img)
{
        return img->loop->inline_work ? 0 : g_get_monotonic_time();
}

void image_assert(const struct image *img)
{
        g_assert(img->loop != NULL);
        g_assert(img->is_raw || img->state == IMAGE_OPENING || img->root_sector != NULL);
        g_assert(img->active.count == 0 || img->active.entries != NULL);
        g_assert(!img->writable || !img->is_raw);
}

int image_fsync(struct image_fsync *s, struct image *img)
{
        CO_BEGIN(s);
        CO_TRY(s, out, co_lock_acquire(&img->fsync_lock, &s->waiter));
        if (img->state == IMAGE_POISONED)
                CO_FAIL(s, unlock, -EIO);
        CO_TRY(s, unlock, io_fsync(&s->io, &img->file));
unlock:
        co_lock_release(&img->fsync_lock);
out:
        CO_END(s);
}

void image_poison(struct image *img, int code, const char *what)
{
        img->poison_count++;
        if (img->state == IMAGE_POISONED || PLANTED(NO_POISON))
                return;
        img->state = IMAGE_POISONED;
        image_event(img, HVB_EVENT_POISONED, code,
                    "%s: %s failed (%s): what is on disk is not known, "
                    "writes are refused until the image is reopened",
                    img->name, what, g_strerror(-code));
}

int image_corrupt(struct image *img, const char *format, ...)
{
        char text[TEXT_BYTES];
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        if (img->last_corruption && strcmp(img->last_corruption, text) == 0)
                return -EIO;
        g_free(img->last_corruption);
        img->last_corruption = g_strdup(text);
        send_event(img, HVB_EVENT_CORRUPTION, -EIO, text);
        return -EIO;
}

int image_check_writable(const struct image *img)
{
        switch (img->state) {
        case IMAGE_LIVE:
                return img->writable ? 0 : -EROFS;
        case IMAGE_INACTIVE:
                return -EINPROGRESS;
        default:
                return -EIO;
        }
}

int image_check_change(const struct image *img, const struct l1_table *l1, uint64_t offset,
                       uint64_t length_bytes)
{
        int ret = image_check_writable(img);

        if (ret == 0 && l1 == &img->active &&
            (offset > image_size(img) || length_bytes > image_size(img) - offset))
                return -EIO;
        return ret;
}

/* ---- metadata that the header knows ---- */

enum { PLACES = 4 };

struct place {
        uint64_t first;                 /* host offsets */
        uint64_t bytes;
};

static const char *const place_names[PLACES] = {
        "header", "active L1 table", "refcount table", "snapshot table",
};

static void find_places(const struct image *img, struct place places[PLACES])
{
        const struct header *h = &img->header;

        places[0] = (struct place){ 0, h->geometry.cluster_bytes };
        places[1] = (struct place){ img->active.offset, (uint64_t)img->active.count * 8 };
        places[2] = (struct place){ h->reftable_offset,
                                    h->reftable_clusters * h->geometry.cluster_bytes };
        places[3] = (struct place){ h->snapshots_offset, img->snapshots_bytes };
}

static bool meets(const struct place *a, const struct place *b)
{
        return a->bytes > 0 && b->bytes > 0 && a->first < b->first + b->bytes &&
               b->first < a->first + a->bytes;
}

uint64_t image_metadata_end(const struct image *img)
{
        struct place places[PLACES];
        uint64_t end = 0;
        unsigned i;

        find_places(img, places);
        for (i = 0; i < PLACES; i++)
                if (places[i].bytes > 0)
                        end = u64_max(end, places[i].first + places[i].bytes);
        return end;
}

bool image_is_metadata(const struct image *img, uint64_t host_offset, uint64_t byte_count)
{
        const struct place asked = { host_offset, byte_count };
        struct place places[PLACES];
        unsigned i;

        find_places(img, places);
        for (i = 0; i < PLACES; i++)
                if (meets(&places[i], &asked))
                        return true;
        return false;
}

/* In whole clusters, as they are counted and written. */
int image_judge_metadata(const struct image *img, struct hvb_error *err)
{
        uint64_t cluster_bytes = image_geometry(img)->cluster_bytes;
        struct place places[PLACES];
        unsigned i;
        unsigned k;

        find_places(img, places);
        for (i = 0; i < PLACES; i++)
                places[i].bytes = round_up(places[i].bytes, cluster_bytes);
        for (i = 0; i < PLACES; i++)
                for (k = i + 1; k < PLACES; k++)
                        if (meets(&places[i], &places[k]))
                                return error_set(err, -EIO, "%s at 0x%" PRIx64 " and %s at 0x%"
                                                 PRIx64 " of '%s' overlap: it can only be read",
                                                 place_names[i], places[i].first, place_names[k],
                                                 places[k].first, img->name);
        return 0;
}

/* ---- L1 tables ---- */

enum { SECTOR_ENTRIES = ROOT_SECTOR_BYTES / 8, L1_PART_BYTES = 64 << 10 };

static uint64_t *bitmap_try_new(uint64_t bits)
{
        return g_try_new0(uint64_t, bits / 64 + 1);
}

int l1_init(struct l1_table *l1, uint32_t count, uint64_t offset)
{
        *l1 = (struct l1_table) { .count = count, .offset = offset };
        l1->entries = count ? g_try_new0(uint64_t, count) : NULL;
        l1->dirty_sectors = offset ? bitmap_try_new(count / SECTOR_ENTRIES + 1) : NULL;
        if ((count && !l1->entries) || (offset && !l1->dirty_sectors)) {
                l1_clear(l1);
                return -ENOMEM;
        }
        return 0;
}

void l1_clear(struct l1_table *l1)
{
        g_free(l1->entries);
        g_free(l1->dirty_sectors);
        *l1 = (struct l1_table) { .count = 0 };
}

int l1_grow(struct l1_table *l1, uint32_t count)
{
        uint64_t *grown;

        g_assert(l1->offset == 0);
        if (count <= l1->count)
                return 0;
        grown = g_try_renew(uint64_t, l1->entries, count);
        if (!grown)
                return -ENOMEM;
        memset(grown + l1->count, 0, (count - l1->count) * sizeof(*grown));
        l1->entries = grown;
        l1->count = count;
        return 0;
}

void sectors_mark(uint64_t *dirty_sectors, uint64_t entry_index)
{
        uint64_t sector = entry_index / SECTOR_ENTRIES;

        dirty_sectors[sector / 64] |= UINT64_C(1) << (sector % 64);
}

void l1_set(struct l1_table *l1, uint32_t index, uint64_t entry)
{
        g_assert(index < l1->count);
        l1->entries[index] = entry;
        if (l1->dirty_sectors) {
                sectors_mark(l1->dirty_sectors, index);
                l1->any_dirty = true;
        }
}

int l1_read(struct l1_io *s, struct image *img, uint64_t offset, uint32_t count,
            struct l1_table *ret_l1)
{
        uint64_t bytes = round_up((uint64_t)count * 8, img->root_bytes);
        uint32_t i;

        CO_BEGIN(s);
        CO_TRY(s, out, l1_init(ret_l1, count, offset));
        if (count == 0)
                goto out;
        s->buffer = io_buffer_try_new(bytes);
        if (!s->buffer)
                CO_FAIL(s, clear, -ENOMEM);
        CO_TRY(s, clear, io_read(&s->io, &img->file, offset, s->buffer, bytes, false));
        if (s->io.eof_bytes > bytes - (uint64_t)count * 8)
                CO_FAIL(s, clear, -EIO);
        for (i = 0; i < count; i++)
                ret_l1->entries[i] = be64_load(s->buffer + i * 8);
        goto free_buffer;
clear:
        l1_clear(ret_l1);
free_buffer:
        free(s->buffer);
        s->buffer = NULL;
out:
        CO_END(s);
}

/* Of the table as it will be on disk, [s->at, s->at + s->length), and zeros behind it. */
static void encode_part(struct l1_io *s, const struct l1_table *l1, uint64_t mask)
{
        uint64_t first = s->at / 8;
        uint64_t count = u64_min(s->length / 8, l1->count - u64_min(first, l1->count));
        uint64_t i;

        for (i = 0; i < count; i++)
                be64_store(s->buffer + i * 8, l1->entries[first + i] & mask);
        memset(s->buffer + count * 8, 0, s->length - count * 8);
}

int l1_write(struct l1_io *s, struct image *img, const struct l1_table *l1, uint64_t offset,
             uint64_t mask)
{
        uint64_t cluster_bytes = image_geometry(img)->cluster_bytes;
        uint64_t bytes = round_up(u64_max((uint64_t)l1->count * 8, 1), cluster_bytes);
        uint64_t part_bytes = u64_min(bytes, u64_max(cluster_bytes, L1_PART_BYTES));

        CO_BEGIN(s);
        s->buffer = buffers_get(&img->copies, part_bytes);
        if (!s->buffer)
                CO_FAIL(s, out, -ENOMEM);
        for (s->at = 0; s->at < bytes; s->at += s->length) {
                s->length = u64_min(part_bytes, bytes - s->at);
                encode_part(s, l1, mask);
                CO_TRY(s, free_buffer, io_write(&s->io, &img->file, offset + s->at, s->buffer,
                                                s->length));
        }
free_buffer:
        buffers_put(&img->copies, s->buffer);
        s->buffer = NULL;
out:
        CO_END(s);
}
