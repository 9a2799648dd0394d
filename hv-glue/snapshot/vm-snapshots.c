/*
 * vm-snapshots.c - the list of a machine's snapshots.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "host/error.h"
#include "snapshot/vm-disks.h"

static void row_free(gpointer opaque)
{
        struct vm_snapshot_row *row = opaque;

        g_free(row->disk_id);
        g_free(row);
}

/* ---- Sets: one name, one moment ------------------------------------------------------ */

static guint set_hash(gconstpointer info)
{
        return g_str_hash(((const struct hvb_snapshot_info *) info)->name);
}

static gboolean set_equal(gconstpointer a, gconstpointer b)
{
        const struct hvb_snapshot_info *first = a;
        const struct hvb_snapshot_info *second = b;

        return strcmp(first->name, second->name) == 0 &&
               snapshots_are_of_one_moment(first, second);
}

/* One set of infos a disk; of several that are equal the first, as with lookups. */
static GPtrArray *index_sets(const struct vm_disks *disks)
{
        GPtrArray *tables = g_ptr_array_new_with_free_func((GDestroyNotify) g_hash_table_unref);

        for (unsigned i = 0; i < disks->count; i++) {
                const struct vm_disk *d = &disks->disks[i];
                GHashTable *table = g_hash_table_new(set_hash, set_equal);

                for (unsigned n = d->info_count; n > 0; n--)
                        g_hash_table_add(table, &d->infos[n - 1]);
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
                        g_hash_table_lookup(tables->pdata[i], info);

                if (partner == NULL)
                        return NULL;
                if (best == NULL || (best->vm_state_bytes == 0 && partner->vm_state_bytes > 0))
                        best = partner;
        }
        return best;
}

/* ---- Rows ----------------------------------------------------------------------------- */

static void add_row(GPtrArray *rows, const struct hvb_snapshot_info *info, const char *disk_id)
{
        struct vm_snapshot_row *row = g_new0(struct vm_snapshot_row, 1);

        row->info = *info;
        row->on_all_disks = disk_id == NULL;
        row->loadable = disk_id == NULL && info->vm_state_bytes > 0;
        row->disk_id = g_strdup(disk_id);
        g_ptr_array_add(rows, row);
}

static void add_complete(GPtrArray *rows, const struct vm_disk *d, GPtrArray *tables,
                         GHashTable *complete)
{
        g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

        for (unsigned n = 0; n < d->info_count; n++) {
                struct hvb_snapshot_info *info = &d->infos[n];
                const struct hvb_snapshot_info *best = find_partners(tables, info);

                /* Of several sets of one name the first is meant, as with lookups. */
                if (best == NULL || !g_hash_table_add(names, info->name))
                        continue;
                add_row(rows, best, NULL);
                for (guint i = 0; i < tables->len; i++)
                        g_hash_table_add(complete, g_hash_table_lookup(tables->pdata[i], info));
        }
}

static void add_partial(GPtrArray *rows, const struct vm_disk *d, GHashTable *complete)
{
        for (unsigned n = 0; n < d->info_count; n++)
                if (!g_hash_table_contains(complete, &d->infos[n]))
                        add_row(rows, &d->infos[n], d->disk->id);
}

GPtrArray *vm_snapshots(struct machine *m, struct hvb_error *err)
{
        GPtrArray *rows = NULL;
        struct vm_disks disks;

        error_clear(err);
        vm_disks_all(m, &disks);
        if (vm_disks_list(&disks, NULL, err) == 0) {
                g_autoptr(GPtrArray) tables = index_sets(&disks);
                g_autoptr(GHashTable) complete = g_hash_table_new(NULL, NULL);

                rows = g_ptr_array_new_with_free_func(row_free);
                if (disks.count > 0)
                        add_complete(rows, &disks.disks[0], tables, complete);
                for (unsigned i = 0; i < disks.count; i++)
                        add_partial(rows, &disks.disks[i], complete);
        }
        vm_disks_clear(&disks);
        return rows;
}
