/*
 * data-bed.h - for tests of the data path: an opened image on a real engine, and requests to it,
 * one or many at a time.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef UNIT_DATA_BED_H
#define UNIT_DATA_BED_H

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <unistd.h>

#include "ops/data.h"
#include "ops/open.h"

/* ---- the image ---- */

struct bed {
        struct loop loop;
        struct hvb_host host;
        struct open_options options;
        struct image *img;
        int fd;
        struct hvb_error err;
        unsigned cancel_after;          /* polls, then a snapshot operation is cancelled; 0: not */
        uint64_t progress_done;         /* of the last snapshot operation */
        uint64_t progress_total;
};

/* Runs until *flag. */
static inline void bed_poll_until(struct bed *b, const bool *flag)
{
        while (!*flag)
                g_assert_cmpint(loop_poll(&b->loop, -1), >=, 0);
}

struct bed_task {
        struct task task;
        struct bed *bed;
        int (*step)(struct bed_task *t);
        union {
                struct image_open open;
                struct image_close close;
                struct commit_wait commit;
        } u;
        bool ended;
        int result;
};

static inline int bed_task_step(struct task *task)
{
        struct bed_task *t = (struct bed_task *)task;

        return t->step(t);
}

static inline void bed_task_done(struct task *task, int result)
{
        struct bed_task *t = (struct bed_task *)task;

        t->result = result;
        t->ended = true;
}

static inline int bed_run(struct bed *b, int (*step)(struct bed_task *t))
{
        struct bed_task t = { .bed = b, .step = step };

        task_start(&t.task, &b->loop, "bed", bed_task_step, bed_task_done);
        bed_poll_until(b, &t.ended);
        return t.result;
}

/* Names in test images are absolute paths. */
static inline int bed_open_child(void *opaque, const struct hvb_child_query *query,
                                 struct hvb_child *ret_child, struct hvb_error *err)
{
        (void)opaque;
        (void)err;
        ret_child->fd = open(query->name, O_RDONLY | O_CLOEXEC);
        g_assert_cmpint(ret_child->fd, >=, 0);
        ret_child->format = strcmp(query->format, "raw") == 0 ? "raw" : "qcow2";
        ret_child->name = query->name;
        return 0;
}

static inline void bed_close_child(void *opaque, const struct hvb_child *child)
{
        (void)opaque;
        close(child->fd);
}

static inline int bed_open_step(struct bed_task *t)
{
        return image_open(&t->u.open, t->bed->img, &t->bed->options, &t->bed->err);
}

static inline int bed_close_step(struct bed_task *t)
{
        return image_close(&t->u.close, t->bed->img, &t->bed->err);
}

static inline int bed_commit_step(struct bed_task *t)
{
        return meta_commit(&t->u.commit, t->bed->img);
}

/* $TEST_ENGINE, or the driver's choice. */
static inline const char *bed_engine(void)
{
        const char *wanted = g_getenv("TEST_ENGINE");

        return wanted ? wanted : "auto";
}

/* open_flags of open(2) beside O_RDWR; hvb_flags beside HVB_OPEN_RDWR. */
static inline void bed_open(struct bed *b, const char *path, bool is_writable, int open_flags,
                            unsigned hvb_flags)
{
        struct engine *engine;
        char why[256];

        *b = (struct bed){
                .host = {
                        .struct_bytes = sizeof(b->host),
                        .open_child = bed_open_child,
                        .close_child = bed_close_child,
                },
                .err = { .struct_bytes = sizeof(b->err) },
        };
        g_assert_cmpint(open_options_parse(&b->options, NULL, &b->err), ==, 0);
        g_assert_cmpint(engine_new(bed_engine(), 256, true, &engine, why, sizeof(why)), ==, 0);
        loop_init(&b->loop, engine, false);
        b->fd = open(path, (is_writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | open_flags);
        g_assert_cmpint(b->fd, >=, 0);
        b->img = image_new(&b->loop, &b->host, path,
                           hvb_flags | (is_writable ? HVB_OPEN_RDWR : 0), &b->options);
        g_assert_nonnull(b->img);
        g_assert_cmpint(image_open_file(b->img, b->fd, &b->err), ==, 0);
        g_assert_cmpint(bed_run(b, bed_open_step), ==, 0);
}

static inline void bed_commit(struct bed *b)
{
        g_assert_cmpint(bed_run(b, bed_commit_step), ==, 0);
}

static inline void bed_close(struct bed *b)
{
        g_assert_cmpint(bed_run(b, bed_close_step), ==, 0);
        g_assert_cmpuint(b->loop.leaks, ==, 0);
        image_free(b->img);
        close(b->fd);
        loop_clear(&b->loop);
}

/* ---- requests ---- */

enum op_kind { OP_READ, OP_WRITE, OP_COMPRESS, OP_DISCARD, OP_ZERO, OP_STATUS };

enum { OP_IOVECS = 40 };

struct op {
        struct task task;
        struct bed *bed;
        enum op_kind kind;
        struct l1_table *l1;
        uint64_t offset;
        uint64_t length_bytes;
        uint32_t flags;
        struct iovec iov[OP_IOVECS];
        unsigned iov_count;
        struct hvb_block_status status;
        struct fast fast;
        union {
                struct read read;
                struct write write;
                struct write_compressed compress;
                struct discard discard;
                struct zero zero;
                struct status status;
        } u;
        bool ended;
        int result;
};

static inline int op_step(struct task *task)
{
        struct op *op = (struct op *)task;
        struct image *img = op->bed->img;

        switch (op->kind) {
        case OP_READ:
                return read_range(&op->u.read, img, op->l1, op->offset, op->length_bytes,
                                  op->iov, op->iov_count);
        case OP_WRITE:
                return write_range(&op->u.write, img, op->l1, op->offset, op->length_bytes,
                                   op->iov, op->iov_count);
        case OP_COMPRESS:
                return write_compressed(&op->u.compress, img, op->offset, op->length_bytes,
                                        op->iov, op->iov_count);
        case OP_DISCARD:
                return discard_range(&op->u.discard, img, op->l1, op->offset, op->length_bytes);
        case OP_ZERO:
                return zero_range(&op->u.zero, img, op->l1, op->offset, op->length_bytes,
                                  op->flags);
        case OP_STATUS:
                return status_range(&op->u.status, img, op->l1, op->offset, op->length_bytes,
                                    &op->status);
        }
        g_assert_not_reached();
}

static inline void op_done(struct task *task, int result)
{
        struct op *op = (struct op *)task;

        op->result = result;
        op->ended = true;
}

static inline void op_fast_done(struct io *io)
{
        struct op *op = (struct op *)((char *)io - offsetof(struct op, fast.io));

        op->result = fast_finish(&op->fast);
        op->ended = true;
}

static inline struct op *op_new(struct bed *b, enum op_kind kind, uint64_t offset,
                                uint64_t length_bytes)
{
        struct op *op = g_new0(struct op, 1);

        op->bed = b;
        op->kind = kind;
        op->l1 = &b->img->active;
        op->offset = offset;
        op->length_bytes = length_bytes;
        op->status.struct_bytes = sizeof(op->status);
        return op;
}

/* One element, or as many of part_bytes as there is place for. */
static inline void op_buffer(struct op *op, void *buffer, uint64_t part_bytes)
{
        uint64_t done = 0;

        while (done < op->length_bytes) {
                bool is_last = op->iov_count == OP_IOVECS - 1 || part_bytes == 0;
                uint64_t left = op->length_bytes - done;
                uint64_t part = is_last ? left : MIN(left, part_bytes);

                op->iov[op->iov_count++] = (struct iovec){ (uint8_t *)buffer + done, part };
                done += part;
        }
}

static inline void op_start(struct op *op)
{
        op->ended = false;
        task_start(&op->task, &op->bed->loop, "op", op_step, op_done);
}

/* As the door does it: without a coroutine where possible. */
static inline enum fast_result op_start_fast(struct op *op)
{
        enum fast_result ret = FAST_NO;

        op->fast.io.done = op_fast_done;
        if (op->kind == OP_READ)
                ret = read_fast(&op->fast, op->bed->img, op->l1, op->offset, op->length_bytes,
                                op->iov, op->iov_count);
        else if (op->kind == OP_WRITE)
                ret = write_fast(&op->fast, op->bed->img, op->offset, op->length_bytes, op->iov,
                                 op->iov_count);
        if (ret == FAST_NO)
                op_start(op);
        if (ret == FAST_DONE)
                op->ended = true;
        return ret;
}

/* Frees op. */
static inline int op_end(struct op *op)
{
        int result;

        bed_poll_until(op->bed, &op->ended);
        result = op->result;
        g_free(op);
        return result;
}

static inline int op_run(struct op *op)
{
        op_start(op);
        return op_end(op);
}

static inline int bed_transfer(struct bed *b, enum op_kind kind, uint64_t offset, void *buffer,
                               uint64_t length_bytes)
{
        struct op *op = op_new(b, kind, offset, length_bytes);

        op_buffer(op, buffer, 0);
        return op_run(op);
}

static inline int bed_read(struct bed *b, uint64_t offset, void *buffer, uint64_t length_bytes)
{
        return bed_transfer(b, OP_READ, offset, buffer, length_bytes);
}

static inline int bed_write(struct bed *b, uint64_t offset, const void *buffer,
                            uint64_t length_bytes)
{
        return bed_transfer(b, OP_WRITE, offset, (void *)buffer, length_bytes);
}

static inline int bed_discard(struct bed *b, uint64_t offset, uint64_t length_bytes)
{
        return op_run(op_new(b, OP_DISCARD, offset, length_bytes));
}

static inline int bed_zero(struct bed *b, uint64_t offset, uint64_t length_bytes, uint32_t flags)
{
        struct op *op = op_new(b, OP_ZERO, offset, length_bytes);

        op->flags = flags;
        return op_run(op);
}

/* All of the disk reads as model. */
static inline void bed_compare(struct bed *b, const uint8_t *model, uint64_t disk_bytes)
{
        uint64_t piece_bytes = MIN(disk_bytes, 3 << 20);
        g_autofree uint8_t *bytes = g_malloc(piece_bytes);
        uint64_t at;

        for (at = 0; at < disk_bytes; at += piece_bytes) {
                uint64_t n = MIN(piece_bytes, disk_bytes - at);
                uint64_t i;

                g_assert_cmpint(bed_read(b, at, bytes, n), ==, 0);
                if (memcmp(bytes, model + at, n) == 0)
                        continue;
                for (i = 0; bytes[i] == model[at + i]; i++)
                        ;
                g_error("byte 0x%" G_GINT64_MODIFIER "x is %02x, should be %02x", at + i,
                        bytes[i], model[at + i]);
        }
}

#endif
