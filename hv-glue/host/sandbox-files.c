/*
 * sandbox-files.c - Landlock: which files this process may open, and how.
 *
 * Each kernel knows so many rights (its ABI); all of them are taken away and given
 * back for the paths of the plan.  Of the network and of signals to others nothing is given
 * back.  The rights of an open file stay as they were when it was opened.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/error.h"
#include "host/sandbox-layers.h"

/* What the headers may be too old for: names and numbers of linux/landlock.h. */
#define FS_REFER        (1ull << 13)    /* ABI 2 */
#define FS_TRUNCATE     (1ull << 14)    /* 3 */
#define FS_IOCTL_DEV    (1ull << 15)    /* 5 */
#define NET_TCP         (3ull << 0)     /* 4: bind, connect */
#define SCOPES          (3ull << 0)     /* 6: abstract unix sockets, signals */

#define READ_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE_RIGHTS (LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE)
#define MAKE_RIGHTS (LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE)
#define FILE_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | \
                     FS_TRUNCATE | FS_IOCTL_DEV)

struct ruleset_attr {
        uint64_t handled_access_fs;
        uint64_t handled_access_net;    /* from ABI 4 on */
        uint64_t scoped;                /* from ABI 6 on */
};

int sandbox_files_abi(void)
{
        static long abi = -1;           /* asked once: inside, the call is not allowed */

        if (abi < 0)
                abi = MAX(syscall(SYS_landlock_create_ruleset, NULL, 0,
                                  LANDLOCK_CREATE_RULESET_VERSION), 0);
        return (int) abi;
}

/* All that this kernel can take away. */
static struct ruleset_attr all_of(int abi)
{
        struct ruleset_attr attr = { .handled_access_fs = FS_REFER - 1 };

        if (abi >= 2)
                attr.handled_access_fs |= FS_REFER;
        if (abi >= 3)
                attr.handled_access_fs |= FS_TRUNCATE;
        if (abi >= 4)
                attr.handled_access_net = NET_TCP;
        if (abi >= 5)
                attr.handled_access_fs |= FS_IOCTL_DEV;
        if (abi >= 6)
                attr.scoped = SCOPES;
        return attr;
}

/* What serving an image from here takes. */
static uint64_t rights_for(const struct sandbox_path *entry, mode_t mode)
{
        uint64_t rights = READ_RIGHTS | (entry->is_writable ? WRITE_RIGHTS : 0);

        if (S_ISBLK(mode))
                rights |= FS_IOCTL_DEV; /* its size and block size are asked for so */
        if (S_ISDIR(mode))
                return rights | (entry->is_writable ? MAKE_RIGHTS : 0);
        return rights & FILE_RIGHTS;
}

static int rule_add(int ruleset, const struct sandbox_path *entry, uint64_t handled)
{
        struct landlock_path_beneath_attr rule;
        struct stat st;
        int fd = open(entry->path, O_PATH | O_CLOEXEC);
        int ret;

        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        ret = fstat(fd, &st) < 0 ? -errno : 0;
        rule.parent_fd = fd;
        rule.allowed_access = ret == 0 ? rights_for(entry, st.st_mode) & handled : 0;
        if (ret == 0 && syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH,
                                &rule, 0) < 0)
                ret = -errno;
        close(fd);
        return ret;
}

int sandbox_files_enter(const GArray *paths, struct hvb_error *err)
{
        int abi = sandbox_files_abi();
        struct ruleset_attr attr = all_of(abi);
        size_t attr_bytes = abi >= 6 ? sizeof(attr)
                : abi >= 4 ? offsetof(struct ruleset_attr, scoped)
                : offsetof(struct ruleset_attr, handled_access_net);
        int ruleset = syscall(SYS_landlock_create_ruleset, &attr, attr_bytes, 0);
        int ret = ruleset < 0 ? -errno : 0;

        if (ret < 0)
                return error_set(err, ret, "sandbox: Landlock: %s", g_strerror(-ret));
        for (guint i = 0; i < paths->len && ret == 0; i++) {
                const struct sandbox_path *entry = &g_array_index(paths, struct sandbox_path, i);

                ret = rule_add(ruleset, entry, attr.handled_access_fs);
                if (ret < 0)
                        error_set(err, ret, "sandbox: Landlock: '%s': %s", entry->path,
                                  g_strerror(-ret));
        }
        if (ret == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0) {
                ret = -errno;
                error_set(err, ret, "sandbox: Landlock: %s", g_strerror(-ret));
        }
        close(ruleset);
        return ret;
}
