/*
 * hv-img.c - make, look at, check and convert disk images, with qemu-img's habits.
 *
 * main is a table of commands; each command is a file of its own.
 *
 * SPDX-License-Identifier: MIT
 */
#include "hv-img.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/loader.h"
#include "host/sandbox.h"

#ifndef HV_VERSION
#define HV_VERSION "0"
#endif

static const char size_note[] =
        "SIZE is a number of bytes, with an optional suffix b, k, M, G, T, P or E\n"
        "(powers of 1024).";

static const char new_note[] =
        "Options for -o are key=value, separated by commas; '-o help' lists them.\n"
        "SIZE takes an optional suffix k, M, G, T, P or E (powers of 1024).  It may be\n"
        "left out with a backing file, whose size it then is.";

static const char check_note[] =
        "Exit status: 0 no errors; 1 the check could not be done; 2 errors; 3 leaked\n"
        "clusters, no errors; 63 the format has no checks.";

static const char compare_note[] =
        "Exit status: 0 identical; 1 different; 2 and above: an error.";

static const char snapshot_note[] =
        "-a looks for the id first, then for the name; -d for the name only.";

static const char convert_note[] =
        "SNAPSHOT is an id or a name, or snapshot.id=ID,snapshot.name=NAME.\n"
        "CACHE_MODE is one of none, writeback, writethrough, directsync, unsafe.";

static const struct img_command commands[] = {
        { "check", img_check, "FILENAME", "Check basic image integrity", check_note },
        { "compare", img_compare, "FILENAME1 FILENAME2",
          "Check if two images have the same contents", compare_note },
        { "convert", img_convert, "SRC_FILENAME [SRC_FILENAME2...] TGT_FILENAME",
          "Copy one image to another with optional format conversion", convert_note },
        { "create", img_create, "FILENAME [SIZE]", "Create and format new image file", new_note },
        { "info", img_info, "FILENAME", "Display information about image", NULL },
        { "map", img_map, "FILENAME", "Dump image metadata", NULL },
        { "resize", img_resize, "FILENAME [+-]SIZE", "Resize the image to the new size",
          size_note },
        { "snapshot", img_snapshot, "FILENAME", "List or manipulate snapshots within image",
          snapshot_note },
};

/* ---- Messages ----------------------------------------------------------------------- */

static void print_message(const char *format, va_list args)
{
        fflush(stdout);                 /* what was said before stands before */
        fputs("hv-img: ", stderr);
        vfprintf(stderr, format, args);
        fputc('\n', stderr);
}

void img_error(const char *format, ...)
{
        va_list args;

        va_start(args, format);
        print_message(format, args);
        va_end(args);
}

int img_usage_error(const struct img_command *command, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        print_message(format, args);
        va_end(args);
        fprintf(stderr, "Try 'hv-img%s%s --help' for more info\n", command == NULL ? "" : " ",
                command == NULL ? "" : command->name);
        return 1;
}

/* ---- The command line ---------------------------------------------------------------- */

/* The text that GLib makes from the options, in ASCII. */
static int print_command_help(GOptionContext *context)
{
        g_autofree char *help = g_option_context_get_help(context, FALSE, NULL);
        g_auto(GStrv) parts = g_strsplit(help, "\342\200\246", -1);
        g_autofree char *text = g_strjoinv("...", parts);

        fputs(text, stdout);
        return 0;
}

int img_parse(const struct img_command *command, const GOptionEntry *entries, int argc,
              char **argv, char ***ret_names)
{
        g_autofree char *title = g_strdup_printf("%s - %s", command->arguments,
                                                 command->summary);
        g_autoptr(GOptionContext) context = g_option_context_new(title);
        g_autoptr(GError) error = NULL;
        gboolean wants_help = FALSE;
        const GOptionEntry own[] = {
                { "help", 'h', 0, G_OPTION_ARG_NONE, &wants_help, "display this help and exit",
                  NULL },
                { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, ret_names, NULL, NULL },
                { 0 },
        };

        g_option_context_set_help_enabled(context, FALSE);
        g_option_context_add_main_entries(context, own, NULL);
        g_option_context_add_main_entries(context, entries, NULL);
        g_option_context_add_main_entries(context, img_sandbox_entries, NULL);
        if (command->notes != NULL)
                g_option_context_set_description(context, command->notes);
        if (!g_option_context_parse(context, &argc, &argv, &error))
                return img_usage_error(command, "%s", error->message);
        if (wants_help)
                exit(print_command_help(context));
        if (*ret_names == NULL)
                *ret_names = g_new0(char *, 1);
        return 0;
}

int img_parse_output(const struct img_command *command, const char *output, bool *ret_json)
{
        if (output == NULL || strcmp(output, "human") == 0)
                *ret_json = false;
        else if (strcmp(output, "json") == 0)
                *ret_json = true;
        else
                return img_usage_error(command, "--output expects 'human' or 'json' not '%s'",
                                       output);
        return 0;
}

static int print_help(void)
{
        printf("hv-img version " HV_VERSION "\n"
               "Disk image utility.  Usage:\n\n"
               "  hv-img COMMAND [--help | command options]\n"
               "  hv-img --help | --version\n\n"
               "Commands (hv-img COMMAND --help for what each takes):\n\n");
        for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
                printf("  %-10s %s\n", commands[i].name, commands[i].summary);
        printf("\nCommands run in a sandbox (seccomp, Landlock): backing files must lie in or\n"
               "below the directory of an image that was named, or of --allow-dir.\n"
               "--no-sandbox switches it off.\n"
               "\nImage formats: qcow2 raw\n"
               "$HV_BLOCK_PATH names directories in which block driver plugins are looked for.\n");
        return 0;
}

static int print_version(void)
{
        g_autofree char *layers = sandbox_describe();
        const struct hvb_driver *driver;

        printf("hv-img version " HV_VERSION "\n");
        if (loader_load("qcow2", &driver, NULL) == 0)
                printf("block driver qcow2 version %s\n", driver->version_text);
        printf("sandbox: %s\n", layers);
        return 0;
}

int main(int argc, char **argv)
{
        if (argc < 2)
                return img_usage_error(NULL, "Not enough arguments");
        if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
                return print_help();
        if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
                return print_version();
        if (argv[1][0] == '-')
                return img_usage_error(NULL, "unrecognized option '%s'", argv[1]);

        for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
                if (strcmp(argv[1], commands[i].name) == 0) {
                        g_autofree char *name = g_strconcat("hv-img ", argv[1], NULL);

                        g_set_prgname(name);
                        return commands[i].run(&commands[i], argc - 1, argv + 1);
                }
        }
        return img_usage_error(NULL, "Command not found: %s", argv[1]);
}
