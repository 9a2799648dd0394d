/*
 * hv-img-check.c - hv-img check.
 *
 * After a repair the image is checked once more, and that result is the one that
 * is told; what the repair fixed is told beside it.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hv-img.h"

enum { STATUS_FAILED = 1, STATUS_CORRUPT = 2, STATUS_LEAKS = 3, STATUS_UNSUPPORTED = 63 };

static struct {
        gboolean quiet;
        char *format;
        char *cache;
        gboolean force_share;
        char *output;
        char *repair;
} args;

static const GOptionEntry entries[] = {
        { "quiet", 'q', 0, G_OPTION_ARG_NONE, &args.quiet, "quiet operations", NULL },
        { "format", 'f', 0, G_OPTION_ARG_FILENAME, &args.format,
          "specifies format of the image explicitly", "FMT" },
        { "cache", 'T', 0, G_OPTION_ARG_FILENAME, &args.cache,
          "image cache mode (writeback)", "CACHE_MODE" },
        { "force-share", 'U', 0, G_OPTION_ARG_NONE, &args.force_share,
          "open image in shared mode for concurrent access", NULL },
        { "output", 0, 0, G_OPTION_ARG_FILENAME, &args.output,
          "output format (default human)", "human|json" },
        { "repair", 'r', 0, G_OPTION_ARG_FILENAME, &args.repair,
          "repair particular aspect of the image; opens it read-write", "leaks|all" },
        { 0 },
};

static void print_finding(void *opaque, const char *text)
{
        (void) opaque;
        fprintf(stderr, "%s\n", text);
}

static void print_repaired(const struct hvb_check_result *result)
{
        printf("The following inconsistencies were found and repaired:\n\n"
               "    %" PRIu64 " leaked clusters\n"
               "    %" PRIu64 " corruptions\n\n"
               "Double checking the fixed image now...\n",
               result->leaks_fixed, result->corruptions_fixed);
        fflush(stdout);
}

static void print_human(const struct hvb_check_result *result)
{
        if (result->corruptions == 0 && result->leaks == 0 && result->check_errors == 0)
                printf("No errors were found on the image.\n");
        if (result->corruptions > 0)
                printf("\n%" PRIu64 " errors were found on the image.\n"
                       "Data may be corrupted, or further writes to the image may corrupt it.\n",
                       result->corruptions);
        if (result->leaks > 0)
                printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
                       "This means waste of disk space, but no harm to data.\n", result->leaks);
        if (result->check_errors > 0)
                printf("\n%" PRIu64 " internal errors have occurred during the check.\n",
                       result->check_errors);
        if (result->total_clusters > 0 && result->allocated_clusters > 0)
                printf("%" PRIu64 "/%" PRIu64 " = %.2f%% allocated, %.2f%% fragmented, "
                       "%.2f%% compressed clusters\n",
                       result->allocated_clusters, result->total_clusters,
                       result->allocated_clusters * 100.0 / result->total_clusters,
                       result->fragmented_clusters * 100.0 / result->allocated_clusters,
                       result->compressed_clusters * 100.0 / result->allocated_clusters);
        if (result->image_end_offset > 0)
                printf("Image end offset: %" PRIu64 "\n", result->image_end_offset);
}

/* Counters that are 0 are left out, but for check-errors: as qemu-img does. */
static void print_count(struct json *json, const char *key, uint64_t count)
{
        if (count > 0)
                json_uint(json, key, count);
}

static void print_json(const struct drive *drive, const struct hvb_check_result *result)
{
        struct json json = { 0 };

        json_object_begin(&json, NULL);
        print_count(&json, "image-end-offset", result->image_end_offset);
        print_count(&json, "compressed-clusters", result->compressed_clusters);
        print_count(&json, "total-clusters", result->total_clusters);
        print_count(&json, "corruptions", result->corruptions);
        print_count(&json, "corruptions-fixed", result->corruptions_fixed);
        json_uint(&json, "check-errors", result->check_errors);
        print_count(&json, "leaks-fixed", result->leaks_fixed);
        print_count(&json, "leaks", result->leaks);
        print_count(&json, "allocated-clusters", result->allocated_clusters);
        json_string(&json, "filename", drive_path(drive));
        json_string(&json, "format", drive_format(drive));
        print_count(&json, "fragmented-clusters", result->fragmented_clusters);
        json_object_end(&json);
}

/* Checks, repairs if asked to, checks again.  0 or -errno. */
static int run_check(struct drive *drive, uint32_t flags, bool wants_json,
                     struct hvb_check_result *ret_result, struct hvb_error *err)
{
        uint64_t corruptions_fixed, leaks_fixed;
        int ret;

        *ret_result = (struct hvb_check_result) { .report = print_finding };
        ret = drive_check(drive, flags, ret_result, err);
        corruptions_fixed = ret_result->corruptions_fixed;
        leaks_fixed = ret_result->leaks_fixed;
        if (ret < 0 || (corruptions_fixed == 0 && leaks_fixed == 0))
                return ret;
        if (!args.quiet && !wants_json)
                print_repaired(ret_result);
        *ret_result = (struct hvb_check_result) { .report = print_finding };
        ret = drive_check(drive, 0, ret_result, err);
        ret_result->corruptions_fixed = corruptions_fixed;
        ret_result->leaks_fixed = leaks_fixed;
        return ret;
}

static int check_drive(struct drive *drive, uint32_t flags, bool wants_json)
{
        struct hvb_error err = ERROR_INIT;
        struct hvb_check_result result;
        int ret = run_check(drive, flags, wants_json, &result, &err);

        if (ret == -ENOTSUP) {
                img_error("This image format does not support checks");
                return STATUS_UNSUPPORTED;
        }
        if (ret == 0 && wants_json)
                print_json(drive, &result);
        else if (ret == 0 && !args.quiet)
                print_human(&result);
        if (ret < 0) {
                img_error("Check failed: %s", error_text(&err, ret));
                return STATUS_FAILED;
        }
        if (result.check_errors > 0) {
                img_error("Check failed");
                return STATUS_FAILED;
        }
        if (result.corruptions > 0)
                return STATUS_CORRUPT;
        return result.leaks > 0 ? STATUS_LEAKS : 0;
}

static int parse_repair(const struct img_command *command, uint32_t *ret_flags)
{
        *ret_flags = 0;
        if (args.repair == NULL)
                return 0;
        if (strcmp(args.repair, "leaks") != 0 && strcmp(args.repair, "all") != 0)
                return img_usage_error(command,
                                       "--repair (-r) expects 'leaks' or 'all' not '%s'",
                                       args.repair);
        *ret_flags = HVB_CHECK_FIX_LEAKS;
        if (strcmp(args.repair, "all") == 0)
                *ret_flags |= HVB_CHECK_FIX_ERRORS;
        return 0;
}

int img_check(const struct img_command *command, int argc, char **argv)
{
        struct img_open how = { .flags = HVB_OPEN_CHECK | HVB_OPEN_NO_BACKING };
        static char **names;
        struct drive *drive;
        uint32_t check_flags;
        bool wants_json;
        int status;

        if (img_parse(command, entries, argc, argv, &names) != 0
            || img_parse_output(command, args.output, &wants_json) != 0
            || parse_repair(command, &check_flags) != 0)
                return STATUS_FAILED;
        if (g_strv_length(names) != 1)
                return img_usage_error(command, "Expecting one image file name");
        if (args.cache != NULL && !drive_cache_parse(args.cache, &how.cache)) {
                img_error("Invalid source cache option: %s", args.cache);
                return STATUS_FAILED;
        }
        how.format = args.format;
        how.flags |= (check_flags != 0 ? HVB_OPEN_RDWR : 0)
                | (args.force_share ? HVB_OPEN_FORCE_SHARE : 0);
        if (check_flags != 0)
                img_will_write(names[0]);
        else
                img_will_read(names[0]);
        if (img_contain() != 0 || img_open(names[0], &how, &drive) < 0 || img_seal() != 0)
                return STATUS_FAILED;
        status = check_drive(drive, check_flags, wants_json);
        if (img_close(drive) < 0 && status == 0)
                status = STATUS_FAILED;
        return status;
}
