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
#include "snapshot/job.h"
#include "snapshot/vm-disks.h"

enum { CALL_UNITS = (64 << 20) / RAM_UNIT_BYTES };     /* shared by one call */

/* A request's arguments. */
struct range {
        const struct ram_share *share;
        struct hvb_snapshot_info info;
        uint64_t source_offset;
        uint64_t offset;
        uint64_t bytes;
        struct iovec iov;
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

static void start_open(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct range *range = opaque;
        struct ram_share *share = (struct ram_share *) range->share;

        drive_driver(drive)->snapshot_open(drive_image(drive), request, share->base->info.id_str,
                                           share->base->info.name, &range->info, &share->source,
                                           NULL);
}

void ram_share_open(struct ram_share *share, const struct machine_disk *disk,
                    const struct ram_guard *guard)
{
        struct range range = { .share = share, .info = { .struct_bytes = sizeof(range.info) } };
        struct drive_control control = { .start = start_open, .opaque = &range };

        *share = (struct ram_share) { .thread = disk->thread, .base = ram_guard_base(guard) };
        if (share->base == NULL || share->base->disk != disk ||
            drive_thread_call(share->thread, call_facts, share) < 0 ||
            drive_thread_run(share->thread, &control) < 0)
                return;
        /* An id is used again when it was the highest. */
        if (!snapshots_are_of_one_moment(&range.info, &share->base->info))
                ram_share_close(share);
}

static void start_close(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct ram_share *share = opaque;

        drive_driver(drive)->snapshot_close(share->source, request, NULL);
}

void ram_share_close(struct ram_share *share)
{
        struct drive_control control = { .start = start_close, .opaque = share };

        if (share->source != NULL)
                drive_thread_run(share->thread, &control);
        share->source = NULL;
}

/* ---- Sharing -------------------------------------------------------------------------- */

static void start_share(struct drive *drive, struct hvb_request *request, void *opaque)
{
        const struct range *r = opaque;

        drive_driver(drive)->share_vmstate(drive_image(drive), request, r->share->source,
                                           r->source_offset, r->offset, r->bytes);
}

static void start_read(struct drive *drive, struct hvb_request *request, void *opaque)
{
        const struct range *r = opaque;

        drive_driver(drive)->snapshot_preadv(drive_queue(drive), request, r->share->source,
                                             r->source_offset, &r->iov, 1, HVB_REQ_VMSTATE);
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
                struct range range = range_of(share, save, unit, 1);
                struct drive_control control = { .start = start_read, .opaque = &range };
                unsigned writes = 0;

                range.iov = (struct iovec) { bytes, RAM_UNIT_BYTES };
                ret = drive_thread_run(share->thread, &control);
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
