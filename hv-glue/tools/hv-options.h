/*
 * hv-options.h - hv's command line, spelled as QEMU's.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TOOLS_HV_OPTIONS_H
#define TOOLS_HV_OPTIONS_H

#include "vm/machine.h"

/* Where a serial line or a monitor leads. */
struct hv_channel {
        enum {
                CHANNEL_NONE,
                CHANNEL_STDIO,
                CHANNEL_FILE,
                CHANNEL_UNIX,           /* connects */
                CHANNEL_UNIX_SERVER,    /* listens */
        } kind;
        bool given;                     /* on the command line */
        char *path;
        bool wait;                      /* a server: for its first client, before the start */
};

struct hv_options {
        struct machine_config machine;  /* but for serial_in, serial_out */
        GArray *disks;                  /* of struct machine_disk_config */
        GPtrArray *strings;             /* that belong to the above */
        struct policy *policy;          /* of backing files; NULL: none */
        struct hv_channel serial;
        struct hv_channel monitor;
        struct hv_channel qmp;
        bool multiplexed;               /* serial line and monitor share stdio: Ctrl-a */
        char *load_tag;                 /* or NULL */
        bool eager;
        bool paused;                    /* -S */
        char *pid_file;                 /* or NULL */
};

/*
 * Fills *options from the command line.  --help and --version print and exit.  0, or
 * -EINVAL with err filled.
 */
int hv_options_parse(struct hv_options *options, int argc, char **argv, struct hvb_error *err);
void hv_options_clear(struct hv_options *options);

/* ---- hv-drive.c ---- */

/* Adds what a -drive says to options.  0, or -EINVAL with err filled. */
int hv_drive_add(struct hv_options *options, const char *text, struct hvb_error *err);
/* What -drive takes, for the help. */
void hv_drive_print_help(void);

/* "a=b,c" in parts, ",," being a comma.  Each "key=value"; a part without "=" has the key ""
 * (the first one) or no value.  NULL-terminated; g_strfreev. */
char **hv_split_commas(const char *text);

#endif
