/*
 * drive-thread.c - a drive on a thread of its own.
 *
 * The loop, and why it misses nothing:
 *
 *   deliver the mail -> poll the drive -> sleep in epoll -> serve what is readable -> ...
 *
 * What mail and watches start is submitted by the poll before the sleep, and after a
 * poll the queue's descriptor becomes readable if there is more to do.  Mail rings an
 * eventfd after it lies in the box.
 *
 * Letters lie on the stack of their senders, who wait for the answer.  A watch is
 * added and removed by a letter, so never while the events of one epoll are served:
 * an event in hand never belongs to a watch that is gone.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/drive-thread.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "host/drive-op.h"

enum { EVENTS_AT_ONCE = 16, PROGRESS_INTERVAL_MS = 100 };

/* One thing that another thread wants, and whether it has got it. */
struct letter {
        GList link;
        /* Either a call ... */
        int (*call)(struct drive *drive, void *opaque);
        void *opaque;
        /* ... or a control operation. */
        const struct drive_control *control;
        struct drive_op *op;            /* while it runs */
        bool is_cancelled;
        int result;
        bool answered;                  /* under the lock */
};

struct drive_watch_fd {
        int fd;
        void (*ready)(void *opaque);
        void *opaque;
};

struct drive_thread {
        pthread_t thread;
        struct drive *drive;
        int epoll_fd;
        int mail_fd;                    /* eventfd */
        GQueue running;                 /* of struct letter: control operations */
        bool closing;                   /* the thread's own; set by the last letter */

        const char *path;               /* arguments of open and close, and their results */
        const struct drive_options *options;
        struct hvb_error *err;
        int result;

        pthread_mutex_t lock;           /* of all below and of letters' answered */
        pthread_cond_t answered;
        GQueue mail;
        bool opened;
};

/* ---- The mailbox -------------------------------------------------------------------- */

static void answer(struct drive_thread *t, struct letter *letter, int result)
{
        pthread_mutex_lock(&t->lock);
        letter->result = result;
        letter->answered = true;
        pthread_cond_broadcast(&t->answered);
        pthread_mutex_unlock(&t->lock);
}

/* Sends letter and waits for the answer. */
static int ask(struct drive_thread *t, struct letter *letter)
{
        const uint64_t one = 1;

        g_assert(!pthread_equal(t->thread, pthread_self()));
        letter->link = (GList) { .data = letter };
        pthread_mutex_lock(&t->lock);
        g_queue_push_tail_link(&t->mail, &letter->link);
        pthread_mutex_unlock(&t->lock);
        if (write(t->mail_fd, &one, sizeof(one)) != sizeof(one))
                g_error("eventfd of a drive's thread: %s", g_strerror(errno));

        pthread_mutex_lock(&t->lock);
        while (!letter->answered)
                pthread_cond_wait(&t->answered, &t->lock);
        pthread_mutex_unlock(&t->lock);
        return letter->result;
}

static struct letter *mail_take(struct drive_thread *t)
{
        GList *link;

        pthread_mutex_lock(&t->lock);
        link = g_queue_pop_head_link(&t->mail);
        pthread_mutex_unlock(&t->lock);
        return link == NULL ? NULL : link->data;
}

static void report_progress(const struct letter *letter)
{
        const struct drive_control *control = letter->control;

        if (control->progress != NULL && letter->op->request->progress_total > 0)
                control->progress(control->opaque, letter->op->request->progress_done,
                                  letter->op->request->progress_total);
}

static void look_for_cancel(struct drive_thread *t, struct letter *letter)
{
        const struct drive_control *control = letter->control;

        if (letter->is_cancelled || control->is_cancelled == NULL ||
            !control->is_cancelled(control->opaque))
                return;
        letter->is_cancelled = true;
        drive_driver(t->drive)->cancel(drive_queue(t->drive), letter->op->request);
}

/* The thread itself answers, after the poll: the drive is then done with the request. */
static void control_start(struct drive_thread *t, struct letter *letter)
{
        letter->op = drive_op_take(t->drive);
        letter->op->done = NULL;
        letter->link = (GList) { .data = letter };
        g_queue_push_tail_link(&t->running, &letter->link);
        letter->control->start(t->drive, drive_op_begin(letter->op), letter->control->opaque);
}

static void deliver_mail(struct drive_thread *t)
{
        struct letter *letter;

        while ((letter = mail_take(t)) != NULL) {
                if (letter->control != NULL)
                        control_start(t, letter);
                else
                        answer(t, letter, letter->call(t->drive, letter->opaque));
        }
}

static void answer_finished(struct drive_thread *t)
{
        for (GList *link = t->running.head, *next; link != NULL; link = next) {
                struct letter *letter = link->data;
                struct drive_op *op = letter->op;

                next = link->next;
                if (op->busy) {
                        report_progress(letter);
                        look_for_cancel(t, letter);
                        continue;
                }
                g_queue_unlink(&t->running, link);
                drive_op_give_back(op);
                answer(t, letter, op->result);
        }
}

/* ---- The thread --------------------------------------------------------------------- */

static void serve(struct drive_thread *t)
{
        struct epoll_event events[EVENTS_AT_ONCE];
        int timeout_ms = t->running.length > 0 ? PROGRESS_INTERVAL_MS : -1;
        int count = epoll_wait(t->epoll_fd, events, EVENTS_AT_ONCE, timeout_ms);

        g_assert(count >= 0 || errno == EINTR);
        for (int i = 0; i < count; i++) {
                const struct drive_watch_fd *watch = events[i].data.ptr;

                if (watch != NULL)
                        watch->ready(watch->opaque);
        }
}

static void mail_rang(void *opaque)
{
        struct drive_thread *t = opaque;
        uint64_t rings;

        if (read(t->mail_fd, &rings, sizeof(rings)) < 0 && errno != EAGAIN)
                g_error("eventfd of a drive's thread: %s", g_strerror(errno));
}

static void run_loop(struct drive_thread *t)
{
        while (!t->closing) {
                int ret;

                deliver_mail(t);
                ret = drive_poll(t->drive, 0);
                /* The kernel may still write to requests' memory: there is no way out. */
                if (ret < 0 && ret != -EINTR)
                        g_error("'%s': polling: %s", drive_path(t->drive), g_strerror(-ret));
                answer_finished(t);
                if (!t->closing)
                        serve(t);
        }
}

static int epoll_add(struct drive_thread *t, int fd, struct drive_watch_fd *watch)
{
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = watch };

        return epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int open_here(struct drive_thread *t)
{
        int ret = drive_open(t->path, t->options, &t->drive, t->err);

        if (ret < 0)
                return ret;
        ret = epoll_add(t, drive_queue_fd(t->drive), NULL);
        if (ret < 0) {
                drive_close(t->drive, NULL);
                return error_set(t->err, ret, "'%s': epoll: %s", t->path, g_strerror(-ret));
        }
        return 0;
}

static void *thread_main(void *opaque)
{
        struct drive_thread *t = opaque;
        struct drive_watch_fd mail = { t->mail_fd, mail_rang, t };
        int ret = epoll_add(t, t->mail_fd, &mail);

        if (ret < 0)
                error_set(t->err, ret, "epoll: %s", g_strerror(-ret));
        else
                ret = open_here(t);
        pthread_mutex_lock(&t->lock);
        t->result = ret;
        t->opened = true;
        pthread_cond_broadcast(&t->answered);
        pthread_mutex_unlock(&t->lock);
        if (ret < 0)
                return NULL;

        run_loop(t);
        t->result = drive_close(t->drive, t->err);
        return NULL;
}

/* ---- Life --------------------------------------------------------------------------- */

static void thread_free(struct drive_thread *t)
{
        if (t->epoll_fd >= 0)
                close(t->epoll_fd);
        if (t->mail_fd >= 0)
                close(t->mail_fd);
        pthread_cond_destroy(&t->answered);
        pthread_mutex_destroy(&t->lock);
        g_free(t);
}

int drive_thread_open(const char *path, const struct drive_options *options,
                      struct drive_thread **ret_thread, struct hvb_error *err)
{
        struct drive_thread *t = g_new0(struct drive_thread, 1);
        int ret;

        error_clear(err);
        pthread_mutex_init(&t->lock, NULL);
        pthread_cond_init(&t->answered, NULL);
        t->path = path;
        t->options = options;
        t->err = err;
        t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        t->mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (t->epoll_fd < 0 || t->mail_fd < 0) {
                ret = error_set(err, -errno, "'%s': %s", path, g_strerror(errno));
                goto free_thread;
        }
        ret = -pthread_create(&t->thread, NULL, thread_main, t);
        if (ret < 0) {
                error_set(err, ret, "'%s': no thread: %s", path, g_strerror(-ret));
                goto free_thread;
        }
        pthread_mutex_lock(&t->lock);
        while (!t->opened)
                pthread_cond_wait(&t->answered, &t->lock);
        pthread_mutex_unlock(&t->lock);
        if (t->result < 0) {
                pthread_join(t->thread, NULL);
                ret = t->result;
                goto free_thread;
        }
        *ret_thread = t;
        return 0;

free_thread:
        thread_free(t);
        return ret;
}

static int call_close(struct drive *drive, void *opaque)
{
        struct drive_thread *t = opaque;

        (void) drive;
        t->closing = true;
        return 0;
}

int drive_thread_close(struct drive_thread *t, struct hvb_error *err)
{
        struct letter letter = { .call = call_close, .opaque = t };
        int ret;

        error_clear(err);
        if (t == NULL)
                return 0;
        t->err = err;
        ask(t, &letter);
        pthread_join(t->thread, NULL);
        ret = t->result;
        g_assert(t->mail.length == 0 && t->running.length == 0);
        thread_free(t);
        return ret;
}

struct drive *drive_thread_drive(struct drive_thread *t)
{
        return t->drive;
}

/* ---- What others ask for ------------------------------------------------------------ */

struct watch_change {
        struct drive_thread *thread;
        struct drive_watch_fd *watch;
};

static int call_watch(struct drive *drive, void *opaque)
{
        struct watch_change *change = opaque;

        (void) drive;
        return epoll_add(change->thread, change->watch->fd, change->watch);
}

struct drive_watch_fd *drive_thread_watch(struct drive_thread *t, int fd,
                                          void (*ready)(void *opaque), void *opaque)
{
        struct drive_watch_fd *watch = g_new(struct drive_watch_fd, 1);
        struct watch_change change = { t, watch };

        *watch = (struct drive_watch_fd) { fd, ready, opaque };
        if (drive_thread_call(t, call_watch, &change) == 0)
                return watch;
        g_free(watch);
        return NULL;
}

static int call_unwatch(struct drive *drive, void *opaque)
{
        struct watch_change *change = opaque;

        (void) drive;
        return epoll_ctl(change->thread->epoll_fd, EPOLL_CTL_DEL, change->watch->fd, NULL) < 0
                ? -errno : 0;
}

void drive_thread_unwatch(struct drive_thread *t, struct drive_watch_fd *watch)
{
        struct watch_change change = { t, watch };

        if (watch == NULL)
                return;
        drive_thread_call(t, call_unwatch, &change);
        g_free(watch);
}

int drive_thread_call(struct drive_thread *t, int (*call)(struct drive *drive, void *opaque),
                      void *opaque)
{
        struct letter letter = { .call = call, .opaque = opaque };

        return ask(t, &letter);
}

int drive_thread_run(struct drive_thread *t, const struct drive_control *control)
{
        struct letter letter = { .control = control };

        return ask(t, &letter);
}

static void start_drain(struct drive *drive, struct hvb_request *request, void *opaque)
{
        (void) opaque;
        drive_driver(drive)->drain(drive_queue(drive), request);
}

int drive_thread_drain(struct drive_thread *t)
{
        const struct drive_control control = { .start = start_drain };

        return drive_thread_run(t, &control);
}
