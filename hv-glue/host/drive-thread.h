/*
 * drive-thread.h - a drive on a thread of its own.
 *
 * The thread owns the drive: it alone touches it.  It sleeps in one epoll over the
 * drive's queue, the descriptors that others asked it to watch (a virtqueue's
 * doorbell), and its mailbox.  Guest requests go on while a control operation runs.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_DRIVE_THREAD_H
#define HOST_DRIVE_THREAD_H

#include "host/drive.h"

struct drive_thread;

/* Opens on the new thread.  Returns 0, or -errno with err filled and no thread. */
int drive_thread_open(const char *path, const struct drive_options *options,
                      struct drive_thread **ret_thread, struct hvb_error *err);
/*
 * Closes the drive, joins the thread, frees.  From any other thread; NULL is fine.
 * Nothing may be watched any more and nobody may be in drive_thread_run.
 */
int drive_thread_close(struct drive_thread *thread, struct hvb_error *err);

/* For calls and watches that run on the thread. */
struct drive *drive_thread_drive(struct drive_thread *thread);

/*
 * Calls ready(opaque) on the thread whenever fd is readable; ready takes what makes it
 * so.  unwatch returns when ready is not running and will not be called again.  Both
 * from any other thread.  watch returns NULL when the kernel refuses the descriptor.
 */
struct drive_watch_fd;
struct drive_watch_fd *drive_thread_watch(struct drive_thread *thread, int fd,
                                          void (*ready)(void *opaque), void *opaque);
void drive_thread_unwatch(struct drive_thread *thread, struct drive_watch_fd *watch);

/*
 * Runs call on the thread and returns what it returned.  call must not wait; it may start
 * requests.  From any other thread.
 */
int drive_thread_call(struct drive_thread *thread, int (*call)(struct drive *drive, void *opaque),
                      void *opaque);

/*
 * A control operation from another thread.  start is called on the drive's thread with
 * a request to hand to the driver's asynchronous member; run returns the request's
 * result once it completed.  The thread goes on serving meanwhile.  progress and is_cancelled
 * (each may be NULL) are called on the drive's thread now and then; once is_cancelled has said so
 * the request is asked to end early.
 */
struct drive_control {
        void (*start)(struct drive *drive, struct hvb_request *request, void *opaque);
        void *opaque;
        void (*progress)(void *opaque, uint64_t done, uint64_t total);
        bool (*is_cancelled)(void *opaque);
};
int drive_thread_run(struct drive_thread *thread, const struct drive_control *control);

/* Returns when all that was started on the drive before has completed; 0 or -errno. */
int drive_thread_drain(struct drive_thread *thread);

#endif
