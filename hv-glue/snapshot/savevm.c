/*
 * savevm.c - a snapshot of the whole machine: RAM, devices, disks, of one moment.
 *
 *   1. what an interrupted savevm left of the tag on the VM-state disk is deleted
 *   2. the machine pauses: vcpus are stopped, devices quiet
 *   3. the VM state is written to the VM-state disk, where nothing refers to it
 *   4. snapshots of the other disks are made, beside earlier ones of the tag
 *   5. the snapshot of the VM-state disk is made, takes the VM state, and replaces an
 *      earlier one of the tag, all in one switch: the commit
 *   6. the machine goes on
 *   7. earlier snapshots of the tag on the other disks are deleted
 *
 * What a crash leaves, before the commit: in 3 leaked clusters, which the dirty bit
 * repairs; in 4 and up to 5 snapshots that have no partner of the same moment on the
 * VM-state disk, beside the earlier snapshot, which is complete as before.  After the
 * commit, up to the end of 7: the new snapshot, complete, and on the other disks remains
 * of the earlier one.  Never are there two complete ones of a tag, and never none where
 * there was one, for they share the VM-state disk's switch; 1 sees to it that there is
 * exactly one to replace.  Snapshots without partners are listed as partial, never loaded,
 * and removed by the tag's next savevm or delvm.
 *
 * A failure before the commit undoes: the snapshots of 4 are deleted, the VM state given up,
 * and the machine goes on as if nothing had been asked.  After it savevm has succeeded: what
 * 7 cannot delete stays and is listed as partial.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "host/error.h"
#include "snapshot/job.h"
#include "snapshot/vm-op.h"
#include "snapshot/vm-state-file.h"

struct savevm {
        struct vm_op op;
        struct hvb_snapshot_info info;  /* the same for all disks, but for vm_state_bytes */
        struct hvb_snapshot_info *created;      /* by disk; without id: none */
};

static int choose_tag(const char *wanted, char *tag, size_t tag_bytes, struct hvb_error *err)
{
        g_autoptr(GDateTime) now = g_date_time_new_now_local();
        g_autofree char *own = g_date_time_format(now, "vm-%Y%m%d%H%M%S");

        if (wanted == NULL)
                wanted = own;
        if (wanted[0] == '\0')
                return error_set(err, -EINVAL, "a snapshot needs a name");
        if (g_strlcpy(tag, wanted, tag_bytes) >= tag_bytes)
                return error_set(err, -ENAMETOOLONG, "the snapshot's name is longer than %zu "
                                 "bytes", tag_bytes - 1);
        return 0;
}

static int judge(struct savevm *s, const struct vm_snapshot_options *options)
{
        struct vm_op *op = &s->op;
        const char *torn = torn_find(&op->disks);

        op->state_disk = vm_disks_state_disk(&op->disks, options->vmstate_disk, op->err);
        if (op->state_disk < 0)
                return op->state_disk;
        for (unsigned i = 0; i < op->disks.count && !options->replace; i++)
                if (op->disks.disks[i].found != NULL)
                        return error_set(op->err, -EEXIST, "Snapshot '%s' already exists in one "
                                         "or more devices", s->info.name);
        if (machine_run_state(op->machine) == RUN_STATE_INTERNAL_ERROR)
                return error_set(op->err, -EPERM, "the machine has failed; only loadvm or "
                                 "system_reset lead out of that");
        if (torn != NULL)
                return error_set(op->err, -EPERM, "the disks do not fit together: a loadvm of "
                                 "'%s' was interrupted; repeat it first", torn);
        return 0;
}

static bool is_state_disk(const struct savevm *s, unsigned i)
{
        return (int) i == s->op.state_disk;
}

/* On all disks but the VM-state disk. */
static int create_others(struct savevm *s)
{
        for (unsigned i = 0; i < s->op.disks.count; i++) {
                struct hvb_snapshot_info info = s->info;
                int ret;

                if (is_state_disk(s, i))
                        continue;
                if (job_is_cancelled(s->op.job))
                        return error_set(s->op.err, -ECANCELED, "cancelled");
                info.vm_state_bytes = 0;
                ret = disk_create(&s->op.disks.disks[i], &info, HVB_SNAPSHOT_DUPLICATE,
                                  s->op.err);
                if (ret < 0)
                        return ret;
                s->created[i] = info;
        }
        return 0;
}

/* The tag's snapshots on a disk as they were at the begin, but for one.  On to the last,
 * whatever fails; returns the first error. */
static int delete_earlier(struct savevm *s, struct vm_disk *d,
                          const struct hvb_snapshot_info *except, struct hvb_error *err)
{
        int first = 0;

        for (unsigned n = 0; n < d->info_count; n++) {
                const struct hvb_snapshot_info *info = &d->infos[n];
                int ret = 0;

                if (info != except && strcmp(info->name, s->info.name) == 0)
                        ret = disk_delete(d, info->id_str, info->name, first == 0 ? err : NULL);
                first = first == 0 ? ret : first;
        }
        return first;
}

static void delete_replaced(struct savevm *s)
{
        for (unsigned i = 0; i < s->op.disks.count; i++)
                if (!is_state_disk(s, i))
                        delete_earlier(s, &s->op.disks.disks[i], NULL, NULL);
}

/* What cannot be deleted stays as a partial snapshot, and the text says so. */
static void delete_created(struct savevm *s)
{
        for (unsigned i = 0; i < s->op.disks.count; i++) {
                struct vm_disk *d = &s->op.disks.disks[i];
                struct hvb_error err = ERROR_INIT;
                size_t length = strlen(s->op.err->text);

                if (s->created[i].id_str[0] == '\0' ||
                    disk_delete(d, s->created[i].id_str, s->info.name, &err) == 0)
                        continue;
                g_snprintf(s->op.err->text + length, sizeof(s->op.err->text) - length,
                           "; a partial snapshot is left: %s", err.text);
        }
}

/* The machine is paused.  On failure everything is as before. */
static int save(struct savevm *s)
{
        struct vm_disk *state_disk = vm_op_state_disk(&s->op);
        int ret;

        s->info.vm_clock_nsec = machine_clock_nsec(s->op.machine);
        ret = vm_state_save(s->op.machine, state_disk->disk, s->info.vm_clock_nsec, s->op.job,
                            &s->info.vm_state_bytes, s->op.err);
        if (ret < 0)
                goto give_up;
        ret = create_others(s);
        if (ret < 0)
                goto delete_created;
        ret = disk_create(state_disk, &s->info, HVB_SNAPSHOT_REPLACE, s->op.err);
        if (ret == 0)
                return 0;

delete_created:
        delete_created(s);
give_up:
        disk_give_up_vmstate(state_disk);
        return ret;
}

static int savevm(struct savevm *s, const struct vm_snapshot_options *options)
{
        struct machine *m = s->op.machine;
        struct vm_disk *state_disk;
        struct timespec now;
        uint64_t pause_nsec;
        int ret = judge(s, options);

        if (ret < 0)
                return ret;
        state_disk = vm_op_state_disk(&s->op);
        ret = delete_earlier(s, state_disk, state_disk->found, s->op.err);
        if (ret < 0)
                return ret;
        s->created = g_new0(struct hvb_snapshot_info, s->op.disks.count);
        job_set(&s->op.job->total_bytes, machine_memory(m)->ram_bytes);
        ret = machine_pause(m, RUN_STATE_SAVE_VM, s->op.err);
        if (ret < 0)
                return ret;
        clock_gettime(CLOCK_REALTIME, &now);
        s->info.date_sec = (uint32_t) now.tv_sec;
        s->info.date_nsec = (uint32_t) now.tv_nsec;
        ret = save(s);
        machine_resume(m, &pause_nsec);
        job_set(&s->op.job->pause_nsec, pause_nsec);
        if (ret == 0)
                delete_replaced(s);
        return ret;
}

int vm_savevm(struct machine *m, const struct vm_snapshot_options *options, struct vm_job *job,
              struct hvb_error *err)
{
        struct savevm s = { .info = { .struct_bytes = sizeof(s.info), .icount = UINT64_MAX } };
        int ret = choose_tag(options->tag, s.info.name, sizeof(s.info.name), err);

        if (ret < 0)
                return ret;
        ret = vm_op_begin(&s.op, m, options, s.info.name, job, err);
        if (ret == 0)
                ret = savevm(&s, options);
        g_free(s.created);
        vm_op_end(&s.op);
        return ret;
}
