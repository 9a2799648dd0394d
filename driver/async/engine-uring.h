/*
 * engine-uring.h - the parts of the io_uring engine.  Private to engine-uring*.c.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef ASYNC_ENGINE_URING_H
#define ASYNC_ENGINE_URING_H

#include <liburing.h>

#include "async/io.h"

enum {
        URING_FILES_MAX = 256,          /* notify_fd, an image and its chain */
        URING_NOTIFY_SLOT = 0,
        URING_BUFFERS_MAX = 256,
};

struct uring {
        struct engine engine;
        unsigned entries;               /* of the submission queue, as asked for */
        bool restricted;                /* see engine-uring-ring.c */

        /* The ring, while attached. */
        bool attached;
        struct io_uring ring;
        bool files_registered;
        bool buffers_registered;
        bool notify_armed;              /* the poll of notify_fd is in the ring */
        unsigned inflight;              /* SQEs filled in and not completed, but for that poll */
        unsigned inflight_max;

        int event_fd;                   /* what the host polls; signalled by the kernel */
        int notify_fd;                  /* what other threads write to */
        bool stalled;                   /* the kernel took nothing; try again soon */
        GQueue backlog;                 /* of struct io: there was no room in the ring */
        unsigned file_slots;            /* of the attached ring's table, at most URING_FILES_MAX */
        struct io_file *files[URING_FILES_MAX];
        GArray *regions;
        bool slot_used[URING_BUFFERS_MAX];
};

/* engine-uring-ring.c: the ring itself, its tables filled.  0 or -errno and no ring. */
int uring_ring_make(struct uring *u);
void uring_ring_close(struct uring *u);

/* engine-uring-tables.c: registered files and buffers.  What is refused is done the plain
 * way, but for files of a restricted ring: they must be registered. */
int uring_tables_register(struct uring *u);     /* all that are known, in a new ring */
int uring_file_add(struct engine *engine, struct io_file *file);
void uring_file_remove(struct engine *engine, struct io_file *file);
int uring_map(struct engine *engine, void *address, size_t length);
int uring_unmap(struct engine *engine, void *address, size_t length);

/* The slot whose memory contains all of iov, or -1. */
int uring_buffer_slot(struct uring *u, const struct iovec *iov);

#endif
