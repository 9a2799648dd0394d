/*
 * hv-drive.c - "-drive file=...,format=...": one disk.
 *
 * A format is never guessed: a guest could write the head of another one into its raw
 * disk.  Without format= it is qcow2.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "host/error.h"
#include "tools/hv-options.h"

/* The default outlasts the locks of an hv that was killed; another one's stand anyway. */
enum { LOCK_TIMEOUT_MS = 1000, LOCK_TIMEOUT_MAX_MS = 600000 };

/* Sets what value says of a disk.  False: it is none of what expected says. */
struct drive_key {
        const char *name;
        bool (*set)(struct machine_disk_config *disk, const char *value);
        const char *expected;
        const char *help;
};

static bool set_string(const char **place, const char *value)
{
        *place = value;
        return value[0] != '\0';
}

static bool set_file(struct machine_disk_config *disk, const char *value)
{
        return set_string(&disk->path, value);
}

static bool set_format(struct machine_disk_config *disk, const char *value)
{
        disk->format = value;
        return strcmp(value, "qcow2") == 0 || strcmp(value, "raw") == 0;
}

static bool set_interface(struct machine_disk_config *disk, const char *value)
{
        (void) disk;
        return strcmp(value, "virtio") == 0 || strcmp(value, "none") == 0;
}

static bool set_id(struct machine_disk_config *disk, const char *value)
{
        return set_string(&disk->id, value);
}

static bool set_cache(struct machine_disk_config *disk, const char *value)
{
        return drive_cache_parse(value, &disk->cache);
}

static bool set_aio(struct machine_disk_config *disk, const char *value)
{
        (void) disk;
        return strcmp(value, "io_uring") == 0 || strcmp(value, "native") == 0
               || strcmp(value, "threads") == 0;
}

static bool set_bool(bool *place, const char *value, const char *on, const char *also_on,
                     const char *off, const char *also_off)
{
        *place = strcmp(value, on) == 0 || strcmp(value, also_on) == 0;
        return *place || strcmp(value, off) == 0 || strcmp(value, also_off) == 0;
}

static bool set_read_only(struct machine_disk_config *disk, const char *value)
{
        return set_bool(&disk->read_only, value, "on", "yes", "off", "no");
}

static bool set_discard(struct machine_disk_config *disk, const char *value)
{
        return set_bool(&disk->discard_unmap, value, "unmap", "on", "ignore", "off");
}

static bool set_serial(struct machine_disk_config *disk, const char *value)
{
        disk->serial = value;
        return strlen(value) <= VIRTIO_BLK_SERIAL_MAX;
}

static bool set_queue_size(struct machine_disk_config *disk, const char *value)
{
        guint64 size;

        if (!g_ascii_string_to_unsigned(value, 10, 4, VIRTQ_SIZE_MAX, &size, NULL))
                return false;
        disk->queue_size = size;
        return (size & (size - 1)) == 0;
}

static bool set_lock_timeout(struct machine_disk_config *disk, const char *value)
{
        guint64 timeout_ms;

        if (!g_ascii_string_to_unsigned(value, 10, 0, LOCK_TIMEOUT_MAX_MS, &timeout_ms, NULL))
                return false;
        disk->lock_timeout_ms = (unsigned) timeout_ms;
        return true;
}

static bool parse_policy(enum disk_error_policy *place, const char *value)
{
        static const char *const names[] = {
                [DISK_ERROR_ENOSPC] = "enospc",
                [DISK_ERROR_REPORT] = "report",
                [DISK_ERROR_IGNORE] = "ignore",
                [DISK_ERROR_STOP] = "stop",
        };

        for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
                if (strcmp(value, names[i]) == 0) {
                        *place = i;
                        return true;
                }
        }
        return false;
}

static bool set_write_error(struct machine_disk_config *disk, const char *value)
{
        return parse_policy(&disk->write_error, value);
}

static bool set_read_error(struct machine_disk_config *disk, const char *value)
{
        return strcmp(value, "enospc") != 0 && parse_policy(&disk->read_error, value);
}

static const struct drive_key keys[] = {
        { "file", set_file, "a path", "the image; required" },
        { "format", set_format, "qcow2 or raw", "qcow2 (default) or raw; never guessed" },
        { "if", set_interface, "virtio", "virtio: all disks are virtio-blk" },
        { "id", set_id, "a name", "its name in monitors (virtio0, virtio1, ...)" },
        { "cache", set_cache, "none, writeback, writethrough, directsync or unsafe",
          "none, writeback (default), writethrough, directsync, unsafe" },
        { "readonly", set_read_only, "on or off", "on or off (default)" },
        { "read-only", set_read_only, "on or off", NULL },
        { "serial", set_serial, "at most 20 bytes", "what the guest sees as its serial number" },
        { "discard", set_discard, "unmap, on, ignore or off",
          "unmap: the guest's discards free space; ignore (default)" },
        { "werror", set_write_error, "enospc, report, ignore or stop",
          "failed writes: enospc (default: stop the machine if there is no space, else report), "
          "report, ignore, stop" },
        { "rerror", set_read_error, "report, ignore or stop",
          "failed reads: report (default), ignore, stop" },
        { "queue-size", set_queue_size, "a power of 2, from 4 to 1024",
          "descriptors of the queue (256)" },
        { "lock-timeout", set_lock_timeout, "milliseconds, from 0 to 600000",
          "milliseconds to wait while another process has the image (1000)" },
        { "aio", set_aio, "io_uring, native or threads",
          "accepted for QEMU's sake: it is io_uring where the kernel has it" },
};

void hv_drive_print_help(void)
{
        printf("-drive takes key=value, separated by commas (a comma in a value is written\n"
               "twice):\n");
        for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++)
                if (keys[i].help != NULL)
                        printf("  %-12s %s\n", keys[i].name, keys[i].help);
}

char **hv_split_commas(const char *text)
{
        GPtrArray *parts = g_ptr_array_new();
        GString *part = g_string_new(NULL);

        for (;; text++) {
                if (*text == ',' && text[1] == ',') {
                        g_string_append_c(part, *text++);
                } else if (*text == ',' || *text == '\0') {
                        g_ptr_array_add(parts, g_strdup(part->str));
                        g_string_truncate(part, 0);
                        if (*text == '\0')
                                break;
                } else {
                        g_string_append_c(part, *text);
                }
        }
        g_string_free(part, TRUE);
        g_ptr_array_add(parts, NULL);
        return (char **) g_ptr_array_free(parts, FALSE);
}

static int set_key(struct machine_disk_config *disk, const char *name, const char *value,
                   struct hvb_error *err)
{
        for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
                if (strcmp(keys[i].name, name) != 0)
                        continue;
                if (keys[i].set(disk, value))
                        return 0;
                return error_set(err, -EINVAL, "-drive: '%s=%s': must be %s", name, value,
                                 keys[i].expected);
        }
        return error_set(err, -EINVAL, "-drive: '%s' is unknown; -help lists what "
                         "there is", name);
}

static bool is_id_taken(const struct hv_options *options, const char *id)
{
        for (guint i = 0; i < options->disks->len; i++)
                if (strcmp(g_array_index(options->disks, struct machine_disk_config, i).id, id)
                    == 0)
                        return true;
        return false;
}

int hv_drive_add(struct hv_options *options, const char *text, struct hvb_error *err)
{
        struct machine_disk_config disk = {
                .format = "qcow2",
                .read_error = DISK_ERROR_REPORT,
                .lock_timeout_ms = LOCK_TIMEOUT_MS,
        };
        g_auto(GStrv) parts = hv_split_commas(text);

        for (char **part = parts; *part != NULL; part++) {
                char *value = strchr(*part, '=');
                int ret;

                if (value == NULL)
                        return error_set(err, -EINVAL, "-drive: '%s' is not key=value", *part);
                *value = '\0';
                value = g_strdup(value + 1);
                g_ptr_array_add(options->strings, value);
                ret = set_key(&disk, *part, value, err);
                if (ret < 0)
                        return ret;
        }
        if (disk.path == NULL)
                return error_set(err, -EINVAL, "-drive: file= is missing");
        if (disk.id == NULL) {
                char *id = g_strdup_printf("virtio%u", options->disks->len);

                g_ptr_array_add(options->strings, id);
                disk.id = id;
        }
        if (is_id_taken(options, disk.id))
                return error_set(err, -EINVAL, "-drive: there are two disks with id '%s'",
                                 disk.id);
        g_array_append_val(options->disks, disk);
        return 0;
}
