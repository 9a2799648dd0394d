/*
 * hv-io.h - what the files of hv-io share.
 *
 *   hv-io.c           command line, the loop over commands, opening
 *   hv-io-sandbox.c   what the commands will need, and giving up the rest
 *   hv-io-commands.c  the table of commands, splitting and dispatch, help
 *   hv-io-text.c      numbers in, reports and dumps out
 *   hv-io-data.c      read, write, readv, writev, discard, flush
 *   hv-io-aio.c       aio_read, aio_write, aio_flush
 *   hv-io-image.c     open, close, reopen, length, info, truncate, alloc, map
 *   hv-io-extra.c     commands that qemu-io has not: snapshots, check, handoff
 *
 * A command returns 0 or a negative errno and has then said why; the exit status
 * is 1 if any command failed.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TOOLS_HV_IO_H
#define TOOLS_HV_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "host/drive.h"

/* QEMU's longest request: INT_MAX rounded down to a sector. */
#define IO_BYTES_MAX 2147483136ull
#define IO_BUFFER_ALIGN 4096u
#define IO_FILL_BYTE 0xcd

/* How a file is opened; the strings are g_malloc'ed. */
struct io_open {
        char *path;
        char *format;                   /* NULL: probe */
        char **options;                 /* NULL-terminated "key=value", or NULL */
        uint32_t flags;                 /* HVB_OPEN_* */
        struct drive_cache cache;
};

struct io_session {
        struct drive *drive;            /* NULL: no file open */
        struct io_open how;             /* of drive, or of the last one */
        struct io_open defaults;        /* from the command line: format, flags, cache */
        struct policy *policy;
        bool is_uncontained;            /* --no-sandbox */
        char **directories;             /* --allow-dir; NULL-terminated, or NULL */
        struct hvb_snapshot *snapshot;  /* opened beside the drive, or NULL */
        unsigned aio_count;             /* requests in flight */
        bool quit;
};

struct io_command {
        const char *name;
        const char *alias;              /* or NULL */
        int (*run)(struct io_session *session, int argc, char **argv);
        int argc_min;                   /* without the command's name */
        int argc_max;                   /* -1: any number */
        bool needs_no_file;
        bool writes;                    /* refused when the file is open read-only */
        const char *args;
        const char *summary;
        const char *help;               /* or NULL */
};

/* hv-io.c */
/* Takes how over, whether it works or not. */
int session_open(struct io_session *session, struct io_open how);
int session_close(struct io_session *session);
void io_open_clear(struct io_open *how);
struct io_open io_open_copy(const struct io_open *how);
/* Adds "a=b,c=d" to how; driver=F sets the format. */
int io_open_add_options(struct io_open *how, const char *text);
/* Runs one line.  0, or -errno after a message. */
int session_run(struct io_session *session, const char *line);

/* hv-io-sandbox.c */
/* Sets session->policy and enters the sandbox.  lines: the commands; NULL: they will come from
 * standard input.  0 or -errno after a message. */
int session_contain(struct io_session *session, char **lines);
/* The file is open: gives up opening if no command does.  The same results. */
int session_seal(struct io_session *session, char **lines);

/* hv-io-commands.c */
const struct io_command *command_find(const char *name);
const struct io_command *command_at(size_t index);      /* NULL beyond the last */
/* Prints the one-line usage of the named command; returns -EINVAL. */
int command_usage(const char *name);

/* hv-io-text.c */
/* 0 or -EINVAL, -ERANGE after a message. */
int text_number(const char *text, int64_t *ret_value);
int text_pattern(const char *text, uint8_t *ret_byte);
/* "1.503 KiB", "512 bytes" */
void text_size(double value, char *buf, size_t buf_bytes);
void text_report(const char *verb, const struct timespec *start, uint64_t offset,
                 uint64_t wanted_bytes, uint64_t done_bytes, bool terse);
void text_dump(const uint8_t *bytes, uint64_t offset, size_t length_bytes);
/* "verb failed: why"; returns ret. */
int text_failed(const char *verb, int ret);
/* "hv-io: text"; returns ret. */
int text_error(const struct hvb_error *err, int ret);
struct timespec text_now(void);

/* hv-io-data.c */
/* Buffers of IO_BUFFER_ALIGN; NULL after a message.  free() them. */
uint8_t *buffer_new(size_t length_bytes, uint8_t fill);
/* Several lengths as consecutive pieces of one buffer. */
struct io_vector {
        struct iovec *iov;
        unsigned iov_count;
        uint8_t *buffer;
        size_t length_bytes;
};
int vector_parse(struct io_vector *vector, char **texts, int count, uint8_t fill);
void vector_clear(struct io_vector *vector);
/* -EINVAL after a message unless all bytes are pattern. */
int pattern_verify(const uint8_t *bytes, size_t length_bytes, uint8_t pattern,
                   uint64_t shown_offset);

int cmd_read(struct io_session *session, int argc, char **argv);
int cmd_write(struct io_session *session, int argc, char **argv);
int cmd_readv(struct io_session *session, int argc, char **argv);
int cmd_writev(struct io_session *session, int argc, char **argv);
int cmd_discard(struct io_session *session, int argc, char **argv);
int cmd_flush(struct io_session *session, int argc, char **argv);

/* hv-io-aio.c */
int cmd_aio_read(struct io_session *session, int argc, char **argv);
int cmd_aio_write(struct io_session *session, int argc, char **argv);
int cmd_aio_flush(struct io_session *session, int argc, char **argv);
/* Waits for all asynchronous requests. */
void aio_finish(struct io_session *session);

/* hv-io-image.c */
int cmd_open(struct io_session *session, int argc, char **argv);
int cmd_close(struct io_session *session, int argc, char **argv);
int cmd_reopen(struct io_session *session, int argc, char **argv);
int cmd_length(struct io_session *session, int argc, char **argv);
int cmd_info(struct io_session *session, int argc, char **argv);
int cmd_truncate(struct io_session *session, int argc, char **argv);
int cmd_alloc(struct io_session *session, int argc, char **argv);
int cmd_map(struct io_session *session, int argc, char **argv);

/* hv-io-extra.c */
int cmd_snapshot(struct io_session *session, int argc, char **argv);
int cmd_check(struct io_session *session, int argc, char **argv);
int cmd_status(struct io_session *session, int argc, char **argv);
int cmd_handoff(struct io_session *session, int argc, char **argv);
int cmd_operations(struct io_session *session, int argc, char **argv);

#endif
