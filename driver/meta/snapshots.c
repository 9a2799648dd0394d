/*
 * snapshots.c - the snapshot table: reading it, and replacing it in one switch.
 *
 * A published table is never written to.  A change writes a whole new one elsewhere:
 *
 *   1. clusters for the new table are counted, the table is written there
 *   2. all that happened until now is made stable    a crash until here leaks the new table
 *   3. the root switches: table, count and what the caller adds, in one sector
 *   4. the old table's clusters are counted down     a crash before that leaks the old table
 *
 * A switch that failed leaves two possible roots on disk: then neither table is freed.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "disk/error.h"
#include "disk/planted.h"
#include "meta/snapshots.h"

/* ---- lists ---- */

void snapshots_free_list(struct snapshot *list, uint32_t count)
{
        uint32_t i;

        if (!list)
                return;
        for (i = 0; i < count; i++)
                snapshot_clear(&list[i]);
        g_free(list);
}

void snapshots_clear(struct image *img)
{
        snapshots_free_list(img->snapshots, img->header.snapshot_count);
        img->snapshots = NULL;
        img->snapshots_bytes = 0;
}

struct snapshot *snapshots_copy(const struct image *img, int without)
{
        uint32_t count = img->header.snapshot_count;
        struct snapshot *list = g_try_new0(struct snapshot, (gsize)count + 1);
        uint32_t copied = 0;
        uint32_t i;

        if (!list)
                return NULL;
        for (i = 0; i < count; i++) {
                if ((int)i == without)
                        continue;
                if (snapshot_copy(&list[copied], &img->snapshots[i]) < 0) {
                        snapshots_free_list(list, copied);
                        return NULL;
                }
                copied++;
        }
        return list;
}

/* ---- looking up ---- */

int snapshots_find(const struct image *img, const char *id, const char *name)
{
        uint32_t i;

        if (!id && !name)
                return -ENOENT;
        for (i = 0; i < img->header.snapshot_count; i++) {
                const struct snapshot *s = &img->snapshots[i];

                if ((!id || strcmp(s->id, id) == 0) && (!name || strcmp(s->name, name) == 0))
                        return (int)i;
        }
        return -ENOENT;
}

int snapshots_require(const struct image *img, const char *id, const char *name,
                      struct hvb_error *err)
{
        int index = snapshots_find(img, id, name);

        if (index >= 0)
                return index;
        if (id && name)
                return error_set(err, index, "snapshot '%.128s' with id '%.128s' not found in "
                                 "%.256s", name, id, img->name);
        if (name)
                return error_set(err, index, "snapshot '%.256s' not found in %.256s", name,
                                 img->name);
        return error_set(err, index, "snapshot with id '%.128s' not found in %.256s",
                         id ? id : "", img->name);
}

static int judge_l1(struct image *img, int index, struct hvb_error *err)
{
        int64_t file_bytes = io_file_length(&img->file);

        if (file_bytes < 0)
                return (int)file_bytes;
        return snapshot_validate_l1(&img->snapshots[index], image_geometry(img),
                                    (uint64_t)file_bytes, err);
}

int snapshots_require_readable(struct image *img, const char *id, const char *name,
                               struct hvb_error *err)
{
        int index = snapshots_require(img, id, name, err);
        const struct snapshot *s;
        int ret;

        if (index < 0)
                return index;
        s = &img->snapshots[index];
        if (s->disk_bytes > MAX_GUEST_BYTES)
                return error_set(err, -EFBIG, "snapshot '%.255s' has a disk of %" PRIu64 " bytes, "
                                 "limit %" PRIu64, s->name, s->disk_bytes, MAX_GUEST_BYTES);
        ret = judge_l1(img, index, err);
        return ret < 0 ? ret : index;
}

int snapshots_require_countable(struct image *img, const char *id, const char *name,
                                struct hvb_error *err)
{
        int ret = image_check_writable(img);
        int index;

        if (ret < 0)
                return error_set(err, ret, "%s cannot be written: %s", img->name,
                                 g_strerror(-ret));
        index = snapshots_require(img, id, name, err);
        if (index < 0)
                return index;
        ret = judge_l1(img, index, err);
        return ret < 0 ? ret : index;
}

/* Ids are any text; QEMU's and ours are decimal.  A leading number counts, as in QEMU. */
void snapshots_next_id(const struct image *img, char *buffer)
{
        uint64_t highest = 0;
        uint32_t i;

        for (i = 0; i < img->header.snapshot_count; i++) {
                uint64_t id = g_ascii_strtoull(img->snapshots[i].id, NULL, 10);

                if (id < INT64_MAX)
                        highest = u64_max(highest, id);
        }
        do {
                snprintf(buffer, SNAPSHOT_ID_BYTES, "%" PRIu64, ++highest);
        } while (snapshots_find(img, buffer, NULL) >= 0);
}

/* ---- reading ---- */

enum { FIRST_READ_BYTES = 64 << 10 };

static int read_begin(struct snapshots_read *s, struct image *img, struct hvb_error *err)
{
        const struct header *h = &img->header;
        int64_t file_bytes = io_file_length(&img->file);

        if (file_bytes < 0)
                return (int)file_bytes;
        s->limit = 0;
        if (h->snapshots_offset < (uint64_t)file_bytes)
                s->limit = u64_min((uint64_t)file_bytes - h->snapshots_offset,
                                   MAX_SNAPSHOT_TABLE_BYTES);
        if (h->snapshot_count > MAX_SNAPSHOTS)
                return error_set(err, -EFBIG, "%s: %u snapshots, limit %u", img->name,
                                 h->snapshot_count, MAX_SNAPSHOTS);
        if (h->snapshots_offset & (h->geometry.cluster_bytes - 1))
                return error_set(err, -EINVAL, "%s: Snapshot table offset invalid: 0x%" PRIx64
                                 " is not cluster-aligned", img->name, h->snapshots_offset);
        if ((uint64_t)h->snapshot_count * SNAPSHOT_FIXED_BYTES > s->limit)
                return error_set(err, -EINVAL, "%s: Snapshot table offset invalid: %u entries at "
                                 "0x%" PRIx64 " do not fit into the file of %" PRId64 " bytes",
                                 img->name, h->snapshot_count, h->snapshots_offset, file_bytes);
        img->snapshots = g_try_new0(struct snapshot, (gsize)h->snapshot_count + 1);
        s->buffer_bytes = FIRST_READ_BYTES;
        return img->snapshots ? 0 : -ENOMEM;
}

static int next_buffer(struct snapshots_read *s, struct image *img)
{
        free(s->buffer);
        s->buffer_bytes = round_up(u64_min(s->buffer_bytes, s->limit), img->root_bytes);
        s->buffer = io_buffer_try_new(s->buffer_bytes);
        return s->buffer ? 0 : -ENOMEM;
}

/* All entries from the buffer; -EAGAIN if it ends within one. */
static int decode_all(struct snapshots_read *s, struct image *img, struct hvb_error *err)
{
        uint64_t available = u64_min(s->buffer_bytes, s->limit);
        uint64_t at = 0;
        uint32_t i;

        for (i = 0; i < img->header.snapshot_count; i++) {
                size_t used = 0;
                int ret = -EAGAIN;

                if (at < available)
                        ret = snapshot_decode(&img->snapshots[i], s->buffer + at, available - at,
                                              img->header.version, image_size(img), i, &used,
                                              err);
                if (ret < 0) {
                        while (i > 0)
                                snapshot_clear(&img->snapshots[--i]);
                        return ret;
                }
                at += used;
        }
        img->snapshots_bytes = at;
        return 0;
}

static int table_too_long(struct snapshots_read *s, struct image *img, struct hvb_error *err)
{
        if (s->limit == MAX_SNAPSHOT_TABLE_BYTES)
                return error_set(err, -EFBIG, "%s: the snapshot table is larger than %u bytes",
                                 img->name, MAX_SNAPSHOT_TABLE_BYTES);
        return error_set(err, -EINVAL, "%s: the snapshot table at 0x%" PRIx64 " with %u entries "
                         "reaches beyond the end of the file", img->name,
                         img->header.snapshots_offset, img->header.snapshot_count);
}

/* The table's length is not recorded: read more until it fits. */
int snapshots_read(struct snapshots_read *s, struct image *img, struct hvb_error *err)
{
        CO_BEGIN(s);
        if (img->header.snapshot_count == 0)
                goto out;
        CO_TRY(s, failed, read_begin(s, img, err));
        for (;;) {
                CO_TRY(s, failed, next_buffer(s, img));
                CO_TRY(s, failed, io_read(&s->io, &img->file, img->header.snapshots_offset,
                                          s->buffer, s->buffer_bytes, false));
                CO_AWAIT(s, decode_all(s, img, err));
                if (s->co.ret != -EAGAIN)
                        break;
                if (s->buffer_bytes >= s->limit)
                        CO_FAIL(s, failed, table_too_long(s, img, err));
                s->buffer_bytes *= 2;
        }
        if (s->co.ret < 0)
                CO_FAIL(s, failed, s->co.ret);
        goto out;
failed:
        error_set(err, s->co.err, "%s: could not read the snapshot table at 0x%" PRIx64 ": %s",
                  img->name, img->header.snapshots_offset, g_strerror(-s->co.err));
        g_free(img->snapshots);
        img->snapshots = NULL;
        img->snapshots_bytes = 0;
out:
        free(s->buffer);
        s->buffer = NULL;
        CO_END(s);
}

/* ---- publishing ---- */

static uint64_t encoded_bytes(const struct snapshot *list, uint32_t count)
{
        uint64_t bytes = 0;
        uint32_t i;

        for (i = 0; i < count; i++)
                bytes += snapshot_encoded_bytes(&list[i]);
        return bytes;
}

/* Lays the table out in memory, padded to whole clusters.  No entries: no table. */
static int lay_out(struct snapshots_publish *s, const struct image *img,
                   const struct snapshot *list, uint32_t count)
{
        uint64_t cluster_bytes = image_geometry(img)->cluster_bytes;
        uint64_t at = 0;
        uint32_t i;

        s->new_offset = 0;
        s->new_bytes = encoded_bytes(list, count);
        s->old_offset = img->header.snapshots_offset;
        s->old_bytes = img->snapshots_bytes;
        if (s->new_bytes > MAX_SNAPSHOT_TABLE_BYTES)
                return -EFBIG;
        if (s->new_bytes == 0)
                return 0;
        s->buffer = io_buffer_try_new(round_up(s->new_bytes, cluster_bytes));
        if (!s->buffer)
                return -ENOMEM;
        for (i = 0; i < count; i++) {
                snapshot_encode(&list[i], s->buffer + at);
                at += snapshot_encoded_bytes(&list[i]);
        }
        memset(s->buffer + at, 0, round_up(at, cluster_bytes) - at);
        return 0;
}

static void fill_change(struct snapshots_publish *s, uint32_t count,
                        const struct root_change *with)
{
        s->change = *with;
        s->change.what |= ROOT_SNAPSHOTS;
        s->change.snapshots_offset = s->new_offset;
        s->change.snapshot_count = count;
}

/* The root has switched, and header.snapshot_count with it. */
static void install(struct snapshots_publish *s, struct image *img, struct snapshot *list)
{
        uint32_t i;

        snapshots_free_list(img->snapshots, s->old_count);
        for (i = 0; i < img->header.snapshot_count; i++)
                list[i].extra_bytes = (uint32_t)u64_max(list[i].extra_bytes, SNAPSHOT_EXTRA_BYTES);
        img->snapshots = list;
        img->snapshots_bytes = s->new_bytes;
}

int snapshots_publish(struct snapshots_publish *s, struct image *img, struct snapshot *list,
                      uint32_t count, const struct root_change *with)
{
        const struct geometry *g = image_geometry(img);

        CO_BEGIN(s);
        CO_TRY(s, out, lay_out(s, img, list, count));
        if (s->new_bytes > 0) {
                CO_TRY(s, out, clusters_alloc(&s->alloc, img, div_up(s->new_bytes,
                                                                     g->cluster_bytes), 1,
                                              &s->new_offset));
                CO_TRY(s, free_new, io_write(&s->io, &img->file, s->new_offset, s->buffer,
                                             round_up(s->new_bytes, g->cluster_bytes)));
                img->data_written = true;
        }
        if (!PLANTED(ROOT_FIRST))
                CO_TRY(s, free_new, meta_commit_counts(&s->commit, img));

        fill_change(s, count, with);
        s->old_count = img->header.snapshot_count;
        CO_TRY(s, free_new, root_switch(&s->root, img, &s->change));
        install(s, img, list);
        if (s->old_bytes > 0)
                CO_UNDO(s, clusters_free(&s->free, img, s->old_offset, s->old_bytes, 1));
        goto out;

free_new:
        if (s->new_offset != 0 && img->state != IMAGE_POISONED)
                CO_UNDO(s, clusters_free(&s->free, img, s->new_offset, s->new_bytes, 1));
out:
        free(s->buffer);
        s->buffer = NULL;
        CO_END(s);
}
