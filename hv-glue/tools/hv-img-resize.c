/*
 * hv-img-resize.c - hv-img resize.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hv-img.h"

enum { SECTOR_BYTES = 512 };

static struct {
        gboolean quiet;
        char *format;
        gboolean shrink;
        char *preallocation;
} args;

static const GOptionEntry entries[] = {
        { "quiet", 'q', 0, G_OPTION_ARG_NONE, &args.quiet, "quiet operation", NULL },
        { "format", 'f', 0, G_OPTION_ARG_FILENAME, &args.format,
          "specify FILENAME format explicitly", "FMT" },
        { "shrink", 0, 0, G_OPTION_ARG_NONE, &args.shrink,
          "allow operation when new size is smaller than original", NULL },
        { "preallocation", 0, 0, G_OPTION_ARG_FILENAME, &args.preallocation,
          "specify preallocation type for the new areas (off, metadata, falloc, full)",
          "PREALLOC" },
        { 0 },
};

/* A size with the sign that stood before it: '+', '-' or none. */
struct change {
        char sign;
        uint64_t bytes;
};

static int parse_change(const char *text, struct change *ret_change)
{
        bool is_signed = text[0] == '+' || text[0] == '-';

        ret_change->sign = is_signed ? text[0] : '\0';
        if (size_parse(text + is_signed, &ret_change->bytes) == 0)
                return 0;
        img_error("Parameter 'size' expects a non-negative number below 2^64\n"
                  "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                  "and exabytes, respectively.");
        return 1;
}

/* 0, or 1 having complained. */
static int judge_size(const struct drive *drive, const struct change *change,
                      enum hvb_preallocation preallocation, uint64_t *ret_bytes)
{
        uint64_t old_bytes = drive_bytes(drive);
        uint64_t new_bytes = change->bytes;
        bool is_raw = strcmp(drive_format(drive), "raw") == 0;

        if (change->sign == '+' && !g_uint64_checked_add(&new_bytes, old_bytes, change->bytes))
                new_bytes = UINT64_MAX;
        else if (change->sign == '-')
                new_bytes = old_bytes > change->bytes ? old_bytes - change->bytes : 0;
        if (new_bytes == 0) {
                img_error("New image size must be positive");
                return 1;
        }
        if (new_bytes > INT64_MAX) {
                img_error("New image size is too large");
                return 1;
        }
        if (new_bytes <= old_bytes && preallocation != HVB_PREALLOC_OFF) {
                img_error("Preallocation can only be used for growing images");
                return 1;
        }
        if (new_bytes < old_bytes && !args.shrink) {
                img_error("Use the --shrink option to perform a shrink operation.");
                img_error("warning: Shrinking an image will delete all data beyond the shrunken "
                          "image's end. Before performing such an operation, make sure there is "
                          "no important data there.");
                return 1;
        }
        if (new_bytes % SECTOR_BYTES != 0 && !is_raw) {
                img_error("The new size must be a multiple of %u", (unsigned) SECTOR_BYTES);
                return 1;
        }
        *ret_bytes = new_bytes;
        return 0;
}

static int resize(const char *path, const struct change *change,
                  enum hvb_preallocation preallocation)
{
        const struct img_open how = { .format = args.format, .flags = HVB_OPEN_RDWR };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;
        uint64_t new_bytes;
        int status;

        img_will_write(path);
        if (img_contain() != 0 || img_open(path, &how, &drive) < 0 || img_seal() != 0)
                return 1;
        status = judge_size(drive, change, preallocation, &new_bytes);
        if (status == 0) {
                int ret = drive_truncate(drive, new_bytes, preallocation, &err);

                if (ret < 0) {
                        img_error("%s", error_text(&err, ret));
                        status = 1;
                }
        }
        if (img_close(drive) < 0)
                status = 1;
        if (status == 0 && !args.quiet)
                printf("Image resized.\n");
        return status;
}

int img_resize(const struct img_command *command, int argc, char **argv)
{
        enum hvb_preallocation preallocation = HVB_PREALLOC_OFF;
        struct change change;
        static char **names;
        const char *size;

        /* The size is the last word: "-1G" must not be taken for options. */
        if (argc >= 3)
                size = argv[--argc];
        else
                size = NULL;
        if (size == NULL || strcmp(size, "--help") == 0 || strcmp(size, "-h") == 0)
                argc += size != NULL;
        if (img_parse(command, entries, argc, argv, &names) != 0)
                return 1;
        if (size == NULL || g_strv_length(names) != 1)
                return img_usage_error(command, "Expecting image file name and size");
        if (args.preallocation != NULL
            && !img_parse_preallocation(args.preallocation, &preallocation)) {
                img_error("Invalid preallocation mode '%s'", args.preallocation);
                return 1;
        }
        if (parse_change(size, &change) != 0)
                return 1;
        return resize(names[0], &change, preallocation);
}
