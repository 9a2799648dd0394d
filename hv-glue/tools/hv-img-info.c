/*
 * hv-img-info.c - hv-img info.
 *
 * Each image of a chain is opened by itself, without its backing file: what an
 * image says about itself must be readable when the rest is gone.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "hv-img.h"

enum { SECTOR_BYTES = 512, FEATURE_EXTENDED_L2 = 1 << 4, CHAIN_MAX = 1000 };

static struct {
        char *format;
        gboolean chain;
        gboolean force_share;
        char *output;
} args;

static const GOptionEntry entries[] = {
        { "format", 'f', 0, G_OPTION_ARG_FILENAME, &args.format,
          "specify FILENAME image format explicitly", "FMT" },
        { "backing-chain", 'b', 0, G_OPTION_ARG_NONE, &args.chain,
          "display information about the backing chain", NULL },
        { "force-share", 'U', 0, G_OPTION_ARG_NONE, &args.force_share,
          "open image in shared mode for concurrent access", NULL },
        { "output", 0, 0, G_OPTION_ARG_FILENAME, &args.output,
          "specify output format (default human)", "human|json" },
        { 0 },
};

/* All that is printed about one image. */
struct facts {
        struct drive *drive;
        struct hvb_image_info info;
        struct hvb_snapshot_info *snapshots;
        int snapshot_count;
        char *backing_path;             /* where the backing name leads; NULL: none or nowhere */
        uint64_t actual_bytes;          /* allocated by the file system */
        dev_t device;
        ino_t inode;
        bool is_block_device;
        bool is_raw;
};

static void facts_free(gpointer data)
{
        struct facts *facts = data;

        if (facts->drive != NULL)
                drive_close(facts->drive, NULL);
        g_free(facts->snapshots);
        g_free(facts->backing_path);
        g_free(facts);
}

static int facts_read(const char *path, const char *format, bool is_named_by_image,
                      struct facts *facts)
{
        const struct img_open how = {
                .format = format,
                .is_named_by_image = is_named_by_image,
                .flags = HVB_OPEN_NO_BACKING | (args.force_share ? HVB_OPEN_FORCE_SHARE : 0),
        };
        struct stat st;
        int ret = img_open(path, &how, &facts->drive);

        if (ret < 0)
                return ret;
        drive_get_info(facts->drive, &facts->info);
        facts->is_raw = strcmp(drive_format(facts->drive), "raw") == 0;
        ret = drive_snapshot_list(facts->drive, &facts->snapshots);
        if (ret >= 0 && fstat(drive_fd(facts->drive), &st) < 0)
                ret = -errno;
        if (ret < 0) {
                img_error("Could not read '%s': %s", path, g_strerror(-ret));
                return ret;
        }
        facts->snapshot_count = ret;
        facts->actual_bytes = (uint64_t) st.st_blocks * SECTOR_BYTES;
        facts->device = st.st_dev;
        facts->inode = st.st_ino;
        facts->is_block_device = S_ISBLK(st.st_mode);
        if (facts->info.backing_name[0] != '\0')
                facts->backing_path = policy_join(path, facts->info.backing_name);
        return 0;
}

/* ---- For people ------------------------------------------------------------------- */

static void print_size(const char *title, uint64_t bytes, bool exact)
{
        g_autofree char *text = size_text(bytes);

        if (exact)
                printf("%s: %s (%" PRIu64 " bytes)\n", title, text, bytes);
        else
                printf("%s: %s\n", title, text);
}

static void print_backing(const struct facts *facts)
{
        const struct hvb_image_info *info = &facts->info;

        if (info->backing_name[0] == '\0')
                return;
        printf("backing file: %s", info->backing_name);
        if (facts->backing_path == NULL)
                printf(" (cannot determine actual path)");
        else if (strcmp(facts->backing_path, info->backing_name) != 0)
                printf(" (actual path: %s)", facts->backing_path);
        putchar('\n');
        if (info->backing_format[0] != '\0')
                printf("backing file format: %s\n", info->backing_format);
}

static const char *bool_text(bool value)
{
        return value ? "true" : "false";
}

static const char *compression_text(const struct hvb_image_info *info)
{
        return info->compression == HVB_COMPRESSION_ZSTD ? "zstd" : "zlib";
}

static void print_specific(const struct hvb_image_info *info)
{
        printf("Format specific information:\n");
        printf("    compat: %s\n", info->version < 3 ? "0.10" : "1.1");
        printf("    compression type: %s\n", compression_text(info));
        if (info->version >= 3)
                printf("    lazy refcounts: %s\n", bool_text(info->lazy_refcounts));
        printf("    refcount bits: %u\n", info->refcount_bits);
        if (info->version < 3)
                return;
        printf("    corrupt: %s\n", bool_text(info->corrupt));
        printf("    extended l2: %s\n",
               bool_text(info->incompatible_features & FEATURE_EXTENDED_L2));
}

/* Length of the image file in whole sectors. */
static uint64_t file_bytes(const struct facts *facts)
{
        return (facts->info.file_bytes + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
}

static void print_human(const struct facts *facts)
{
        const struct hvb_image_info *info = &facts->info;

        printf("image: %s\n", drive_path(facts->drive));
        printf("file format: %s\n", drive_format(facts->drive));
        print_size("virtual size", info->virtual_bytes, true);
        print_size("disk size", facts->actual_bytes, false);
        if (!facts->is_raw)
                printf("cluster_size: %" PRIu64 "\n", info->cluster_bytes);
        if (info->dirty)
                printf("cleanly shut down: no\n");
        print_backing(facts);
        img_print_snapshots(facts->snapshots, facts->snapshot_count);
        if (!facts->is_raw)
                print_specific(info);
        printf("Child node '/file':\n");
        printf("    filename: %s\n", drive_path(facts->drive));
        printf("    protocol type: %s\n", facts->is_block_device ? "host_device" : "file");
        print_size("    file length", file_bytes(facts), true);
        print_size("    disk size", facts->actual_bytes, false);
}

/* ---- For programs, in qemu-img's order ----------------------------------------------- */

static void print_json_child(struct json *json, const struct facts *facts)
{
        json_array_begin(json, "children");
        json_object_begin(json, NULL);
        json_string(json, "name", "file");
        json_object_begin(json, "info");
        json_array_begin(json, "children");
        json_array_end(json);
        json_uint(json, "virtual-size", file_bytes(facts));
        json_string(json, "filename", drive_path(facts->drive));
        json_string(json, "format", facts->is_block_device ? "host_device" : "file");
        json_uint(json, "actual-size", facts->actual_bytes);
        json_object_begin(json, "format-specific");
        json_string(json, "type", "file");
        json_object_begin(json, "data");
        json_object_end(json);
        json_object_end(json);
        json_bool(json, "dirty-flag", false);
        json_object_end(json);
        json_object_end(json);
        json_array_end(json);
}

static void print_json_snapshots(struct json *json, const struct facts *facts)
{
        if (facts->snapshot_count == 0)
                return;
        json_array_begin(json, "snapshots");
        for (int i = 0; i < facts->snapshot_count; i++) {
                const struct hvb_snapshot_info *snapshot = &facts->snapshots[i];

                json_object_begin(json, NULL);
                if (snapshot->icount != UINT64_MAX)
                        json_uint(json, "icount", snapshot->icount);
                json_uint(json, "vm-clock-nsec", snapshot->vm_clock_nsec % 1000000000);
                json_string(json, "name", snapshot->name);
                json_uint(json, "date-sec", snapshot->date_sec);
                json_uint(json, "date-nsec", snapshot->date_nsec);
                json_uint(json, "vm-clock-sec", snapshot->vm_clock_nsec / 1000000000);
                json_string(json, "id", snapshot->id_str);
                json_uint(json, "vm-state-size", snapshot->vm_state_bytes);
                json_object_end(json);
        }
        json_array_end(json);
}

static void print_json_specific(struct json *json, const struct hvb_image_info *info)
{
        json_object_begin(json, "format-specific");
        json_string(json, "type", "qcow2");
        json_object_begin(json, "data");
        json_string(json, "compat", info->version < 3 ? "0.10" : "1.1");
        json_string(json, "compression-type", compression_text(info));
        if (info->version >= 3)
                json_bool(json, "lazy-refcounts", info->lazy_refcounts);
        json_uint(json, "refcount-bits", info->refcount_bits);
        if (info->version >= 3) {
                json_bool(json, "corrupt", info->corrupt);
                json_bool(json, "extended-l2",
                          info->incompatible_features & FEATURE_EXTENDED_L2);
        }
        json_object_end(json);
        json_object_end(json);
}

static void print_json(struct json *json, const struct facts *facts)
{
        const struct hvb_image_info *info = &facts->info;

        json_object_begin(json, NULL);
        print_json_child(json, facts);
        if (info->backing_format[0] != '\0')
                json_string(json, "backing-filename-format", info->backing_format);
        print_json_snapshots(json, facts);
        json_uint(json, "virtual-size", info->virtual_bytes);
        json_string(json, "filename", drive_path(facts->drive));
        if (!facts->is_raw)
                json_uint(json, "cluster-size", info->cluster_bytes);
        json_string(json, "format", drive_format(facts->drive));
        json_uint(json, "actual-size", facts->actual_bytes);
        if (!facts->is_raw)
                print_json_specific(json, info);
        if (facts->backing_path != NULL)
                json_string(json, "full-backing-filename", facts->backing_path);
        if (info->backing_name[0] != '\0')
                json_string(json, "backing-filename", info->backing_name);
        json_bool(json, "dirty-flag", info->dirty);
        json_object_end(json);
}

/* ---- The chain -------------------------------------------------------------------------- */

static bool is_in_chain(const GPtrArray *chain, const struct facts *facts)
{
        for (guint i = 0; i < chain->len; i++) {
                const struct facts *other = g_ptr_array_index(chain, i);

                if (other->device == facts->device && other->inode == facts->inode)
                        return true;
        }
        return false;
}

/* Opens path and, if wanted, all below it.  0 or -errno, having complained. */
static int collect_chain(GPtrArray *chain, const char *path)
{
        g_autofree char *next = g_strdup(path);
        const char *format = args.format;

        while (next != NULL && chain->len < CHAIN_MAX) {
                struct facts *facts = g_new0(struct facts, 1);
                bool is_loop = false;
                int ret = facts_read(next, format, chain->len > 0, facts);

                if (ret == 0)
                        is_loop = is_in_chain(chain, facts);
                if (is_loop)
                        img_error("Backing file '%s' creates an infinite loop.", next);
                if (ret < 0 || is_loop) {
                        facts_free(facts);
                        return is_loop ? -ELOOP : ret;
                }
                g_ptr_array_add(chain, facts);
                g_free(next);
                next = args.chain ? g_strdup(facts->backing_path) : NULL;
                format = facts->info.backing_format[0] == '\0' ? NULL
                        : facts->info.backing_format;
        }
        return 0;
}

int img_info(const struct img_command *command, int argc, char **argv)
{
        g_autoptr(GPtrArray) chain = g_ptr_array_new_with_free_func(facts_free);
        struct json json = { 0 };
        static char **names;
        bool wants_json;

        if (img_parse(command, entries, argc, argv, &names) != 0)
                return 1;
        if (img_parse_output(command, args.output, &wants_json) != 0)
                return 1;
        if (g_strv_length(names) != 1)
                return img_usage_error(command, "Expecting one image file name");
        img_will_read(names[0]);
        if (img_contain() != 0 || collect_chain(chain, names[0]) < 0 || img_seal() != 0)
                return 1;

        if (wants_json && args.chain)
                json_array_begin(&json, NULL);
        for (guint i = 0; i < chain->len; i++) {
                if (wants_json) {
                        print_json(&json, g_ptr_array_index(chain, i));
                } else {
                        if (i > 0)
                                putchar('\n');
                        print_human(g_ptr_array_index(chain, i));
                }
        }
        if (wants_json && args.chain)
                json_array_end(&json);
        return 0;
}
