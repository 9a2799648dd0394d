/*
 * hv-io-data.c - the commands that move data and wait for it.
 *
 * SPDX-License-Identifier: MIT
 */
#include "hv-io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

#define SECTOR_BYTES 512

/* What the flags of one command say. */
struct flags {
        const char *known;              /* the getopt string */
        bool vm_state, snapshot, compress, terse, quiet, dump, zeroes;
        bool has_pattern, has_verify_range;
        uint8_t pattern;
        int64_t verify_offset;
        int64_t verify_bytes;           /* -1: to the end */
        const char *source;
        uint32_t request;               /* HVB_REQ_* */
};

uint8_t *buffer_new(size_t length_bytes, uint8_t fill)
{
        void *buffer;

        if (posix_memalign(&buffer, IO_BUFFER_ALIGN, length_bytes ? length_bytes : 1)) {
                printf("hv-io: no memory for a buffer of %zu bytes\n", length_bytes);
                return NULL;
        }
        memset(buffer, fill, length_bytes);
        return buffer;
}

void vector_clear(struct io_vector *vector)
{
        g_free(vector->iov);
        free(vector->buffer);
        *vector = (struct io_vector) {};
}

int vector_parse(struct io_vector *vector, char **texts, int count, uint8_t fill)
{
        size_t at = 0;

        *vector = (struct io_vector) {};
        vector->iov = g_new0(struct iovec, count > 0 ? count : 1);
        vector->iov_count = count;
        for (int i = 0; i < count; i++) {
                int64_t length;
                int ret = text_number(texts[i], &length);

                if (!ret && (uint64_t)length > IO_BYTES_MAX - vector->length_bytes) {
                        printf("Argument '%s' exceeds maximum size %llu\n", texts[i],
                               IO_BYTES_MAX);
                        ret = -EINVAL;
                }
                if (ret) {
                        vector_clear(vector);
                        return ret;
                }
                vector->iov[i].iov_len = length;
                vector->length_bytes += length;
        }
        vector->buffer = buffer_new(vector->length_bytes, fill);
        if (!vector->buffer) {
                vector_clear(vector);
                return -ENOMEM;
        }
        for (int i = 0; i < count; i++) {
                vector->iov[i].iov_base = vector->buffer + at;
                at += vector->iov[i].iov_len;
        }
        return 0;
}

int pattern_verify(const uint8_t *bytes, size_t length_bytes, uint8_t pattern,
                   uint64_t shown_offset)
{
        for (size_t i = 0; i < length_bytes; i++) {
                if (bytes[i] == pattern)
                        continue;
                printf("Pattern verification failed at offset %" PRIu64 ", %zu bytes\n",
                       shown_offset, length_bytes);
                return -EINVAL;
        }
        return 0;
}

/* One flag into flags.  0 or -EINVAL. */
static int flag_take(struct flags *flags, int flag)
{
        switch (flag) {
        case 'a': case 'p': case 'r':   /* kept from older days, or no difference here */
                return 0;
        case 'b': flags->vm_state = true; return 0;
        case 'c':
                flags->compress = true;
                flags->request |= HVB_REQ_COMPRESS;
                return 0;
        case 'C': flags->terse = true; return 0;
        case 'f': flags->request |= HVB_REQ_FUA; return 0;
        case 'l':
                flags->has_verify_range = true;
                return text_number(optarg, &flags->verify_bytes);
        case 'n': flags->request |= HVB_REQ_NO_FALLBACK; return 0;
        case 'P':
                flags->has_pattern = true;
                return text_pattern(optarg, &flags->pattern);
        case 'q': flags->quiet = true; return 0;
        case 'S': flags->snapshot = true; return 0;
        case 'u': flags->request |= HVB_REQ_MAY_UNMAP; return 0;
        case 'v': flags->dump = true; return 0;
        case 'z': flags->zeroes = true; return 0;
        default:
                return -EINVAL;
        }
}

/* Flags by a getopt string.  's' means an offset for reads, a file for writes. */
static int flags_parse(struct flags *flags, int argc, char **argv, const char *known)
{
        bool is_read = strchr(known, 'v') != NULL;
        int flag, ret = 0;

        *flags = (struct flags) { .known = known, .pattern = IO_FILL_BYTE, .verify_bytes = -1 };
        optind = 0;
        while (ret == 0 && (flag = getopt(argc, argv, known)) != -1) {
                if (flag == '?')
                        return command_usage(argv[0]);
                if (flag != 's') {
                        ret = flag_take(flags, flag);
                } else if (is_read) {
                        flags->has_verify_range = true;
                        ret = text_number(optarg, &flags->verify_offset);
                } else {
                        flags->source = optarg;
                }
        }
        return ret;
}

/* The two last arguments: offset and length.  A request of zeroes may be longer
 * than other ones if it must not fall back to writing (-n). */
static int range_parse(char **texts, int64_t *ret_offset, int64_t *ret_length,
                       const struct flags *flags)
{
        bool unlimited = flags->request & HVB_REQ_NO_FALLBACK;
        const char *unless = strchr(flags->known, 'n') ? " without -n" : "";
        int ret = text_number(texts[0], ret_offset);

        if (!ret)
                ret = text_number(texts[1], ret_length);
        if (!ret && !unlimited && (uint64_t)*ret_length > IO_BYTES_MAX) {
                printf("length cannot exceed %llu%s, given %s\n", IO_BYTES_MAX, unless, texts[1]);
                ret = -EINVAL;
        }
        return ret;
}

static int sectors_only(int64_t offset, int64_t length)
{
        const char *which = offset % SECTOR_BYTES ? "offset" : "count";
        int64_t bad = offset % SECTOR_BYTES ? offset : length;

        if (bad % SECTOR_BYTES == 0)
                return 0;
        printf("%" PRId64 " is not a sector-aligned value for '%s'\n", bad, which);
        return -EINVAL;
}

/* Prints what was read, after checking it against the pattern. */
static int read_show(const struct flags *flags, const struct timespec *start, uint64_t offset,
                     const uint8_t *bytes, uint64_t length)
{
        int64_t verify = flags->verify_bytes < 0 ? (int64_t)length - flags->verify_offset
                                                 : flags->verify_bytes;
        int ret = 0;

        if (flags->has_pattern)
                ret = pattern_verify(bytes + flags->verify_offset, verify, flags->pattern,
                                     offset + flags->verify_offset);
        if (flags->quiet)
                return ret;
        if (flags->dump)
                text_dump(bytes, offset, length);
        text_report("read", start, offset, length, length, flags->terse);
        return ret;
}

static int read_check_flags(const struct io_session *session, const struct flags *flags,
                            int64_t offset, int64_t length)
{
        if (flags->has_verify_range && !flags->has_pattern)
                return command_usage("read");
        if (flags->snapshot && !session->snapshot) {
                printf("no snapshot is open: see snapshot -o\n");
                return -EINVAL;
        }
        if (flags->verify_offset > length ||
            flags->verify_bytes > length - flags->verify_offset) {
                printf("pattern verification range exceeds end of read data\n");
                return -EINVAL;
        }
        return flags->vm_state ? sectors_only(offset, length) : 0;
}

static int read_from(struct io_session *session, const struct flags *flags, int64_t offset,
                     const struct iovec *iov)
{
        if (flags->snapshot)
                return drive_snapshot_preadv(session->drive, session->snapshot, offset, iov, 1,
                                             flags->vm_state ? HVB_REQ_VMSTATE : 0);
        return flags->vm_state ? drive_load_vmstate(session->drive, offset, iov, 1)
                               : drive_preadv(session->drive, offset, iov, 1);
}

int cmd_read(struct io_session *session, int argc, char **argv)
{
        struct flags flags;
        struct timespec start;
        int64_t offset, length;
        int ret = flags_parse(&flags, argc, argv, "abCl:pP:qrs:Sv");

        if (ret)
                return ret;
        if (optind != argc - 2)
                return command_usage(argv[0]);
        ret = range_parse(argv + optind, &offset, &length, &flags);
        if (!ret)
                ret = read_check_flags(session, &flags, offset, length);
        if (ret)
                return ret;

        uint8_t *buffer = buffer_new(length, 0xab);
        struct iovec iov = { .iov_base = buffer, .iov_len = length };

        if (!buffer)
                return -ENOMEM;
        start = text_now();
        ret = read_from(session, &flags, offset, &iov);
        ret = ret < 0 ? text_failed("read", ret)
                      : read_show(&flags, &start, offset, buffer, length);
        free(buffer);
        return ret;
}

/* Fills buffer with the bytes of the file at path, over and over. */
static int buffer_load(uint8_t *buffer, size_t length_bytes, const char *path)
{
        size_t have = 0;
        ssize_t got;
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        if (fd < 0) {
                fprintf(stderr, "%s: %s\n", path, strerror(errno));
                return -ENOENT;
        }
        while (have < length_bytes && (got = read(fd, buffer + have, length_bytes - have)) > 0)
                have += got;
        close(fd);
        if (have == 0 && length_bytes) {
                printf("%s: file is empty\n", path);
                return -EINVAL;
        }
        for (size_t i = have; i < length_bytes; i++)
                buffer[i] = buffer[i - have];
        return 0;
}

static int write_check_flags(const struct flags *flags)
{
        const char *clash = NULL;

        if (flags->vm_state && flags->compress)
                clash = "-b and -c cannot be specified at the same time";
        else if (flags->vm_state && flags->zeroes)
                clash = "-b and -z cannot be specified at the same time";
        else if (flags->vm_state && (flags->request & HVB_REQ_FUA))
                clash = "-f and -b or -c cannot be specified at the same time";
        else if ((flags->request & HVB_REQ_NO_FALLBACK) && !flags->zeroes)
                clash = "-n requires -z to be specified";
        else if ((flags->request & HVB_REQ_MAY_UNMAP) && !flags->zeroes)
                clash = "-u requires -z to be specified";
        else if (flags->zeroes + flags->has_pattern + !!flags->source > 1)
                clash = "Only one of -z, -P, and -s can be specified at the same time";
        if (!clash)
                return 0;
        printf("%s\n", clash);
        return -EINVAL;
}

static int write_data(struct drive *drive, const struct flags *flags, uint64_t offset,
                      size_t length, struct timespec *ret_start)
{
        uint8_t *buffer = buffer_new(length, flags->pattern);
        struct iovec iov = { .iov_base = buffer, .iov_len = length };
        int ret = 0;

        if (!buffer)
                return -ENOMEM;
        if (flags->source)
                ret = buffer_load(buffer, length, flags->source);
        if (ret < 0) {
                free(buffer);
                return ret;
        }
        *ret_start = text_now();
        ret = flags->vm_state ? drive_save_vmstate(drive, offset, &iov, 1)
                              : drive_pwritev(drive, offset, &iov, 1, flags->request);
        if (ret < 0)
                text_failed("write", ret);
        free(buffer);
        return ret;
}

int cmd_write(struct io_session *session, int argc, char **argv)
{
        struct flags flags;
        struct timespec start;
        int64_t offset, length;
        int ret = flags_parse(&flags, argc, argv, "bcCfnpP:qrs:uz");

        if (ret)
                return ret;
        if (optind != argc - 2)
                return command_usage(argv[0]);
        ret = write_check_flags(&flags);
        if (!ret)
                ret = range_parse(argv + optind, &offset, &length, &flags);
        if (!ret && (flags.vm_state || flags.compress))
                ret = sectors_only(offset, length);
        if (ret)
                return ret;
        start = text_now();
        if (!flags.zeroes)
                ret = write_data(session->drive, &flags, offset, length, &start);
        else if ((ret = drive_pwrite_zeroes(session->drive, offset, length,
                                            flags.request & ~HVB_REQ_COMPRESS)) < 0)
                text_failed("write", ret);
        if (ret < 0)
                return ret;
        if (!flags.quiet)
                text_report("wrote", &start, offset, length, length, flags.terse);
        return 0;
}

int cmd_readv(struct io_session *session, int argc, char **argv)
{
        struct flags flags;
        struct timespec start;
        struct io_vector vector;
        int64_t offset;
        int ret = flags_parse(&flags, argc, argv, "CP:qrv");

        if (ret)
                return ret;
        if (optind > argc - 2)
                return command_usage(argv[0]);
        ret = text_number(argv[optind++], &offset);
        if (!ret)
                ret = vector_parse(&vector, argv + optind, argc - optind, 0xab);
        if (ret)
                return ret;
        start = text_now();
        ret = drive_preadv(session->drive, offset, vector.iov, vector.iov_count);
        ret = ret < 0 ? text_failed("readv", ret)
                      : read_show(&flags, &start, offset, vector.buffer, vector.length_bytes);
        vector_clear(&vector);
        return ret;
}

int cmd_writev(struct io_session *session, int argc, char **argv)
{
        struct flags flags;
        struct timespec start;
        struct io_vector vector;
        int64_t offset;
        int ret = flags_parse(&flags, argc, argv, "CfqP:r");

        if (ret)
                return ret;
        if (optind > argc - 2)
                return command_usage(argv[0]);
        ret = text_number(argv[optind++], &offset);
        if (!ret)
                ret = vector_parse(&vector, argv + optind, argc - optind, flags.pattern);
        if (ret)
                return ret;
        start = text_now();
        ret = drive_pwritev(session->drive, offset, vector.iov, vector.iov_count, flags.request);
        if (ret < 0)
                text_failed("writev", ret);
        else if (!flags.quiet)
                text_report("wrote", &start, offset, vector.length_bytes, vector.length_bytes,
                            flags.terse);
        vector_clear(&vector);
        return ret;
}

int cmd_discard(struct io_session *session, int argc, char **argv)
{
        struct flags flags;
        struct timespec start;
        int64_t offset, length;
        int ret = flags_parse(&flags, argc, argv, "Cq");

        if (ret)
                return ret;
        if (optind != argc - 2)
                return command_usage(argv[0]);
        ret = range_parse(argv + optind, &offset, &length, &flags);
        if (ret)
                return ret;
        start = text_now();
        ret = drive_pdiscard(session->drive, offset, length);
        if (ret < 0)
                return text_failed("discard", ret);
        if (!flags.quiet)
                text_report("discard", &start, offset, length, length, flags.terse);
        return 0;
}

int cmd_flush(struct io_session *session, int argc, char **argv)
{
        int ret = drive_flush(session->drive);

        (void)argc;
        (void)argv;
        return ret < 0 ? text_failed("flush", ret) : 0;
}
