/*
 * hv-img-compare.c - hv-img compare.
 *
 * Walks both disks in steps that are of one kind in each, reads only where bytes
 * can differ, both at once.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv-img.h"

enum {
        STATUS_DIFFERENT = 1,
        STATUS_OPEN_FAILED = 2,         /* or the command line is wrong */
        STATUS_MAP_FAILED = 3,
        STATUS_READ_FAILED = 4,
        STEP_BYTES = 2 << 20,
        BUFFER_ALIGNMENT = 4096,
};

static struct {
        gboolean quiet;
        gboolean progress;
        char *format[2];
        gboolean strict;
        char *cache;
        gboolean force_share;
} args;

static const GOptionEntry entries[] = {
        { "quiet", 'q', 0, G_OPTION_ARG_NONE, &args.quiet, "quiet operation", NULL },
        { "progress", 'p', 0, G_OPTION_ARG_NONE, &args.progress, "show operation progress",
          NULL },
        { "a-format", 'f', 0, G_OPTION_ARG_FILENAME, &args.format[0],
          "specify FILENAME1 image format explicitly", "FMT" },
        { "b-format", 'F', 0, G_OPTION_ARG_FILENAME, &args.format[1],
          "specify FILENAME2 image format explicitly", "FMT" },
        { "strict", 's', 0, G_OPTION_ARG_NONE, &args.strict,
          "strict mode, also check if sizes are equal", NULL },
        { "cache", 'T', 0, G_OPTION_ARG_FILENAME, &args.cache,
          "images caching mode (writeback)", "CACHE_MODE" },
        { "force-share", 'U', 0, G_OPTION_ARG_NONE, &args.force_share,
          "open images in shared mode for concurrent access", NULL },
        { 0 },
};

struct side {
        struct drive *drive;
        struct drive_op *op;
        struct iovec iov;
        uint64_t size_bytes;
        struct hvb_block_status status; /* of the step */
};

struct comparison {
        struct side sides[2];
        uint64_t done;
        uint64_t total;
};

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
        va_list list;

        if (args.quiet)
                return;
        va_start(list, format);
        vprintf(format, list);
        va_end(list);
}

static int mismatch(uint64_t offset)
{
        say("Content mismatch at offset %" PRIu64 "!\n", offset);
        return STATUS_DIFFERENT;
}

static bool is_zero_run(const char *bytes, size_t length)
{
        return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* Index of the first byte that differs; bytes of b NULL: from zero. */
static size_t first_difference(const char *a, const char *b, size_t length)
{
        size_t i = 0;

        while (i < length && a[i] == (b == NULL ? 0 : b[i]))
                i++;
        return i;
}

static int find_status(struct side *side, uint64_t offset, uint64_t length)
{
        int ret = img_block_status(side->drive, offset, length, &side->status);

        if (ret < 0) {
                img_error("Sector allocation test failed for '%s': %s", drive_path(side->drive),
                          g_strerror(-ret));
                return STATUS_MAP_FAILED;
        }
        return 0;
}

static void start_read(struct side *side, uint64_t offset, uint64_t length)
{
        side->iov.iov_len = length;
        drive_op_preadv(side->op, offset, &side->iov, 1, 0);
}

static int finish_read(struct side *side, uint64_t offset)
{
        int ret = drive_op_wait(side->op);

        if (ret < 0) {
                img_error("Error while reading offset %" PRIu64 " of %s: %s", offset,
                          drive_path(side->drive), g_strerror(-ret));
                return STATUS_READ_FAILED;
        }
        return 0;
}

/* Is [offset, offset + length) of side nothing but zeros? */
static int check_zeros(struct side *side, uint64_t offset, uint64_t length)
{
        const char *bytes = side->iov.iov_base;
        int status;

        if (side->status.flags & HVB_STATUS_ZERO)
                return 0;
        start_read(side, offset, length);
        status = finish_read(side, offset);
        if (status != 0 || is_zero_run(bytes, length))
                return status;
        return mismatch(offset + first_difference(bytes, NULL, length));
}

static int compare_data(struct side *a, struct side *b, uint64_t offset, uint64_t length)
{
        const char *a_bytes = a->iov.iov_base, *b_bytes = b->iov.iov_base;
        int status, other;

        start_read(a, offset, length);
        start_read(b, offset, length);
        status = finish_read(a, offset);
        other = finish_read(b, offset);
        if (status != 0 || other != 0)
                return status != 0 ? status : other;
        if (memcmp(a_bytes, b_bytes, length) == 0)
                return 0;
        return mismatch(offset + first_difference(a_bytes, b_bytes, length));
}

/* Compares some bytes at offset, at most up to end; *ret_length says how many. */
static int compare_step(struct comparison *c, uint64_t offset, uint64_t end,
                        uint64_t *ret_length)
{
        const uint32_t kind = HVB_STATUS_DATA | HVB_STATUS_ZERO | HVB_STATUS_ALLOCATED;
        struct side *a = &c->sides[0], *b = &c->sides[1];
        uint64_t length = end - offset;
        int status = find_status(a, offset, length);

        if (status == 0)
                status = find_status(b, offset, length);
        if (status != 0)
                return status;
        if (args.strict && (a->status.flags & kind) != (b->status.flags & kind)) {
                say("Strict mode: Offset %" PRIu64 " block status mismatch!\n", offset);
                return STATUS_DIFFERENT;
        }
        length = MIN(a->status.length_bytes, b->status.length_bytes);
        if (!(a->status.flags & b->status.flags & HVB_STATUS_ZERO))
                length = MIN(length, (uint64_t) STEP_BYTES);
        *ret_length = length;
        if (a->status.flags & HVB_STATUS_ZERO)
                return check_zeros(b, offset, length);
        if (b->status.flags & HVB_STATUS_ZERO)
                return check_zeros(a, offset, length);
        return compare_data(a, b, offset, length);
}

/* What one disk has beyond the other's end must be zeros. */
static int compare_rest(struct comparison *c, struct side *longer, uint64_t offset)
{
        say("Warning: Image size mismatch!\n");
        while (offset < longer->size_bytes) {
                int status = find_status(longer, offset, longer->size_bytes - offset);
                uint64_t length = longer->status.length_bytes;

                if (!(longer->status.flags & HVB_STATUS_ZERO))
                        length = MIN(length, (uint64_t) STEP_BYTES);
                if (status == 0)
                        status = check_zeros(longer, offset, length);
                if (status != 0)
                        return status;
                offset += length;
                progress_update(offset, c->total);
        }
        return 0;
}

static int compare_disks(struct comparison *c)
{
        struct side *a = &c->sides[0], *b = &c->sides[1];
        uint64_t common = MIN(a->size_bytes, b->size_bytes);
        uint64_t length;

        c->total = MAX(a->size_bytes, b->size_bytes);
        if (args.strict && a->size_bytes != b->size_bytes) {
                say("Strict mode: Image size mismatch!\n");
                return STATUS_DIFFERENT;
        }
        for (uint64_t offset = 0; offset < common; offset += length) {
                int status = compare_step(c, offset, common, &length);

                if (status != 0)
                        return status;
                progress_update(offset + length, c->total);
        }
        if (a->size_bytes == b->size_bytes)
                return 0;
        return compare_rest(c, a->size_bytes > b->size_bytes ? a : b, common);
}

static int side_open(struct side *side, const char *path, const struct img_open *how)
{
        if (img_open(path, how, &side->drive) < 0)
                return STATUS_OPEN_FAILED;
        side->op = drive_op_new(side->drive);
        side->size_bytes = drive_bytes(side->drive);
        if (posix_memalign(&side->iov.iov_base, BUFFER_ALIGNMENT, STEP_BYTES) != 0) {
                side->iov.iov_base = NULL;
                img_error("No memory for a buffer of %u bytes", (unsigned) STEP_BYTES);
                return STATUS_OPEN_FAILED;
        }
        return 0;
}

static void side_close(struct side *side)
{
        drive_op_free(side->op);
        free(side->iov.iov_base);
        drive_close(side->drive, NULL);
}

int img_compare(const struct img_command *command, int argc, char **argv)
{
        struct img_open how = { 0 };
        struct comparison c = { 0 };
        static char **names;
        int status = 0;

        if (img_parse(command, entries, argc, argv, &names) != 0)
                return STATUS_OPEN_FAILED;
        if (g_strv_length(names) != 2) {
                img_usage_error(command, "Expecting two image file names");
                return STATUS_OPEN_FAILED;
        }
        if (args.cache != NULL && !drive_cache_parse(args.cache, &how.cache)) {
                img_error("Invalid source cache option: %s", args.cache);
                return STATUS_OPEN_FAILED;
        }
        how.flags = args.force_share ? HVB_OPEN_FORCE_SHARE : 0;
        img_will_read(names[0]);
        img_will_read(names[1]);
        if (img_contain() != 0)
                return STATUS_OPEN_FAILED;
        for (unsigned i = 0; i < 2 && status == 0; i++) {
                how.format = args.format[i];
                status = side_open(&c.sides[i], names[i], &how);
        }
        if (status == 0 && img_seal() != 0)
                status = STATUS_OPEN_FAILED;
        progress_begin(status == 0 && args.progress && !args.quiet);
        if (status == 0)
                status = compare_disks(&c);
        if (status == 0)
                say("Images are identical.\n");
        progress_end();
        side_close(&c.sides[0]);
        side_close(&c.sides[1]);
        return status;
}
