/*
 * drive.c - an opened image: its life, its files, its requests.
 *
 * Who owns what: the drive owns the fds, those of children included; the driver
 * borrows them between open and release.  Requests belong to their drive_op.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/drive.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/drive-op.h"
#include "host/loader.h"

/* A file that is open for the image.  The image file itself is one as well. */
struct drive_file {
        int fd;
        char *path;
        dev_t device;
        ino_t inode;
        const char *format;             /* static; NULL: the driver's own */
        bool in_chain;                  /* the image or one of its backing files */
        unsigned depth;                 /* 0: the image */
};

struct drive {
        const struct hvb_driver *driver;
        struct hvb_image *image;
        struct hvb_host host;
        struct drive_file top;
        GPtrArray *children;            /* of struct drive_file, as asked for by the driver */
        GPtrArray *idle_ops;            /* for synchronous calls */
        const struct policy *policy;
        const struct drive_watch *watch;
        struct drive_cache cache;
        bool was_probed;
};

/* ---- What the driver asks of its host ------------------------------------------- */

static void host_log(void *opaque, enum hvb_log_level level, const char *text)
{
        struct drive *drive = opaque;

        if (drive->watch != NULL && drive->watch->log != NULL)
                drive->watch->log(drive->watch->opaque, level, text);
}

static enum hvb_error_action host_io_error(void *opaque, const struct hvb_io_error *what)
{
        struct drive *drive = opaque;

        if (drive->watch != NULL && drive->watch->io_error != NULL)
                return drive->watch->io_error(drive->watch->opaque, what);
        return HVB_ACTION_REPORT;
}

static void host_event(void *opaque, const struct hvb_event *event)
{
        struct drive *drive = opaque;

        if (drive->watch != NULL && drive->watch->event != NULL)
                drive->watch->event(drive->watch->opaque, event);
}

static int file_identify(struct drive_file *file)
{
        struct stat st;

        if (fstat(file->fd, &st) < 0)
                return -errno;
        file->device = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
        file->inode = S_ISBLK(st.st_mode) ? 0 : st.st_ino;
        return 0;
}

static bool is_same_file(const struct drive_file *a, const struct drive_file *b)
{
        return a->device == b->device && a->inode == b->inode;
}

/* A file that stands twice in one chain would make the chain endless. */
static bool chain_has(const struct drive *drive, const struct drive_file *file)
{
        if (is_same_file(&drive->top, file))
                return true;
        for (guint i = 0; i < drive->children->len; i++) {
                const struct drive_file *other = g_ptr_array_index(drive->children, i);

                if (other->in_chain && is_same_file(other, file))
                        return true;
        }
        return false;
}

static int host_open_child(void *opaque, const struct hvb_child_query *query,
                           struct hvb_child *ret_child, struct hvb_error *err)
{
        struct drive *drive = opaque;
        struct policy_file found;
        struct drive_file *file;
        int ret;

        if (drive->policy == NULL)
                return error_set(err, -EACCES, "'%s' may not be opened: this host allows no "
                                 "backing or data files", query->name);
        ret = policy_open(drive->policy, query, drive->cache.direct ? O_DIRECT : 0, &found, err);
        if (ret < 0)
                return ret;

        file = g_new0(struct drive_file, 1);
        file->fd = found.fd;
        file->path = found.path;
        file->format = found.format;
        file->in_chain = query->role == HVB_CHILD_BACKING;
        file->depth = query->depth;
        ret = file_identify(file);
        if (ret == 0 && file->in_chain && chain_has(drive, file))
                ret = error_set(err, -ELOOP, "Backing file '%s' creates an infinite loop.",
                                file->path);
        if (ret < 0) {
                close(file->fd);
                g_free(file->path);
                g_free(file);
                return ret;
        }
        if (found.probed) {
                g_autofree char *text = g_strdup_printf(
                        "Image '%s' stores no format for its backing file; '%s' is taken as %s",
                        query->parent_name, file->path, found.format);

                host_log(drive, HVB_LOG_WARNING, text);
        }
        g_ptr_array_add(drive->children, file);
        *ret_child = (struct hvb_child) {
                .struct_bytes = sizeof(*ret_child),
                .fd = file->fd,
                .format = found.format,
                .name = file->path,
                .opaque = file,
        };
        return 0;
}

static void host_close_child(void *opaque, const struct hvb_child *child)
{
        struct drive *drive = opaque;
        struct drive_file *file = child->opaque;
        bool was_open = g_ptr_array_remove(drive->children, file);

        g_assert(was_open);
        close(file->fd);
        g_free(file->path);
        g_free(file);
}

/* ---- Life ------------------------------------------------------------------------ */

static struct drive *drive_new(const struct drive_options *options)
{
        struct drive *drive = g_new0(struct drive, 1);

        drive->host = (struct hvb_host) {
                .struct_bytes = sizeof(drive->host),
                .opaque = drive,
                .log = host_log,
                .open_child = host_open_child,
                .close_child = host_close_child,
                .io_error = host_io_error,
                .event = host_event,
        };
        drive->top = (struct drive_file) { .fd = -1, .in_chain = true };
        drive->children = g_ptr_array_new();
        drive->idle_ops = g_ptr_array_new();
        drive->policy = options->policy;
        drive->watch = options->watch;
        drive->cache = options->cache;
        return drive;
}

/* The image must be released by now, so that all children are closed. */
static void drive_free(struct drive *drive)
{
        g_assert(drive->children->len == 0);
        for (guint i = 0; i < drive->idle_ops->len; i++)
                drive_op_free(g_ptr_array_index(drive->idle_ops, i));
        g_ptr_array_free(drive->idle_ops, TRUE);
        g_ptr_array_free(drive->children, TRUE);
        if (drive->top.fd >= 0)
                close(drive->top.fd);
        g_free(drive->top.path);
        g_free(drive);
}

/* Opens the image file and finds the driver. */
static int drive_prepare(struct drive *drive, const char *path, int open_flags,
                         const char *format, struct hvb_error *err)
{
        g_autofree char *protocol = policy_protocol(path);
        int ret;

        if (protocol != NULL)
                return error_set(err, -ENOTSUP, "Unknown protocol '%.64s'", protocol);
        if (format != NULL) {
                ret = loader_load(format, &drive->driver, err);
                if (ret < 0)
                        return ret;
        }
        drive->top.path = g_strdup(path);
        ret = policy_open_path(path, open_flags | (drive->cache.direct ? O_DIRECT : 0),
                               &drive->top.fd, err);
        if (ret < 0)
                return ret;
        ret = file_identify(&drive->top);
        if (ret < 0)
                return error_set(err, ret, "'%s': %s", path, g_strerror(-ret));
        if (format == NULL) {
                drive->was_probed = true;
                ret = policy_probe_format(drive->top.fd, &format, err);
                if (ret < 0)
                        return ret;
                ret = loader_load(format, &drive->driver, err);
        }
        return ret;
}

/* begun: what the driver's open or create returned.  Waits for the rest. */
static int drive_await_open(struct drive *drive, struct drive_op *op, int begun,
                            struct hvb_error *err)
{
        int ret = begun;

        if (ret < 0) {
                op->busy = false;
                if (err != NULL && err->text[0] == '\0')
                        error_set(err, ret, "%s", g_strerror(-ret));
                return ret;
        }
        ret = drive_op_wait(op);
        if (ret < 0) {
                drive->driver->release(drive->image);
                drive->image = NULL;
        }
        return ret;
}

enum { LOCK_RETRY_MS = 5 };

/* Once.  Everything but the file is as before when it failed. */
static int drive_try_open(struct drive *drive, const struct hvb_open_args *args,
                          struct hvb_error *err)
{
        struct drive_op *op = drive_op_new(drive);
        int ret;

        error_clear(err);
        ret = drive->driver->open(args, drive_op_begin(op), &drive->image, err);
        ret = drive_await_open(drive, op, ret, err);
        drive_op_free(op);
        return ret;
}

int drive_open(const char *path, const struct drive_options *options, struct drive **ret_drive,
               struct hvb_error *err)
{
        gint64 until = g_get_monotonic_time() +
                       options->lock_timeout_ms * (gint64) G_TIME_SPAN_MILLISECOND;
        bool writable = options->flags & HVB_OPEN_RDWR;
        struct drive *drive = drive_new(options);
        struct hvb_open_args args = {
                .struct_bytes = sizeof(args),
                .flags = options->flags,
                .queue_entries = options->queue_entries,
                .name = path,
                .host = &drive->host,
                .options = options->options,
        };
        int ret;

        error_clear(err);
        ret = drive_prepare(drive, path, writable ? O_RDWR : O_RDONLY, options->format, err);
        if (ret < 0)
                goto free_drive;
        args.fd = drive->top.fd;
        ret = drive_try_open(drive, &args, err);
        while (ret == -EAGAIN && g_get_monotonic_time() < until) {
                g_usleep(LOCK_RETRY_MS * G_TIME_SPAN_MILLISECOND);
                ret = drive_try_open(drive, &args, err);
        }
        if (ret < 0)
                goto free_drive;
        *ret_drive = drive;
        return 0;

free_drive:
        drive_free(drive);
        return ret;
}

int drive_create(const char *path, const struct hvb_create_args *args,
                 const struct drive_options *options, struct drive **ret_drive,
                 struct hvb_error *err)
{
        struct drive *drive = drive_new(options);
        struct hvb_create_args filled = *args;
        bool existed = access(path, F_OK) == 0;
        struct drive_op *op;
        int ret;

        error_clear(err);
        ret = drive_prepare(drive, path, O_RDWR | O_CREAT, options->format, err);
        if (ret < 0)
                goto free_drive;
        filled.struct_bytes = sizeof(filled);
        filled.fd = drive->top.fd;
        filled.name = path;
        filled.host = &drive->host;
        filled.options = options->options;
        filled.queue_entries = options->queue_entries;
        op = drive_op_new(drive);
        ret = drive->driver->create(&filled, drive_op_begin(op), &drive->image, err);
        ret = drive_await_open(drive, op, ret, err);
        drive_op_free(op);
        if (ret < 0) {
                if (!existed)
                        unlink(path);
                goto free_drive;
        }
        *ret_drive = drive;
        return 0;

free_drive:
        drive_free(drive);
        return ret;
}

int drive_close(struct drive *drive, struct hvb_error *err)
{
        struct drive_op *op;
        int ret;

        error_clear(err);
        if (drive == NULL)
                return 0;
        op = drive_op_new(drive);
        drive->driver->close(drive->image, drive_op_begin(op), err);
        ret = drive_op_wait(op);
        drive_op_free(op);
        drive->driver->release(drive->image);
        drive_free(drive);
        return ret;
}

/* ---- Parts ----------------------------------------------------------------------- */

const struct hvb_driver *drive_driver(const struct drive *drive)
{
        return drive->driver;
}

struct hvb_image *drive_image(const struct drive *drive)
{
        return drive->image;
}

struct hvb_queue *drive_queue(const struct drive *drive)
{
        return drive->driver->queue(drive->image, 0);
}

int drive_queue_fd(const struct drive *drive)
{
        return drive->driver->queue_fd(drive_queue(drive));
}

int drive_fd(const struct drive *drive)
{
        return drive->top.fd;
}

const char *drive_path(const struct drive *drive)
{
        return drive->top.path;
}

const char *drive_format(const struct drive *drive)
{
        return drive->driver->format_name;
}

bool drive_was_probed(const struct drive *drive)
{
        return drive->was_probed;
}

struct drive_cache drive_cache(const struct drive *drive)
{
        return drive->cache;
}

static const struct drive_file *chain_file(const struct drive *drive, unsigned depth)
{
        for (guint i = 0; i < drive->children->len; i++) {
                const struct drive_file *file = g_ptr_array_index(drive->children, i);

                if (file->in_chain && file->depth == depth)
                        return file;
        }
        return depth == 0 ? &drive->top : NULL;
}

int drive_chain_fd(const struct drive *drive, unsigned depth)
{
        const struct drive_file *file = chain_file(drive, depth);

        return file == NULL ? -1 : file->fd;
}

const char *drive_chain_path(const struct drive *drive, unsigned depth)
{
        const struct drive_file *file = chain_file(drive, depth);

        return file == NULL ? NULL : file->path;
}

const char *drive_chain_format(const struct drive *drive, unsigned depth)
{
        const struct drive_file *file = chain_file(drive, depth);

        return file == NULL ? NULL : file->format ? file->format : drive_format(drive);
}

void drive_get_info(const struct drive *drive, struct hvb_image_info *ret_info)
{
        *ret_info = (struct hvb_image_info) { .struct_bytes = sizeof(*ret_info) };
        drive->driver->get_info(drive->image, ret_info);
}

uint64_t drive_bytes(const struct drive *drive)
{
        struct hvb_image_info info;

        drive_get_info(drive, &info);
        return info.virtual_bytes;
}

/* ---- Polling --------------------------------------------------------------------- */

int drive_poll(struct drive *drive, int timeout_ms)
{
        return drive->driver->poll(drive_queue(drive), timeout_ms);
}

/* One round over all of them without waiting.  Returns completions or -errno. */
static int poll_once(struct drive *const *drives, unsigned count)
{
        int completed = 0;

        for (unsigned i = 0; i < count; i++) {
                int ret = drive_poll(drives[i], 0);

                if (ret < 0 && ret != -EINTR)
                        return ret;
                completed += ret > 0 ? ret : 0;
        }
        return completed;
}

int drive_poll_many(struct drive *const *drives, unsigned count, int timeout_ms)
{
        g_autofree struct pollfd *fds = NULL;
        int completed = poll_once(drives, count);

        if (completed != 0 || timeout_ms == 0)
                return completed;
        fds = g_new0(struct pollfd, count);
        for (unsigned i = 0; i < count; i++)
                fds[i] = (struct pollfd) { drive_queue_fd(drives[i]), POLLIN, 0 };
        if (poll(fds, count, timeout_ms) < 0 && errno != EINTR)
                return -errno;
        return poll_once(drives, count);
}

struct drive_op *drive_op_take(struct drive *drive)
{
        guint count = drive->idle_ops->len;

        if (count == 0)
                return drive_op_new(drive);
        return g_ptr_array_remove_index(drive->idle_ops, count - 1);
}

void drive_op_give_back(struct drive_op *op)
{
        g_assert(!op->busy);
        g_ptr_array_add(op->drive->idle_ops, op);
}
