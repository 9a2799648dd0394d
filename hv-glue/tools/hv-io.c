/*
 * hv-io.c - exercise an image from the command line, as qemu-io does.
 *
 * Commands come from -c options, or one a line from standard input.  The exit
 * status is 0 when all of them worked, 1 otherwise.
 *
 * SPDX-License-Identifier: MIT
 */
#include "hv-io.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

static const char usage_text[] =
        "Usage: hv-io [OPTIONS]... [-c STRING]... [file]\n"
        "Exercise a disk image through its block driver plugin.\n"
        "\n"
        "  -c, --cmd STRING     execute a command with its arguments\n"
        "  -f, --format FMT     the image's format; probed unless given\n"
        "  -r, --read-only      open read-only\n"
        "  -n, --nocache        short for -t none\n"
        "  -t, --cache=MODE     none, writeback (default), writethrough, directsync, unsafe\n"
        "  -o, --options=OPTS   key=value,... for the driver\n"
        "  -U, --force-share    open beside a writer\n"
        "  -N, --no-sandbox     images may name any file, and the process may do anything\n"
        "  -A, --allow-dir=DIR  backing files may lie in or below this directory, too\n"
        "  -h, --help           display this help and exit\n"
        "  -V, --version        display the version and exit\n"
        "\n"
        "Without -c, commands are read from standard input.  'hv-io -c help' lists them.\n"
        "\n"
        "It runs in a sandbox (seccomp, Landlock): backing files must lie in or below the\n"
        "directory of the image.  Commands from standard input open what lies in or below the\n"
        "current directory, the file's and those of --allow-dir, and nothing else.\n";

static const struct option long_options[] = {
        { "cmd", required_argument, NULL, 'c' },
        { "format", required_argument, NULL, 'f' },
        { "read-only", no_argument, NULL, 'r' },
        { "nocache", no_argument, NULL, 'n' },
        { "cache", required_argument, NULL, 't' },
        { "options", required_argument, NULL, 'o' },
        { "force-share", no_argument, NULL, 'U' },
        { "no-sandbox", no_argument, NULL, 'N' },
        { "allow-dir", required_argument, NULL, 'A' },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        {}
};

void io_open_clear(struct io_open *how)
{
        g_free(how->path);
        g_free(how->format);
        g_strfreev(how->options);
        *how = (struct io_open) {};
}

struct io_open io_open_copy(const struct io_open *how)
{
        struct io_open copy = *how;

        copy.path = g_strdup(how->path);
        copy.format = g_strdup(how->format);
        copy.options = g_strdupv(how->options);
        return copy;
}

/* Appends to a string vector, which is NULL when empty. */
static void vector_add(char ***vector, const char *text)
{
        guint count = *vector ? g_strv_length(*vector) : 0;

        *vector = g_renew(char *, *vector, count + 2);
        (*vector)[count] = g_strdup(text);
        (*vector)[count + 1] = NULL;
}

int io_open_add_options(struct io_open *how, const char *text)
{
        g_auto(GStrv) parts = g_strsplit(text, ",", -1);

        for (int i = 0; parts[i]; i++) {
                if (!strchr(parts[i], '=')) {
                        fprintf(stderr, "hv-io: option '%s' has no value\n", parts[i]);
                        return -EINVAL;
                }
                if (g_str_has_prefix(parts[i], "driver=")) {
                        g_free(how->format);
                        how->format = g_strdup(parts[i] + strlen("driver="));
                } else {
                        vector_add(&how->options, parts[i]);
                }
        }
        return 0;
}

static void watch_log(void *opaque, enum hvb_log_level level, const char *text)
{
        (void)opaque;
        if (level <= HVB_LOG_WARNING)
                fprintf(stderr, "hv-io: %s\n", text);
}

static void watch_event(void *opaque, const struct hvb_event *event)
{
        static const char *const names[] = {
                [HVB_EVENT_POISONED] = "image poisoned",
                [HVB_EVENT_CORRUPTION] = "image is corrupt",
                [HVB_EVENT_REPAIR_BEGIN] = "repairing an image that was not closed",
                [HVB_EVENT_REPAIR_END] = "repair ended",
        };
        const char *name = event->type < G_N_ELEMENTS(names) ? names[event->type] : "event";

        (void)opaque;
        fprintf(stderr, "hv-io: %s%s%s\n", name, event->text && *event->text ? ": " : "",
                event->text ? event->text : "");
}

static const struct drive_watch watch = { .log = watch_log, .event = watch_event };

int session_open(struct io_session *session, struct io_open how)
{
        struct drive_options options = {
                .format = how.format, .flags = how.flags, .cache = how.cache,
                .options = (const char *const *)how.options,
                .policy = session->policy, .watch = &watch,
        };
        struct hvb_error err = ERROR_INIT;
        int ret;

        if (session->drive) {
                fprintf(stderr, "hv-io: file open already, try 'help close'\n");
                io_open_clear(&how);
                return -EBUSY;
        }
        ret = drive_open(how.path, &options, &session->drive, &err);
        if (ret < 0) {
                g_autofree char *hint = error_lock_hint(how.path, &err);

                session->drive = NULL;
                error_prepend(&err, "can't open device %s: ", how.path);
                g_strlcat(err.text, hint, sizeof(err.text));
                text_error(&err, ret);
                io_open_clear(&how);
                return ret;
        }
        io_open_clear(&session->how);
        session->how = how;
        return 0;
}

int session_close(struct io_session *session)
{
        struct hvb_error err = ERROR_INIT;
        struct drive *drive = session->drive;
        int ret;

        aio_finish(session);
        session->drive = NULL;
        session->snapshot = NULL;
        ret = drive_close(drive, &err);
        return ret < 0 ? text_error(&err, ret) : 0;
}

/* Commands from standard input; true when all worked. */
static bool run_input(struct io_session *session)
{
        bool terminal = isatty(STDIN_FILENO);
        char *line = NULL;
        size_t line_bytes = 0;
        bool good = true;

        while (!session->quit) {
                if (terminal) {
                        printf("hv-io> ");
                        fflush(stdout);
                }
                if (getline(&line, &line_bytes, stdin) < 0)
                        break;
                good = session_run(session, line) == 0 && good;
        }
        if (terminal && !session->quit)
                printf("\n");
        free(line);
        return good;
}

static bool run_all(struct io_session *session, char **lines)
{
        bool good = true;

        if (!lines)
                return run_input(session);
        for (int i = 0; lines[i] && !session->quit; i++)
                good = session_run(session, lines[i]) == 0 && good;
        return good;
}

/* One option of the command line.  0: go on; else exit with status - 1. */
static int take_option(struct io_session *session, int option, char ***lines)
{
        struct io_open *how = &session->defaults;

        switch (option) {
        case 'c': vector_add(lines, optarg); return 0;
        case 'f':
                g_free(how->format);
                how->format = g_strdup(optarg);
                return 0;
        case 'r': how->flags &= ~HVB_OPEN_RDWR; return 0;
        case 'n': drive_cache_parse("none", &how->cache); return 0;
        case 'o': return io_open_add_options(how, optarg) < 0 ? 2 : 0;
        case 'U': how->flags |= HVB_OPEN_FORCE_SHARE; return 0;
        case 't':
                if (drive_cache_parse(optarg, &how->cache))
                        return 0;
                fprintf(stderr, "hv-io: Invalid cache option: %s\n", optarg);
                return 2;
        case 'N': session->is_uncontained = true; return 0;
        case 'A': vector_add(&session->directories, optarg); return 0;
        case 'V': printf("hv-io for block driver ABI %u\n", HVB_ABI_VERSION); return 1;
        case 'h': fputs(usage_text, stdout); return 1;
        default: fputs(usage_text, stderr); return 2;
        }
}

static int parse_command_line(struct io_session *session, int argc, char **argv, char ***lines)
{
        int option, ret = 0;

        session->defaults.flags = HVB_OPEN_RDWR;
        while (ret == 0 && (option = getopt_long(argc, argv, "c:f:rnt:o:UNA:hV", long_options,
                                                 NULL)) != -1)
                ret = take_option(session, option, lines);
        if (ret == 0 && argc - optind > 1) {
                fputs(usage_text, stderr);
                ret = 2;
        }
        return ret;
}

int main(int argc, char **argv)
{
        struct io_session session = {};
        char **lines = NULL;
        int status = parse_command_line(&session, argc, argv, &lines);
        bool good = status <= 1;

        if (status == 0) {
                session.defaults.path = g_strdup(optind < argc ? argv[optind] : NULL);
                good = session_contain(&session, lines) == 0;
                if (good && session.defaults.path)
                        good = session_open(&session, io_open_copy(&session.defaults)) == 0 &&
                               session_seal(&session, lines) == 0;
                good = good && run_all(&session, lines);
                if (session.drive)
                        good = session_close(&session) == 0 && good;
        }
        io_open_clear(&session.how);
        io_open_clear(&session.defaults);
        g_strfreev(lines);
        g_strfreev(session.directories);
        policy_free(session.policy);
        return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
