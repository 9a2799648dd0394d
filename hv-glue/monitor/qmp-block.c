/*
 * qmp-block.c - query-block and query-named-block-nodes.
 *
 * A disk's node has the disk's name: what is called "device" here and "node-name"
 * there may be given to either kind of command.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "monitor/block-facts.h"
#include "monitor/session.h"

enum { FEATURE_EXTENDED_L2 = 1 << 4, NSEC_PER_SEC = 1000000000 };

JsonObject *qmp_snapshot_info(const struct hvb_snapshot_info *info)
{
        JsonObject *object = json_object_new();

        json_object_set_string_member(object, "id", info->id_str);
        json_object_set_string_member(object, "name", info->name);
        json_object_set_int_member(object, "vm-state-size", (gint64) info->vm_state_bytes);
        json_object_set_int_member(object, "date-sec", info->date_sec);
        json_object_set_int_member(object, "date-nsec", info->date_nsec);
        json_object_set_int_member(object, "vm-clock-sec",
                                   (gint64) (info->vm_clock_nsec / NSEC_PER_SEC));
        json_object_set_int_member(object, "vm-clock-nsec",
                                   (gint64) (info->vm_clock_nsec % NSEC_PER_SEC));
        if (info->icount != UINT64_MAX)
                json_object_set_int_member(object, "icount", (gint64) info->icount);
        return object;
}

static JsonObject *format_specific(const struct hvb_image_info *info)
{
        JsonObject *data = json_object_new(), *specific = json_object_new();

        json_object_set_string_member(data, "compat", info->version < 3 ? "0.10" : "1.1");
        json_object_set_string_member(data, "compression-type",
                                      info->compression == HVB_COMPRESSION_ZSTD ? "zstd"
                                      : "zlib");
        json_object_set_int_member(data, "refcount-bits", info->refcount_bits);
        if (info->version >= 3) {
                json_object_set_boolean_member(data, "lazy-refcounts", info->lazy_refcounts);
                json_object_set_boolean_member(data, "corrupt", info->corrupt);
                json_object_set_boolean_member(
                        data, "extended-l2", info->incompatible_features & FEATURE_EXTENDED_L2);
        }
        json_object_set_string_member(specific, "type", "qcow2");
        json_object_set_object_member(specific, "data", data);
        return specific;
}

/* QEMU's ImageInfo. */
static JsonObject *image_info(const struct machine_disk *disk, const struct block_facts *facts)
{
        const struct hvb_image_info *info = &facts->info;
        bool is_raw = strcmp(disk->format, "raw") == 0;
        JsonObject *image = json_object_new();

        json_object_set_string_member(image, "filename", disk->path);
        json_object_set_string_member(image, "format", disk->format);
        json_object_set_int_member(image, "virtual-size", (gint64) info->virtual_bytes);
        json_object_set_int_member(image, "actual-size", (gint64) facts->actual_bytes);
        json_object_set_boolean_member(image, "dirty-flag", info->dirty);
        if (info->backing_name[0] != '\0')
                json_object_set_string_member(image, "backing-filename", info->backing_name);
        if (info->backing_format[0] != '\0')
                json_object_set_string_member(image, "backing-filename-format",
                                              info->backing_format);
        if (facts->backing_path != NULL)
                json_object_set_string_member(image, "full-backing-filename",
                                              facts->backing_path);
        if (is_raw)
                return image;
        json_object_set_int_member(image, "cluster-size", (gint64) info->cluster_bytes);
        json_object_set_object_member(image, "format-specific", format_specific(info));
        if (facts->snapshot_count > 0) {
                JsonArray *snapshots = json_array_new();

                for (unsigned i = 0; i < facts->snapshot_count; i++)
                        json_array_add_object_element(snapshots,
                                                      qmp_snapshot_info(&facts->snapshots[i]));
                json_object_set_array_member(image, "snapshots", snapshots);
        }
        return image;
}

/* QEMU's BlockDeviceInfo.  There is no throttling here: all limits are 0. */
static JsonObject *node_info(const struct machine_disk *disk)
{
        static const char *const limits[] = { "bps", "bps_rd", "bps_wr", "iops", "iops_rd",
                                              "iops_wr" };
        JsonObject *node = json_object_new(), *cache = json_object_new();
        struct block_facts facts;

        block_facts_read(disk, &facts);
        json_object_set_string_member(node, "file", disk->path);
        json_object_set_string_member(node, "node-name", disk->id);
        json_object_set_boolean_member(node, "ro", disk->read_only);
        json_object_set_string_member(node, "drv", disk->format);
        json_object_set_boolean_member(node, "encrypted", false);
        json_object_set_string_member(node, "detect_zeroes", "off");
        json_object_set_int_member(node, "write_threshold", 0);
        json_object_set_int_member(node, "backing_file_depth", facts.info.backing_depth);
        if (facts.backing_path != NULL)
                json_object_set_string_member(node, "backing_file", facts.backing_path);
        for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++)
                json_object_set_int_member(node, limits[i], 0);
        json_object_set_boolean_member(cache, "writeback", !facts.cache.writethrough);
        json_object_set_boolean_member(cache, "direct", facts.cache.direct);
        json_object_set_boolean_member(cache, "no-flush", facts.cache.no_flush);
        json_object_set_object_member(node, "cache", cache);
        json_object_set_object_member(node, "image", image_info(disk, &facts));
        block_facts_clear(&facts);
        return node;
}

void qmp_query_named_block_nodes(struct qmp_call *call)
{
        JsonArray *nodes = json_array_new();
        unsigned count;
        const struct machine_disk *disks = machine_disks(call->monitors->machine, &count);

        for (unsigned i = 0; i < count; i++)
                json_array_add_object_element(nodes, node_info(&disks[i]));
        qmp_call_return(call, qmp_array(nodes));
}

void qmp_query_block(struct qmp_call *call)
{
        JsonArray *devices = json_array_new();
        unsigned count;
        const struct machine_disk *disks = machine_disks(call->monitors->machine, &count);

        for (unsigned i = 0; i < count; i++) {
                JsonObject *device = json_object_new();

                json_object_set_string_member(device, "device", disks[i].id);
                json_object_set_string_member(device, "type", "unknown");
                json_object_set_boolean_member(device, "removable", false);
                json_object_set_boolean_member(device, "locked", false);
                json_object_set_object_member(device, "inserted", node_info(&disks[i]));
                json_array_add_object_element(devices, device);
        }
        qmp_call_return(call, qmp_array(devices));
}
