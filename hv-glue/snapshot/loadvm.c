/*
 * loadvm.c - back to a snapshot of the whole machine.
 *
 *   1. while the machine runs: the tag must be on all disks, of one moment, with a VM
 *      state; the VM state is read but for RAM, and judged to the last field
 *   2. over several disks: a record of the load is made durable
 *   3. what of going back grows with the disks is done; the machine pauses
 *   4. the disks go back, the VM-state disk last: the commit
 *   5. the machine gets new RAM, in which nothing is yet (ram-lazy.h); devices and guest time
 *      take their state, the record goes, the machine goes on
 *   6. RAM is read while the guest runs: what it touches, and all the rest
 *
 * If asked to, or where RAM cannot be guarded, all of it is read between 3 and 4, each page
 * against its sum, over what it held.
 *
 * What is refused in 1 or fails in 2 or 3 has changed nothing.  A failure to read all of RAM
 * costs the running guest, but not its disks, which is why it comes before them.  A failure in 4
 * may leave disks of two moments: the machine cannot go on, and the record stays.  One in 6
 * stops the machine for good, which another loadvm or a reset ends.
 *
 * A crash before 4 leaves the disks as they were: the record asks for the load to be
 * repeated, or for a delvm of the record.  In 4 it leaves some disks gone back and some not:
 * vm_loadvm_unfinished tells, and the load is repeated.  In 5 all disks have gone back.
 * One disk needs no record: it goes back in one switch.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/job.h"
#include "snapshot/ram-lazy.h"
#include "snapshot/vm-op.h"
#include "snapshot/vm-state-file.h"

struct loadvm {
        struct vm_op op;
        const char *tag;
        bool repeats;                   /* a load of the tag that was torn: its record stays until
                                         * all disks have gone back */
        struct vm_state_file state;
        struct guest_memory fresh;      /* RAM that is loaded as the guest goes; no ram: read
                                         * before.  Then what the machine had before */
};

/* ---- Before anything changes -------------------------------------------------------- */

/* The disk that is named, or the first whose snapshot has a VM state. */
static int find_state_disk(struct loadvm *l, const char *id)
{
        struct vm_disks *disks = &l->op.disks;
        unsigned i = 0;

        if (id != NULL)
                return vm_disks_state_disk(disks, id, l->op.err);
        while (i < disks->count && disks->disks[i].found->vm_state_bytes == 0)
                i++;
        return i < disks->count ? (int) i : 0;
}

static int judge_snapshots(struct loadvm *l, const struct vm_snapshot_options *options)
{
        struct vm_disks *disks = &l->op.disks;
        const struct vm_disk *state_disk;

        for (unsigned i = 0; i < disks->count; i++)
                if (disks->disks[i].found == NULL)
                        return error_set(l->op.err, -ENOENT, "Snapshot '%s' does not exist in one "
                                         "or more devices", l->tag);
        l->op.state_disk = find_state_disk(l, options->vmstate_disk);
        if (l->op.state_disk < 0)
                return l->op.state_disk;
        state_disk = vm_op_state_disk(&l->op);
        if (state_disk->found->vm_state_bytes == 0)
                return error_set(l->op.err, -EINVAL, "This is a disk-only snapshot. Revert to it "
                                 " offline using qemu-img");
        for (unsigned i = 0; i < disks->count; i++)
                if (!snapshots_are_of_one_moment(disks->disks[i].found, state_disk->found))
                        return error_set(l->op.err, -EINVAL, "Snapshot '%s' is partial: that of "
                                         "'%s' is of another moment than that of '%s'", l->tag,
                                         disks->disks[i].disk->id, state_disk->disk->id);
        return 0;
}

static void loads_eagerly(struct loadvm *l, const struct hvb_error *why)
{
        g_autofree char *text = g_strdup_printf("loadvm: the guest waits until all of RAM is read: "
                                                "%s", why->text);

        guest_memory_clear(&l->fresh);
        machine_tell(l->op.machine, text);
}

/* RAM for the machine, and who fills it. */
static void prepare_ram(struct loadvm *l)
{
        const struct guest_memory *memory = machine_memory(l->op.machine);
        struct hvb_error err = ERROR_INIT;
        struct ram_base base = {
                .info = *vm_op_state_disk(&l->op)->found,
                .disk = vm_op_state_disk(&l->op)->disk,
                .ram_offset = l->state.header.ram_offset,
                .map = l->state.map,
        };

        if (guest_memory_init(&l->fresh, memory->ram_bytes, memory->huge_pages, &err) < 0 ||
            ram_lazy_new(l->op.machine, &l->fresh, &base,
                         vm_state_touch_offset(&l->state.header), &err) < 0)
                loads_eagerly(l, &err);
        l->state.map = base.map;
}

static int prepare_disks(struct loadvm *l)
{
        int ret = 0;

        for (unsigned i = 0; i < l->op.disks.count && ret == 0; i++) {
                struct vm_disk *d = &l->op.disks.disks[i];

                ret = disk_goto_prepare(d, d->found->id_str, l->tag, l->op.job, l->op.err);
        }
        return ret;
}

static int prepare(struct loadvm *l, const struct vm_snapshot_options *options)
{
        struct vm_disk *state_disk;
        int ret = judge_snapshots(l, options);

        if (ret < 0)
                return ret;
        state_disk = vm_op_state_disk(&l->op);
        ret = disk_load_vmstate(state_disk, state_disk->found->id_str, l->tag, l->op.err);
        if (ret < 0)
                return ret;
        ret = vm_state_open(l->op.machine, state_disk->disk, state_disk->found->vm_state_bytes,
                            &l->state, l->op.err);
        if (ret < 0)
                return ret;
        if (job_is_cancelled(l->op.job))
                return error_set(l->op.err, -ECANCELED, "cancelled");
        if (!options->eager)
                prepare_ram(l);
        l->repeats = torn_has(&l->op, l->tag);
        return torn_record(&l->op, l->tag);
}

/* ---- The change --------------------------------------------------------------------- */

/* No disk has gone back: they are as before, and so are records of what was torn before.  The first
 * error stays. */
static void take_back(struct loadvm *l)
{
        struct hvb_error first = *l->op.err;

        vm_disks_abort(&l->op.disks);
        if (!l->repeats)
                torn_erase(&l->op, l->tag);
        *l->op.err = first;
}

/* Words behind the text of the error: what the operator can do now. */
static void advise(struct loadvm *l, const char *words)
{
        size_t length = strlen(l->op.err->text);

        g_snprintf(l->op.err->text + length, sizeof(l->op.err->text) - length, "; %s", words);
        machine_fail(l->op.machine, l->op.err->text);
}

static int goto_disk(struct loadvm *l, unsigned i)
{
        struct vm_disk *d = &l->op.disks.disks[i];

        return disk_goto(d, d->found->id_str, l->tag, l->op.err);
}

static int goto_disks(struct loadvm *l)
{
        int ret = 0;

        for (unsigned i = 0; i < l->op.disks.count && ret == 0; i++)
                if ((int) i != l->op.state_disk)
                        ret = goto_disk(l, i);
        return ret < 0 ? ret : goto_disk(l, (unsigned) l->op.state_disk);
}

/* All of RAM, in place, which from now on is like any other. */
static int read_ram(struct loadvm *l)
{
        guest_memory_unwatch(machine_memory(l->op.machine));
        machine_forget_wanted(l->op.machine);
        return vm_state_load_ram(&l->state, l->op.machine, l->op.job, l->op.err);
}

/* What is still being loaded into the old RAM matters to nobody, nor that it cannot be. */
static int change_ram(struct loadvm *l)
{
        struct ram_guard *old = ram_guard_of(machine_memory(l->op.machine));
        int ret;

        if (l->fresh.ram == NULL)
                return 0;
        if (old != NULL)
                ram_lazy_leave(old);
        machine_forget_wanted(l->op.machine);
        ret = machine_swap_memory(l->op.machine, &l->fresh, l->op.err);
        if (ret == 0)
                ret = ram_lazy_start(ram_guard_of(machine_memory(l->op.machine)), l->op.err);
        return ret;
}

static bool are_all_disks(struct loadvm *l)
{
        struct hvb_error err = ERROR_INIT;
        struct vm_disks all = { .count = 0 };
        bool ret = vm_disks_select(l->op.machine, NULL, &all, &err) == 0 &&
                   all.count == l->op.disks.count;

        vm_disks_clear(&all);
        return ret;
}

/* All disks are of one moment now.  Of others than those that were asked for nothing is known. */
static int erase_record(struct loadvm *l)
{
        if (are_all_disks(l))
                return torn_erase(&l->op, NULL);
        return l->repeats ? 0 : torn_erase(&l->op, l->tag);
}

/* The machine is paused.  On failure it has failed for good, and the text says more. */
static int change(struct loadvm *l)
{
        int ret = l->fresh.ram == NULL ? read_ram(l) : 0;

        if (ret < 0) {
                take_back(l);
                advise(l, "RAM is lost, the disks are as before: system_reset, or loadvm of "
                          "another snapshot");
                return ret;
        }
        ret = goto_disks(l);
        if (ret < 0) {
                vm_disks_abort(&l->op.disks);
                advise(l, l->op.disks.count > 1 ? "disks may be of two moments: repeat the loadvm"
                                                : "RAM is lost: repeat the loadvm, or "
                                                  "system_reset");
                return ret;
        }
        ret = change_ram(l);
        if (ret == 0)
                ret = device_states_apply(l->op.machine, &l->state.devices, l->op.err);
        if (ret == 0)
                ret = erase_record(l);
        if (ret < 0) {
                advise(l, "the disks have gone back: repeat the loadvm");
                return ret;
        }
        machine_set_clock_nsec(l->op.machine, l->state.header.clock_nsec);
        return 0;
}

static int loadvm(struct loadvm *l, const struct vm_snapshot_options *options)
{
        struct machine *m = l->op.machine;
        uint64_t pause_nsec;
        int ret = prepare(l, options);

        if (ret < 0)
                return ret;
        job_set(&l->op.job->total_bytes, machine_memory(m)->ram_bytes);
        ret = prepare_disks(l);
        if (ret == 0)
                ret = machine_pause(m, RUN_STATE_RESTORE_VM, l->op.err);
        if (ret < 0) {
                take_back(l);
                return ret;
        }
        ret = change(l);
        if (ret == 0) {
                machine_resume(m, &pause_nsec);
                job_set(&l->op.job->pause_nsec, pause_nsec);
                job_set(&l->op.job->done_bytes, machine_memory(m)->ram_bytes);
        }
        return ret;
}

int vm_loadvm(struct machine *m, const struct vm_snapshot_options *options, struct vm_job *job,
              struct hvb_error *err)
{
        struct loadvm l = { .tag = options->tag };
        int ret;

        if (options->tag == NULL)
                return error_set(err, -EINVAL, "loadvm needs the tag of a snapshot");
        ret = vm_op_begin(&l.op, m, options, options->tag, job, err);
        if (ret == 0)
                ret = loadvm(&l, options);
        vm_state_close(&l.state);
        guest_memory_clear(&l.fresh);
        vm_op_end(&l.op);
        return ret;
}
