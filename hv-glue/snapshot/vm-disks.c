/*
 * vm-disks.c - the disks that a VM snapshot is over, and what is done to each.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/vm-disks.h"

#include <errno.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/job.h"

/* ---- Which -------------------------------------------------------------------------- */

/* The raw driver has the members, but refuses. */
static bool can_snapshot(const struct machine_disk *disk)
{
        return !disk->read_only && strcmp(disk->format, "raw") != 0;
}

static struct vm_disks disks_new(unsigned capacity)
{
        return (struct vm_disks) { g_new0(struct vm_disk, MAX(capacity, 1)), 0 };
}

static void add(struct vm_disks *disks, struct machine_disk *disk)
{
        disks->disks[disks->count++] = (struct vm_disk) { .disk = disk };
}

static int check_ids(struct machine *m, const char *const *ids, struct hvb_error *err)
{
        for (; ids != NULL && *ids != NULL; ids++)
                if (machine_find_disk(m, *ids) == NULL)
                        return error_set(err, -ENOENT, "No block device node '%s'", *ids);
        return 0;
}

static int check_disk(const struct machine_disk *disk, struct hvb_error *err)
{
        if (disk->read_only)
                return error_set(err, -EROFS, "Device '%s' is read-only", disk->id);
        if (!can_snapshot(disk))
                return error_set(err, -ENOTSUP, "Device '%s' is writable but does not support "
                                 "snapshots", disk->id);
        return 0;
}

int vm_disks_select(struct machine *m, const char *const *ids, struct vm_disks *ret_disks,
                    struct hvb_error *err)
{
        unsigned count;
        struct machine_disk *all = machine_disks(m, &count);
        struct vm_disks chosen;
        int ret = check_ids(m, ids, err);

        if (ret < 0)
                return ret;
        chosen = disks_new(count);
        for (unsigned i = 0; i < count && ret == 0; i++) {
                if (ids != NULL ? !g_strv_contains(ids, all[i].id) : all[i].read_only)
                        continue;
                ret = check_disk(&all[i], err);
                add(&chosen, &all[i]);
        }
        if (ret == 0 && chosen.count == 0)
                ret = error_set(err, -ENOMEDIUM, "no block device can store vmstate for snapshot");
        if (ret < 0)
                vm_disks_clear(&chosen);
        else
                *ret_disks = chosen;
        return ret;
}

void vm_disks_all(struct machine *m, struct vm_disks *ret_disks)
{
        unsigned count;
        struct machine_disk *all = machine_disks(m, &count);

        *ret_disks = disks_new(count);
        for (unsigned i = 0; i < count; i++)
                if (can_snapshot(&all[i]))
                        add(ret_disks, &all[i]);
}

void vm_disks_clear(struct vm_disks *disks)
{
        for (unsigned i = 0; i < disks->count; i++)
                g_free(disks->disks[i].infos);
        g_free(disks->disks);
        *disks = (struct vm_disks) { NULL, 0 };
}

int vm_disks_state_disk(const struct vm_disks *disks, const char *id, struct hvb_error *err)
{
        for (unsigned i = 0; i < disks->count; i++)
                if (id == NULL || strcmp(disks->disks[i].disk->id, id) == 0)
                        return (int) i;
        return error_set(err, -ENOENT, "vmstate block device '%s' does not exist", id);
}

/* ---- Lists -------------------------------------------------------------------------- */

bool snapshots_are_of_one_moment(const struct hvb_snapshot_info *a,
                                 const struct hvb_snapshot_info *b)
{
        return a->date_sec == b->date_sec && a->date_nsec == b->date_nsec &&
               a->vm_clock_nsec == b->vm_clock_nsec;
}

static int call_list(struct drive *drive, void *opaque)
{
        struct hvb_snapshot_info **ret_infos = opaque;

        return drive_snapshot_list(drive, ret_infos);
}

static int list_disk(struct vm_disk *d, struct hvb_error *err)
{
        int count;

        g_clear_pointer(&d->infos, g_free);
        d->info_count = 0;
        d->found = NULL;
        count = drive_thread_call(d->disk->thread, call_list, &d->infos);
        if (count < 0)
                return error_set(err, count, "'%s': listing snapshots: %s", d->disk->id,
                                 g_strerror(-count));
        d->info_count = (unsigned) count;
        return 0;
}

/* The first on the disk that has the tag and, where partner is given, is of its moment. */
static const struct hvb_snapshot_info *find(const struct vm_disk *d, const char *tag,
                                            const struct hvb_snapshot_info *partner)
{
        for (unsigned n = 0; n < d->info_count; n++)
                if (strcmp(d->infos[n].name, tag) == 0 &&
                    (partner == NULL || snapshots_are_of_one_moment(&d->infos[n], partner)))
                        return &d->infos[n];
        return NULL;
}

/* Sets found of all disks to partner's set.  False: one has none. */
static bool find_set(struct vm_disks *disks, const char *tag,
                     const struct hvb_snapshot_info *partner)
{
        bool is_complete = true;

        for (unsigned i = 0; i < disks->count; i++) {
                disks->disks[i].found = find(&disks->disks[i], tag, partner);
                is_complete = is_complete && disks->disks[i].found != NULL;
        }
        return is_complete;
}

static void find_tag(struct vm_disks *disks, const char *tag)
{
        const struct vm_disk *first = &disks->disks[0];

        for (unsigned n = 0; disks->count > 0 && n < first->info_count; n++)
                if (strcmp(first->infos[n].name, tag) == 0 &&
                    find_set(disks, tag, &first->infos[n]))
                        return;
        find_set(disks, tag, NULL);
}

int vm_disks_list(struct vm_disks *disks, const char *tag, struct hvb_error *err)
{
        int ret = 0;

        for (unsigned i = 0; i < disks->count && ret == 0; i++)
                ret = list_disk(&disks->disks[i], err);
        if (ret == 0 && tag != NULL)
                find_tag(disks, tag);
        return ret;
}

/* ---- One disk ----------------------------------------------------------------------- */

struct control {
        const char *id;
        const char *tag;
        struct hvb_snapshot_info *info;
        uint32_t flags;
        struct vm_job *job;             /* that may be cancelled; or NULL */
        struct hvb_error *err;
};

static void start_create(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct control *c = opaque;

        drive_driver(drive)->snapshot_create(drive_image(drive), request, c->info, c->flags,
                                             c->err);
}

static void start_goto_prepare(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct control *c = opaque;

        drive_driver(drive)->snapshot_goto_prepare(drive_image(drive), request, c->id, c->tag,
                                                   c->err);
}

static void start_goto(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct control *c = opaque;

        drive_driver(drive)->snapshot_goto(drive_image(drive), request, c->id, c->tag, c->err);
}

static void start_delete(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct control *c = opaque;

        drive_driver(drive)->snapshot_delete(drive_image(drive), request, c->id, c->tag, c->err);
}

static void start_load_vmstate(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct control *c = opaque;

        drive_driver(drive)->snapshot_load_vmstate(drive_image(drive), request, c->id, c->tag,
                                                   c->err);
}

static void start_prepare(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct control *c = opaque;

        drive_driver(drive)->snapshot_prepare(drive_image(drive), request, c->info, c->flags,
                                              c->err);
}

static void start_switch(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct control *c = opaque;

        drive_driver(drive)->snapshot_switch(drive_image(drive), request, c->err);
}

static void start_publish(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct control *c = opaque;

        drive_driver(drive)->snapshot_publish(drive_image(drive), request, c->info, c->err);
}

static void start_abort(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct control *c = opaque;

        drive_driver(drive)->snapshot_abort(drive_image(drive), request, c->err);
}

static bool is_cancelled(void *opaque)
{
        struct control *c = opaque;

        return c->job != NULL && job_is_cancelled(c->job);
}

/* words, QEMU's, are put in front of the driver's own on failure. */
static int run(struct vm_disk *d,
               void (*start)(struct drive *drive, struct hvb_request *request, void *opaque),
               struct control *c, const char *words)
{
        struct drive_control control = {
                .start = start, .opaque = c, .is_cancelled = is_cancelled,
        };
        struct hvb_error err = ERROR_INIT;
        struct hvb_error *caller = c->err;
        int ret;

        c->err = &err;
        ret = drive_thread_run(d->disk->thread, &control);
        c->err = caller;
        if (ret == -ECANCELED)
                return error_set(caller, ret, "cancelled");
        if (ret < 0)
                error_set(caller, ret, "Could not %s snapshot '%s' on '%s': %s", words, c->tag,
                          d->disk->id, error_text(&err, ret));
        return ret;
}

int disk_create(struct vm_disk *d, struct hvb_snapshot_info *info, uint32_t flags,
                struct hvb_error *err)
{
        struct control c = { .tag = info->name, .info = info, .flags = flags, .err = err };

        return run(d, start_create, &c, "create");
}

static int call_has_phases(struct drive *drive, void *opaque)
{
        (void) opaque;
        return HVB_HAS(drive_driver(drive), snapshot_abort) ? 0 : -ENOTSUP;
}

int disk_prepare(struct vm_disk *d, const struct hvb_snapshot_info *info, uint32_t flags,
                 struct vm_job *job, struct hvb_error *err)
{
        struct hvb_snapshot_info copy = *info;
        struct control c = {
                .tag = info->name, .info = &copy, .flags = flags, .job = job, .err = err,
        };
        int ret;

        if (drive_thread_call(d->disk->thread, call_has_phases, NULL) < 0)
                return error_set(err, -ENOTSUP, "'%s': the driver makes no snapshot in phases",
                                 d->disk->id);
        ret = run(d, start_prepare, &c, "create");
        d->is_prepared = ret == 0;
        return ret;
}

int disk_switch(struct vm_disk *d, const char *tag, struct hvb_error *err)
{
        struct control c = { .tag = tag, .err = err };

        return run(d, start_switch, &c, "create");
}

int disk_publish(struct vm_disk *d, struct hvb_snapshot_info *info, struct hvb_error *err)
{
        struct control c = { .tag = info->name, .info = info, .err = err };

        d->is_prepared = false;
        return run(d, start_publish, &c, "create");
}

void vm_disks_abort(struct vm_disks *disks)
{
        for (unsigned i = 0; i < disks->count; i++) {
                struct control c = { .tag = "" };

                if (disks->disks[i].is_prepared)
                        run(&disks->disks[i], start_abort, &c, "abort");
                disks->disks[i].is_prepared = false;
        }
}

static int call_can_prepare_goto(struct drive *drive, void *opaque)
{
        (void) opaque;
        return HVB_HAS(drive_driver(drive), snapshot_goto_prepare) ? 0 : -ENOTSUP;
}

int disk_goto_prepare(struct vm_disk *d, const char *id, const char *tag, struct vm_job *job,
                      struct hvb_error *err)
{
        struct control c = { .id = id, .tag = tag, .job = job, .err = err };
        int ret;

        if (drive_thread_call(d->disk->thread, call_can_prepare_goto, NULL) < 0)
                return 0;
        ret = run(d, start_goto_prepare, &c, "load");
        d->is_prepared = ret == 0;
        return ret;
}

int disk_goto(struct vm_disk *d, const char *id, const char *tag, struct hvb_error *err)
{
        struct control c = { .id = id, .tag = tag, .err = err };

        d->is_prepared = false;
        return run(d, start_goto, &c, "load");
}

int disk_delete(struct vm_disk *d, const char *id, const char *tag, struct hvb_error *err)
{
        struct control c = { .id = id, .tag = tag, .err = err };

        return run(d, start_delete, &c, "delete");
}

static int call_can_load_vmstate(struct drive *drive, void *opaque)
{
        (void) opaque;
        return HVB_HAS(drive_driver(drive), snapshot_load_vmstate) ? 0 : -ENOTSUP;
}

int disk_load_vmstate(struct vm_disk *d, const char *id, const char *tag, struct hvb_error *err)
{
        struct control c = { .id = id, .tag = tag, .err = err };

        if (drive_thread_call(d->disk->thread, call_can_load_vmstate, NULL) < 0)
                return error_set(err, -ENOTSUP, "'%s': the driver reads no VM state before it "
                                 "goes back", d->disk->id);
        return run(d, start_load_vmstate, &c, "read");
}
