/*
 * hv-img-create.c - hv-img create.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "host/loader.h"
#include "hv-img.h"

static struct {
        gboolean quiet;
        char *format;
        char **options;
        char *backing;
        char *backing_format;
        gboolean unsafe;
} args;

static const GOptionEntry entries[] = {
        { "quiet", 'q', 0, G_OPTION_ARG_NONE, &args.quiet, "quiet operations", NULL },
        { "format", 'f', 0, G_OPTION_ARG_FILENAME, &args.format,
          "specifies format of the new image, default is raw", "FMT" },
        { "options", 'o', 0, G_OPTION_ARG_FILENAME_ARRAY, &args.options,
          "format-specific options ('-o help' for list)", "FMT_OPTS" },
        { "backing", 'b', 0, G_OPTION_ARG_FILENAME, &args.backing,
          "stack new image on top of BACKING_FILENAME", "BACKING_FILENAME" },
        { "backing-format", 'F', 0, G_OPTION_ARG_FILENAME, &args.backing_format,
          "specify format of BACKING_FILENAME", "BACKING_FMT" },
        { "backing-unsafe", 'u', 0, G_OPTION_ARG_NONE, &args.unsafe,
          "do not fail if BACKING_FILENAME can not be read", NULL },
        { 0 },
};

/* The size argument.  0, or 1 having complained. */
static int parse_size(const char *text, uint64_t *ret_bytes)
{
        int ret = text[0] == '-' ? -ERANGE : size_parse(text, ret_bytes);

        if (ret == 0 && *ret_bytes > INT64_MAX)
                ret = -ERANGE;
        if (ret == -ERANGE)
                img_error("Invalid image size specified. Must be between 0 and %" G_GINT64_FORMAT
                          ".", G_MAXINT64);
        else if (ret < 0)
                img_error("Invalid image size specified: '%s'.", text);
        return ret < 0 ? 1 : 0;
}

/* What the command line says about the image, put together. */
static int gather(struct img_new *image, const char *size, struct hvb_error *err)
{
        for (char **option = args.options; option != NULL && *option != NULL; option++) {
                int ret = img_new_parse(image, *option, err);

                if (ret < 0)
                        return ret;
        }
        if (args.backing != NULL) {
                g_free(image->backing_name);
                image->backing_name = g_strdup(args.backing);
        }
        if (args.backing_format != NULL) {
                g_free(image->backing_format);
                image->backing_format = g_strdup(args.backing_format);
        }
        if (size == NULL)
                return 0;
        if (image->size_bytes != UINT64_MAX)
                return error_set(err, -EINVAL, "The image size must be specified only once");
        return size_parse(size, &image->size_bytes);
}

/* Opens the backing file to see that it can be used, and to take its size. */
static int inspect_backing(struct img_new *image, const char *path, struct hvb_error *err)
{
        g_autofree char *backing = policy_join(path, image->backing_name);
        const struct drive_options options = {
                .format = image->backing_format,
                .flags = HVB_OPEN_FORCE_SHARE,
                .policy = img_policy(),
                .watch = img_watch(),
        };
        const struct hvb_driver *driver;
        struct drive *drive;
        int ret = 0;

        if (image->backing_format != NULL
            && loader_load(image->backing_format, &driver, err) < 0)
                ret = error_set(err, -EINVAL, "Unknown driver '%s'", image->backing_format);
        if (ret == 0)
                ret = drive_open(backing == NULL ? image->backing_name : backing, &options, &drive,
                                 err);
        if (ret < 0) {
                g_strlcat(err->text, "\nCould not open backing image.", sizeof(err->text));
                return ret;
        }
        if (image->backing_format == NULL)
                ret = error_set(err, -EINVAL, "Backing file specified without backing format\n"
                                "Detected format of %s.", drive_format(drive));
        else if (image->size_bytes == UINT64_MAX)
                image->size_bytes = drive_bytes(drive);
        drive_close(drive, NULL);
        return ret;
}

static int check_backing(struct img_new *image, const char *path, struct hvb_error *err)
{
        if (image->backing_name == NULL)
                return 0;
        if (strcmp(path, image->backing_name) == 0)
                return error_set(err, -EINVAL, "Error: Trying to create an image with the same "
                                 "filename as the backing file");
        if (!args.unsafe)
                return inspect_backing(image, path, err);
        if (image->backing_format == NULL)
                return error_set(err, -EINVAL, "Backing file specified without backing format");
        return 0;
}

static int make_image(struct img_new *image, const char *path, struct hvb_error *err)
{
        const struct drive_options options = {
                .format = image->format,
                .cache = { .no_flush = true },
                .policy = img_policy(),
                .watch = img_watch(),
        };
        struct hvb_create_args create_args;
        struct drive *drive;
        int ret = check_backing(image, path, err);

        if (ret == 0 && image->size_bytes == UINT64_MAX)
                ret = error_set(err, -EINVAL, "Image creation needs a size parameter");
        if (ret < 0)
                return ret;
        if (!args.quiet)
                img_new_print(image, path);
        ret = img_new_args(image, &create_args, err);
        if (ret == 0)
                ret = drive_create(path, &create_args, &options, &drive, err);
        return ret < 0 ? ret : drive_close(drive, err);
}

/* 0, or 1 having complained. */
static int contain(const char *path, const struct img_new *image)
{
        g_autofree char *backing = image->backing_name == NULL ? NULL
                : policy_join(path, image->backing_name);

        img_will_write(path);
        if (backing != NULL)
                img_will_read(backing);
        return img_contain();
}

static int create(const char *path, const char *size)
{
        const char *format = args.format == NULL ? "raw" : args.format;
        struct hvb_error err = ERROR_INIT;
        const struct hvb_driver *driver;
        struct img_new image;
        int ret;

        img_new_init(&image, format);
        ret = loader_load(format, &driver, &err);
        if (ret < 0 && strcmp(format, "qcow2") != 0)
                error_set(&err, ret, "Unknown file format '%s'", format);
        if (ret == 0)
                ret = gather(&image, size, &err);
        if (ret == 0 && contain(path, &image) != 0) {
                img_new_clear(&image);
                return 1;
        }
        if (ret == 0)
                ret = make_image(&image, path, &err);
        if (ret < 0) {
                g_autofree char *hint = error_lock_hint(path, &err);

                img_error("%s: %s%s", path, error_text(&err, ret), hint);
        }
        img_new_clear(&image);
        return ret < 0 ? 1 : 0;
}

int img_create(const struct img_command *command, int argc, char **argv)
{
        static char **names;
        uint64_t size;
        guint count;

        if (img_parse(command, entries, argc, argv, &names) != 0)
                return 1;
        if (img_options_want_help(args.options)) {
                img_print_options(args.format == NULL ? "raw" : args.format);
                return 0;
        }
        count = g_strv_length(names);
        if (count == 0)
                return img_usage_error(command, "Expecting image file name");
        if (count > 2)
                return img_usage_error(command, "Unexpected argument: %s", names[2]);
        if (count == 2 && parse_size(names[1], &size) != 0)
                return 1;
        return create(names[0], names[1]);
}
