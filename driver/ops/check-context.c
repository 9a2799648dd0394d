/*
 * check-context.c - what the parts of a check share, and how clusters are counted.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "ops/check-parts.h"

int check_context_init(struct check_context *c, struct image *img, uint32_t fix,
                       struct hvb_check_result *result)
{
        const struct geometry *g = image_geometry(img);
        int64_t length = io_file_length(&img->file);

        if (length < 0)
                return (int)length;
        *c = (struct check_context) {
                .img = img,
                .fix = fix,
                .result = result,
                .file_bytes = (uint64_t)length,
                .count_max = (uint32_t)u64_min(g->refcount_max, UINT32_MAX),
                .cluster_end = div_up((uint64_t)length, g->cluster_bytes),
                .l2s = g_array_new(FALSE, FALSE, sizeof(struct check_l2)),
                .count_slices = g_array_new(FALSE, FALSE, sizeof(struct check_count_slice)),
                .zero_slices = g_array_new(FALSE, FALSE, sizeof(uint64_t)),
                .copied_slices = g_array_new(FALSE, FALSE, sizeof(uint64_t)),
        };
        return 0;
}

void check_context_clear(struct check_context *c)
{
        if (!c->img)
                return;
        tally_clear(&c->tally);
        g_free(c->l1);
        g_array_free(c->l2s, TRUE);
        g_array_free(c->count_slices, TRUE);
        g_array_free(c->zero_slices, TRUE);
        g_array_free(c->copied_slices, TRUE);
        *c = (struct check_context) { .img = NULL };
}

void check_report(struct check_context *c, const char *format, ...)
{
        char text[512];
        va_list args;

        if (!c->result->report || c->silent)
                return;
        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        c->result->report(c->result->opaque, text);
}

void check_progress(struct check_context *c, uint64_t done_bytes)
{
        if (c->progress_done)
                *c->progress_done += done_bytes;
}

static int count_cluster(struct check_context *c, uint64_t cluster, uint32_t refs)
{
        uint32_t sum;
        int ret;

        ret = tally_add(&c->tally, cluster, refs, &sum);
        if (ret < 0 || sum <= c->count_max)
                return ret;
        check_report(c, "ERROR: overflow cluster offset=0x%" PRIx64 ": more references than "
                     "refcount_bits can count (%u); amend the width or convert the image",
                     cluster << image_geometry(c->img)->cluster_bits, c->count_max);
        c->result->corruptions += MIN(refs, sum - c->count_max);
        return 0;
}

int check_count(struct check_context *c, uint64_t host_offset, uint64_t byte_count,
                uint32_t refs)
{
        const struct geometry *g = image_geometry(c->img);
        uint64_t cluster;
        uint64_t end;
        int ret;

        if (byte_count == 0)
                return 0;
        if (!u64_add(host_offset, byte_count, &end) ||
            end > c->file_bytes + g->cluster_bytes) {
                check_report(c, "ERROR: counting reference for region exceeding the end of the "
                             "file by one cluster or more: offset 0x%" PRIx64 " size 0x%" PRIx64,
                             host_offset, byte_count);
                c->uncounted = true;
                c->result->corruptions += refs;
                return 0;
        }
        for (cluster = host_offset >> g->cluster_bits;
             cluster <= (end - 1) >> g->cluster_bits; cluster++) {
                ret = count_cluster(c, cluster, refs);
                if (ret < 0)
                        return ret;
        }
        return 0;
}
