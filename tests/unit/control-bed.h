/*
 * control-bed.h - for tests of check, create and resize: each as one call, and what qemu-img
 * says to the result.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef UNIT_CONTROL_BED_H
#define UNIT_CONTROL_BED_H

#include <sys/wait.h>

#include "ops/check.h"
#include "ops/create.h"
#include "ops/preallocate.h"
#include "ops/resize.h"
#include "unit/data-bed.h"

/* ---- our side ---- */

struct control_task {
        struct task task;
        struct bed *bed;
        int (*step)(struct control_task *t);
        uint32_t flags;
        uint64_t bytes;
        enum hvb_preallocation preallocation;
        struct hvb_check_result *result;
        const struct hvb_create_args *create_args;
        struct io_file *file;
        union {
                struct check check;
                struct resize resize;
                struct create create;
                struct preallocate preallocate;
        } u;
        bool ended;
        int ret;
};

static inline int control_step(struct task *task)
{
        struct control_task *t = (struct control_task *)task;

        return t->step(t);
}

static inline void control_done(struct task *task, int ret)
{
        struct control_task *t = (struct control_task *)task;

        t->ret = ret;
        t->ended = true;
}

/* A failure has a text, and only a failure. */
static inline int control_run(struct bed *b, struct control_task *t)
{
        b->err = (struct hvb_error){ .struct_bytes = sizeof(b->err) };
        t->bed = b;
        task_start(&t->task, &b->loop, "control", control_step, control_done);
        bed_poll_until(b, &t->ended);
        g_assert_cmpint(b->err.code, ==, t->ret);
        g_assert_true((t->ret < 0) == (b->err.text[0] != '\0'));
        return t->ret;
}

static inline int check_step(struct control_task *t)
{
        return check_image(&t->u.check, t->bed->img, t->flags, t->result, &t->bed->err);
}

static inline int bed_check(struct bed *b, uint32_t flags, struct hvb_check_result *result)
{
        g_autofree struct control_task *t = g_new0(struct control_task, 1);

        t->step = check_step;
        t->flags = flags;
        t->result = result;
        return control_run(b, t);
}

static inline int resize_step(struct control_task *t)
{
        return resize(&t->u.resize, t->bed->img, t->bytes, t->preallocation, &t->bed->err);
}

static inline int bed_resize(struct bed *b, uint64_t new_bytes, enum hvb_preallocation mode)
{
        g_autofree struct control_task *t = g_new0(struct control_task, 1);

        t->step = resize_step;
        t->bytes = new_bytes;
        t->preallocation = mode;
        return control_run(b, t);
}

static inline int preallocate_step(struct control_task *t)
{
        return preallocate(&t->u.preallocate, t->bed->img, 0, t->bytes, t->preallocation,
                           &t->bed->err);
}

/* The whole disk. */
static inline int bed_preallocate(struct bed *b, enum hvb_preallocation mode)
{
        g_autofree struct control_task *t = g_new0(struct control_task, 1);

        t->step = preallocate_step;
        t->bytes = image_size(b->img);
        t->preallocation = mode;
        return control_run(b, t);
}

static inline int create_step(struct control_task *t)
{
        return create_file(&t->u.create, &t->bed->loop, t->file, t->create_args, &t->bed->err);
}

/* Formats the file at path, which must exist.  The text of a failure is in *err. */
static inline int control_create(const char *path, const struct hvb_create_args *args,
                                 struct hvb_error *err)
{
        g_autofree struct control_task *t = g_new0(struct control_task, 1);
        struct bed b = { .fd = open(path, O_RDWR | O_CLOEXEC) };
        struct io_file file = { 0 };
        struct engine *engine;
        char why[256];
        int ret;

        g_assert_cmpint(b.fd, >=, 0);
        g_assert_cmpint(engine_new("auto", 64, &engine, why, sizeof(why)), ==, 0);
        loop_init(&b.loop, engine, false);
        g_assert_cmpint(io_file_open(&file, engine, b.fd), ==, 0);
        t->step = create_step;
        t->create_args = args;
        t->file = &file;
        ret = control_run(&b, t);
        *err = b.err;
        io_file_close(&file);
        loop_clear(&b.loop);
        close(b.fd);
        return ret;
}

/* ---- qemu-img's ---- */

/* Returns the exit status; output (may be NULL) gets what was printed. */
static inline int shell(char **output, const char *format, ...) G_GNUC_PRINTF(2, 3);
static inline int shell(char **output, const char *format, ...)
{
        g_autoptr(GError) error = NULL;
        g_autofree char *line = NULL;
        const char *argv[] = { "sh", "-c", NULL, NULL };
        va_list args;
        int status;

        va_start(args, format);
        line = g_strdup_vprintf(format, args);
        va_end(args);
        argv[2] = line;
        g_spawn_sync(NULL, (char **)argv, NULL,
                     G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL |
                     (output ? 0 : G_SPAWN_STDOUT_TO_DEV_NULL), NULL, NULL, output, NULL, &status,
                     &error);
        g_assert_no_error(error);
        g_assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static inline uint64_t json_number(const char *json, const char *key)
{
        g_autofree char *quoted = g_strdup_printf("\"%s\":", key);
        const char *at = strstr(json, quoted);

        return at ? g_ascii_strtoull(at + strlen(quoted), NULL, 10) : 0;
}

/* Keys that qemu-img leaves out are 0.  Returns its exit status. */
static inline int qemu_check(const char *path, const char *repair, struct hvb_check_result *ret)
{
        g_autofree char *json = NULL;
        int status = shell(&json, "qemu-img check --output=json -f qcow2 %s %s", repair, path);

        *ret = (struct hvb_check_result){
                .corruptions = json_number(json, "corruptions"),
                .leaks = json_number(json, "leaks"),
                .check_errors = json_number(json, "check-errors"),
                .corruptions_fixed = json_number(json, "corruptions-fixed"),
                .leaks_fixed = json_number(json, "leaks-fixed"),
                .image_end_offset = json_number(json, "image-end-offset"),
                .total_clusters = json_number(json, "total-clusters"),
                .allocated_clusters = json_number(json, "allocated-clusters"),
                .fragmented_clusters = json_number(json, "fragmented-clusters"),
                .compressed_clusters = json_number(json, "compressed-clusters"),
        };
        return status;
}

#endif
