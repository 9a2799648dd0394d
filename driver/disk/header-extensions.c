/*
 * header-extensions.c - a list of (type, length, data), each padded to 8 bytes.
 *
 * All extensions are kept, known or not, and written back.  The backing format
 * has a field of its own in struct header, and that field decides what is
 * written.  The feature name table serves people: it lets a program name the
 * feature for which it refuses an image.
 *
 * Source: format sections "Header extensions", "Feature name table".
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "disk/error.h"
#include "disk/header-extensions.h"

enum { EXTENSION_HEAD_BYTES = 8 };      /* type, length */

enum feature_kind { FEATURE_INCOMPATIBLE, FEATURE_COMPATIBLE, FEATURE_AUTOCLEAR };

struct feature_row {
        uint8_t kind;                   /* enum feature_kind */
        uint8_t bit;
        char name[46];                  /* padded with NULs, not terminated when full */
};

static_assert(sizeof(struct feature_row) == 48, "feature name row");
static_assert(offsetof(struct feature_row, name) == 2, "feature name row");

static const struct feature_row feature_names[] = {
        { FEATURE_INCOMPATIBLE, 0, "dirty bit" },
        { FEATURE_INCOMPATIBLE, 1, "corrupt bit" },
        { FEATURE_INCOMPATIBLE, 2, "external data file" },
        { FEATURE_INCOMPATIBLE, 3, "compression type" },
        { FEATURE_INCOMPATIBLE, 4, "extended L2 entries" },
        { FEATURE_COMPATIBLE, 0, "lazy refcounts" },
        { FEATURE_AUTOCLEAR, 0, "bitmaps" },
        { FEATURE_AUTOCLEAR, 1, "raw external data" },
};

/* ---- the list in memory ---- */

struct header_extension *header_extension_find(const struct header *h, uint32_t type)
{
        for (guint i = 0; h->extensions && i < h->extensions->len; i++) {
                struct header_extension *e;

                e = &g_array_index(h->extensions, struct header_extension, i);
                if (e->type == type)
                        return e;
        }
        return NULL;
}

static int append(struct header *h, uint32_t type, const void *data, uint32_t length_bytes)
{
        struct header_extension e = { .type = type, .length_bytes = length_bytes };

        if (length_bytes) {
                e.data = g_try_malloc(length_bytes);
                if (!e.data)
                        return -ENOMEM;
                memcpy(e.data, data, length_bytes);
        }
        if (!h->extensions)
                h->extensions = g_array_new(FALSE, FALSE, sizeof(e));
        g_array_append_val(h->extensions, e);
        return 0;
}

void header_extension_remove(struct header *h, uint32_t type)
{
        for (guint i = 0; h->extensions && i < h->extensions->len; ) {
                struct header_extension *e;

                e = &g_array_index(h->extensions, struct header_extension, i);
                if (e->type != type) {
                        i++;
                        continue;
                }
                g_free(e->data);
                g_array_remove_index(h->extensions, i);
        }
}

int header_extension_set(struct header *h, uint32_t type, const void *data, uint32_t length_bytes)
{
        struct header_extension *e = header_extension_find(h, type);
        uint8_t *copy;

        assert(type != EXT_END);
        if (!e)
                return append(h, type, data, length_bytes);

        copy = g_try_malloc(MAX(length_bytes, 1));
        if (!copy)
                return -ENOMEM;
        if (length_bytes)
                memcpy(copy, data, length_bytes);
        g_free(e->data);
        e->data = copy;
        e->length_bytes = length_bytes;
        return 0;
}

void extensions_clear(struct header *h)
{
        for (guint i = 0; h->extensions && i < h->extensions->len; i++)
                g_free(g_array_index(h->extensions, struct header_extension, i).data);
        if (h->extensions)
                g_array_free(h->extensions, TRUE);
        h->extensions = NULL;
}

/* ---- decoding ---- */

static int take_backing_format(struct header *h, const uint8_t *data, uint32_t length_bytes,
                               struct hvb_error *err)
{
        if (length_bytes > MAX_BACKING_FORMAT_BYTES)
                return error_set(err, -EINVAL, "Backing format name too long: %u bytes, limit %u",
                                 length_bytes, MAX_BACKING_FORMAT_BYTES);
        if (memchr(data, 0, length_bytes))
                return error_set(err, -EINVAL, "Backing format name of %u bytes contains a NUL "
                                 "byte", length_bytes);
        g_free(h->backing_format);
        h->backing_format = length_bytes ? g_strndup((const char *)data, length_bytes) : NULL;
        return 0;
}

int extensions_decode(struct header *h, const uint8_t *area, size_t area_bytes,
                      struct hvb_error *err)
{
        size_t pos = 0;

        while (area_bytes - pos >= EXTENSION_HEAD_BYTES) {
                uint32_t type = be32_load(area + pos);
                uint32_t length_bytes = be32_load(area + pos + 4);
                const uint8_t *data = area + pos + EXTENSION_HEAD_BYTES;
                size_t room = area_bytes - pos - EXTENSION_HEAD_BYTES;
                int ret;

                if (type == EXT_END)
                        break;
                if (length_bytes > room)
                        return error_set(err, -EINVAL, "Header extension too large: type 0x%08x "
                                         "has %u bytes, only %zu are left", type, length_bytes,
                                         room);
                if (type == EXT_BACKING_FORMAT) {
                        ret = take_backing_format(h, data, length_bytes, err);
                        if (ret)
                                return ret;
                }
                ret = append(h, type, data, length_bytes);
                if (ret)
                        return error_set(err, ret, "No memory for header extension 0x%08x of %u "
                                         "bytes", type, length_bytes);
                /* Only the last extension's padding may be missing. */
                pos += EXTENSION_HEAD_BYTES + u64_min(round_up(length_bytes, 8), room);
        }
        return 0;
}

/* ---- encoding ---- */

/* Is this one written as it was read? */
static bool is_kept(const struct header_extension *e, bool with_feature_names)
{
        if (e->type == EXT_BACKING_FORMAT)
                return false;
        return e->type != EXT_FEATURE_NAMES || with_feature_names;
}

/* Small clusters are not burdened with names that are not there yet; nor does QEMU. */
static bool needs_own_names(const struct header *h, bool with_feature_names)
{
        return with_feature_names && h->version >= 3 && h->geometry.cluster_bytes > 4096 &&
               !header_extension_find(h, EXT_FEATURE_NAMES);
}

static bool has_backing_format(const struct header *h)
{
        return h->backing_format && *h->backing_format;
}

static size_t padded_bytes(size_t length_bytes)
{
        return EXTENSION_HEAD_BYTES + round_up(length_bytes, 8);
}

size_t extensions_encoded_bytes(const struct header *h, bool with_feature_names)
{
        size_t sum = EXTENSION_HEAD_BYTES;

        if (has_backing_format(h))
                sum += padded_bytes(strlen(h->backing_format));
        if (needs_own_names(h, with_feature_names))
                sum += padded_bytes(sizeof(feature_names));
        for (guint i = 0; h->extensions && i < h->extensions->len; i++) {
                const struct header_extension *e;

                e = &g_array_index(h->extensions, struct header_extension, i);
                if (is_kept(e, with_feature_names))
                        sum += padded_bytes(e->length_bytes);
        }
        return sum;
}

/* Returns where the next one goes. */
static uint8_t *put(uint8_t *p, uint32_t type, const void *data, size_t length_bytes)
{
        be32_store(p, type);
        be32_store(p + 4, (uint32_t)length_bytes);
        if (length_bytes)
                memcpy(p + EXTENSION_HEAD_BYTES, data, length_bytes);
        return p + padded_bytes(length_bytes);
}

void extensions_encode(const struct header *h, bool with_feature_names, uint8_t *area)
{
        uint8_t *p = area;

        if (has_backing_format(h))
                p = put(p, EXT_BACKING_FORMAT, h->backing_format, strlen(h->backing_format));
        if (needs_own_names(h, with_feature_names))
                p = put(p, EXT_FEATURE_NAMES, feature_names, sizeof(feature_names));
        for (guint i = 0; h->extensions && i < h->extensions->len; i++) {
                const struct header_extension *e;

                e = &g_array_index(h->extensions, struct header_extension, i);
                if (is_kept(e, with_feature_names))
                        p = put(p, e->type, e->data, e->length_bytes);
        }
        p = put(p, EXT_END, NULL, 0);
        assert((size_t)(p - area) == extensions_encoded_bytes(h, with_feature_names));
}

/* ---- naming features ---- */

/* Appends the row's name if it names the bit. */
static bool append_name(GString *text, const struct feature_row *row, unsigned bit)
{
        if (row->kind != FEATURE_INCOMPATIBLE || row->bit != bit || !row->name[0])
                return false;
        if (text->len)
                g_string_append(text, ", ");
        g_string_append_len(text, row->name, (gssize)strnlen(row->name, sizeof(row->name)));
        return true;
}

static bool append_name_from_image(GString *text, const struct header_extension *table,
                                   unsigned bit)
{
        struct feature_row row;

        for (size_t pos = 0; table && table->length_bytes - pos >= sizeof(row);
             pos += sizeof(row)) {
                memcpy(&row, table->data + pos, sizeof(row));
                if (append_name(text, &row, bit))
                        return true;
        }
        return false;
}

static bool append_own_name(GString *text, unsigned bit)
{
        for (size_t i = 0; i < G_N_ELEMENTS(feature_names); i++) {
                if (append_name(text, &feature_names[i], bit))
                        return true;
        }
        return false;
}

char *extensions_name_features(const struct header *h, uint64_t mask)
{
        const struct header_extension *table = header_extension_find(h, EXT_FEATURE_NAMES);
        GString *text = g_string_new(NULL);
        uint64_t nameless = 0;

        for (unsigned bit = 0; bit < 64; bit++) {
                if (!(mask >> bit & 1))
                        continue;
                if (!append_own_name(text, bit) && !append_name_from_image(text, table, bit))
                        nameless |= UINT64_C(1) << bit;
        }
        if (nameless)
                g_string_append_printf(text, "%sUnknown incompatible feature: %" PRIx64,
                                       text->len ? ", " : "", nameless);
        return g_string_free(text, FALSE);
}
