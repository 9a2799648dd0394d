/*
 * vm-op.c - one operation on all disks of a machine: what they have in common.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/vm-op.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "host/error.h"

#define TORN_PREFIX "loadvm-unfinished:"

/* ---- One at a time ------------------------------------------------------------------ */

static pthread_mutex_t busy_lock = PTHREAD_MUTEX_INITIALIZER;
static GHashTable *busy_machines;       /* under the lock; NULL: none yet */

static bool take_machine(struct machine *m)
{
        bool taken;

        pthread_mutex_lock(&busy_lock);
        if (busy_machines == NULL)
                busy_machines = g_hash_table_new(NULL, NULL);
        taken = g_hash_table_add(busy_machines, m);
        pthread_mutex_unlock(&busy_lock);
        return taken;
}

static void give_machine_back(struct machine *m)
{
        pthread_mutex_lock(&busy_lock);
        g_hash_table_remove(busy_machines, m);
        if (g_hash_table_size(busy_machines) == 0)
                g_clear_pointer(&busy_machines, g_hash_table_unref);
        pthread_mutex_unlock(&busy_lock);
}

int vm_op_begin(struct vm_op *op, struct machine *m, const struct vm_snapshot_options *options,
                const char *tag, struct vm_job *job, struct hvb_error *err)
{
        int ret;

        memset(op, 0, sizeof(*op));
        op->job = job != NULL ? job : &op->own_job;
        op->err = err != NULL ? err : &op->own_err;
        error_clear(op->err);
        if (!take_machine(m))
                return error_set(op->err, -EBUSY, "another snapshot operation is running");
        op->machine = m;
        ret = vm_disks_select(m, options->disks, &op->disks, op->err);
        if (ret == 0)
                ret = vm_disks_list(&op->disks, tag, op->err);
        return ret;
}

void vm_op_end(struct vm_op *op)
{
        vm_disks_clear(&op->disks);
        if (op->machine != NULL)
                give_machine_back(op->machine);
}

struct vm_disk *vm_op_state_disk(struct vm_op *op)
{
        return &op->disks.disks[op->state_disk];
}

/* ---- The record of a torn loadvm ---------------------------------------------------- */

int torn_record(struct vm_op *op, const char *tag)
{
        struct hvb_snapshot_info info = {
                .struct_bytes = sizeof(info),
                .date_sec = (uint32_t) time(NULL),
                .icount = UINT64_MAX,
        };

        if (op->disks.count < 2)
                return 0;
        if (strlen(TORN_PREFIX) + strlen(tag) >= sizeof(info.name))
                return error_set(op->err, -ENAMETOOLONG, "tag '%s' is too long for a loadvm over "
                                 "several disks, limit %zu bytes", tag,
                                 sizeof(info.name) - 1 - strlen(TORN_PREFIX));
        g_snprintf(info.name, sizeof(info.name), TORN_PREFIX "%s", tag);
        return disk_create(vm_op_state_disk(op), &info, HVB_SNAPSHOT_REPLACE, op->err);
}

static bool is_record(const struct hvb_snapshot_info *info, const char *tag)
{
        return g_str_has_prefix(info->name, TORN_PREFIX) &&
               (tag == NULL || strcmp(info->name + strlen(TORN_PREFIX), tag) == 0);
}

bool torn_has(const struct vm_op *op, const char *tag)
{
        for (unsigned i = 0; i < op->disks.count; i++)
                for (unsigned n = 0; n < op->disks.disks[i].info_count; n++)
                        if (is_record(&op->disks.disks[i].infos[n], tag))
                                return true;
        return false;
}

int torn_erase(struct vm_op *op, const char *tag)
{
        int ret = vm_disks_list(&op->disks, NULL, op->err);

        for (unsigned i = 0; i < op->disks.count; i++) {
                struct vm_disk *d = &op->disks.disks[i];

                for (unsigned n = 0; n < d->info_count && ret == 0; n++)
                        if (is_record(&d->infos[n], tag))
                                ret = disk_delete(d, d->infos[n].id_str, d->infos[n].name,
                                                  op->err);
        }
        return ret;
}

const char *torn_find(const struct vm_disks *disks)
{
        for (unsigned i = 0; i < disks->count; i++)
                for (unsigned n = 0; n < disks->disks[i].info_count; n++)
                        if (g_str_has_prefix(disks->disks[i].infos[n].name, TORN_PREFIX))
                                return disks->disks[i].infos[n].name + strlen(TORN_PREFIX);
        return NULL;
}

int vm_loadvm_unfinished(struct machine *m, char **ret_tag, struct hvb_error *err)
{
        struct vm_disks disks;
        const char *tag;
        int ret;

        vm_disks_all(m, &disks);
        ret = vm_disks_list(&disks, NULL, err);
        tag = ret == 0 ? torn_find(&disks) : NULL;
        if (tag != NULL) {
                *ret_tag = g_strdup(tag);
                ret = 1;
        }
        vm_disks_clear(&disks);
        return ret;
}
