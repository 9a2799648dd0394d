/*
 * hv-options.c - hv's command line.
 *
 * Options are QEMU's, with one dash (two are as good).  One table says what there is: it
 * is what is parsed and what --help prints.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tools/hv-options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/error.h"
#include "host/loader.h"
#include "host/size.h"

#ifndef HV_VERSION
#define HV_VERSION "0"
#endif

#define MIB     (1ull << 20)

enum { RAM_DEFAULT_MIB = 128 };

struct hv_option {
        const char *name;
        const char *argument;           /* NULL: takes none */
        int (*set)(struct hv_options *options, const char *value, struct hvb_error *err);
        const char *help;
};

static int print_help(struct hv_options *options, const char *value, struct hvb_error *err);
static int print_version(struct hv_options *options, const char *value, struct hvb_error *err);

/* ---- One function an option -------------------------------------------------------------- */

/* value's copy lives as long as options. */
static char *keep(struct hv_options *options, const char *value)
{
        char *copy = g_strdup(value);

        g_ptr_array_add(options->strings, copy);
        return copy;
}

/* MiB without a suffix, as in QEMU. */
static int set_memory(struct hv_options *options, const char *value, struct hvb_error *err)
{
        const char *text = g_str_has_prefix(value, "size=") ? value + 5 : value;
        bool has_unit = text[0] != '\0' && !g_ascii_isdigit(text[strlen(text) - 1]);
        uint64_t bytes;

        if (size_parse(text, &bytes) < 0 || (!has_unit && bytes > UINT64_MAX / MIB))
                return error_set(err, -EINVAL, "-m: '%s' is no size (try 256M or 1G)", value);
        options->machine.ram_bytes = has_unit ? bytes : bytes * MIB;
        return 0;
}

static int set_processors(struct hv_options *options, const char *value, struct hvb_error *err)
{
        const char *text = g_str_has_prefix(value, "cpus=") ? value + 5 : value;
        guint64 count;

        if (!g_ascii_string_to_unsigned(text, 10, 1, MACHINE_CPUS_MAX, &count, NULL))
                return error_set(err, -EINVAL, "-smp: '%s': must be a number from 1 to %d", value,
                                 MACHINE_CPUS_MAX);
        options->machine.cpu_count = count;
        return 0;
}

static int add_drive(struct hv_options *options, const char *value, struct hvb_error *err)
{
        return hv_drive_add(options, value, err);
}

static int set_kernel(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) err;
        options->machine.kernel_path = keep(options, value);
        return 0;
}

static int set_initrd(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) err;
        options->machine.initrd_path = keep(options, value);
        return 0;
}

static int set_append(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) err;
        options->machine.append = keep(options, value);
        return 0;
}

/* "server", "server=on", "nowait", "wait=off", ... of a socket. */
static int set_socket_flag(struct hv_channel *channel, const char *flag)
{
        if (strcmp(flag, "server") == 0 || strcmp(flag, "server=on") == 0)
                channel->kind = CHANNEL_UNIX_SERVER;
        else if (strcmp(flag, "server=off") == 0)
                channel->kind = CHANNEL_UNIX;
        else if (strcmp(flag, "nowait") == 0 || strcmp(flag, "wait=off") == 0)
                channel->wait = false;
        else if (strcmp(flag, "wait") == 0 || strcmp(flag, "wait=on") == 0)
                channel->wait = true;
        else
                return -EINVAL;
        return 0;
}

static int set_socket(struct hv_options *options, struct hv_channel *channel, const char *text)
{
        g_auto(GStrv) parts = hv_split_commas(text);

        channel->kind = CHANNEL_UNIX;
        channel->wait = true;
        channel->path = keep(options, parts[0]);
        for (char **flag = parts + 1; *flag != NULL; flag++)
                if (set_socket_flag(channel, *flag) < 0)
                        return -EINVAL;
        return parts[0][0] == '\0' ? -EINVAL : 0;
}

static int set_channel(struct hv_options *options, struct hv_channel *channel, const char *value)
{
        *channel = (struct hv_channel) { .given = true };
        if (strcmp(value, "none") == 0 || strcmp(value, "null") == 0)
                return 0;
        if (strcmp(value, "stdio") == 0) {
                channel->kind = CHANNEL_STDIO;
                return 0;
        }
        if (g_str_has_prefix(value, "unix:"))
                return set_socket(options, channel, value + 5);
        if (!g_str_has_prefix(value, "file:") || value[5] == '\0')
                return -EINVAL;
        channel->kind = CHANNEL_FILE;
        channel->path = keep(options, value + 5);
        return 0;
}

static int set_serial(struct hv_options *options, const char *value, struct hvb_error *err)
{
        if (strcmp(value, "mon:stdio") == 0) {
                options->serial = options->monitor = (struct hv_channel) {
                        .kind = CHANNEL_STDIO,
                        .given = true,
                };
                return 0;
        }
        if (set_channel(options, &options->serial, value) < 0)
                return error_set(err, -EINVAL, "-serial: '%s': must be stdio, mon:stdio, none, "
                                 "file:PATH or unix:PATH[,server]", value);
        return 0;
}

/* A monitor listens; that nobody need wait for. */
static int set_monitor_channel(struct hv_options *options, struct hv_channel *channel,
                               const char *value)
{
        int ret = set_channel(options, channel, value);

        if (channel->kind == CHANNEL_UNIX)
                channel->kind = CHANNEL_UNIX_SERVER;
        return channel->kind == CHANNEL_FILE ? -EINVAL : ret;
}

static int set_monitor(struct hv_options *options, const char *value, struct hvb_error *err)
{
        if (set_monitor_channel(options, &options->monitor, value) < 0)
                return error_set(err, -EINVAL, "-monitor: '%s': must be stdio, none or "
                                 "unix:PATH[,server,nowait]", value);
        return 0;
}

static int set_qmp(struct hv_options *options, const char *value, struct hvb_error *err)
{
        if (set_monitor_channel(options, &options->qmp, value) < 0
            || options->qmp.kind == CHANNEL_STDIO)
                return error_set(err, -EINVAL, "-qmp: '%s': must be unix:PATH[,server,nowait] or "
                                 "none", value);
        return 0;
}

static int set_nographic(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) value;
        return set_serial(options, "mon:stdio", err);
}

static int set_load_tag(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) err;
        options->load_tag = keep(options, value);
        return 0;
}

static int set_paused(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) value;
        (void) err;
        options->paused = true;
        return 0;
}

static int set_eager(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) value;
        (void) err;
        options->eager = true;
        return 0;
}

static int set_no_reboot(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) value;
        (void) err;
        options->machine.no_reboot = true;
        return 0;
}

static int set_huge_pages(struct hv_options *options, const char *value, struct hvb_error *err)
{
        options->machine.huge_pages = strcmp(value, "on") == 0;
        if (!options->machine.huge_pages && strcmp(value, "off") != 0)
                return error_set(err, -EINVAL, "-huge-pages: '%s': must be on or off", value);
        return 0;
}

static int set_pid_file(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) err;
        options->pid_file = keep(options, value);
        return 0;
}

static int add_backing_dir(struct hv_options *options, const char *value, struct hvb_error *err)
{
        if (options->policy == NULL)
                options->policy = policy_new();
        return policy_allow_directory(options->policy, value, err);
}

static int accept_nothing(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) options;
        (void) value;
        (void) err;
        return 0;
}

/* ---- The table --------------------------------------------------------------------------- */

static const struct hv_option table[] = {
        { "m", "SIZE", set_memory, "memory (128M); MiB without a suffix" },
        { "smp", "N", set_processors, "processors (1)" },
        { "drive", "file=PATH,...", add_drive, "a disk; see below; may be repeated" },
        { "backing-dir", "DIR", add_backing_dir,
          "images may have backing files in or below DIR (none may); may be repeated" },
        { "kernel", "FILE", set_kernel,
          "a bzImage or an ELF vmlinux (the guest that is built in: see below)" },
        { "initrd", "FILE", set_initrd, "its initial RAM disk" },
        { "append", "TEXT", set_append, "its command line" },
        { "serial", "DEV", set_serial,
          "serial line: stdio, mon:stdio (default), none, file:PATH, unix:PATH[,server]" },
        { "monitor", "DEV", set_monitor, "monitor for people: stdio, none, unix:PATH" },
        { "qmp", "DEV", set_qmp, "monitor for programs: unix:PATH" },
        { "nographic", NULL, set_nographic, "as -serial mon:stdio" },
        { "loadvm", "TAG", set_load_tag, "start from the snapshot TAG" },
        { "eager", NULL, set_eager,
          "loadvm reads all of RAM before the guest goes on" },
        { "S", NULL, set_paused, "do not run until 'cont'" },
        { "no-reboot", NULL, set_no_reboot, "exit instead of rebooting" },
        { "huge-pages", "on|off", set_huge_pages, "transparent huge pages for memory (off)" },
        { "pidfile", "FILE", set_pid_file, "write the process's id there" },
        { "enable-kvm", NULL, accept_nothing, "accepted for QEMU's sake: it is always KVM" },
        { "help", NULL, print_help, "print this" },
        { "h", NULL, print_help, NULL },
        { "version", NULL, print_version, "print the version" },
};

static int print_help(struct hv_options *options, const char *value, struct hvb_error *err)
{
        (void) options;
        (void) value;
        (void) err;
        printf("hv version " HV_VERSION "\n"
               "Runs a virtual machine with KVM.  Usage:\n\n"
               "  hv [-m SIZE] [-drive file=DISK.qcow2] [-kernel FILE ...] [options]\n\n");
        for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
                g_autofree char *left = g_strdup_printf(
                        "-%s %s", table[i].name,
                        table[i].argument == NULL ? "" : table[i].argument);

                if (table[i].help != NULL)
                        printf("  %-21s %s\n", left, table[i].help);
        }
        printf("\n");
        hv_drive_print_help();
        printf("\nWith serial line and monitor on one terminal: Ctrl-a c switches between them,\n"
               "Ctrl-a x ends hv, Ctrl-a h says so, Ctrl-a Ctrl-a sends a Ctrl-a.\n"
               "\nThe guest that is built in writes and verifies memory and the first disk, and\n"
               "prints its rounds.  It takes from -append: ram=SIZE blocks=N rounds=N rate=N\n"
               "hostile.\n"
               "\nDisks are virtio-mmio devices from 0xd0000000 on, named in ACPI's tables.\n"
               "A guest powers off by ACPI or by writing to port 0xf4.  $HV_BLOCK_PATH names\n"
               "directories in which block driver plugins are looked for.\n");
        exit(0);
}

static int print_version(struct hv_options *options, const char *value, struct hvb_error *err)
{
        const struct hvb_driver *driver;

        (void) options;
        (void) value;
        (void) err;
        printf("hv version " HV_VERSION "\n");
        if (loader_load("qcow2", &driver, NULL) == 0)
                printf("block driver qcow2 version %s\n", driver->version_text);
        exit(0);
}

/* ---- Parsing ----------------------------------------------------------------------------- */

static const struct hv_option *find_option(const char *name)
{
        for (unsigned i = 0; i < G_N_ELEMENTS(table); i++)
                if (strcmp(table[i].name, name) == 0)
                        return &table[i];
        return NULL;
}

/* Takes the option at argv[*at], and its argument: "-x y", "--x y" or "--x=y". */
static int take_option(struct hv_options *options, char **argv, int *at, struct hvb_error *err)
{
        const char *word = argv[*at];
        bool is_long = g_str_has_prefix(word, "--");
        g_autofree char *name = g_strdup(word + (is_long ? 2 : 1));
        char *value = is_long ? strchr(name, '=') : NULL;
        const struct hv_option *option;

        if (value != NULL)
                *value++ = '\0';
        option = word[0] == '-' ? find_option(name) : NULL;
        if (option == NULL)
                return error_set(err, -EINVAL, word[0] == '-' ? "%s: no such option"
                                 : "'%s': disks are given by -drive file=...", word);
        if (option->argument == NULL && value != NULL)
                return error_set(err, -EINVAL, "%s takes no argument", word);
        if (option->argument != NULL && value == NULL) {
                value = argv[++*at];
                if (value == NULL)
                        return error_set(err, -EINVAL, "%s needs an argument: %s", word,
                                         option->argument);
        }
        return option->set(options, value, err);
}

/* What two options together must not say. */
static int settle(struct hv_options *options, struct hvb_error *err)
{
        struct machine_config *machine = &options->machine;

        /* Who says nothing gets both on the terminal, who names one only that. */
        if (!options->serial.given && options->monitor.kind != CHANNEL_STDIO)
                options->serial.kind = CHANNEL_STDIO;
        if (!options->serial.given && !options->monitor.given)
                options->monitor.kind = CHANNEL_STDIO;
        options->multiplexed = options->serial.kind == CHANNEL_STDIO
                && options->monitor.kind == CHANNEL_STDIO;
        if (machine->initrd_path != NULL && machine->kernel_path == NULL)
                return error_set(err, -EINVAL, "-initrd needs a -kernel");
        machine->disks = (const struct machine_disk_config *) (void *) options->disks->data;
        machine->disk_count = options->disks->len;
        for (guint i = 0; i < options->disks->len; i++)
                g_array_index(options->disks, struct machine_disk_config, i).policy =
                        options->policy;
        return 0;
}

int hv_options_parse(struct hv_options *options, int argc, char **argv, struct hvb_error *err)
{
        *options = (struct hv_options) {
                .machine.ram_bytes = RAM_DEFAULT_MIB * MIB,
                .machine.cpu_count = 1,
                .disks = g_array_new(FALSE, TRUE, sizeof(struct machine_disk_config)),
                .strings = g_ptr_array_new_with_free_func(g_free),
        };
        for (int i = 1; i < argc; i++) {
                int ret = take_option(options, argv, &i, err);

                if (ret < 0)
                        return ret;
        }
        return settle(options, err);
}

void hv_options_clear(struct hv_options *options)
{
        g_array_unref(options->disks);
        g_ptr_array_unref(options->strings);
        policy_free(options->policy);
}
