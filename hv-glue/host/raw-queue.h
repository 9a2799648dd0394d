/*
 * raw-queue.h - the queue of the raw driver: who does a request, and when it completes.
 *
 * A request is started on the queue's thread, run by a worker (raw-io.c), pushed
 * to `finished`, and completed by poll.  What needs no work is pushed at once.
 *
 *   started --worker--> finished --poll--> complete()
 *                          |  ^
 *            io_error: STOP v  | retry
 *                         parked
 *
 * `started` holds all requests that are not completed, oldest first; a drain
 * completes when it has come to the head.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_RAW_QUEUE_H
#define HOST_RAW_QUEUE_H

#include <glib.h>

#include "host/raw-io.h"
#include "hv-block.h"

struct hvb_queue {
        int event_fd;
        GAsyncQueue *finished;          /* of struct raw_request, from workers */
        GQueue started;                 /* of struct raw_request, by link */
        GQueue parked;                  /* the same */
};

struct hvb_image {
        struct raw_file file;
        struct hvb_queue queue;         /* there is one */
        GThreadPool *workers;           /* NULL until there is work */
        const struct hvb_host *host;
        uint32_t open_flags;
        char *name;
};

int raw_queue_init(struct hvb_queue *queue);            /* 0 or -errno */
/* Nothing may be in flight.  Joins the workers. */
void raw_queue_clear(struct hvb_image *image);

/* The image of a queue: the queue is its member. */
struct hvb_image *raw_queue_image(struct hvb_queue *queue);

/* Takes the host's memory for a request, as the youngest of `started`. */
struct raw_request *raw_request_begin(struct hvb_image *image, struct hvb_request *base,
                                      enum raw_kind kind);
/* Then one of these: a worker does it; or poll completes it with result. */
void raw_request_start(struct raw_request *request);
void raw_request_start_finished(struct raw_request *request, int result);
/* The same for a request on [offset, offset + length), if that lies on the disk
 * and may be done. */
void raw_request_start_range(struct raw_request *request, uint64_t offset, uint64_t length);

/* Members of hvb_driver. */
int raw_queue_poll(struct hvb_queue *queue, int timeout_ms);
void raw_queue_drain(struct hvb_queue *queue, struct hvb_request *base);
void raw_queue_cancel(struct hvb_queue *queue, struct hvb_request *base);
void raw_queue_retry(struct hvb_image *image);

#endif
