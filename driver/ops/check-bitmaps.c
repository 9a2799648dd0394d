/*
 * check-bitmaps.c - clusters that persistent dirty bitmaps hold.
 *
 * We do not maintain bitmaps, but as long as the header says that they are consistent
 * they are somebody's, not leaks.  The extension gives a directory, each entry of it
 * a table, each entry of that a cluster.  Source: format section "Bitmaps".
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "ops/check-parts.h"

/* Offsets in the extension and in a directory entry, bytes. */
enum {
        EXTENSION_COUNT = 0,
        EXTENSION_DIRECTORY_BYTES = 8,
        EXTENSION_DIRECTORY_OFFSET = 16,
        EXTENSION_BYTES = 24,
        ENTRY_TABLE_OFFSET = 0,
        ENTRY_TABLE_SIZE = 8,
        ENTRY_NAME_BYTES = 18,
        ENTRY_EXTRA_BYTES = 20,
        ENTRY_FIXED_BYTES = 24,
};

#define MAX_BITMAPS             65535u
#define MAX_DIRECTORY_BYTES     (UINT64_C(1024) * MAX_BITMAPS)
#define TABLE_RESERVED_MASK     UINT64_C(0xff000000000001fe)

static int corrupt(struct check_context *c, const char *what, uint64_t host_offset)
{
        check_report(c, "ERROR: %s of the bitmaps at 0x%" PRIx64 " is invalid", what, host_offset);
        c->result->corruptions++;
        return 0;
}

/* Inside the file, and so no larger than it. */
static bool is_inside(const struct check_context *c, uint64_t host_offset, uint64_t byte_count)
{
        uint64_t end;

        return host_offset % image_geometry(c->img)->cluster_bytes == 0 && host_offset != 0 &&
               u64_add(host_offset, byte_count, &end) && end <= c->file_bytes;
}

static bool take_extension(struct check_bitmaps *s, struct check_context *c)
{
        const struct header_extension *e = header_extension_find(&c->img->header, EXT_BITMAPS);

        if (!e || !(c->img->header.autoclear & AUTOCLEAR_BITMAPS))
                return false;
        if (e->length_bytes < EXTENSION_BYTES) {
                corrupt(c, "header extension", 0);
                return false;
        }
        s->bitmap_count = be32_load(e->data + EXTENSION_COUNT);
        s->directory_bytes = be64_load(e->data + EXTENSION_DIRECTORY_BYTES);
        s->directory_offset = be64_load(e->data + EXTENSION_DIRECTORY_OFFSET);
        if (s->bitmap_count == 0)
                return false;
        if (s->bitmap_count <= MAX_BITMAPS && s->directory_bytes <= MAX_DIRECTORY_BYTES &&
            is_inside(c, s->directory_offset, s->directory_bytes))
                return true;
        corrupt(c, "directory", s->directory_offset);
        return false;
}

/* The entry at s->at; moves behind it.  False: it is cut off. */
static bool take_entry(struct check_bitmaps *s)
{
        const uint8_t *entry = s->directory + s->at;
        uint64_t left = s->directory_bytes - s->at;
        uint64_t bytes;

        if (left < ENTRY_FIXED_BYTES)
                return false;
        bytes = round_up(ENTRY_FIXED_BYTES + (uint64_t)be32_load(entry + ENTRY_EXTRA_BYTES) +
                         be16_load(entry + ENTRY_NAME_BYTES), 8);
        if (bytes > left)
                return false;
        s->table_offset = be64_load(entry + ENTRY_TABLE_OFFSET);
        s->table_entries = be32_load(entry + ENTRY_TABLE_SIZE);
        s->at += bytes;
        return true;
}

static int count_table(struct check_bitmaps *s, struct check_context *c)
{
        uint64_t cluster_bytes = image_geometry(c->img)->cluster_bytes;
        uint64_t i;
        int ret = 0;

        for (i = 0; i < s->table_entries && ret == 0; i++) {
                uint64_t entry = be64_load(s->table + i * 8);
                uint64_t offset = entry_host_offset(entry);

                if ((entry & TABLE_RESERVED_MASK) || offset % cluster_bytes != 0)
                        ret = corrupt(c, "table entry", s->table_offset + i * 8);
                else if (offset != 0)
                        ret = check_count(c, offset, cluster_bytes, 1);
        }
        return ret;
}

/* Tables that overlap could be made to cost more than the file is long. */
static bool may_walk_table(struct check_bitmaps *s, struct check_context *c)
{
        uint64_t bytes = s->table_entries * 8;

        if (bytes == 0)
                return false;
        s->bytes_walked += bytes;
        if (is_inside(c, s->table_offset, bytes) && s->bytes_walked <= c->file_bytes)
                return true;
        corrupt(c, "table", s->table_offset);
        return false;
}

static int walk_table(struct check_bitmaps *s, struct check_context *c)
{
        uint64_t bytes = round_up(s->table_entries * 8, c->img->root_bytes);

        CO_BEGIN(&s->walk);
        if (!may_walk_table(s, c))
                goto out;
        CO_TRY(&s->walk, out, check_count(c, s->table_offset, s->table_entries * 8, 1));
        s->table = io_buffer_try_new(bytes);
        if (!s->table)
                CO_FAIL(&s->walk, out, -ENOMEM);
        CO_AWAIT(&s->walk, io_read(&s->io, &c->img->file, s->table_offset, s->table, bytes,
                                   false));
        if (s->walk.co.ret < 0)
                c->result->check_errors++;
        else
                CO_TRY(&s->walk, out, count_table(s, c));
out:
        free(s->table);
        s->table = NULL;
        CO_END(&s->walk);
}

int check_bitmaps(struct check_bitmaps *s, struct check_context *c)
{
        CO_BEGIN(s);
        if (!take_extension(s, c))
                goto out;
        s->at = 0;
        s->bytes_walked = 0;
        CO_TRY(s, out, check_count(c, s->directory_offset, s->directory_bytes, 1));
        s->directory = io_buffer_try_new(round_up(s->directory_bytes, c->img->root_bytes));
        if (!s->directory)
                CO_FAIL(s, out, -ENOMEM);
        CO_AWAIT(s, io_read(&s->io, &c->img->file, s->directory_offset, s->directory,
                            round_up(s->directory_bytes, c->img->root_bytes), false));
        if (s->co.ret < 0) {
                c->result->check_errors++;
                goto out;
        }
        for (s->bitmap_index = 0; s->bitmap_index < s->bitmap_count; s->bitmap_index++) {
                if (!take_entry(s)) {
                        corrupt(c, "directory entry", s->directory_offset + s->at);
                        break;
                }
                CO_TRY(s, out, walk_table(s, c));
        }
out:
        free(s->directory);
        s->directory = NULL;
        CO_END(s);
}
