/*
 * sandbox-calls.c - seccomp: which system calls this process may make.
 *
 * An allow-list.  A call that is not on it raises SIGSYS; the handler says which it was and
 * lets the signal end the process, so that a list which is too short is found and never
 * shows as odd behaviour.  Refused with an errno, and no more, is what libraries try and
 * can do without.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/sandbox-layers.h"

#include "host/error.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#undef HAVE_SECCOMP
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef HAVE_SECCOMP
#endif
#endif

#ifndef HAVE_SECCOMP

#include <errno.h>

bool sandbox_calls_exist(void)
{
        return false;
}

int sandbox_calls_enter(bool with_sockets, struct hvb_error *err)
{
        (void) with_sockets;
        return error_set(err, -ENOTSUP, "sandbox: built without libseccomp");
}

int sandbox_calls_seal(struct hvb_error *err)
{
        return sandbox_calls_enter(false, err);
}

#else

#include <errno.h>
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
        CALLS_MAX = 1024,
        CODE_SECCOMP = 1,               /* SYS_SECCOMP of asm/siginfo.h: why SIGSYS came */
};

/* ---- The lists ------------------------------------------------------------------------- */

static const char *const allowed[] = {
        /* Files, by descriptor. */
        "read", "readv", "pread64", "preadv", "preadv2", "write", "writev", "pwrite64", "pwritev",
        "pwritev2", "lseek", "close", "fstat", "fcntl", "fsync", "fdatasync", "sync_file_range",
        "fallocate", "ftruncate", "fadvise64", "getdents64",
        /* Files, by name: Landlock says which. */
        "open", "openat", "stat", "lstat", "newfstatat", "statx", "access", "faccessat",
        "faccessat2", "readlink", "readlinkat", "getcwd", "unlink", "unlinkat",
        /* Rings, and waiting. */
        "io_uring_setup", "io_uring_enter", "io_uring_register", "eventfd2", "poll", "ppoll",
        "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "nanosleep", "clock_nanosleep",
        "restart_syscall",
        /* Memory and threads. */
        "munmap", "mremap", "madvise", "brk", "mlock", "munlock", "futex", "set_robust_list",
        "rseq", "sched_yield", "sched_getaffinity", "sched_getattr", "sched_setattr",
        "membarrier", "exit", "exit_group",
        /* Signals to oneself; see add_limited(). */
        "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
        /* Facts. */
        "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "clock_gettime",
        "clock_getres", "gettimeofday", "getrandom", "uname", "sysinfo", "getrusage", "getrlimit",
        /* A further filter: that of sandbox_calls_seal. */
        "seccomp",
};

/* With sandbox_plan_sockets(): never socket, bind or connect. */
static const char *const allowed_with_sockets[] = {
        "accept", "accept4", "recvfrom", "recvmsg", "sendto", "sendmsg", "shutdown",
        "getsockopt", "setsockopt", "getsockname", "getpeername",
};

/* Commands of ioctl: what a block device is, discarding on it; is this a terminal. */
static const unsigned long ioctls[] = {
        BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKROGET, BLKDISCARD, BLKZEROOUT, TCGETS, TIOCGWINSZ,
};

/* What the C library does another way when it fails so. */
static const struct {
        const char *name;
        int error;
} refused[] = {
        { "clone3", ENOSYS },           /* then clone, whose flags can be seen */
        { "getpeername", ENOTSOCK },    /* GLib asks whether stderr is the journal */
        { "getsockname", ENOTSOCK },
};

/* Once all is open. */
static const char *const sealed[] = { "open", "openat", "unlink", "unlinkat" };
static const char *const sealed_deadly[] = { "io_uring_setup", "seccomp" };

/* ---- The end -------------------------------------------------------------------------------- */

/* Looked up beforehand: a handler may not. */
static char *call_names[CALLS_MAX];

static void say(const char *text)
{
        ssize_t ret = write(STDERR_FILENO, text, strlen(text));

        (void) ret;
}

/* The handler is gone by now (SA_RESETHAND): the second SIGSYS ends the process. */
static void on_sigsys(int signal, siginfo_t *info, void *context)
{
        unsigned number = info->si_syscall;
        bool is_known = number < CALLS_MAX && call_names[number] != NULL;

        (void) context;
        if (info->si_code == CODE_SECCOMP) {
                say(program_invocation_short_name);
                say(": ended by its sandbox, which does not allow the system call ");
                say(is_known ? call_names[number] : "(unknown)");
                say("\n");
        }
        raise(signal);
        _exit(128 + signal);
}

static int catch_sigsys(void)
{
        struct sigaction action = {
                .sa_sigaction = on_sigsys,
                .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER,
        };

        for (int i = 0; i < CALLS_MAX; i++)
                call_names[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
        return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

/* ---- The filters ----------------------------------------------------------------------------- */

/* A call that this machine or libseccomp does not know needs no rule. */
static int rule_add(scmp_filter_ctx filter, uint32_t action, const char *name, unsigned count,
                    const struct scmp_arg_cmp *conditions)
{
        int number = seccomp_syscall_resolve_name(name);

        return number < 0 ? 0 : seccomp_rule_add_array(filter, action, number, count, conditions);
}

static int rules_add(scmp_filter_ctx filter, uint32_t action, const char *const *names,
                     size_t count)
{
        int ret = 0;

        for (size_t i = 0; i < count && ret == 0; i++)
                ret = rule_add(filter, action, names[i], 0, NULL);
        return ret;
}

/* What is allowed with some arguments only. */
static int limited_add(scmp_filter_ctx filter)
{
        const scmp_datum_t thread = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
        const scmp_datum_t self = getpid();
        const struct {
                const char *name;
                uint32_t action;
                struct scmp_arg_cmp condition;
        } limited[] = {
                { "clone", SCMP_ACT_ALLOW, SCMP_A0(SCMP_CMP_MASKED_EQ, thread, thread) },
                { "mmap", SCMP_ACT_ALLOW, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) },
                { "mmap", SCMP_ACT_ERRNO(EACCES),
                  SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC) },
                { "mprotect", SCMP_ACT_ALLOW, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) },
                { "mprotect", SCMP_ACT_ERRNO(EACCES),
                  SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC) },
                { "kill", SCMP_ACT_ALLOW, SCMP_A0(SCMP_CMP_EQ, self) },
                { "tgkill", SCMP_ACT_ALLOW, SCMP_A0(SCMP_CMP_EQ, self) },
                { "prctl", SCMP_ACT_ALLOW, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME) },
                { "prctl", SCMP_ACT_ALLOW, SCMP_A0(SCMP_CMP_EQ, PR_GET_SECCOMP) },
                { "prlimit64", SCMP_ACT_ALLOW, SCMP_A2(SCMP_CMP_EQ, 0) },
        };
        int ret = 0;

        for (size_t i = 0; i < G_N_ELEMENTS(limited) && ret == 0; i++)
                ret = rule_add(filter, limited[i].action, limited[i].name, 1,
                               &limited[i].condition);
        for (size_t i = 0; i < G_N_ELEMENTS(ioctls) && ret == 0; i++) {
                struct scmp_arg_cmp command = SCMP_A1(SCMP_CMP_EQ, ioctls[i]);

                ret = rule_add(filter, SCMP_ACT_ALLOW, "ioctl", 1, &command);
        }
        return ret;
}

static int load(scmp_filter_ctx filter)
{
        int ret = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

        if (ret == 0)
                ret = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);         /* set already */
        if (ret == 0)
                ret = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
        return ret == 0 ? seccomp_load(filter) : ret;
}

bool sandbox_calls_exist(void)
{
        return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0;
}

int sandbox_calls_enter(bool with_sockets, struct hvb_error *err)
{
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
        int ret = filter == NULL ? -ENOMEM : catch_sigsys();

        if (ret == 0)
                ret = rules_add(filter, SCMP_ACT_ALLOW, allowed, G_N_ELEMENTS(allowed));
        if (ret == 0 && with_sockets)
                ret = rules_add(filter, SCMP_ACT_ALLOW, allowed_with_sockets,
                                G_N_ELEMENTS(allowed_with_sockets));
        for (size_t i = 0; i < G_N_ELEMENTS(refused) && ret == 0; i++)
                if (!with_sockets || refused[i].error != ENOTSOCK)
                        ret = rule_add(filter, SCMP_ACT_ERRNO(refused[i].error), refused[i].name,
                                       0, NULL);
        if (ret == 0)
                ret = limited_add(filter);
        if (ret == 0)
                ret = load(filter);
        seccomp_release(filter);
        return ret < 0 ? error_set(err, ret, "sandbox: seccomp: %s", g_strerror(-ret)) : 0;
}

int sandbox_calls_seal(struct hvb_error *err)
{
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        int ret = filter == NULL ? -ENOMEM : 0;

        if (ret == 0)
                ret = rules_add(filter, SCMP_ACT_ERRNO(EACCES), sealed, G_N_ELEMENTS(sealed));
        if (ret == 0)
                ret = rules_add(filter, SCMP_ACT_TRAP, sealed_deadly,
                                G_N_ELEMENTS(sealed_deadly));
        if (ret == 0)
                ret = load(filter);
        seccomp_release(filter);
        return ret < 0 ? error_set(err, ret, "sandbox: seccomp: %s", g_strerror(-ret)) : 0;
}

#endif
