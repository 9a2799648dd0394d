/*
 * hv-img-open.c - opening images as qemu-img does; block status.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/loader.h"
#include "hv-img.h"

enum { SECTOR_BYTES = 512 };

static void watch_log(void *opaque, enum hvb_log_level level, const char *text)
{
        (void) opaque;
        if (level == HVB_LOG_ERROR)
                img_error("%s", text);
        else if (level == HVB_LOG_WARNING)
                img_error("warning: %s", text);
}

static void watch_event(void *opaque, const struct hvb_event *event)
{
        (void) opaque;
        if (event->type == HVB_EVENT_REPAIR_BEGIN || event->code == 0)
                return;
        img_error("%s", event->text == NULL ? g_strerror(-event->code) : event->text);
}

const struct drive_watch *img_watch(void)
{
        static const struct drive_watch watch = { .log = watch_log, .event = watch_event };

        return &watch;
}

/* A format name that no plugin serves is the operator's slip, not a missing file. */
static int check_format(const char *format, struct hvb_error *err)
{
        const struct hvb_driver *driver;
        int ret = loader_load(format, &driver, err);

        if ((ret == -ENOENT && strcmp(format, "qcow2") != 0) || ret == -EINVAL)
                return error_set(err, ret, "Unknown driver '%s'", format);
        return ret;
}

static int try_open(const char *path, const struct img_open *how, struct drive **ret_drive,
                    struct hvb_error *err)
{
        const struct drive_options options = {
                .format = how->format,
                .flags = how->flags,
                .cache = how->cache,
                .policy = img_policy(),
                .watch = img_watch(),
        };
        int ret = 0;

        if (how->format != NULL)
                ret = check_format(how->format, err);
        if (ret == 0 && how->flags & HVB_OPEN_FORCE_SHARE && how->flags & HVB_OPEN_RDWR)
                ret = error_set(err, -EINVAL,
                                "force-share=on can only be used with read-only images");
        if (ret == 0 && how->is_named_by_image)
                ret = policy_judge_path(img_policy(), path, err);
        if (ret < 0)
                return ret;
        return drive_open(path, &options, ret_drive, err);
}

int img_open(const char *path, const struct img_open *how, struct drive **ret_drive)
{
        struct hvb_error err = ERROR_INIT;
        int ret = try_open(path, how, ret_drive, &err);

        if (ret < 0) {
                g_autofree char *hint = error_lock_hint(path, &err);

                img_error("Could not open '%s': %s%s", path, error_text(&err, ret), hint);
                return ret;
        }
        if (drive_was_probed(*ret_drive) && how->flags & HVB_OPEN_RDWR
            && strcmp(drive_format(*ret_drive), "raw") == 0)
                fprintf(stderr, "WARNING: Image format was not specified for '%s' and probing "
                        "guessed raw.\n"
                        "         Automatically detecting the format is dangerous for raw "
                        "images.\n"
                        "         Specify the 'raw' format explicitly.\n", path);
        return 0;
}

int img_close(struct drive *drive)
{
        g_autofree char *path = drive == NULL ? NULL : g_strdup(drive_path(drive));
        struct hvb_error err = ERROR_INIT;
        int ret = drive_close(drive, &err);

        if (ret < 0)
                img_error("Could not close '%s': %s", path, error_text(&err, ret));
        return ret;
}

/* Shortens status to what is all hole or all data in fd, and marks a hole. */
static void refine_status(int fd, struct hvb_block_status *status)
{
        off_t start = status->host_offset;
        off_t data = lseek(fd, start, SEEK_DATA);
        off_t end;

        if (data < 0 && errno != ENXIO)
                return;                 /* a file system or device that cannot say */
        if (data == start) {
                /* A sector that the file ends in counts as data. */
                end = (lseek(fd, start, SEEK_HOLE) + SECTOR_BYTES - 1) / SECTOR_BYTES
                        * SECTOR_BYTES;
        } else {
                status->flags |= HVB_STATUS_ZERO;
                end = data;             /* -1: no data up to the end of the file and beyond */
        }
        if (end > start && (uint64_t) (end - start) < status->length_bytes)
                status->length_bytes = end - start;
}

int img_block_status(struct drive *drive, uint64_t offset, uint64_t length_bytes,
                     struct hvb_block_status *ret_status)
{
        const uint32_t plain = HVB_STATUS_DATA | HVB_STATUS_OFFSET_VALID;
        int ret = drive_block_status(drive, offset, length_bytes, ret_status);

        if (ret == 0 && ret_status->length_bytes == 0)
                ret = -EIO;             /* within the disk there is always something */
        if (ret == 0
            && (ret_status->flags & (plain | HVB_STATUS_ZERO | HVB_STATUS_COMPRESSED)) == plain) {
                int fd = drive_chain_fd(drive, ret_status->depth);
                const char *format = drive_chain_format(drive, ret_status->depth);

                if (fd >= 0)
                        refine_status(fd, ret_status);
                /* A hole in a raw file is no data; one in a cluster is the cluster's. */
                if (ret_status->flags & HVB_STATUS_ZERO && strcmp(format, "raw") == 0)
                        ret_status->flags &= ~HVB_STATUS_DATA;
        }
        return ret;
}
