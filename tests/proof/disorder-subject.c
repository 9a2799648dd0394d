/*
 * disorder-subject.c - see disorder-subject.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disorder-subject.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct hvb_driver *hvb_driver_entry(uint32_t abi_version);

static int open_child(void *opaque, const struct hvb_child_query *query,
                      struct hvb_child *ret_child, struct hvb_error *err)
{
        (void)opaque;
        (void)err;
        ret_child->fd = 1;
        ret_child->format = "raw";
        ret_child->name = query->name;
        return 0;
}

static void close_child(void *opaque, const struct hvb_child *child)
{
        (void)opaque;
        (void)child;
}

/* ---- requests ---- */

struct hvb_request *subject_request_new(void)
{
        size_t bytes = round_up(sizeof(struct request), 64);
        struct hvb_request *request = aligned_alloc(64, bytes);

        memset(request, 0, bytes);
        request->struct_bytes = sizeof(*request);
        return request;
}

static void on_complete(struct hvb_request *request)
{
        *(bool *)request->opaque = true;
}

void subject_call_begin(struct subject *s, struct subject_call *c)
{
        *c = (struct subject_call){ .request = subject_request_new() };
        c->request->complete = on_complete;
        c->request->opaque = &c->ended;
        s->err = (struct hvb_error){ .struct_bytes = sizeof(s->err) };
}

int subject_call_end(struct subject *s, struct subject_call *c)
{
        int ret = 0;

        while (!c->ended && ret >= 0)
                ret = s->driver->poll(s->queue, -1);
        if (ret < 0)
                g_error("a call waits for ever: %s", g_strerror(-ret));
        ret = c->request->result;
        free(c->request);
        return ret;
}

/* ---- opening and closing ---- */

static void image_begin(struct subject *s, struct simdisk *disk, uint32_t flags)
{
        struct hvb_image *image = g_new0(struct hvb_image, 1);

        s->driver = hvb_driver_entry(HVB_ABI_VERSION);
        s->host = (struct hvb_host){
                .struct_bytes = sizeof(s->host),
                .open_child = open_child,
                .close_child = close_child,
        };
        open_options_parse(&image->options, NULL, NULL);
        image->options.l2_cache_bytes = s->l2_cache_bytes;
        image->options.discard_unmap = s->discard_unmap;
        image->queue.image = image;
        loop_init(&image->loop, simdisk_engine_new(disk), true);
        image->top = image_new(&image->loop, &s->host, "sim", flags | HVB_OPEN_NO_LOCK,
                               &image->options);
        image_open_file(image->top, 0, NULL);
        s->image = image;
        s->queue = s->driver->queue(image, 0);
}

static int open_with(struct subject *s, const struct operation *op,
                     const struct hvb_create_args *args)
{
        struct request *r;
        struct subject_call c;
        int ret;

        subject_call_begin(s, &c);
        r = request_begin(s->image, c.request, op);
        r->err = &s->err;
        r->create_args = args;
        request_start_task(r);
        ret = subject_call_end(s, &c);
        if (ret < 0)
                subject_release(s);
        return ret;
}

int subject_open(struct subject *s, struct simdisk *disk, uint32_t flags)
{
        image_begin(s, disk, flags);
        return open_with(s, &op_open, NULL);
}

int subject_create(struct subject *s, struct simdisk *disk, const struct hvb_create_args *args)
{
        int ret;

        image_begin(s, disk, HVB_OPEN_RDWR | HVB_OPEN_NO_BACKING);
        ret = open_with(s, &op_create, args);
        return ret < 0 ? ret : subject_close(s);
}

int subject_close(struct subject *s)
{
        struct subject_call c;
        int ret;

        subject_call_begin(s, &c);
        s->driver->close(s->image, c.request, &s->err);
        ret = subject_call_end(s, &c);
        subject_release(s);
        return ret;
}

void subject_release(struct subject *s)
{
        s->driver->release(s->image);
        s->image = NULL;
        s->queue = NULL;
}

/* ---- single calls ---- */

int subject_load_tmp(struct subject *s, const char *name)
{
        struct subject_call c;

        subject_call_begin(s, &c);
        s->driver->snapshot_load_tmp(s->image, c.request, NULL, name, &s->err);
        return subject_call_end(s, &c);
}

int subject_read(struct subject *s, uint64_t offset, void *buffer, size_t length)
{
        struct iovec iov = { buffer, length };
        struct subject_call c;

        subject_call_begin(s, &c);
        s->driver->preadv(s->queue, c.request, offset, &iov, 1, 0);
        return subject_call_end(s, &c);
}

int subject_load_vmstate(struct subject *s, uint64_t offset, void *buffer, size_t length)
{
        struct iovec iov = { buffer, length };
        struct subject_call c;

        subject_call_begin(s, &c);
        s->driver->load_vmstate(s->image, c.request, offset, &iov, 1);
        return subject_call_end(s, &c);
}

int subject_check(struct subject *s, struct hvb_check_result *ret_result)
{
        struct subject_call c;

        subject_call_begin(s, &c);
        *ret_result = (struct hvb_check_result){ .struct_bytes = sizeof(*ret_result) };
        s->driver->check(s->image, c.request, 0, ret_result, &s->err);
        return subject_call_end(s, &c);
}

int subject_inactivate(struct subject *s)
{
        struct subject_call c;

        subject_call_begin(s, &c);
        s->driver->inactivate(s->image, c.request, &s->err);
        return subject_call_end(s, &c);
}

int subject_activate(struct subject *s)
{
        struct subject_call c;

        subject_call_begin(s, &c);
        s->driver->activate(s->image, c.request, &s->err);
        return subject_call_end(s, &c);
}
