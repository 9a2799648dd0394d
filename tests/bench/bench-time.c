/*
 * bench-time.c - how long a whole process takes.
 *
 *   bench-time COMMAND [ARGUMENT...]
 *
 * Prints wall clock seconds; what the command itself prints goes to stderr.  A
 * shell's `date` before and after costs as much as a snapshot of ours.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
        posix_spawn_file_actions_t actions;
        int status;
        pid_t child;
        double begin;
        double end;
        int ret;

        if (argc < 2) {
                fprintf(stderr, "Usage: bench-time COMMAND [ARGUMENT...]\n");
                return 2;
        }
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
        begin = now();
        ret = posix_spawnp(&child, argv[1], &actions, NULL, argv + 1, environ);
        if (ret != 0) {
                fprintf(stderr, "bench-time: %s: %s\n", argv[1], strerror(ret));
                return 127;
        }
        while (waitpid(child, &status, 0) < 0)
                if (errno != EINTR)
                        return 1;
        end = now();
        posix_spawn_file_actions_destroy(&actions);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        printf("%.6f\n", end - begin);
        return 0;
}
