/*
 * options.c - the "key=value" strings of hvb_open_args, QEMU's names where it has one.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "disk/error.h"
#include "ops/open.h"

const char *const open_option_texts[] = {
        "l2-cache-size=bytes for L2 tables, k/M/G allowed (enough for the disk, at most 256M)",
        "refcount-cache-size=bytes for refcount blocks (enough for the file, at most 64M)",
        "backing-depth=how many backing files may lie below an image (200)",
        "walk-share=percent of the thread's time that snapshot operations take while the guest has "
                "requests in flight, 1 to 100 (8)",
        "lazy-refcounts=on or off: write refcounts late, version 3 only (as the image says)",
        "discard=unmap makes holes in the file where data was discarded, ignore does not (ignore)",
        "engine=auto, io_uring or threads (auto)",
        "restrict=on or off: have the kernel hold the ring to what the driver does with it (on)",
        NULL,
};

static bool parse_size(const char *text, uint64_t *ret)
{
        char *end;
        uint64_t v;
        unsigned shift = 0;

        if (!g_ascii_isdigit(*text))
                return false;
        v = g_ascii_strtoull(text, &end, 10);
        if (*end == 'k' || *end == 'K')
                shift = 10;
        else if (*end == 'M')
                shift = 20;
        else if (*end == 'G')
                shift = 30;
        if (shift)
                end++;
        if (*end != '\0' || v > (UINT64_MAX >> 1 >> shift))
                return false;
        *ret = v << shift;
        return true;
}

static bool parse_one(struct open_options *o, const char *key, const char *value)
{
        uint64_t number;

        if (strcmp(key, "l2-cache-size") == 0)
                return parse_size(value, &o->l2_cache_bytes);
        if (strcmp(key, "refcount-cache-size") == 0)
                return parse_size(value, &o->refcount_cache_bytes);
        if (strcmp(key, "backing-depth") == 0) {
                if (!parse_size(value, &number) || number > 10000)
                        return false;
                o->backing_depth = (unsigned)number;
                return true;
        }
        if (strcmp(key, "walk-share") == 0) {
                if (!parse_size(value, &number) || number < 1 || number > 100)
                        return false;
                o->walk_share = (unsigned)number;
                return true;
        }
        if (strcmp(key, "lazy-refcounts") == 0) {
                o->lazy_refcounts = strcmp(value, "on") == 0;
                return o->lazy_refcounts || strcmp(value, "off") == 0;
        }
        if (strcmp(key, "discard") == 0) {
                o->discard_unmap = strcmp(value, "unmap") == 0;
                return o->discard_unmap || strcmp(value, "ignore") == 0;
        }
        if (strcmp(key, "restrict") == 0) {
                o->restricted = strcmp(value, "on") == 0;
                return o->restricted || strcmp(value, "off") == 0;
        }
        if (strcmp(key, "engine") == 0 &&
            (strcmp(value, "auto") == 0 || strcmp(value, "io_uring") == 0 ||
             strcmp(value, "threads") == 0))
                return g_strlcpy(o->engine, value, sizeof(o->engine)) < sizeof(o->engine);
        return false;
}

int open_options_parse(struct open_options *ret, const char *const *options,
                       struct hvb_error *err)
{
        *ret = (struct open_options) {
                .backing_depth = 200,
                .walk_share = 8,
                .lazy_refcounts = -1,
                .engine = "auto",
                .restricted = true,
        };
        for (; options && *options; options++) {
                g_auto(GStrv) pair = g_strsplit(*options, "=", 2);

                if (!pair[0] || !pair[1] || !parse_one(ret, pair[0], pair[1]))
                        return error_set(err, -EINVAL, "Option '%s' is unknown, or its value is "
                                         "not allowed", *options);
        }
        return 0;
}
