/*
 * ram-share.c - RAM that has not changed, on its way into a VM state: by reference.
 *
 * What the driver does not share (a count at its limit, a compressed cluster) is copied from the
 * base, against its sums: RAM itself may have changed since the cut, and a page that was damaged
 * meanwhile must not get a new sum.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/ram-share.h"

#include <errno.h>
#include <stdlib.h>

#include "host/error.h"
#include "snapshot/disk-snapshot.h"
#include "snapshot/job.h"
#include "snapshot/vm-disks.h"

enum { CALL_UNITS = (64 << 20) / RAM_UNIT_BYTES };     /* shared by one call */

/* A request's arguments. */
struct range {
        const struct ram_share *share;
        uint64_t source_offset;
        uint64_t offset;
        uint64_t bytes;
};

/* ---- The base ------------------------------------------------------------------------- */

static int call_facts(struct drive *drive, void *opaque)
{
        struct ram_share *share = opaque;
        struct hvb_image_info info;

        if (!HVB_HAS(drive_driver(drive), share_vmstate))
                return -ENOTSUP;
        drive_get_info(drive, &info);
        share->cluster_bytes = info.cluster_bytes;
        return 0;
}

void ram_share_open(struct ram_share *share, const struct machine_disk *disk,
                    const struct ram_guard *guard)
{
        const struct ram_base *base = ram_guard_base(guard);
        struct hvb_snapshot_info info;

        *share = (struct ram_share) { .thread = disk->thread, .base = base };
        if (base == NULL || base->disk != disk ||
            drive_thread_call(share->thread, call_facts, share) < 0 ||
            disk_snapshot_open(share->thread, base->info.id_str, base->info.name, &info,
                               &share->source, NULL) < 0)
                return;
        /* An id is used again when it was the highest. */
        if (!snapshots_are_of_one_moment(&info, &base->info))
                ram_share_close(share);
}

void ram_share_close(struct ram_share *share)
{
        disk_snapshot_close(share->thread, share->source);
        share->source = NULL;
}

/* ---- Sharing -------------------------------------------------------------------------- */

static void start_share(struct drive *drive, struct hvb_request *request, void *opaque)
{
        const struct range *r = opaque;

        drive_driver(drive)->share_vmstate(drive_image(drive), request, r->share->source,
                                           r->source_offset, r->offset, r->bytes);
}

static struct range range_of(const struct ram_share *share, const struct ram_save *save,
                             uint64_t unit, uint64_t count)
{
        return (struct range) {
                .share = share,
                .source_offset = share->base->ram_offset + unit * RAM_UNIT_BYTES,
                .offset = save->ram_offset + unit * RAM_UNIT_BYTES,
                .bytes = count * RAM_UNIT_BYTES,
        };
}

/* One unit after the other, through memory. */
static int copy_units(struct ram_share *share, struct ram_save *save, uint64_t unit,
                      uint64_t count, struct hvb_error *err)
{
        const struct page_map *map = &share->base->map;
        int ret = 0;
        void *bytes;

        if (posix_memalign(&bytes, GUEST_PAGE_BYTES, RAM_UNIT_BYTES) != 0)
                return -ENOMEM;
        for (uint64_t end = unit + count; unit < end && ret == 0; unit++) {
                uint64_t offset = share->base->ram_offset + unit * RAM_UNIT_BYTES;
                unsigned writes = 0;

                ret = disk_snapshot_read(share->thread, share->source, offset, bytes,
                                         RAM_UNIT_BYTES, HVB_REQ_VMSTATE);
                if (ret == 0)
                        ret = page_map_check_pages(map, unit * RAM_UNIT_PAGES, RAM_UNIT_PAGES,
                                                   bytes, err);
                if (ret == 0)
                        ret = ram_save_copy(save, unit * RAM_UNIT_PAGES, RAM_UNIT_PAGES, bytes,
                                            &writes, NULL);
                if (ret == 0)
                        ret = vmstate_io_wait(save->io);
        }
        vmstate_io_wait(save->io);
        free(bytes);
        return ret;
}

static int share_units(struct ram_share *share, struct ram_save *save, uint64_t unit,
                       uint64_t count, struct hvb_error *err)
{
        struct range range = range_of(share, save, unit, count);
        struct drive_control control = { .start = start_share, .opaque = &range };
        int ret = drive_thread_run(share->thread, &control);

        if (ret == -ENOTSUP || ret == -EINVAL)
                return copy_units(share, save, unit, count, err);
        if (ret < 0)
                return ret;
        page_map_copy(save->map, &share->base->map, unit * RAM_UNIT_PAGES,
                      count * RAM_UNIT_PAGES);
        job_count(&save->job->done_bytes, range.bytes);
        return 0;
}

int ram_share_save(struct ram_share *share, const struct ram_guard *guard, struct ram_save *save,
                   struct hvb_error *err)
{
        uint64_t unit_count = save->map->page_count / RAM_UNIT_PAGES;
        uint64_t run;
        int ret = 0;

        if (share->source == NULL)
                return 0;
        for (uint64_t unit = 0; unit < unit_count && ret == 0; unit += run) {
                bool due;

                run = ram_guard_run(guard, unit, CALL_UNITS - unit % CALL_UNITS, &due);
                if (job_is_cancelled(save->job))
                        ret = -ECANCELED;
                else if (!due)
                        ret = share_units(share, save, unit, run, err);
        }
        return ret;
}
