/*
 * bench-snapshots.c - snapshot operations from inside the process.
 *
 *   bench-snapshots IMAGE
 *
 * Does what run.sh does with hv-img, each operation on a freshly opened image, and
 * prints a line for each: its name, the seconds that opening, the operation itself
 * and closing took, and the engine.  Leaves the image without snapshots again.
 *
 * SPDX-License-Identifier: MIT
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host/drive.h"

enum kind { CREATE, GOTO, DELETE };

/* The second deletion is that of the last snapshot: clusters become COPIED again. */
static const struct operation {
        const char *name;
        enum kind kind;
        const char *snapshot;
} operations[] = {
        { "create-first",  CREATE, "a" },
        { "create-second", CREATE, "b" },
        { "goto",          GOTO,   "a" },
        { "delete",        DELETE, "b" },
        { "delete-last",   DELETE, "a" },
};

static void die(const char *what, const struct hvb_error *err, int code)
{
        fprintf(stderr, "bench-snapshots: %s: %s\n", what, error_text(err, code));
        exit(1);
}

static double now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec + t.tv_nsec / 1e9;
}

static int run(struct drive *drive, const struct operation *operation, struct hvb_error *err)
{
        struct hvb_snapshot_info info = {
                .struct_bytes = sizeof(info),
                .date_sec = (uint32_t)time(NULL),
                .icount = UINT64_MAX,
        };

        switch (operation->kind) {
        case CREATE:
                g_strlcpy(info.name, operation->snapshot, sizeof(info.name));
                return drive_snapshot_create(drive, &info, 0, err);
        case GOTO:
                return drive_snapshot_goto(drive, NULL, operation->snapshot, err);
        case DELETE:
                return drive_snapshot_delete(drive, NULL, operation->snapshot, err);
        }
        g_assert_not_reached();
}

static void measure(const char *path, const struct operation *operation)
{
        struct drive_options options = { .format = "qcow2", .flags = HVB_OPEN_RDWR };
        struct hvb_image_info info = { .struct_bytes = sizeof(info) };
        struct hvb_error err = ERROR_INIT;
        struct drive *drive;
        double at[4];
        int ret;

        at[0] = now();
        ret = drive_open(path, &options, &drive, &err);
        if (ret < 0)
                die("open", &err, ret);
        drive_get_info(drive, &info);
        at[1] = now();
        ret = run(drive, operation, &err);
        if (ret < 0)
                die(operation->name, &err, ret);
        at[2] = now();
        ret = drive_close(drive, &err);
        if (ret < 0)
                die("close", &err, ret);
        at[3] = now();
        printf("%s %.6f %.6f %.6f %s\n", operation->name, at[1] - at[0], at[2] - at[1],
               at[3] - at[2], info.engine);
}

int main(int argc, char **argv)
{
        if (argc != 2) {
                fprintf(stderr, "Usage: bench-snapshots IMAGE\n");
                return 2;
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(operations); i++)
                measure(argv[1], &operations[i]);
        return 0;
}
