/*
 * hv-io-image.c - commands about the file as a whole, and which parts of it exist.
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

/* -n, -r, -U, -t and -o into how.  0 or -EINVAL. */
static int open_flag(struct io_open *how, int flag)
{
        switch (flag) {
        case 'C': case 'k': case 's':
                fprintf(stderr, "hv-io: -%c is not supported\n", flag);
                return -EINVAL;
        case 'd': return 0;
        case 'n': return drive_cache_parse("none", &how->cache) ? 0 : -EINVAL;
        case 'r': how->flags &= ~HVB_OPEN_RDWR; return 0;
        case 'U': how->flags |= HVB_OPEN_FORCE_SHARE; return 0;
        case 't':
                if (drive_cache_parse(optarg, &how->cache))
                        return 0;
                fprintf(stderr, "hv-io: Invalid cache option: %s\n", optarg);
                return -EINVAL;
        case 'o': return io_open_add_options(how, optarg);
        default: return command_usage("open");
        }
}

int cmd_open(struct io_session *session, int argc, char **argv)
{
        struct io_open how = { .flags = HVB_OPEN_RDWR };
        int flag, ret = 0;

        optind = 0;
        while (ret == 0 && (flag = getopt(argc, argv, "Cd:knrsUt:o:")) != -1)
                ret = open_flag(&how, flag);
        if (ret == 0 && optind + 1 != argc)
                ret = command_usage("open");
        if (ret < 0) {
                io_open_clear(&how);
                return ret;
        }
        how.path = g_strdup(argv[optind]);
        return session_open(session, how);
}

int cmd_close(struct io_session *session, int argc, char **argv)
{
        (void)argc;
        (void)argv;
        return session_close(session);
}

static int reopen_flag(struct io_open *how, int flag, bool *mode_given)
{
        switch (flag) {
        case 'c':
                if (drive_cache_parse(optarg, &how->cache))
                        return 0;
                fprintf(stderr, "hv-io: Invalid cache option: %s\n", optarg);
                return -EINVAL;
        case 'o': return io_open_add_options(how, optarg);
        case 'r': case 'w':
                if (*mode_given) {
                        fprintf(stderr, "hv-io: Only one -r/-w option may be given\n");
                        return -EINVAL;
                }
                *mode_given = true;
                how->flags = flag == 'w' ? how->flags | HVB_OPEN_RDWR
                                         : how->flags & ~HVB_OPEN_RDWR;
                return 0;
        default: return command_usage("reopen");
        }
}

/* The ABI has no reopen: close, open anew, and if that fails open as before. */
int cmd_reopen(struct io_session *session, int argc, char **argv)
{
        struct io_open how = io_open_copy(&session->how);
        struct io_open before = io_open_copy(&session->how);
        bool mode_given = false;
        int flag, ret = 0;

        optind = 0;
        while (ret == 0 && (flag = getopt(argc, argv, "c:o:rw")) != -1)
                ret = reopen_flag(&how, flag, &mode_given);
        if (ret == 0 && optind != argc)
                ret = command_usage("reopen");
        if (ret == 0)
                ret = session_close(session);
        if (ret < 0) {
                io_open_clear(&how);
                io_open_clear(&before);
                return ret;
        }
        ret = session_open(session, how);
        if (ret < 0)
                session_open(session, before);
        else
                io_open_clear(&before);
        return ret;
}

int cmd_length(struct io_session *session, int argc, char **argv)
{
        char size[64];

        (void)argc;
        (void)argv;
        text_size(drive_bytes(session->drive), size, sizeof(size));
        printf("%s\n", size);
        return 0;
}

int cmd_info(struct io_session *session, int argc, char **argv)
{
        struct hvb_image_info info = { .struct_bytes = sizeof(info) };
        char cluster[64], vm_state[64];
        bool qcow2 = !strcmp(drive_format(session->drive), "qcow2");

        (void)argc;
        (void)argv;
        drive_get_info(session->drive, &info);
        text_size(info.cluster_bytes, cluster, sizeof(cluster));
        text_size(info.vm_state_offset, vm_state, sizeof(vm_state));
        printf("format name: %s\n", drive_format(session->drive));
        if (!qcow2)
                return 0;
        printf("cluster size: %s\nvm state offset: %s\n", cluster, vm_state);
        printf("Format specific information:\n    compat: %s\n", info.version < 3 ? "0.10" : "1.1");
        printf("    compression type: %s\n",
               info.compression == HVB_COMPRESSION_ZSTD ? "zstd" : "zlib");
        if (info.version >= 3)
                printf("    lazy refcounts: %s\n", info.lazy_refcounts ? "true" : "false");
        printf("    refcount bits: %u\n", info.refcount_bits);
        if (info.version >= 3)
                printf("    corrupt: %s\n    extended l2: %s\n", info.corrupt ? "true" : "false",
                       info.incompatible_features & 1 << 4 ? "true" : "false");
        return 0;
}

int cmd_truncate(struct io_session *session, int argc, char **argv)
{
        static const char *const modes[] = { "off", "metadata", "falloc", "full" };
        struct hvb_error err = ERROR_INIT;
        unsigned mode = 0;
        int64_t size;
        int flag, ret;

        optind = 0;
        while ((flag = getopt(argc, argv, "m:")) != -1) {
                if (flag != 'm')
                        return command_usage(argv[0]);
                for (mode = 0; mode < G_N_ELEMENTS(modes); mode++)
                        if (!strcmp(optarg, modes[mode]))
                                break;
                if (mode == G_N_ELEMENTS(modes)) {
                        fprintf(stderr, "hv-io: Invalid preallocation mode '%s'\n", optarg);
                        return -EINVAL;
                }
        }
        if (optind + 1 != argc)
                return command_usage(argv[0]);
        ret = text_number(argv[optind], &size);
        if (ret < 0)
                return ret;
        ret = drive_truncate(session->drive, size, mode, &err);
        return ret < 0 ? text_error(&err, ret) : 0;
}

/*
 * Length of the run at offset in which all bytes are allocated in the image itself
 * or all are not.  -errno; 0 at the end.
 */
static int64_t run_at(struct drive *drive, uint64_t offset, uint64_t end, bool *ret_allocated)
{
        uint64_t at = offset;

        while (at < end) {
                struct hvb_block_status status = { .struct_bytes = sizeof(status) };
                int ret = drive_block_status(drive, at, end - at, &status);
                bool allocated = (status.flags & HVB_STATUS_ALLOCATED) && status.depth == 0;

                if (ret < 0)
                        return ret;
                if (at == offset)
                        *ret_allocated = allocated;
                else if (allocated != *ret_allocated)
                        break;
                if (status.length_bytes == 0)
                        break;
                at += status.length_bytes;
        }
        return at - offset;
}

int cmd_alloc(struct io_session *session, int argc, char **argv)
{
        int64_t offset, count = 512, sum = 0;
        int ret = text_number(argv[1], &offset);
        uint64_t disk = drive_bytes(session->drive);
        char where[64];

        if (!ret && argc == 3)
                ret = text_number(argv[2], &count);
        if (ret < 0)
                return ret;

        uint64_t end = (uint64_t)offset + count < disk ? (uint64_t)offset + count : disk;

        count = (uint64_t)offset < end ? (int64_t)(end - offset) : 0;
        for (uint64_t at = offset; at < end;) {
                bool allocated = false;
                int64_t run = run_at(session->drive, at, end, &allocated);

                if (run < 0)
                        return text_failed("is_allocated", run);
                if (run == 0)
                        break;
                sum += allocated ? run : 0;
                at += run;
        }
        text_size(offset, where, sizeof(where));
        printf("%" PRId64 "/%" PRId64 " bytes allocated at offset %s\n", sum, count, where);
        return 0;
}

int cmd_map(struct io_session *session, int argc, char **argv)
{
        uint64_t disk = drive_bytes(session->drive);

        (void)argc;
        (void)argv;
        for (uint64_t at = 0; at < disk;) {
                bool allocated = false;
                int64_t run = run_at(session->drive, at, disk, &allocated);
                char size[64], where[64];

                if (run < 0)
                        return text_failed("Failed to get allocation status: map", run);
                if (run == 0) {
                        printf("Unexpected end of image\n");
                        return -EIO;
                }
                text_size(run, size, sizeof(size));
                text_size(at, where, sizeof(where));
                printf("%s (0x%" PRIx64 ") bytes %s at offset %s (0x%" PRIx64 ")\n", size, run,
                       allocated ? "    allocated" : "not allocated", where, at);
                at += run;
        }
        return 0;
}
