/*
 * hv-io-aio.c - requests that a command starts and does not wait for.
 *
 * They complete whenever the drive is polled: during a later command, in
 * aio_flush, or before the file is closed.  A started request counts as success
 * of its command; what became of it is printed at completion only.
 *
 * SPDX-License-Identifier: MIT
 */
#include "hv-io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

struct aio {
        struct io_session *session;
        struct drive_op *op;
        struct io_vector vector;
        struct timespec start;
        uint64_t offset;
        uint64_t length_bytes;
        bool is_write;
        bool quiet, terse, dump, zeroes, invalid, has_pattern;
        uint8_t pattern;
        uint32_t flags;                 /* HVB_REQ_* */
        struct aio *next_finished;
};

/* Finished requests: an op cannot be freed from its own done(). */
static struct aio *finished;

static void free_finished(void)
{
        while (finished) {
                struct aio *aio = finished;

                finished = aio->next_finished;
                drive_op_free(aio->op);
                vector_clear(&aio->vector);
                g_free(aio);
        }
}

static void aio_show(const struct aio *aio)
{
        if (aio->op->result < 0) {
                text_failed(aio->is_write ? "aio_write" : "aio_read", aio->op->result);
                return;
        }
        if (!aio->is_write && aio->has_pattern)
                pattern_verify(aio->vector.buffer, aio->length_bytes, aio->pattern, aio->offset);
        if (aio->quiet)
                return;
        if (!aio->is_write && aio->dump)
                text_dump(aio->vector.buffer, aio->offset, aio->length_bytes);
        text_report(aio->is_write ? "wrote" : "read", &aio->start, aio->offset,
                    aio->length_bytes, aio->length_bytes, aio->terse);
}

static void aio_done(struct drive_op *op)
{
        struct aio *aio = op->opaque;

        aio_show(aio);
        aio->session->aio_count--;
        aio->next_finished = finished;
        finished = aio;
}

static int aio_flag(struct aio *aio, int flag)
{
        switch (flag) {
        case 'r': return 0;
        case 'C': aio->terse = true; return 0;
        case 'f': aio->flags |= HVB_REQ_FUA; return 0;
        case 'i': aio->invalid = true; return 0;
        case 'P':
                aio->has_pattern = true;
                return text_pattern(optarg, &aio->pattern);
        case 'q': aio->quiet = true; return 0;
        case 'u': aio->flags |= HVB_REQ_MAY_UNMAP; return 0;
        case 'v': aio->dump = true; return 0;
        case 'z': aio->zeroes = true; return 0;
        default: return -EINVAL;
        }
}

static int aio_check_flags(const struct aio *aio, int length_count)
{
        const char *clash = NULL;

        if (aio->zeroes && length_count != 1)
                clash = "-z supports only a single length parameter";
        else if ((aio->flags & HVB_REQ_MAY_UNMAP) && !aio->zeroes)
                clash = "-u requires -z to be specified";
        else if (aio->zeroes && aio->has_pattern)
                clash = "-z and -P cannot be specified at the same time";
        if (!clash)
                return 0;
        printf("%s\n", clash);
        return -EINVAL;
}

static int aio_parse(struct aio *aio, int argc, char **argv, const char *known)
{
        int64_t offset, length;
        int flag, ret = 0;

        optind = 0;
        while (ret == 0 && (flag = getopt(argc, argv, known)) != -1) {
                if (flag == '?')
                        return command_usage(argv[0]);
                ret = aio_flag(aio, flag);
        }
        if (ret)
                return ret;
        if (optind > argc - 2)
                return command_usage(argv[0]);
        ret = aio_check_flags(aio, argc - optind - 1);
        if (!ret)
                ret = text_number(argv[optind++], &offset);
        if (ret)
                return ret;
        aio->offset = offset;
        if (!aio->zeroes) {
                ret = vector_parse(&aio->vector, argv + optind, argc - optind, aio->pattern);
                aio->length_bytes = aio->vector.length_bytes;
                return ret;
        }
        ret = text_number(argv[optind], &length);
        aio->length_bytes = ret ? 0 : length;
        return ret;
}

static void aio_start(struct aio *aio)
{
        struct drive_op *op = drive_op_new(aio->session->drive);
        struct io_vector *vector = &aio->vector;

        aio->op = op;
        op->done = aio_done;
        op->opaque = aio;
        aio->start = text_now();
        aio->session->aio_count++;
        if (!aio->is_write)
                drive_op_preadv(op, aio->offset, vector->iov, vector->iov_count, aio->flags);
        else if (aio->zeroes)
                drive_op_pwrite_zeroes(op, aio->offset, aio->length_bytes, aio->flags);
        else
                drive_op_pwritev(op, aio->offset, vector->iov, vector->iov_count, aio->flags);
        drive_poll(aio->session->drive, 0);
}

static int aio_command(struct io_session *session, int argc, char **argv, bool is_write)
{
        struct aio *aio = g_new0(struct aio, 1);
        int ret;

        free_finished();
        aio->session = session;
        aio->is_write = is_write;
        aio->pattern = IO_FILL_BYTE;
        ret = aio_parse(aio, argc, argv, is_write ? "CfiP:qruz" : "CiP:qrv");
        if (ret < 0 || aio->invalid) {
                if (ret == 0)
                        printf("injecting invalid %s request\n", is_write ? "write" : "read");
                vector_clear(&aio->vector);
                g_free(aio);
                return ret;
        }
        aio_start(aio);
        return 0;
}

int cmd_aio_read(struct io_session *session, int argc, char **argv)
{
        return aio_command(session, argc, argv, false);
}

int cmd_aio_write(struct io_session *session, int argc, char **argv)
{
        return aio_command(session, argc, argv, true);
}

void aio_finish(struct io_session *session)
{
        while (session->aio_count) {
                int ret = drive_poll(session->drive, -1);

                if (ret < 0 && ret != -EINTR) {
                        text_failed("poll", ret);
                        break;
                }
        }
        free_finished();
}

int cmd_aio_flush(struct io_session *session, int argc, char **argv)
{
        (void)argc;
        (void)argv;
        aio_finish(session);
        return 0;
}
