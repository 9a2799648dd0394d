/*
 * hv-img-convert.c - hv-img convert: the command line, sources and target.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "host/loader.h"
#include "hv-img-copy.h"
#include "hv-img.h"

enum {
        PARALLEL_DEFAULT = 8,
        SPARSE_DEFAULT = 4096,
        SPARSE_MAX = 16 << 20,
        SECTOR_BYTES = 512,
        CLEAR_BYTES = 1 << 30,
};

static struct {
        gboolean quiet;
        gboolean progress;
        char *source_format;
        char *source_cache;
        char *snapshot;
        char *target_format;
        char **options;
        gboolean compress;
        char *target_cache;
        char *backing;
        char *backing_format;
        gboolean no_create;
        gboolean target_is_zero;
        char *sparse;
        char *parallel;
        gboolean out_of_order;
        gboolean force_share;
} args;

static const GOptionEntry entries[] = {
        { "quiet", 'q', 0, G_OPTION_ARG_NONE, &args.quiet, "quiet operations", NULL },
        { "progress", 'p', 0, G_OPTION_ARG_NONE, &args.progress, "show operation progress",
          NULL },
        { "source-format", 'f', 0, G_OPTION_ARG_FILENAME, &args.source_format,
          "specify SRC_FILENAME source image format explicitly", "SRC_FMT" },
        { "source-snapshot", 'l', 0, G_OPTION_ARG_FILENAME, &args.snapshot,
          "convert this snapshot of the source", "SNAPSHOT" },
        { "source-cache", 'T', 0, G_OPTION_ARG_FILENAME, &args.source_cache,
          "source image(s) cache mode (writeback)", "CACHE_MODE" },
        { "target-format", 'O', 0, G_OPTION_ARG_FILENAME, &args.target_format,
          "specify TGT_FILENAME image format (default is raw)", "TGT_FMT" },
        { "target-options", 'o', 0, G_OPTION_ARG_FILENAME_ARRAY, &args.options,
          "TGT_FMT-specific options ('-o help' for list)", "TGT_OPTS" },
        { "compress", 'c', 0, G_OPTION_ARG_NONE, &args.compress,
          "create compressed output image (qcow2 format only)", NULL },
        { "target-cache", 't', 0, G_OPTION_ARG_FILENAME, &args.target_cache,
          "cache mode when opening output image (unsafe)", "CACHE_MODE" },
        { "backing", 'B', 0, G_OPTION_ARG_FILENAME, &args.backing,
          "create output to be a CoW on top of BACKING_FILENAME", "BACKING_FILENAME" },
        { "backing-format", 'F', 0, G_OPTION_ARG_FILENAME, &args.backing_format,
          "specify BACKING_FILENAME image format explicitly", "BACKING_FMT" },
        { "no-create", 'n', 0, G_OPTION_ARG_NONE, &args.no_create,
          "omit target volume creation: TGT_FILENAME exists", NULL },
        { "target-is-zero", 0, 0, G_OPTION_ARG_NONE, &args.target_is_zero,
          "with -n: the target reads as zeros", NULL },
        { "sparse-size", 'S', 0, G_OPTION_ARG_FILENAME, &args.sparse,
          "zeros at least so long are not written (4k); 0: all are", "SPARSE_SIZE" },
        { "force-share", 'U', 0, G_OPTION_ARG_NONE, &args.force_share,
          "open source images in shared mode for concurrent access", NULL },
        { "parallel", 'm', 0, G_OPTION_ARG_FILENAME, &args.parallel,
          "requests in flight, 1 to 16 (8)", "NUM" },
        { "oob-writes", 'W', 0, G_OPTION_ARG_NONE, &args.out_of_order,
          "write out of order: may be faster, may fragment", NULL },
        { 0 },
};

/* All of one run. */
struct conversion {
        GPtrArray *sources;             /* of struct drive */
        const char *target_path;
        struct img_new image;           /* the target to be */
        struct drive_cache source_cache;
        struct drive_cache target_cache;
        struct copy copy;
};

/* ---- The command line ------------------------------------------------------------------- */

/* 0, or 1 having complained. */
static int parse_numbers(struct conversion *c)
{
        uint64_t sparse_bytes = SPARSE_DEFAULT;
        guint64 parallel = PARALLEL_DEFAULT;

        if (args.sparse != NULL && size_parse(args.sparse, &sparse_bytes) < 0) {
                img_error("Invalid buffer size for sparse output specified: '%s'.", args.sparse);
                return 1;
        }
        if (sparse_bytes % SECTOR_BYTES != 0 || sparse_bytes > SPARSE_MAX) {
                img_error("Invalid buffer size for sparse output specified. Valid sizes are "
                          "multiples of %u up to %u. Select 0 to disable sparse detection (fully "
                          "allocates output).", (unsigned) SECTOR_BYTES, (unsigned) SPARSE_MAX);
                return 1;
        }
        if (args.parallel != NULL
            && !g_ascii_string_to_unsigned(args.parallel, 10, 0, UINT_MAX, &parallel, NULL)) {
                img_error("Invalid number of coroutines specified: '%s'.", args.parallel);
                return 1;
        }
        if (parallel < 1 || parallel > COPY_PARALLEL_MAX) {
                img_error("Invalid number of coroutines specified. Must be between 1 and %u.",
                          (unsigned) COPY_PARALLEL_MAX);
                return 1;
        }
        c->copy.sparse_bytes = sparse_bytes;
        c->copy.parallel = parallel;
        return 0;
}

static int parse_caches(struct conversion *c)
{
        c->target_cache.no_flush = true;
        if (args.target_cache != NULL
            && !drive_cache_parse(args.target_cache, &c->target_cache)) {
                img_error("Invalid cache option: %s", args.target_cache);
                return 1;
        }
        if (args.source_cache != NULL
            && !drive_cache_parse(args.source_cache, &c->source_cache)) {
                img_error("Invalid source cache option: %s", args.source_cache);
                return 1;
        }
        return 0;
}

static int parse_image(struct conversion *c)
{
        struct hvb_error err = ERROR_INIT;

        for (char **option = args.options; option != NULL && *option != NULL; option++) {
                if (img_new_parse(&c->image, *option, &err) < 0) {
                        img_error("%s", err.text);
                        return 1;
                }
        }
        if (args.backing != NULL) {
                g_free(c->image.backing_name);
                c->image.backing_name = g_strdup(args.backing);
        }
        if (args.backing_format != NULL) {
                g_free(c->image.backing_format);
                c->image.backing_format = g_strdup(args.backing_format);
        }
        return 0;
}

/* What cannot go together, told before anything is opened.  NULL: all is well. */
static const char *find_conflict(const struct conversion *c, guint source_count)
{
        bool is_raw = strcmp(c->image.format, "raw") == 0;
        bool is_preallocated = c->image.preallocation != NULL
                && strcmp(c->image.preallocation, "off") != 0;

        if (args.no_create && args.options != NULL)
                return "-o has no effect when skipping image creation";
        if (args.target_is_zero && !args.no_create)
                return "--target-is-zero requires use of -n flag";
        if (args.target_is_zero && args.backing != NULL)
                return "Cannot use --target-is-zero when the destination image has a backing file";
        if (args.snapshot != NULL && source_count > 1)
                return "No support for concatenating multiple snapshot";
        if (c->image.backing_name != NULL && source_count > 1)
                return "Having a backing file for the target makes no sense when concatenating "
                       "multiple input images";
        if (args.compress && is_raw)
                return "Compression not supported for this file format";
        if (args.compress && is_preallocated)
                return "Compression and preallocation not supported at the same time";
        if (c->image.backing_name != NULL && c->image.backing_format == NULL)
                return "Use of backing file requires explicit backing format";
        return NULL;
}

/* ---- Sources ------------------------------------------------------------------------------- */

static void close_source(gpointer drive)
{
        drive_close(drive, NULL);
}

/* "snapshot.id=ID,snapshot.name=NAME" in either order, each once. */
static int parse_snapshot(const char *text, char **ret_id, char **ret_name)
{
        g_auto(GStrv) items = g_strsplit(text, ",", -1);

        for (char **item = items; *item != NULL; item++) {
                g_autofree char *key = g_strndup(*item, strcspn(*item, "="));
                bool is_id = strcmp(key, "snapshot.id") == 0;

                if ((!is_id && strcmp(key, "snapshot.name") != 0) || strchr(*item, '=') == NULL) {
                        img_error("Invalid parameter '%s'", key);
                        img_error("Failed in parsing snapshot param '%s'", text);
                        return -EINVAL;
                }
                g_free(is_id ? *ret_id : *ret_name);
                *(is_id ? ret_id : ret_name) = g_strdup(strchr(*item, '=') + 1);
        }
        return 0;
}

/* Shows the snapshot that -l means instead of the active disk.  0 or -errno. */
static int load_snapshot(struct drive *drive)
{
        g_autofree struct hvb_snapshot_info *infos = NULL;
        g_autofree char *id = NULL;
        g_autofree char *name = NULL;
        struct hvb_error err = ERROR_INIT;
        int ret = drive_snapshot_list(drive, &infos);

        if (ret >= 0 && g_str_has_prefix(args.snapshot, "snapshot.")
            && strchr(args.snapshot, '=') != NULL) {
                ret = parse_snapshot(args.snapshot, &id, &name);
                if (ret < 0)
                        return ret;
        } else if (ret >= 0) {
                const struct hvb_snapshot_info *found =
                        img_find_snapshot(infos, ret, args.snapshot, true);

                if (found == NULL)
                        ret = -ENOENT;
                id = found == NULL ? NULL : g_strdup(found->id_str);
        }
        if (ret >= 0)
                ret = drive_snapshot_load_tmp(drive, id, name, &err);
        if (ret == -ENOENT)
                error_set(&err, ret, "Can't find snapshot");
        if (ret < 0)
                img_error("Failed to load snapshot: %s", error_text(&err, ret));
        return ret;
}

static int open_sources(struct conversion *c, char **names, guint count)
{
        const struct img_open how = {
                .format = args.source_format,
                .flags = args.force_share ? HVB_OPEN_FORCE_SHARE : 0,
                .cache = c->source_cache,
        };

        for (guint i = 0; i < count; i++) {
                struct drive *drive;
                int ret = img_open(names[i], &how, &drive);

                if (ret < 0)
                        return ret;
                g_ptr_array_add(c->sources, drive);
                if (args.snapshot != NULL)
                        ret = load_snapshot(drive);
                if (ret < 0)
                        return ret;
                c->image.size_bytes += drive_bytes(drive);
        }
        c->copy.sources = (struct drive *const *) c->sources->pdata;
        c->copy.source_count = count;
        return 0;
}

/* ---- The target ------------------------------------------------------------------------------ */

/* How long the disk below the target is: what lies beyond its end is zero. */
static int measure_backing(struct conversion *c)
{
        g_autofree char *path = policy_join(c->target_path, c->image.backing_name);
        const struct img_open how = {
                .format = c->image.backing_format,
                .flags = HVB_OPEN_FORCE_SHARE | HVB_OPEN_NO_BACKING,
        };
        struct drive *drive;
        int ret = img_open(path == NULL ? c->image.backing_name : path, &how, &drive);

        if (ret < 0)
                return ret;
        c->copy.target_has_backing = true;
        c->copy.target_backing_bytes = drive_bytes(drive);
        return img_close(drive);
}

static bool is_block_device(const char *path)
{
        struct stat st;

        return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

/* Makes what is to be written read as zeros if that costs no writing of data.  What a longer
 * target has behind it stays. */
static int clear_target(struct conversion *c)
{
        uint64_t total = 0;
        int ret = 0;

        for (unsigned i = 0; i < c->copy.source_count; i++)
                total += drive_bytes(c->copy.sources[i]);
        total = MIN(total, drive_bytes(c->copy.target));
        for (uint64_t offset = 0; offset < total && ret == 0; offset += CLEAR_BYTES)
                ret = drive_pwrite_zeroes(c->copy.target, offset,
                                          MIN(total - offset, (uint64_t) CLEAR_BYTES),
                                          HVB_REQ_MAY_UNMAP | HVB_REQ_NO_FALLBACK);
        c->copy.target_is_zero = ret == 0;
        if (ret == 0 || ret == -ENOTSUP)
                return 0;
        img_error("error while writing zeros: %s", g_strerror(-ret));
        return ret;
}

/* Makes the file; it is then opened like any other, with what stands below it. */
static int create_target(struct conversion *c)
{
        const struct drive_options options = {
                .format = c->image.format,
                .cache = c->target_cache,
                .policy = img_policy(),
                .watch = img_watch(),
        };
        const struct img_open how = {
                .format = c->image.format,
                .flags = HVB_OPEN_RDWR,
                .cache = c->target_cache,
        };
        struct hvb_error err = ERROR_INIT;
        struct hvb_create_args create_args;
        struct drive *drive;
        int ret = img_new_args(&c->image, &create_args, &err);

        if (ret == 0)
                ret = drive_create(c->target_path, &create_args, &options, &drive, &err);
        if (ret == 0)
                ret = drive_close(drive, &err);
        if (ret < 0) {
                g_autofree char *hint = error_lock_hint(c->target_path, &err);

                img_error("%s: error while converting %s: %s%s", c->target_path, c->image.format,
                          error_text(&err, ret), hint);
                return ret;
        }
        c->copy.target_is_zero = !c->copy.target_has_backing;
        ret = img_open(c->target_path, &how, &c->copy.target);
        /* What a device held is there still. */
        if (ret == 0 && strcmp(c->image.format, "raw") == 0 && is_block_device(c->target_path)) {
                c->copy.target_is_zero = false;
                ret = c->copy.sparse_bytes > 0 ? clear_target(c) : 0;
        }
        return ret;
}

static int open_target(struct conversion *c)
{
        const struct img_open how = {
                .format = c->image.format,
                .flags = HVB_OPEN_RDWR,
                .cache = c->target_cache,
        };
        int ret = img_open(c->target_path, &how, &c->copy.target);

        if (ret < 0)
                return ret;
        if (drive_bytes(c->copy.target) < c->image.size_bytes) {
                img_error("output file is smaller than input file");
                return -EINVAL;
        }
        if (args.target_is_zero)
                c->copy.target_is_zero = true;
        else if (!c->copy.target_has_backing && c->copy.sparse_bytes > 0)
                ret = clear_target(c);
        return ret;
}

/* ---- All together ------------------------------------------------------------------------- */

/* 0, or 1 having complained. */
static int contain(const struct conversion *c, char **names, guint source_count)
{
        g_autofree char *backing = c->image.backing_name == NULL ? NULL
                : policy_join(c->target_path, c->image.backing_name);

        for (guint i = 0; i < source_count; i++)
                img_will_read(names[i]);
        img_will_write(c->target_path);
        if (backing != NULL)
                img_will_read(backing);
        return img_contain();
}

/* Opens all that takes part.  0 or -errno, having complained. */
static int open_all(struct conversion *c, char **names, guint source_count)
{
        int ret = open_sources(c, names, source_count);

        if (ret == 0 && c->image.backing_name != NULL && strcmp(c->image.format, "raw") == 0) {
                img_error("Backing file not supported for file format 'raw'");
                return -ENOTSUP;
        }
        if (ret == 0 && c->image.backing_name != NULL)
                ret = measure_backing(c);
        if (ret == 0)
                ret = args.no_create ? open_target(c) : create_target(c);
        return ret;
}

static int convert(struct conversion *c, char **names, guint source_count)
{
        struct hvb_image_info info;
        int ret;

        if (contain(c, names, source_count) != 0)
                return -EPERM;
        ret = open_all(c, names, source_count);
        if (ret == 0 && img_seal() != 0)
                ret = -EPERM;
        if (ret < 0)
                return ret;
        drive_get_info(c->copy.target, &info);
        c->copy.cluster_bytes = info.cluster_bytes;
        c->copy.compress = args.compress;
        c->copy.is_out_of_order = args.out_of_order;
        progress_begin(args.progress && !args.quiet);
        ret = copy_run(&c->copy);
        if (ret == 0) {
                ret = drive_flush(c->copy.target);
                if (ret < 0)
                        img_error("error while flushing: %s", g_strerror(-ret));
        }
        progress_end();
        return ret;
}

int img_convert(const struct img_command *command, int argc, char **argv)
{
        const char *format, *conflict;
        struct conversion c = { 0 };
        const struct hvb_driver *driver;
        static char **names;
        guint count;
        int ret = 0;

        if (img_parse(command, entries, argc, argv, &names) != 0)
                return 1;
        format = args.target_format == NULL ? "raw" : args.target_format;
        if (img_options_want_help(args.options)) {
                img_print_options(format);
                return 0;
        }
        count = g_strv_length(names);
        if (count < 2) {
                img_error("Must specify image file name");
                return 1;
        }
        if (loader_load(format, &driver, NULL) < 0 && strcmp(format, "qcow2") != 0) {
                img_error("Unknown file format '%s'", format);
                return 1;
        }
        img_new_init(&c.image, format);
        c.sources = g_ptr_array_new_with_free_func(close_source);
        c.target_path = names[count - 1];
        if (parse_numbers(&c) != 0 || parse_caches(&c) != 0 || parse_image(&c) != 0)
                ret = -EINVAL;
        c.image.size_bytes = 0;         /* the sources', whatever -o said */
        conflict = find_conflict(&c, count - 1);
        if (ret == 0 && conflict != NULL) {
                img_error("%s", conflict);
                ret = -EINVAL;
        }
        if (ret == 0)
                ret = convert(&c, names, count - 1);
        if (c.copy.target != NULL && img_close(c.copy.target) < 0)
                ret = -EIO;
        g_ptr_array_free(c.sources, TRUE);
        img_new_clear(&c.image);
        return ret < 0 ? 1 : 0;
}
