/*
 * policy.c - which files an image may name.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/policy.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/error.h"
#include "host/loader.h"

/* How much of a file a driver sees to tell its format: a block of any device. */
enum { PROBE_BYTES = 4096 };

struct allowed_directory {
        int fd;                         /* O_PATH */
        char *path;                     /* resolved; ends in '/' */
};

struct policy {
        bool allow_all;
        enum policy_probe probe;
        unsigned depth_max;
        GArray *directories;            /* of struct allowed_directory */
};

struct policy *policy_new(void)
{
        struct policy *policy = g_new0(struct policy, 1);

        policy->depth_max = POLICY_DEFAULT_DEPTH;
        policy->directories = g_array_new(FALSE, TRUE, sizeof(struct allowed_directory));
        return policy;
}

struct policy *policy_new_all(void)
{
        struct policy *policy = policy_new();

        policy->allow_all = true;
        return policy;
}

void policy_free(struct policy *policy)
{
        if (policy == NULL)
                return;
        for (guint i = 0; i < policy->directories->len; i++) {
                struct allowed_directory *directory =
                        &g_array_index(policy->directories, struct allowed_directory, i);

                close(directory->fd);
                g_free(directory->path);
        }
        g_array_free(policy->directories, TRUE);
        g_free(policy);
}

int policy_allow_directory(struct policy *policy, const char *directory, struct hvb_error *err)
{
        struct allowed_directory allowed;
        char *resolved = realpath(directory, NULL);
        int ret;

        if (resolved == NULL) {
                ret = -errno;
                return error_set(err, ret, "directory '%s': %s", directory, g_strerror(-ret));
        }
        allowed.path = g_strconcat(resolved, g_str_has_suffix(resolved, "/") ? "" : "/", NULL);
        free(resolved);
        allowed.fd = open(allowed.path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (allowed.fd < 0) {
                ret = -errno;
                g_free(allowed.path);
                return error_set(err, ret, "directory '%s': %s", directory, g_strerror(-ret));
        }
        g_array_append_val(policy->directories, allowed);
        return 0;
}

void policy_set_probe(struct policy *policy, enum policy_probe probe)
{
        policy->probe = probe;
}

void policy_set_depth(struct policy *policy, unsigned depth)
{
        policy->depth_max = depth;
}

/* As QEMU reads names: a colon before the first slash ends a protocol. */
char *policy_protocol(const char *name)
{
        size_t length = strcspn(name, ":/");

        return name[length] == ':' ? g_strndup(name, length) : NULL;
}

char *policy_join(const char *parent_name, const char *name)
{
        g_autofree char *protocol = policy_protocol(name);
        g_autofree char *directory = NULL;
        const char *slash;

        if (protocol != NULL || name[0] == '\0')
                return NULL;
        slash = strrchr(parent_name, '/');
        if (name[0] == '/' || slash == NULL)
                return g_strdup(name);
        directory = g_strndup(parent_name, slash + 1 - parent_name);
        return g_strconcat(directory, name, NULL);
}

/* Only what has blocks: opening a FIFO, a tty or a watchdog has effects of its own. */
static int check_type(mode_t mode, int flags, const char *path, struct hvb_error *err)
{
        if (S_ISREG(mode) || S_ISBLK(mode))
                return 0;
        if (S_ISDIR(mode) && flags & O_CREAT)
                return error_set(err, -EISDIR, "Could not create '%s': %s", path,
                                 g_strerror(EISDIR));
        return error_set(err, S_ISDIR(mode) ? -EISDIR : -EINVAL,
                         "'file' driver requires '%s' to be a regular file", path);
}

static int open_failed(int code, int flags, const char *path, struct hvb_error *err)
{
        return error_set(err, code, "Could not %s '%s': %s",
                         flags & O_CREAT ? "create" : "open", path, g_strerror(-code));
}

/* Opens name in the directory dirfd, looking at its type before and after. */
static int open_checked(int dirfd, const char *name, int flags, const char *path, int *ret_fd,
                        struct hvb_error *err)
{
        int stat_flags = flags & O_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0;
        struct stat st;
        int ret = fstatat(dirfd, name, &st, stat_flags) < 0 ? -errno : 0;
        int fd;

        if (ret == 0)
                ret = check_type(st.st_mode, flags, path, err);
        else if (ret != -ENOENT || !(flags & O_CREAT))
                return open_failed(ret, flags, path, err);
        else
                ret = 0;
        if (ret < 0)
                return ret;
        fd = openat(dirfd, name, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644);
        if (fd < 0)
                return open_failed(-errno, flags, path, err);
        ret = fstat(fd, &st) < 0 ? -errno : check_type(st.st_mode, flags, path, err);
        if (ret < 0) {
                close(fd);
                return ret;
        }
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
        *ret_fd = fd;
        return 0;
}

int policy_open_path(const char *path, int flags, int *ret_fd, struct hvb_error *err)
{
        return open_checked(AT_FDCWD, path, flags, path, ret_fd, err);
}

/*
 * Opens relative, a path without links or dots, below the directory.  No
 * component may be a link: had realpath() seen one it would be resolved already.
 */
static int open_below(const struct allowed_directory *directory, const char *relative, int flags,
                      int *ret_fd, struct hvb_error *err)
{
        g_auto(GStrv) parts = g_strsplit(relative, "/", -1);
        int dirfd = directory->fd;
        char **part = parts;
        int ret = 0;

        for (; part[1] != NULL; part++) {
                int next = openat(dirfd, *part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

                ret = next < 0 ? -errno : 0;
                if (dirfd != directory->fd)
                        close(dirfd);
                if (ret < 0)
                        return error_set(err, ret, "Could not open '%s%s': %s", directory->path,
                                         relative, g_strerror(-ret));
                dirfd = next;
        }
        ret = open_checked(dirfd, *part, flags | O_NOFOLLOW, relative, ret_fd, err);
        if (dirfd != directory->fd)
                close(dirfd);
        return ret;
}

/* The allowed directory that path lies in, and the rest of it, resolved.  NULL with err. */
static const struct allowed_directory *find_allowed(const struct policy *policy, const char *path,
                                                    char **ret_relative, struct hvb_error *err)
{
        g_autofree char *resolved = NULL;
        char *real;
        int ret;

        /* Nothing is even looked up when nothing is allowed. */
        if (policy->directories->len == 0) {
                error_set(err, -EACCES, "'%s' may not be opened: this host allows no "
                          "backing or data files", path);
                return NULL;
        }
        real = realpath(path, NULL);
        if (real == NULL) {
                ret = -errno;
                error_set(err, ret, "Could not open '%s': %s", path, g_strerror(-ret));
                return NULL;
        }
        resolved = g_strdup(real);
        free(real);
        for (guint i = 0; i < policy->directories->len; i++) {
                const struct allowed_directory *directory =
                        &g_array_index(policy->directories, struct allowed_directory, i);

                if (g_str_has_prefix(resolved, directory->path)) {
                        *ret_relative = g_strdup(resolved + strlen(directory->path));
                        return directory;
                }
                /* The directory itself: its path ends with a slash. */
                if (strlen(resolved) + 1 == strlen(directory->path) &&
                    g_str_has_prefix(directory->path, resolved)) {
                        *ret_relative = g_strdup(".");
                        return directory;
                }
        }
        error_set(err, -EACCES, "'%s' may not be opened: it is in none of the allowed "
                  "directories", path);
        return NULL;
}

static int open_allowed(const struct policy *policy, const char *path, int flags, int *ret_fd,
                        struct hvb_error *err)
{
        const struct allowed_directory *directory;
        g_autofree char *relative = NULL;
        struct hvb_error why = ERROR_INIT;

        if (policy->allow_all)
                return policy_open_path(path, flags, ret_fd, err);
        directory = find_allowed(policy, path, &relative, &why);
        if (directory == NULL)
                return error_set(err, why.code, "%s", why.text);
        return open_below(directory, relative, flags, ret_fd, err);
}

int policy_judge_path(const struct policy *policy, const char *path, struct hvb_error *err)
{
        g_autofree char *relative = NULL;
        struct hvb_error why = ERROR_INIT;

        if (policy->allow_all || find_allowed(policy, path, &relative, &why) != NULL)
                return 0;
        return error_set(err, why.code, "%s", why.text);
}

int policy_probe_format(int fd, const char **ret_format, struct hvb_error *err)
{
        const struct hvb_driver *driver;
        void *head = NULL;              /* aligned: fd may be O_DIRECT */
        ssize_t head_bytes;
        int ret;

        if (posix_memalign(&head, PROBE_BYTES, PROBE_BYTES) != 0)
                return error_set(err, -ENOMEM, "no memory for the first bytes of the file");
        head_bytes = pread(fd, head, PROBE_BYTES, 0);
        ret = head_bytes < 0 ? -errno : 0;
        if (ret < 0) {
                error_set(err, ret, "reading the first bytes: %s", g_strerror(-ret));
                goto free_head;
        }
        ret = loader_load("qcow2", &driver, err);
        if (ret < 0)
                goto free_head;
        *ret_format = driver->probe(head, head_bytes) > 0 ? "qcow2" : "raw";

free_head:
        free(head);
        return ret;
}

/* The format to use for an opened child, from what the image says about it. */
static int judge_format(const struct policy *policy, const struct hvb_child_query *query,
                        struct policy_file *file, struct hvb_error *err)
{
        const char *const known[] = { "raw", "qcow2" };

        for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
                if (strcmp(query->format, known[i]) == 0) {
                        file->format = known[i];
                        return 0;
                }
        }
        if (query->format[0] != '\0')
                return error_set(err, -ENOTSUP, "Unknown driver '%.64s'", query->format);
        if (policy->probe == POLICY_PROBE_REFUSE)
                return error_set(err, -EINVAL, "'%s' names no format for its backing file '%s', "
                                 "and this host does not guess", query->parent_name, query->name);
        file->probed = true;
        return policy_probe_format(file->fd, &file->format, err);
}

int policy_open(const struct policy *policy, const struct hvb_child_query *query,
                int extra_flags, struct policy_file *ret_file, struct hvb_error *err)
{
        g_autofree char *protocol = policy_protocol(query->name);
        g_autofree char *path = policy_join(query->parent_name, query->name);
        int flags = (query->writable ? O_RDWR : O_RDONLY) | extra_flags;
        struct policy_file file = { .fd = -1 };
        int ret;

        if (protocol != NULL)
                return error_set(err, -ENOTSUP, "Unknown protocol '%.64s'", protocol);
        if (path == NULL)
                return error_set(err, -EINVAL, "the name of the file is empty");
        if (query->depth > policy->depth_max)
                return error_set(err, -ELOOP, "the chain of backing files is longer than %u",
                                 policy->depth_max);
        ret = open_allowed(policy, path, flags, &file.fd, err);
        if (ret < 0)
                return ret;
        ret = judge_format(policy, query, &file, err);
        if (ret < 0) {
                close(file.fd);
                return ret;
        }
        file.path = g_steal_pointer(&path);
        *ret_file = file;
        return 0;
}
