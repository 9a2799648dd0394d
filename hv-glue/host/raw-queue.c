/*
 * raw-queue.c - the queue of the raw driver: who does a request, and when it completes.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/raw-queue.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WORKER_COUNT = 4 };

static void push_finished(struct hvb_queue *queue, struct raw_request *request)
{
        g_async_queue_push(queue->finished, request);
        eventfd_write(queue->event_fd, 1);
}

static void worker(gpointer data, gpointer opaque)
{
        struct raw_request *request = data;
        struct hvb_image *image = opaque;

        request->base.result = raw_request_run(&image->file, request);
        push_finished(&image->queue, request);
}

struct raw_request *raw_request_begin(struct hvb_image *image, struct hvb_request *base,
                                      enum raw_kind kind)
{
        struct raw_request *request = (struct raw_request *) base;

        memset(&request->image, 0, sizeof(*request) - offsetof(struct raw_request, image));
        request->image = image;
        request->kind = kind;
        request->link.data = request;
        base->result = 0;
        g_queue_push_tail_link(&image->queue.started, &request->link);
        return request;
}

void raw_request_start(struct raw_request *request)
{
        struct hvb_image *image = request->image;

        if (image->workers == NULL)
                image->workers = g_thread_pool_new(worker, image, WORKER_COUNT, FALSE, NULL);
        g_thread_pool_push(image->workers, request, NULL);
}

void raw_request_start_finished(struct raw_request *request, int result)
{
        request->base.result = result;
        push_finished(&request->image->queue, request);
}

void raw_request_start_range(struct raw_request *request, uint64_t offset, uint64_t length)
{
        const struct hvb_image *image = request->image;
        uint64_t end = image->file.virtual_bytes;
        bool writes = request->kind == RAW_WRITE || request->kind == RAW_ZERO
                || request->kind == RAW_DISCARD;

        request->offset = offset;
        request->length = length;
        if (offset > end || (length > end - offset && request->kind != RAW_STATUS))
                raw_request_start_finished(request, -EIO);
        else if (writes && !(image->open_flags & HVB_OPEN_RDWR))
                raw_request_start_finished(request, -EACCES);
        else
                raw_request_start(request);
}

/* The host decides about a failed data request.  True: it is parked. */
static bool park_or_settle(struct hvb_image *image, struct raw_request *request)
{
        const struct hvb_host *host = image->host;
        bool is_write = request->kind == RAW_WRITE || request->kind == RAW_ZERO;
        struct hvb_io_error what = {
                .struct_bytes = sizeof(what),
                .code = request->base.result,
                .is_write = is_write,
                .offset = request->offset,
                .length_bytes = request->length,
                .request = &request->base,
        };
        enum hvb_error_action action;

        if (request->base.result == 0 || request->base.result == -ECANCELED)
                return false;
        if (request->kind != RAW_READ && !is_write)
                return false;
        if (host == NULL || host->io_error == NULL)
                return false;
        action = host->io_error(host->opaque, &what);
        if (action == HVB_ACTION_IGNORE)
                request->base.result = 0;
        if (action != HVB_ACTION_STOP)
                return false;
        g_queue_unlink(&image->queue.started, &request->link);
        g_queue_push_tail_link(&image->queue.parked, &request->link);
        return true;
}

static void complete(struct hvb_queue *queue, struct raw_request *request)
{
        g_queue_unlink(&queue->started, &request->link);
        request->base.complete(&request->base);
}

/* Completes what workers gave back and the drains whose turn it is. */
static int reap(struct hvb_queue *queue)
{
        struct raw_request *request;
        eventfd_t count;
        int completed = 0;

        eventfd_read(queue->event_fd, &count);          /* before looking: nothing is missed */
        while ((request = g_async_queue_try_pop(queue->finished)) != NULL) {
                if (park_or_settle(request->image, request))
                        continue;
                complete(queue, request);
                completed++;
        }
        while ((request = g_queue_peek_head(&queue->started)) != NULL
               && request->kind == RAW_DRAIN) {
                complete(queue, request);
                completed++;
        }
        return completed;
}

int raw_queue_poll(struct hvb_queue *queue, int timeout_ms)
{
        struct pollfd fd = { queue->event_fd, POLLIN, 0 };
        int completed = reap(queue);

        if (completed > 0 || timeout_ms == 0)
                return completed;
        if (poll(&fd, 1, timeout_ms) < 0 && errno != EINTR)
                return -errno;
        return reap(queue);
}

struct hvb_image *raw_queue_image(struct hvb_queue *queue)
{
        return (struct hvb_image *) ((char *) queue - offsetof(struct hvb_image, queue));
}

void raw_queue_retry(struct hvb_image *image)
{
        GList *link;

        while ((link = g_queue_pop_head_link(&image->queue.parked)) != NULL) {
                g_queue_push_tail_link(&image->queue.started, link);
                raw_request_start(link->data);
        }
}

/* A worker's system call is not interrupted: only what is parked ends early. */
void raw_queue_cancel(struct hvb_queue *queue, struct hvb_request *base)
{
        struct raw_request *request = (struct raw_request *) base;

        if (g_queue_link_index(&queue->parked, &request->link) < 0)
                return;
        g_queue_unlink(&queue->parked, &request->link);
        g_queue_push_tail_link(&queue->started, &request->link);
        raw_request_start_finished(request, -ECANCELED);
}

void raw_queue_drain(struct hvb_queue *queue, struct hvb_request *base)
{
        raw_request_begin(raw_queue_image(queue), base, RAW_DRAIN);
        eventfd_write(queue->event_fd, 1);
}

int raw_queue_init(struct hvb_queue *queue)
{
        queue->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (queue->event_fd < 0)
                return -errno;
        queue->finished = g_async_queue_new();
        g_queue_init(&queue->started);
        g_queue_init(&queue->parked);
        return 0;
}

void raw_queue_clear(struct hvb_image *image)
{
        g_assert(g_queue_is_empty(&image->queue.started));
        g_assert(g_queue_is_empty(&image->queue.parked));
        if (image->workers != NULL)
                g_thread_pool_free(image->workers, FALSE, TRUE);
        g_async_queue_unref(image->queue.finished);
        close(image->queue.event_fd);
}
