/*
 * hv-img-map.c - hv-img map.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hv-img.h"

static struct {
        char *format;
        char *output;
        char *start;
        char *length;
        gboolean force_share;
} args;

static const GOptionEntry entries[] = {
        { "format", 'f', 0, G_OPTION_ARG_FILENAME, &args.format,
          "specify FILENAME image format explicitly", "FMT" },
        { "output", 0, 0, G_OPTION_ARG_FILENAME, &args.output,
          "specify output format (default human)", "human|json" },
        { "start-offset", 's', 0, G_OPTION_ARG_FILENAME, &args.start,
          "begin at this offset of the disk", "OFFSET" },
        { "max-length", 'l', 0, G_OPTION_ARG_FILENAME, &args.length,
          "show at most so many bytes", "LENGTH" },
        { "force-share", 'U', 0, G_OPTION_ARG_NONE, &args.force_share,
          "open image in shared mode for concurrent access", NULL },
        { 0 },
};

/* A run of the disk all of one kind. */
struct extent {
        uint64_t start;
        uint64_t length;
        struct hvb_block_status status; /* host_offset is that of start */
};

static bool can_merge(const struct extent *a, const struct extent *b)
{
        if (a->status.flags != b->status.flags || a->status.depth != b->status.depth)
                return false;
        return !(a->status.flags & HVB_STATUS_OFFSET_VALID)
                || a->status.host_offset + a->length == b->status.host_offset;
}

static const char *bool_text(bool value)
{
        return value ? "true" : "false";
}

static void print_json(const struct extent *extent, bool is_first, bool is_last)
{
        uint32_t flags = extent->status.flags;

        printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, "
               "\"present\": %s, \"zero\": %s, \"data\": %s, \"compressed\": %s",
               is_first ? "[" : "", extent->start, extent->length, extent->status.depth,
               bool_text(flags & HVB_STATUS_ALLOCATED), bool_text(flags & HVB_STATUS_ZERO),
               bool_text(flags & HVB_STATUS_DATA), bool_text(flags & HVB_STATUS_COMPRESSED));
        if (flags & HVB_STATUS_OFFSET_VALID)
                printf(", \"offset\": %" PRIu64, extent->status.host_offset);
        printf("}%s\n", is_last ? "]" : ",");
}

/* Only what stands in a file, so that other programs can read it there. */
static int print_human(const struct drive *drive, const struct extent *extent)
{
        uint32_t flags = extent->status.flags;

        if (!(flags & HVB_STATUS_DATA) || flags & HVB_STATUS_ZERO)
                return 0;
        if (!(flags & HVB_STATUS_OFFSET_VALID)) {
                img_error("File contains external, encrypted or compressed clusters.");
                return -EINVAL;
        }
        printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", extent->start,
               extent->length, extent->status.host_offset,
               drive_chain_path(drive, extent->status.depth));
        return 0;
}

/* Prints the disk from start to end.  0 or -errno, having complained. */
static int print_map(struct drive *drive, uint64_t start, uint64_t end, bool wants_json)
{
        struct extent held = { .start = start };
        bool is_first = true;
        int ret = 0;

        if (!wants_json)
                printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
        while (held.start + held.length < end) {
                struct extent next = { .start = held.start + held.length };

                ret = img_block_status(drive, next.start, end - next.start, &next.status);
                if (ret < 0) {
                        img_error("Failed to read image metadata: %s", g_strerror(-ret));
                        return ret;
                }
                next.length = next.status.length_bytes;
                if (held.length > 0 && can_merge(&held, &next)) {
                        held.length += next.length;
                        continue;
                }
                if (held.length > 0 && wants_json)
                        print_json(&held, is_first, false);
                else if (held.length > 0)
                        ret = print_human(drive, &held);
                if (ret < 0)
                        return ret;
                is_first = is_first && held.length == 0;
                held = next;
        }
        if (wants_json)
                print_json(&held, is_first, true);
        else
                ret = print_human(drive, &held);
        return ret;
}

static int parse_range(uint64_t *ret_start, uint64_t *ret_length)
{
        *ret_start = 0;
        *ret_length = UINT64_MAX;
        if (args.start != NULL && size_parse(args.start, ret_start) < 0) {
                img_error("Invalid start offset specified: '%s'.", args.start);
                return 1;
        }
        if (args.length != NULL && size_parse(args.length, ret_length) < 0) {
                img_error("Invalid max length specified: '%s'.", args.length);
                return 1;
        }
        return 0;
}

int img_map(const struct img_command *command, int argc, char **argv)
{
        uint64_t start, length, end;
        struct img_open how = { 0 };
        static char **names;
        struct drive *drive;
        bool wants_json;
        int ret;

        if (img_parse(command, entries, argc, argv, &names) != 0
            || img_parse_output(command, args.output, &wants_json) != 0)
                return 1;
        if (g_strv_length(names) != 1)
                return img_usage_error(command, "Expecting one image file name");
        if (parse_range(&start, &length) != 0)
                return 1;
        how.format = args.format;
        how.flags = args.force_share ? HVB_OPEN_FORCE_SHARE : 0;
        img_will_read(names[0]);
        if (img_contain() != 0 || img_open(names[0], &how, &drive) < 0 || img_seal() != 0)
                return 1;
        end = drive_bytes(drive);
        if (start < end)
                end = start + MIN(length, end - start);
        ret = print_map(drive, start, end, wants_json);
        return img_close(drive) < 0 || ret < 0 ? 1 : 0;
}
