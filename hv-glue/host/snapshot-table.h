/*
 * snapshot-table.h - a list of snapshots as qemu-img and QEMU's monitor print it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_SNAPSHOT_TABLE_H
#define HOST_SNAPSHOT_TABLE_H

#include <glib.h>

#include "hv-block.h"

/* Both append one line. */
void snapshot_table_head(GString *text);
/* id: what to show as such; "--" where several disks have ids of their own. */
void snapshot_table_row(GString *text, const struct hvb_snapshot_info *info, const char *id);

#endif
