/*
 * hv-io-extra.c - commands that qemu-io has not: what tests need besides data.
 *
 * SPDX-License-Identifier: MIT
 */
#include "hv-io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

static int snapshot_list(struct drive *drive)
{
        g_autofree struct hvb_snapshot_info *infos = NULL;
        int count = drive_snapshot_list(drive, &infos);

        if (count < 0)
                return text_failed("snapshot", count);
        for (int i = 0; i < count; i++)
                printf("%s\t%s\tdisk %" PRIu64 "\tvmstate %" PRIu64 "\n", infos[i].id_str,
                       infos[i].name, infos[i].disk_bytes, infos[i].vm_state_bytes);
        return 0;
}

static int snapshot_create(struct drive *drive, const char *name, int64_t vm_state_bytes,
                           bool replace, struct hvb_error *err)
{
        struct hvb_snapshot_info info = { .struct_bytes = sizeof(info) };
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        info.date_sec = now.tv_sec;
        info.date_nsec = now.tv_nsec;
        info.vm_state_bytes = vm_state_bytes;
        info.icount = UINT64_MAX;
        g_strlcpy(info.name, name, sizeof(info.name));
        return drive_snapshot_create(drive, &info, replace ? HVB_SNAPSHOT_REPLACE : 0, err);
}

static int apply_by(struct drive *drive, int action, const char *id, const char *name,
                    struct hvb_error *err)
{
        error_clear(err);
        switch (action) {
        case 'a':
                return drive_snapshot_goto(drive, id, name, err);
        case 'b':
                return drive_snapshot_load_vmstate(drive, id, name, err);
        case 'd':
                return drive_snapshot_delete(drive, id, name, err);
        default:
                return drive_snapshot_load_tmp(drive, id, name, err);
        }
}

/* As qemu-img: -a takes the id first, then the name; -d the name only. */
static int snapshot_apply(struct drive *drive, int action, const char *name,
                          struct hvb_error *err)
{
        int ret = action == 'd' ? -ENOENT : apply_by(drive, action, name, NULL, err);

        return ret == -ENOENT ? apply_by(drive, action, NULL, name, err) : ret;
}

static int open_by(struct io_session *session, const char *id, const char *name,
                   struct hvb_error *err)
{
        return drive_snapshot_open(session->drive, id, name, NULL, &session->snapshot, err);
}

/* What was open is closed first. */
static int snapshot_open(struct io_session *session, const char *name, struct hvb_error *err)
{
        int ret = drive_snapshot_close(session->drive, session->snapshot, err);

        session->snapshot = NULL;
        if (ret == 0)
                ret = open_by(session, name, NULL, err);
        return ret == -ENOENT ? open_by(session, NULL, name, err) : ret;
}

static int snapshot_close(struct io_session *session, struct hvb_error *err)
{
        struct hvb_snapshot *snapshot = session->snapshot;

        session->snapshot = NULL;
        return drive_snapshot_close(session->drive, snapshot, err);
}

static int snapshot_do(struct io_session *session, int action, const char *name,
                       int64_t vm_state_bytes, bool replace, struct hvb_error *err)
{
        switch (action) {
        case 'c':
                return snapshot_create(session->drive, name, vm_state_bytes, replace, err);
        case 'o':
                return snapshot_open(session, name, err);
        case 'x':
                return snapshot_close(session, err);
        default:
                return snapshot_apply(session->drive, action, name, err);
        }
}

int cmd_snapshot(struct io_session *session, int argc, char **argv)
{
        struct hvb_error err = ERROR_INIT;
        const char *name = NULL;
        int64_t vm_state_bytes = 0;
        bool replace = false;
        int flag, action = 0, ret = 0;

        optind = 0;
        while (ret == 0 && (flag = getopt(argc, argv, "a:b:c:d:lo:Rs:t:x")) != -1) {
                if (flag == 's') {
                        ret = text_number(optarg, &vm_state_bytes);
                } else if (flag == 'R') {
                        replace = true;
                } else if (flag == '?' || action) {
                        ret = command_usage(argv[0]);
                } else {
                        action = flag;
                        name = optarg;
                }
        }
        if (ret == 0 && (!action || optind != argc))
                ret = command_usage(argv[0]);
        if (ret < 0)
                return ret;
        if (action == 'l')
                return snapshot_list(session->drive);
        ret = snapshot_do(session, action, name, vm_state_bytes, replace, &err);
        return ret < 0 ? text_error(&err, ret) : 0;
}

static void print_finding(void *opaque, const char *text)
{
        (void)opaque;
        printf("%s\n", text);
}

int cmd_check(struct io_session *session, int argc, char **argv)
{
        struct hvb_error err = ERROR_INIT;
        struct hvb_check_result result = {
                .struct_bytes = sizeof(result), .report = print_finding,
        };
        uint32_t fix = 0;
        int flag, ret;

        optind = 0;
        while ((flag = getopt(argc, argv, "r:")) != -1) {
                if (flag == 'r' && !strcmp(optarg, "leaks"))
                        fix = HVB_CHECK_FIX_LEAKS;
                else if (flag == 'r' && !strcmp(optarg, "all"))
                        fix = HVB_CHECK_FIX_LEAKS | HVB_CHECK_FIX_ERRORS;
                else
                        return command_usage(argv[0]);
        }
        ret = drive_check(session->drive, fix, &result, &err);
        if (ret < 0)
                return text_error(&err, ret);
        printf("%" PRIu64 " corruptions, %" PRIu64 " leaks, %" PRIu64 " errors\n",
               result.corruptions, result.leaks, result.check_errors);
        return result.corruptions || result.leaks || result.check_errors ? -EUCLEAN : 0;
}

int cmd_status(struct io_session *session, int argc, char **argv)
{
        static const char *const names[] = { "data", "zero", "offset", "allocated", "compressed" };
        struct hvb_block_status status = { .struct_bytes = sizeof(status) };
        int64_t offset, length;
        int ret = text_number(argv[1], &offset);

        (void)argc;
        if (!ret)
                ret = text_number(argv[2], &length);
        if (ret < 0)
                return ret;
        ret = drive_block_status(session->drive, offset, length, &status);
        if (ret < 0)
                return text_failed("status", ret);
        printf("%" PRIu64 " bytes at offset %" PRId64 ": depth %u", status.length_bytes, offset,
               status.depth);
        for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
                if (status.flags & 1u << i)
                        printf(" %s", names[i]);
        if (status.flags & HVB_STATUS_OFFSET_VALID)
                printf(" at 0x%" PRIx64, status.host_offset);
        printf("\n");
        return 0;
}

int cmd_handoff(struct io_session *session, int argc, char **argv)
{
        struct hvb_error err = ERROR_INIT;
        int ret;

        (void)argc;
        aio_finish(session);
        ret = !strcmp(argv[0], "inactivate") ? drive_inactivate(session->drive, &err)
                                             : drive_activate(session->drive, &err);
        return ret < 0 ? text_error(&err, ret) : 0;
}

int cmd_operations(struct io_session *session, int argc, char **argv)
{
        const struct hvb_driver *driver = drive_driver(session->drive);

        (void)argc;
        (void)argv;
        if (!HVB_HAS(driver, dump_operations))
                return text_error(NULL, -ENOTSUP);
        driver->dump_operations(drive_image(session->drive), print_finding, NULL);
        return 0;
}
