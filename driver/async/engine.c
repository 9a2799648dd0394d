/*
 * engine.c - choosing an engine, and saying why it is not the best one.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "async/io.h"

static const char disabled_path[] = "/proc/sys/kernel/io_uring_disabled";

/* '0' enabled, '1' only for some, '2' for all; '0' too when the kernel has no
 * such switch. */
static char disabled_level(void)
{
        char level = '0';
        int fd = open(disabled_path, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
                return level;
        if (read(fd, &level, 1) != 1)
                level = '0';
        close(fd);
        return level;
}

static void explain(int error, char *why, size_t why_bytes)
{
        char level = disabled_level();

        if (error == -EPERM && level != '0')
                g_snprintf(why, why_bytes, "io_uring is disabled by kernel.io_uring_disabled=%c",
                           level);
        else if (error == -EPERM)
                g_snprintf(why, why_bytes, "io_uring_setup: %s (seccomp?)", g_strerror(EPERM));
        else if (error == -ENOSYS)
                g_snprintf(why, why_bytes, "this kernel has no io_uring (or seccomp hides it)");
        else if (error == -EOPNOTSUPP)
                g_snprintf(why, why_bytes, "the kernel's io_uring is older than Linux 5.11");
        else if (error == -ENOMEM)
                g_snprintf(why, why_bytes, "io_uring_setup: %s (RLIMIT_MEMLOCK?)",
                           g_strerror(ENOMEM));
        else
                g_snprintf(why, why_bytes, "io_uring_setup: %s", g_strerror(-error));
}

int engine_new(const char *wanted, unsigned entries, bool restricted, struct engine **ret_engine,
               char *why, size_t why_bytes)
{
        bool threads = strcmp(wanted, "threads") == 0;
        bool either = strcmp(wanted, "auto") == 0;
        int ret;

        if (!threads && !either && strcmp(wanted, "io_uring") != 0) {
                g_snprintf(why, why_bytes, "no engine is called '%s'", wanted);
                return -EINVAL;
        }
        if (!threads) {
                ret = engine_uring_new(entries, restricted, ret_engine);
                if (ret == 0)
                        g_strlcpy(why, "", why_bytes);
                else
                        explain(ret, why, why_bytes);
                if (ret == 0 || !either)
                        return ret;
        } else {
                g_strlcpy(why, "threads were asked for", why_bytes);
        }
        ret = engine_threads_new(0, ret_engine);
        if (ret < 0)
                g_snprintf(why, why_bytes, "I/O threads: %s", g_strerror(-ret));
        return ret;
}
