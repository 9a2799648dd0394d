/*
 * hv-img-snapshot.c - hv-img snapshot.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "host/snapshot-table.h"
#include "hv-img.h"

static struct {
        gboolean quiet;
        char *format;
        gboolean force_share;
        gboolean list;
        char *create;
        char *apply;
        char *delete;
} args;

static const GOptionEntry entries[] = {
        { "quiet", 'q', 0, G_OPTION_ARG_NONE, &args.quiet, "quiet operations", NULL },
        { "format", 'f', 0, G_OPTION_ARG_FILENAME, &args.format,
          "specify FILENAME format explicitly", "FMT" },
        { "force-share", 'U', 0, G_OPTION_ARG_NONE, &args.force_share,
          "open image in shared mode for concurrent access", NULL },
        { "list", 'l', 0, G_OPTION_ARG_NONE, &args.list,
          "list snapshots in FILENAME (the default)", NULL },
        { "create", 'c', 0, G_OPTION_ARG_FILENAME, &args.create,
          "create named snapshot", "SNAPSHOT" },
        { "apply", 'a', 0, G_OPTION_ARG_FILENAME, &args.apply,
          "apply named snapshot to the base", "SNAPSHOT" },
        { "delete", 'd', 0, G_OPTION_ARG_FILENAME, &args.delete,
          "delete named snapshot", "SNAPSHOT" },
        { 0 },
};

/* ---- The table ----------------------------------------------------------------------- */

void img_print_snapshots(const struct hvb_snapshot_info *infos, int count)
{
        g_autoptr(GString) text = g_string_new("Snapshot list:\n");

        if (count == 0)
                return;
        snapshot_table_head(text);
        for (int i = 0; i < count; i++)
                snapshot_table_row(text, &infos[i], infos[i].id_str);
        fputs(text->str, stdout);
}

const struct hvb_snapshot_info *img_find_snapshot(const struct hvb_snapshot_info *infos,
                                                  int count, const char *text, bool by_id)
{
        for (int i = 0; by_id && i < count; i++)
                if (strcmp(infos[i].id_str, text) == 0)
                        return &infos[i];
        for (int i = 0; i < count; i++)
                if (strcmp(infos[i].name, text) == 0)
                        return &infos[i];
        return NULL;
}

/* ---- Operations ---------------------------------------------------------------------- */

static int list(struct drive *drive)
{
        g_autofree struct hvb_snapshot_info *infos = NULL;
        int count = drive_snapshot_list(drive, &infos);

        if (count < 0) {
                img_error("Could not list snapshots: %s", g_strerror(-count));
                return 1;
        }
        img_print_snapshots(infos, count);
        return 0;
}

static int create(struct drive *drive, const char *name)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        struct hvb_error err = ERROR_INIT;
        gint64 now_usec = g_get_real_time();
        int ret = 0;

        if (g_strlcpy(info.name, name, sizeof(info.name)) >= sizeof(info.name))
                ret = error_set(&err, -ENAMETOOLONG, "the name is longer than %zu bytes",
                                sizeof(info.name) - 1);
        info.date_sec = now_usec / G_USEC_PER_SEC;
        info.date_nsec = now_usec % G_USEC_PER_SEC * 1000;
        if (ret == 0)
                ret = drive_snapshot_create(drive, &info, 0, &err);
        if (ret < 0)
                img_error("Could not create snapshot '%s': %s", name, error_text(&err, ret));
        return ret < 0 ? 1 : 0;
}

/*
 * Goes to (by id, then name) or deletes (by name) the snapshot that text means.  Of
 * several with one name it is the first, so the id is given to the driver too.
 */
static int use(struct drive *drive, const char *text, bool deletes)
{
        const char *verb = deletes ? "delete" : "apply";
        g_autofree struct hvb_snapshot_info *infos = NULL;
        struct hvb_error err = ERROR_INIT;
        int ret = drive_snapshot_list(drive, &infos);
        const struct hvb_snapshot_info *found =
                ret < 0 ? NULL : img_find_snapshot(infos, ret, text, !deletes);

        if (ret >= 0 && found == NULL)
                ret = error_set(&err, -ENOENT, "%s", deletes ? "snapshot not found"
                                : "Failed to load snapshot: No such file or directory");
        else if (ret >= 0 && deletes)
                ret = drive_snapshot_delete(drive, found->id_str, found->name, &err);
        else if (ret >= 0)
                ret = drive_snapshot_goto(drive, found->id_str, found->name, &err);
        if (ret < 0)
                img_error("Could not %s snapshot '%s': %s", verb, text, error_text(&err, ret));
        return ret < 0 ? 1 : 0;
}

int img_snapshot(const struct img_command *command, int argc, char **argv)
{
        struct img_open how = { 0 };
        static char **names;
        struct drive *drive;
        int status;

        if (img_parse(command, entries, argc, argv, &names) != 0)
                return 1;
        if (args.list + (args.create != NULL) + (args.apply != NULL) + (args.delete != NULL) > 1)
                return img_usage_error(command, "Cannot mix '-l', '-a', '-c', '-d'");
        if (g_strv_length(names) != 1)
                return img_usage_error(command, "Expecting one image file name");

        how.format = args.format;
        how.flags = args.force_share ? HVB_OPEN_FORCE_SHARE : 0;
        if (args.create != NULL || args.apply != NULL || args.delete != NULL)
                how.flags |= HVB_OPEN_RDWR;
        else
                how.flags |= HVB_OPEN_NO_BACKING;
        if (how.flags & HVB_OPEN_RDWR)
                img_will_write(names[0]);
        else
                img_will_read(names[0]);
        if (img_contain() != 0 || img_open(names[0], &how, &drive) < 0 || img_seal() != 0)
                return 1;
        if (args.create != NULL)
                status = create(drive, args.create);
        else if (args.apply != NULL)
                status = use(drive, args.apply, false);
        else if (args.delete != NULL)
                status = use(drive, args.delete, true);
        else
                status = list(drive);
        return img_close(drive) < 0 ? 1 : status;
}
