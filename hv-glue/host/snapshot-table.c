/*
 * snapshot-table.c - a list of snapshots as qemu-img and QEMU's monitor print it.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/snapshot-table.h"

#include <inttypes.h>

#include "host/size.h"

static const char line_format[] = "%-7s %-16s %8s %19s %15s %10s\n";

void snapshot_table_head(GString *text)
{
        g_string_append_printf(text, line_format, "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK",
                               "ICOUNT");
}

void snapshot_table_row(GString *text, const struct hvb_snapshot_info *info, const char *id)
{
        g_autoptr(GDateTime) date = g_date_time_new_from_unix_local(info->date_sec);
        g_autofree char *date_text = g_date_time_format(date, "%Y-%m-%d %H:%M:%S");
        g_autofree char *vm_size_text = size_text(info->vm_state_bytes);
        uint64_t msec = info->vm_clock_nsec / 1000000;
        uint64_t seconds = msec / 1000;
        g_autofree char *clock_text = g_strdup_printf(
                "%04" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64, seconds / 3600,
                seconds / 60 % 60, seconds % 60, msec % 1000);
        g_autofree char *icount_text = info->icount == UINT64_MAX ? g_strdup("--")
                : g_strdup_printf("%" PRIu64, info->icount);

        g_string_append_printf(text, line_format, id, info->name, vm_size_text, date_text,
                               clock_text, icount_text);
}
