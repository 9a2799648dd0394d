/*
 * savevm.c - a snapshot of the whole machine: RAM, devices, disks, of one moment.
 *
 *   1. what an interrupted savevm left of the tag on the VM-state disk is deleted
 *   2. the disks prepare: all that grows with them; RAM is protected (ram-guard.h)
 *   3. the machine pauses: vcpus are stopped, devices quiet.  Devices' states are taken, RAM
 *      is cut, the disks switch: this is the moment
 *   4. the machine goes on
 *   5. the VM state is written to the VM-state disk, where nothing refers to it
 *   6. snapshots of the other disks are published, beside earlier ones of the tag
 *   7. the snapshot of the VM-state disk is published, takes the VM state, and replaces an
 *      earlier one of the tag, all in one switch: the commit
 *   8. earlier snapshots of the tag on the other disks are deleted
 *
 * Where RAM cannot be guarded the machine goes on only behind 7, and says why.
 *
 * What a crash leaves, before the commit: up to 5 leaked clusters, which the dirty bit
 * repairs; in 6 and 7 snapshots that have no partner of the same moment on the VM-state disk,
 * beside the earlier snapshot, which is complete as before.  After the commit, up to the
 * end of 8: the new snapshot, complete, and on the other disks remains of the earlier one.
 * Never are there two complete ones of a tag, and never none where there was one, for they
 * share the VM-state disk's switch; 1 sees to it that there is exactly one to replace.
 * Snapshots without partners are listed as partial, never loaded, and removed by the tag's
 * next savevm or delvm.
 *
 * A failure before the commit undoes: what was published is deleted, the rest is aborted, and the
 * guest goes on as if nothing had been asked.  After it savevm has succeeded: what 8 cannot delete
 * stays and is listed as partial.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "host/error.h"
#include "snapshot/job.h"
#include "snapshot/ram-lazy.h"
#include "snapshot/vm-op.h"
#include "snapshot/vm-state-writer.h"

struct savevm {
        struct vm_op op;
        struct hvb_snapshot_info info;  /* the same for all disks, but for vm_state_bytes */
        struct hvb_snapshot_info *published;    /* by disk; without id: not yet */
        struct ram_guard *guard;        /* NULL: RAM is saved while the machine is paused */
        bool is_cut;                    /* the guard's */
        bool is_paused;
        struct vm_state_writer writer;
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
        g_autofree char *torn = NULL;
        int ret;

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
        ret = vm_loadvm_unfinished(op->machine, &torn, op->err);
        if (ret < 0)
                return ret;
        if (torn != NULL)
                return error_set(op->err, -EPERM, "the disks do not fit together: a loadvm of "
                                 "'%s' was interrupted; repeat it first", torn);
        return 0;
}

static bool is_state_disk(const struct savevm *s, unsigned i)
{
        return (int) i == s->op.state_disk;
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

/* ---- While the guest runs ------------------------------------------------------------- */

static void stays_paused(struct savevm *s, const struct hvb_error *why)
{
        g_autofree char *text = g_strdup_printf("savevm: the guest is stopped while RAM is saved: "
                                                "%s", why->text);

        s->guard = NULL;
        machine_tell(s->op.machine, text);
}

/* What is being loaded is loaded first: saving reads all of it anyway. */
static int choose_guard(struct savevm *s, bool stopped)
{
        struct guest_memory *memory = machine_memory(s->op.machine);
        struct ram_guard *guard = ram_guard_of(memory);
        struct hvb_error err = ERROR_INIT;
        int ret = guard == NULL ? 0 : ram_lazy_wait(guard, s->op.job, s->op.err);

        if (ret < 0 || stopped)
                return ret;
        s->guard = guard;
        if (guard == NULL && ram_guard_new(s->op.machine, memory, &s->guard, &err) < 0)
                stays_paused(s, &err);
        return 0;
}

static int prepare_disks(struct savevm *s)
{
        for (unsigned i = 0; i < s->op.disks.count; i++) {
                int ret = disk_prepare(&s->op.disks.disks[i], &s->info,
                                       is_state_disk(s, i) ? HVB_SNAPSHOT_REPLACE
                                                           : HVB_SNAPSHOT_DUPLICATE,
                                       s->op.job, s->op.err);

                if (ret < 0)
                        return ret;
        }
        return 0;
}

static int approach(struct savevm *s)
{
        struct hvb_error err = ERROR_INIT;
        int ret;

        if (s->guard == NULL)
                return 0;
        ret = ram_guard_approach(s->guard, s->op.job, &err);
        if (ret == -ECANCELED) {
                *s->op.err = err;
                return ret;
        }
        if (ret < 0) {
                stays_paused(s, &err);
                vm_state_writer_give_up_guard(&s->writer);
        }
        return 0;
}

static int prepare(struct savevm *s, bool stopped)
{
        int ret = choose_guard(s, stopped);

        if (ret == 0)
                ret = vm_state_writer_init(&s->writer, s->op.machine,
                                           vm_op_state_disk(&s->op)->disk, s->guard, s->op.job,
                                           s->op.err);
        if (ret == 0)
                ret = prepare_disks(s);
        if (ret == 0)
                ret = approach(s);
        return ret;
}

/* ---- The moment ----------------------------------------------------------------------- */

static int switch_disks(struct savevm *s)
{
        int ret = 0;

        for (unsigned i = 0; i < s->op.disks.count && ret == 0; i++)
                ret = disk_switch(&s->op.disks.disks[i], s->info.name, s->op.err);
        return ret;
}

static void resume(struct savevm *s)
{
        uint64_t pause_nsec;

        if (!s->is_paused)
                return;
        s->is_paused = false;
        machine_resume(s->op.machine, &pause_nsec);
        job_set(&s->op.job->pause_nsec, pause_nsec);
}

static int cut(struct savevm *s)
{
        struct machine *m = s->op.machine;
        struct timespec now;
        int ret = machine_pause(m, RUN_STATE_SAVE_VM, s->op.err);

        if (ret < 0)
                return ret;
        s->is_paused = true;
        clock_gettime(CLOCK_REALTIME, &now);
        s->info.date_sec = (uint32_t) now.tv_sec;
        s->info.date_nsec = (uint32_t) now.tv_nsec;
        s->info.vm_clock_nsec = machine_clock_nsec(m);
        ret = vm_state_writer_cut(&s->writer, s->info.vm_clock_nsec, &s->is_cut, s->op.err);
        if (ret == 0)
                ret = switch_disks(s);
        if (s->guard != NULL || ret < 0)
                resume(s);
        return ret;
}

/* ---- Behind it ------------------------------------------------------------------------ */

static int publish_disk(struct savevm *s, unsigned i, uint64_t vm_state_bytes)
{
        struct hvb_snapshot_info info = s->info;
        int ret;

        if (job_is_cancelled(s->op.job))
                return error_set(s->op.err, -ECANCELED, "cancelled");
        info.vm_state_bytes = vm_state_bytes;
        ret = disk_publish(&s->op.disks.disks[i], &info, s->op.err);
        if (ret == 0)
                s->published[i] = info;
        return ret;
}

static int save(struct savevm *s)
{
        uint64_t bytes;
        int ret = vm_state_writer_run(&s->writer, &bytes, s->op.err);

        for (unsigned i = 0; i < s->op.disks.count && ret == 0; i++)
                if (!is_state_disk(s, i))
                        ret = publish_disk(s, i, 0);
        return ret < 0 ? ret : publish_disk(s, (unsigned) s->op.state_disk, bytes);
}

/* The snapshot is what RAM is compared with from now on. */
static void end_cut(struct savevm *s, bool success)
{
        struct ram_base base = {
                .info = s->published[s->op.state_disk],
                .disk = vm_op_state_disk(&s->op)->disk,
                .ram_offset = s->writer.header.ram_offset,
        };

        if (!s->is_cut)
                return;
        if (success) {
                base.map = s->writer.map;
                s->writer.map = (struct page_map) { 0, NULL };
        }
        ram_guard_end(s->guard, success ? &base : NULL);
}

static int call_is_poisoned(struct drive *drive, void *opaque)
{
        struct hvb_image_info info;

        (void) opaque;
        drive_get_info(drive, &info);
        return info.poisoned != 0;
}

/* Which of two roots the VM-state disk has shows when it is opened again. */
static bool may_be_committed(const struct savevm *s)
{
        return drive_thread_call(s->op.disks.disks[s->op.state_disk].disk->thread,
                                 call_is_poisoned, NULL) > 0;
}

/* What cannot be deleted stays as a partial snapshot, and the text says so.  Where nobody knows
 * whether this was the commit, the other disks keep what belongs to either. */
static void undo(struct savevm *s)
{
        vm_disks_abort(&s->op.disks);
        if (may_be_committed(s)) {
                size_t length = strlen(s->op.err->text);

                g_snprintf(s->op.err->text + length, sizeof(s->op.err->text) - length,
                           "; whether it was saved shows when the disk is opened again");
                return;
        }
        for (unsigned i = 0; i < s->op.disks.count; i++) {
                struct vm_disk *d = &s->op.disks.disks[i];
                struct hvb_error err = ERROR_INIT;
                size_t length = strlen(s->op.err->text);

                if (s->published[i].id_str[0] == '\0' ||
                    disk_delete(d, s->published[i].id_str, s->info.name, &err) == 0)
                        continue;
                g_snprintf(s->op.err->text + length, sizeof(s->op.err->text) - length,
                           "; a partial snapshot is left: %s", err.text);
        }
}

static int savevm(struct savevm *s, const struct vm_snapshot_options *options)
{
        struct vm_disk *state_disk;
        int ret = judge(s, options);

        if (ret < 0)
                return ret;
        state_disk = vm_op_state_disk(&s->op);
        ret = delete_earlier(s, state_disk, state_disk->found, s->op.err);
        if (ret < 0)
                return ret;
        s->published = g_new0(struct hvb_snapshot_info, s->op.disks.count);
        job_set(&s->op.job->total_bytes, machine_memory(s->op.machine)->ram_bytes);
        ret = prepare(s, options->stopped);
        if (ret == 0)
                ret = cut(s);
        if (ret == 0)
                ret = save(s);
        resume(s);
        end_cut(s, ret == 0);
        if (ret == 0)
                delete_replaced(s);
        else
                undo(s);
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
        vm_state_writer_clear(&s.writer);
        g_free(s.published);
        vm_op_end(&s.op);
        return ret;
}
