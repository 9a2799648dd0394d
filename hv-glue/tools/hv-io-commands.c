/*
 * hv-io-commands.c - the table of commands, and how a line becomes a call.
 *
 * Lines are split at blanks, without quoting, as qemu-io does.
 *
 * SPDX-License-Identifier: MIT
 */
#include "hv-io.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <glib.h>

static int cmd_help(struct io_session *session, int argc, char **argv);

static int cmd_quit(struct io_session *session, int argc, char **argv)
{
        (void)argc;
        (void)argv;
        session->quit = true;
        return 0;
}

static int cmd_abort(struct io_session *session, int argc, char **argv)
{
        (void)session;
        (void)argc;
        (void)argv;
        abort();
}

static int number_argument(const char *text, long *ret_value)
{
        char *end;

        errno = 0;
        *ret_value = strtol(text, &end, 0);
        if (end != text && !*end && !errno && *ret_value >= 0)
                return 0;
        printf("%s is not a valid number\n", text);
        return -EINVAL;
}

/* Requests in flight go on meanwhile. */
static int cmd_sleep(struct io_session *session, int argc, char **argv)
{
        struct timespec start = text_now();
        long total_ms, past_ms = 0;
        int ret = number_argument(argv[1], &total_ms);

        (void)argc;
        while (ret == 0 && past_ms < total_ms) {
                struct timespec step = { .tv_nsec = 1000000 }, now;

                if (!session->drive || drive_poll(session->drive, 1) <= 0)
                        nanosleep(&step, NULL);
                now = text_now();
                past_ms = (now.tv_sec - start.tv_sec) * 1000 +
                          (now.tv_nsec - start.tv_nsec) / 1000000;
        }
        return ret;
}

static int cmd_sigraise(struct io_session *session, int argc, char **argv)
{
        long signal_number;
        int ret = number_argument(argv[1], &signal_number);

        (void)session;
        (void)argc;
        if (ret == 0) {
                fflush(stdout);
                raise(signal_number);
        }
        return ret;
}

#define READ_FLAGS_HELP \
        "  -C          report in a form for machines: bytes,ops,time,bytes/sec,ops/sec\n" \
        "  -P PATTERN  complain unless every byte read is PATTERN\n" \
        "  -q          report nothing\n" \
        "  -v          dump what was read\n"

#define WRITE_FLAGS_HELP \
        "  -C          report in a form for machines: bytes,ops,time,bytes/sec,ops/sec\n" \
        "  -f          durable when done (force unit access)\n" \
        "  -P PATTERN  the byte to write; 0xcd unless given\n" \
        "  -q          report nothing\n"

static const struct io_command commands[] = {
        { .name = "abort", .run = cmd_abort, .needs_no_file = true,
          .summary = "crash with abort(3)" },
        { .name = "activate", .run = cmd_handoff,
          .summary = "take an inactive image back: locks it and reads its metadata anew" },
        { .name = "aio_flush", .run = cmd_aio_flush,
          .summary = "wait for all asynchronous requests" },
        { .name = "aio_read", .run = cmd_aio_read, .argc_min = 2, .argc_max = -1,
          .args = "[-Ciqrv] [-P pattern] off len [len..]",
          .summary = "start a read and do not wait for it",
          .help = READ_FLAGS_HELP "  -i          only say that the request would be invalid\n"
                  "An error or mismatch is printed, but does not fail the command.\n" },
        { .name = "aio_write", .run = cmd_aio_write, .writes = true, .argc_min = 2, .argc_max = -1,
          .args = "[-Cfiqruz] [-P pattern] off len [len..]",
          .summary = "start a write and do not wait for it",
          .help = WRITE_FLAGS_HELP "  -i          only say that the request would be invalid\n"
                  "  -u          with -z: may deallocate\n"
                  "  -z          write zeroes without data\n"
                  "An error is printed, but does not fail the command.\n" },
        { .name = "alloc", .run = cmd_alloc, .argc_min = 1, .argc_max = 2,
          .args = "offset [count]", .summary = "count the bytes that the image itself holds" },
        { .name = "check", .run = cmd_check, .argc_max = 2, .args = "[-r leaks|all]",
          .summary = "compare reference counts with what the tables refer to" },
        { .name = "close", .alias = "c", .run = cmd_close, .summary = "close the file" },
        { .name = "discard", .alias = "d", .run = cmd_discard, .argc_min = 2,
          .argc_max = -1, .writes = true, .args = "[-Cq] off len",
          .summary = "tell that a range is no longer needed" },
        { .name = "flush", .alias = "f", .run = cmd_flush,
          .summary = "make all that was written durable" },
        { .name = "help", .alias = "?", .run = cmd_help, .argc_max = 1, .needs_no_file = true,
          .args = "[command]", .summary = "help for one or all commands" },
        { .name = "inactivate", .run = cmd_handoff,
          .summary = "hand the image over: flush, release locks, refuse requests" },
        { .name = "info", .alias = "i", .run = cmd_info, .summary = "show what the image is" },
        { .name = "length", .alias = "l", .run = cmd_length, .summary = "show the disk's size" },
        { .name = "map", .run = cmd_map, .argc_max = 1,
          .summary = "show which ranges the image itself holds" },
        { .name = "open", .alias = "o", .run = cmd_open, .argc_max = -1, .needs_no_file = true,
          .args = "[-rnU] [-t cache] [-o options] path", .summary = "open a file",
          .help = "  -n          cache mode none\n"
                  "  -o OPTIONS  key=value,...; driver=FORMAT names the format\n"
                  "  -r          read-only\n"
                  "  -t CACHE    none, writeback, writethrough, directsync, unsafe\n"
                  "  -U          beside a writer: force shared permissions\n" },
        { .name = "operations", .run = cmd_operations,
          .summary = "list the operations that wait, and where" },
        { .name = "quit", .alias = "q", .run = cmd_quit, .needs_no_file = true,
          .summary = "end the program" },
        { .name = "read", .alias = "r", .run = cmd_read, .argc_min = 2, .argc_max = -1,
          .args = "[-abCqrv] [-P pattern [-s off] [-l len]] off len", .summary = "read a range",
          .help = READ_FLAGS_HELP "  -b          of the VM state instead of the disk\n"
                  "  -l LENGTH   verify only so many bytes\n"
                  "  -s OFFSET   verify from here on\n"
                  "  -S          of the snapshot that snapshot -o opened\n" },
        { .name = "readv", .run = cmd_readv, .argc_min = 2, .argc_max = -1,
          .args = "[-Cqrv] [-P pattern] off len [len..]",
          .summary = "read a range into several buffers", .help = READ_FLAGS_HELP },
        { .name = "reopen", .run = cmd_reopen, .argc_max = -1,
          .args = "[(-r|-w)] [-c cache] [-o options]",
          .summary = "close the file and open it with other options" },
        { .name = "sigraise", .run = cmd_sigraise, .argc_min = 1, .argc_max = 1,
          .needs_no_file = true, .args = "signal", .summary = "send this program a signal" },
        { .name = "sleep", .run = cmd_sleep, .argc_min = 1, .argc_max = 1, .needs_no_file = true,
          .args = "ms", .summary = "wait, while requests in flight go on" },
        { .name = "snapshot", .run = cmd_snapshot, .argc_min = 1, .argc_max = 5,
          .args = "-l | -c name [-R] [-s bytes] | -a name | -b name | -d name | -o name | "
                  "-t name | -x",
          .summary = "work with internal snapshots",
          .help = "  -a NAME     go to the snapshot with this id, or else name\n"
                  "  -b NAME     read its VM state from now on (read -b); the disk stays\n"
                  "  -c NAME     create one\n"
                  "  -d NAME     delete the one with this name\n"
                  "  -l          list them\n"
                  "  -o NAME     open it beside the disk, for read -S; also when it is deleted\n"
                  "  -R          with -c: replace one of the same name\n"
                  "  -s BYTES    with -c: size of the VM state written before (write -b)\n"
                  "  -t NAME     show it instead of the disk (file opened read-only)\n"
                  "  -x          close what -o opened\n" },
        { .name = "status", .run = cmd_status, .argc_min = 2, .argc_max = 2, .args = "off len",
          .summary = "show of what kind the bytes at an offset are" },
        { .name = "truncate", .alias = "t", .run = cmd_truncate, .argc_min = 1,
          .argc_max = 3, .writes = true, .args = "[-m prealloc_mode] off",
          .summary = "change the disk's size" },
        { .name = "write", .alias = "w", .run = cmd_write, .argc_min = 2, .argc_max = -1,
          .writes = true, .args = "[-bcCfnqruz] [-P pattern | -s source_file] off len",
          .summary = "write a range",
          .help = WRITE_FLAGS_HELP "  -b          to the VM state instead of the disk\n"
                  "  -c          compressed: one whole cluster\n"
                  "  -n          with -z: fail rather than write data\n"
                  "  -s FILE     the bytes to write, repeated as needed\n"
                  "  -u          with -z: may deallocate\n"
                  "  -z          write zeroes without data\n" },
        { .name = "writev", .run = cmd_writev, .writes = true, .argc_min = 2, .argc_max = -1,
          .args = "[-Cfqr] [-P pattern] off len [len..]",
          .summary = "write a range from several buffers", .help = WRITE_FLAGS_HELP },
};

const struct io_command *command_at(size_t index)
{
        return index < G_N_ELEMENTS(commands) ? &commands[index] : NULL;
}

const struct io_command *command_find(const char *name)
{
        for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
                if (!strcmp(commands[i].name, name) ||
                    (commands[i].alias && !strcmp(commands[i].alias, name)))
                        return &commands[i];
        return NULL;
}

int command_usage(const char *name)
{
        const struct io_command *command = command_find(name);

        printf("%s %s -- %s\n", command->name, command->args ? command->args : "",
               command->summary);
        return -EINVAL;
}

static int cmd_help(struct io_session *session, int argc, char **argv)
{
        const struct io_command *command;

        (void)session;
        if (argc == 1) {
                for (size_t i = 0; (command = command_at(i)); i++)
                        command_usage(command->name);
                printf("\nUse 'help commandname' for extended help.\n");
                return 0;
        }
        command = command_find(argv[1]);
        if (!command) {
                printf("command %s not found\n", argv[1]);
                return -EINVAL;
        }
        command_usage(command->name);
        if (command->help)
                printf("\n%s\n", command->help);
        return 0;
}

/* Does argc fit?  0, or -EINVAL after a message. */
static int check_count(const struct io_command *command, int argc)
{
        char wanted[64];

        if (argc >= command->argc_min && (argc <= command->argc_max || command->argc_max < 0))
                return 0;
        if (command->argc_max < 0)
                snprintf(wanted, sizeof(wanted), "at least %d", command->argc_min);
        else if (command->argc_min == command->argc_max)
                snprintf(wanted, sizeof(wanted), "%d", command->argc_min);
        else
                snprintf(wanted, sizeof(wanted), "between %d and %d", command->argc_min,
                         command->argc_max);
        fprintf(stderr, "bad argument count %d to %s, expected %s arguments\n", argc,
                command->name, wanted);
        return -EINVAL;
}

static int run_words(struct io_session *session, int argc, char **argv)
{
        const struct io_command *command = command_find(argv[0]);

        if (!command) {
                fprintf(stderr, "command \"%s\" not found\n", argv[0]);
                return -EINVAL;
        }
        if (!session->drive && !command->needs_no_file) {
                fprintf(stderr, "no file open, try 'help open'\n");
                return -EINVAL;
        }
        if (check_count(command, argc - 1) < 0)
                return -EINVAL;
        if (command->writes && !(session->how.flags & HVB_OPEN_RDWR)) {
                fprintf(stderr, "hv-io: Block node is read-only\n");
                return -EACCES;
        }
        return command->run(session, argc, argv);
}

int session_run(struct io_session *session, const char *line)
{
        g_auto(GStrv) pieces = g_strsplit_set(line, " \t\n", -1);
        g_autofree char **words = g_new0(char *, g_strv_length(pieces) + 1);
        int count = 0, ret;

        for (int i = 0; pieces[i]; i++)
                if (*pieces[i])
                        words[count++] = pieces[i];
        if (count == 0)
                return 0;
        ret = run_words(session, count, words);
        fflush(stdout);
        return ret;
}
