/*
 * test-abi.c - the layout of hv-block.h, as the first version had it (64-bit).
 *
 * A line that fails here breaks every plugin and host that is already built.
 * Members are appended and never moved: add lines for new ones, change the SIZE
 * of the struct that grew, and touch nothing else.
 *
 * SPDX-License-Identifier: MIT
 */
#include <glib.h>
#include <string.h>

#include "hv-block.h"

struct fact {
        const char *name;
        size_t recorded;
        size_t actual;
};

#define SIZE(type, bytes) { #type, bytes, sizeof(struct type) }
#define FIELD(type, member, offset) \
        { #type "." #member, offset, offsetof(struct type, member) }

#define VALUE(constant, number) { #constant, number, constant }

/* A SIZE line opens its struct. */
static const struct fact layout[] = {
#if G_MAXSIZE == G_MAXUINT64
        SIZE(hvb_error, 1024),
        FIELD(hvb_error, struct_bytes, 0),
        FIELD(hvb_error, code, 4),
        FIELD(hvb_error, text, 8),
        SIZE(hvb_request, 40),
        FIELD(hvb_request, struct_bytes, 0),
        FIELD(hvb_request, result, 4),
        FIELD(hvb_request, complete, 8),
        FIELD(hvb_request, opaque, 16),
        FIELD(hvb_request, progress_done, 24),
        FIELD(hvb_request, progress_total, 32),
        SIZE(hvb_child_query, 40),
        FIELD(hvb_child_query, struct_bytes, 0),
        FIELD(hvb_child_query, role, 4),
        FIELD(hvb_child_query, name, 8),
        FIELD(hvb_child_query, format, 16),
        FIELD(hvb_child_query, parent_name, 24),
        FIELD(hvb_child_query, writable, 32),
        FIELD(hvb_child_query, depth, 36),
        SIZE(hvb_child, 32),
        FIELD(hvb_child, struct_bytes, 0),
        FIELD(hvb_child, fd, 4),
        FIELD(hvb_child, format, 8),
        FIELD(hvb_child, name, 16),
        FIELD(hvb_child, opaque, 24),
        SIZE(hvb_io_error, 40),
        FIELD(hvb_io_error, struct_bytes, 0),
        FIELD(hvb_io_error, code, 4),
        FIELD(hvb_io_error, is_write, 8),
        FIELD(hvb_io_error, offset, 16),
        FIELD(hvb_io_error, length_bytes, 24),
        FIELD(hvb_io_error, request, 32),
        SIZE(hvb_event, 24),
        FIELD(hvb_event, struct_bytes, 0),
        FIELD(hvb_event, type, 4),
        FIELD(hvb_event, code, 8),
        FIELD(hvb_event, text, 16),
        SIZE(hvb_host, 56),
        FIELD(hvb_host, struct_bytes, 0),
        FIELD(hvb_host, opaque, 8),
        FIELD(hvb_host, log, 16),
        FIELD(hvb_host, open_child, 24),
        FIELD(hvb_host, close_child, 32),
        FIELD(hvb_host, io_error, 40),
        FIELD(hvb_host, event, 48),
        SIZE(hvb_open_args, 40),
        FIELD(hvb_open_args, struct_bytes, 0),
        FIELD(hvb_open_args, flags, 4),
        FIELD(hvb_open_args, fd, 8),
        FIELD(hvb_open_args, queue_entries, 12),
        FIELD(hvb_open_args, name, 16),
        FIELD(hvb_open_args, host, 24),
        FIELD(hvb_open_args, options, 32),
        SIZE(hvb_create_args, 88),
        FIELD(hvb_create_args, struct_bytes, 0),
        FIELD(hvb_create_args, fd, 4),
        FIELD(hvb_create_args, name, 8),
        FIELD(hvb_create_args, host, 16),
        FIELD(hvb_create_args, size_bytes, 24),
        FIELD(hvb_create_args, cluster_bytes, 32),
        FIELD(hvb_create_args, refcount_bits, 40),
        FIELD(hvb_create_args, version, 44),
        FIELD(hvb_create_args, lazy_refcounts, 48),
        FIELD(hvb_create_args, preallocation, 52),
        FIELD(hvb_create_args, compression, 56),
        FIELD(hvb_create_args, queue_entries, 60),
        FIELD(hvb_create_args, backing_name, 64),
        FIELD(hvb_create_args, backing_format, 72),
        FIELD(hvb_create_args, options, 80),
        SIZE(hvb_snapshot_info, 432),
        FIELD(hvb_snapshot_info, struct_bytes, 0),
        FIELD(hvb_snapshot_info, date_sec, 4),
        FIELD(hvb_snapshot_info, date_nsec, 8),
        FIELD(hvb_snapshot_info, id_str, 12),
        FIELD(hvb_snapshot_info, name, 140),
        FIELD(hvb_snapshot_info, vm_state_bytes, 400),
        FIELD(hvb_snapshot_info, vm_clock_nsec, 408),
        FIELD(hvb_snapshot_info, icount, 416),
        FIELD(hvb_snapshot_info, disk_bytes, 424),
        SIZE(hvb_image_info, 1240),
        FIELD(hvb_image_info, struct_bytes, 0),
        FIELD(hvb_image_info, version, 4),
        FIELD(hvb_image_info, virtual_bytes, 8),
        FIELD(hvb_image_info, cluster_bytes, 16),
        FIELD(hvb_image_info, file_bytes, 24),
        FIELD(hvb_image_info, vm_state_offset, 32),
        FIELD(hvb_image_info, incompatible_features, 40),
        FIELD(hvb_image_info, compatible_features, 48),
        FIELD(hvb_image_info, autoclear_features, 56),
        FIELD(hvb_image_info, refcount_bits, 64),
        FIELD(hvb_image_info, compression, 68),
        FIELD(hvb_image_info, lazy_refcounts, 72),
        FIELD(hvb_image_info, dirty, 76),
        FIELD(hvb_image_info, corrupt, 80),
        FIELD(hvb_image_info, poisoned, 84),
        FIELD(hvb_image_info, read_only, 88),
        FIELD(hvb_image_info, snapshot_count, 92),
        FIELD(hvb_image_info, request_alignment, 96),
        FIELD(hvb_image_info, backing_depth, 100),
        FIELD(hvb_image_info, cache_bytes, 104),
        FIELD(hvb_image_info, cache_limit_bytes, 112),
        FIELD(hvb_image_info, backing_name, 120),
        FIELD(hvb_image_info, backing_format, 1144),
        FIELD(hvb_image_info, engine, 1208),
        SIZE(hvb_block_status, 32),
        FIELD(hvb_block_status, struct_bytes, 0),
        FIELD(hvb_block_status, flags, 4),
        FIELD(hvb_block_status, length_bytes, 8),
        FIELD(hvb_block_status, host_offset, 16),
        FIELD(hvb_block_status, depth, 24),
        SIZE(hvb_check_result, 104),
        FIELD(hvb_check_result, struct_bytes, 0),
        FIELD(hvb_check_result, corruptions, 8),
        FIELD(hvb_check_result, leaks, 16),
        FIELD(hvb_check_result, check_errors, 24),
        FIELD(hvb_check_result, corruptions_fixed, 32),
        FIELD(hvb_check_result, leaks_fixed, 40),
        FIELD(hvb_check_result, image_end_offset, 48),
        FIELD(hvb_check_result, total_clusters, 56),
        FIELD(hvb_check_result, allocated_clusters, 64),
        FIELD(hvb_check_result, fragmented_clusters, 72),
        FIELD(hvb_check_result, compressed_clusters, 80),
        FIELD(hvb_check_result, report, 88),
        FIELD(hvb_check_result, opaque, 96),
        SIZE(hvb_driver, 408),
        FIELD(hvb_driver, struct_bytes, 0),
        FIELD(hvb_driver, abi_version, 4),
        FIELD(hvb_driver, format_name, 8),
        FIELD(hvb_driver, version_text, 16),
        FIELD(hvb_driver, request_bytes, 24),
        FIELD(hvb_driver, open_options, 32),
        FIELD(hvb_driver, probe, 40),
        FIELD(hvb_driver, open, 48),
        FIELD(hvb_driver, create, 56),
        FIELD(hvb_driver, close, 64),
        FIELD(hvb_driver, release, 72),
        FIELD(hvb_driver, queue, 80),
        FIELD(hvb_driver, queue_fd, 88),
        FIELD(hvb_driver, poll, 96),
        FIELD(hvb_driver, preadv, 104),
        FIELD(hvb_driver, pwritev, 112),
        FIELD(hvb_driver, pwrite_zeroes, 120),
        FIELD(hvb_driver, pdiscard, 128),
        FIELD(hvb_driver, flush, 136),
        FIELD(hvb_driver, block_status, 144),
        FIELD(hvb_driver, drain, 152),
        FIELD(hvb_driver, cancel, 160),
        FIELD(hvb_driver, retry, 168),
        FIELD(hvb_driver, map_mem_region, 176),
        FIELD(hvb_driver, unmap_mem_region, 184),
        FIELD(hvb_driver, get_info, 192),
        FIELD(hvb_driver, truncate, 200),
        FIELD(hvb_driver, check, 208),
        FIELD(hvb_driver, snapshot_create, 216),
        FIELD(hvb_driver, snapshot_goto, 224),
        FIELD(hvb_driver, snapshot_delete, 232),
        FIELD(hvb_driver, snapshot_list, 240),
        FIELD(hvb_driver, snapshot_load_tmp, 248),
        FIELD(hvb_driver, save_vmstate, 256),
        FIELD(hvb_driver, load_vmstate, 264),
        FIELD(hvb_driver, detach, 272),
        FIELD(hvb_driver, attach, 280),
        FIELD(hvb_driver, inactivate, 288),
        FIELD(hvb_driver, activate, 296),
        FIELD(hvb_driver, dump_operations, 304),
        FIELD(hvb_driver, snapshot_load_vmstate, 312),
        FIELD(hvb_driver, snapshot_open, 320),
        FIELD(hvb_driver, snapshot_close, 328),
        FIELD(hvb_driver, snapshot_preadv, 336),
        FIELD(hvb_driver, snapshot_block_status, 344),
        FIELD(hvb_driver, snapshot_prepare, 352),
        FIELD(hvb_driver, snapshot_switch, 360),
        FIELD(hvb_driver, snapshot_publish, 368),
        FIELD(hvb_driver, snapshot_abort, 376),
        FIELD(hvb_driver, snapshot_goto_prepare, 384),
        FIELD(hvb_driver, share_vmstate, 392),
        FIELD(hvb_driver, snapshot_note, 400),
#endif
};

static const struct fact values[] = {
        VALUE(HVB_REQ_FUA, 1),
        VALUE(HVB_REQ_MAY_UNMAP, 2),
        VALUE(HVB_REQ_NO_FALLBACK, 4),
        VALUE(HVB_REQ_COMPRESS, 8),
        VALUE(HVB_REQ_VMSTATE, 16),
        VALUE(HVB_LOG_ERROR, 0),
        VALUE(HVB_LOG_WARNING, 1),
        VALUE(HVB_LOG_INFO, 2),
        VALUE(HVB_LOG_DEBUG, 3),
        VALUE(HVB_CHILD_BACKING, 0),
        VALUE(HVB_CHILD_DATA, 1),
        VALUE(HVB_ACTION_REPORT, 0),
        VALUE(HVB_ACTION_IGNORE, 1),
        VALUE(HVB_ACTION_STOP, 2),
        VALUE(HVB_EVENT_POISONED, 0),
        VALUE(HVB_EVENT_CORRUPTION, 1),
        VALUE(HVB_EVENT_REPAIR_BEGIN, 2),
        VALUE(HVB_EVENT_REPAIR_END, 3),
        VALUE(HVB_OPEN_RDWR, 1),
        VALUE(HVB_OPEN_NO_LOCK, 2),
        VALUE(HVB_OPEN_FORCE_SHARE, 4),
        VALUE(HVB_OPEN_NO_BACKING, 8),
        VALUE(HVB_OPEN_CHECK, 16),
        VALUE(HVB_PREALLOC_OFF, 0),
        VALUE(HVB_PREALLOC_METADATA, 1),
        VALUE(HVB_PREALLOC_FALLOC, 2),
        VALUE(HVB_PREALLOC_FULL, 3),
        VALUE(HVB_COMPRESSION_ZLIB, 0),
        VALUE(HVB_COMPRESSION_ZSTD, 1),
        VALUE(HVB_STATUS_DATA, 1),
        VALUE(HVB_STATUS_ZERO, 2),
        VALUE(HVB_STATUS_OFFSET_VALID, 4),
        VALUE(HVB_STATUS_ALLOCATED, 8),
        VALUE(HVB_STATUS_COMPRESSED, 16),
        VALUE(HVB_CHECK_FIX_LEAKS, 1),
        VALUE(HVB_CHECK_FIX_ERRORS, 2),
        VALUE(HVB_SNAPSHOT_REPLACE, 1),
        VALUE(HVB_SNAPSHOT_DUPLICATE, 2),
};

static void judge(const struct fact *fact)
{
        if (fact->recorded == fact->actual)
                return;
        g_test_message("%s: recorded as %zu, now %zu", fact->name, fact->recorded, fact->actual);
        g_test_fail();
}

/* Everything recorded of one struct. */
static void test_layout(gconstpointer data)
{
        const struct fact *fact = data;

        do
                judge(fact++);
        while (fact < layout + G_N_ELEMENTS(layout) && strchr(fact->name, '.') != NULL);
}

static void test_values(void)
{
        for (size_t i = 0; i < G_N_ELEMENTS(values); i++)
                judge(&values[i]);
        g_assert_cmpuint(HVB_ABI_VERSION, ==, 1);
        g_assert_cmpstr(HVB_DRIVER_ENTRY, ==, "hvb_driver_entry");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/abi/values", test_values);
        for (size_t i = 0; i < G_N_ELEMENTS(layout); i++) {
                g_autofree char *path = g_strconcat("/abi/layout/", layout[i].name, NULL);

                if (strchr(layout[i].name, '.') == NULL)
                        g_test_add_data_func(path, &layout[i], test_layout);
        }
        return g_test_run();
}
