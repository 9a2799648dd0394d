/*
 * delvm.c - deleting a snapshot of the whole machine.
 *
 * Disks with a VM state come first: whatever stops a delvm after that leaves a partial
 * snapshot, which is never loaded and which another delvm removes.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/vm-op.h"

/* All of the tag's snapshots, with or without VM state.  Returns how many, or -errno. */
static int delete_on(struct vm_op *op, struct vm_disk *d, const char *tag, bool with_vm_state)
{
        int count = 0;

        for (unsigned i = 0; i < d->info_count; i++) {
                const struct hvb_snapshot_info *info = &d->infos[i];
                int ret;

                if (strcmp(info->name, tag) != 0 ||
                    (info->vm_state_bytes > 0) != with_vm_state)
                        continue;
                ret = disk_delete(d, info->id_str, tag, op->err);
                if (ret < 0)
                        return ret;
                count++;
        }
        return count;
}

static int delvm(struct vm_op *op, const char *tag)
{
        int count = 0;

        for (unsigned i = 0; i < 2 * op->disks.count; i++) {
                bool with_vm_state = i < op->disks.count;
                int ret = delete_on(op, &op->disks.disks[i % op->disks.count], tag,
                                    with_vm_state);

                if (ret < 0)
                        return ret;
                count += ret;
        }
        if (count == 0)
                return error_set(op->err, -ENOENT, "Snapshot '%s' does not exist in one or more "
                                 "devices", tag);
        return 0;
}

int vm_delvm(struct machine *m, const struct vm_snapshot_options *options, struct vm_job *job,
             struct hvb_error *err)
{
        struct vm_op op;
        int ret;

        if (options->tag == NULL)
                return error_set(err, -EINVAL, "delvm needs the tag of a snapshot");
        ret = vm_op_begin(&op, m, options, options->tag, job, err);
        if (ret == 0)
                ret = delvm(&op, options->tag);
        vm_op_end(&op);
        return ret;
}
