/*
 * vm-snapshots.c - the list of a machine's snapshots.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/error.h"
#include "snapshot/vm-disks.h"

static void row_free(gpointer opaque)
{
        struct vm_snapshot_row *row = opaque;

        g_free(row->disk_id);
        g_free(row);
}

/* Name -> info, one table a disk; of several with one name the first, as with lookups. */
static GPtrArray *index_names(const struct vm_disks *disks)
{
        GPtrArray *tables = g_ptr_array_new_with_free_func((GDestroyNotify) g_hash_table_unref);

        for (unsigned i = 0; i < disks->count; i++) {
                const struct vm_disk *d = &disks->disks[i];
                GHashTable *table = g_hash_table_new(g_str_hash, g_str_equal);

                for (unsigned n = d->info_count; n > 0; n--)
                        g_hash_table_replace(table, d->infos[n - 1].name, &d->infos[n - 1]);
                g_ptr_array_add(tables, table);
        }
        return tables;
}

/* The partner with the VM state, or info itself; NULL if a disk has no partner. */
static const struct hvb_snapshot_info *find_partners(const GPtrArray *tables,
                                                     const struct hvb_snapshot_info *info)
{
        const struct hvb_snapshot_info *best = NULL;

        for (guint i = 0; i < tables->len; i++) {
                const struct hvb_snapshot_info *partner =
                        g_hash_table_lookup(tables->pdata[i], info->name);

                if (partner == NULL || !snapshots_are_of_one_moment(partner, info))
                        return NULL;
                if (best == NULL || (best->vm_state_bytes == 0 && partner->vm_state_bytes > 0))
                        best = partner;
        }
        return best;
}

static void add_row(GPtrArray *rows, const struct hvb_snapshot_info *info, const char *disk_id)
{
        struct vm_snapshot_row *row = g_new0(struct vm_snapshot_row, 1);

        row->info = *info;
        row->on_all_disks = disk_id == NULL;
        row->loadable = disk_id == NULL && info->vm_state_bytes > 0;
        row->disk_id = g_strdup(disk_id);
        g_ptr_array_add(rows, row);
}

/* The rows of one disk that are complete, or those that are partial. */
static void add_rows(GPtrArray *rows, const struct vm_disk *d, GPtrArray *tables, guint index,
                     bool complete)
{
        for (unsigned n = 0; n < d->info_count; n++) {
                const struct hvb_snapshot_info *info = &d->infos[n];
                bool is_first = g_hash_table_lookup(tables->pdata[index], info->name) == info;
                const struct hvb_snapshot_info *best =
                        is_first ? find_partners(tables, info) : NULL;

                if (complete && best != NULL)
                        add_row(rows, best, NULL);
                else if (!complete && best == NULL)
                        add_row(rows, info, d->disk->id);
        }
}

GPtrArray *vm_snapshots(struct machine *m, struct hvb_error *err)
{
        GPtrArray *rows = NULL;
        struct vm_disks disks;

        error_clear(err);
        vm_disks_all(m, &disks);
        if (vm_disks_list(&disks, NULL, err) == 0) {
                g_autoptr(GPtrArray) tables = index_names(&disks);

                rows = g_ptr_array_new_with_free_func(row_free);
                if (disks.count > 0)
                        add_rows(rows, &disks.disks[0], tables, 0, true);
                for (unsigned i = 0; i < disks.count; i++)
                        add_rows(rows, &disks.disks[i], tables, i, false);
        }
        vm_disks_clear(&disks);
        return rows;
}
