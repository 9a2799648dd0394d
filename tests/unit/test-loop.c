/*
 * test-loop.c - the run loop: order, waits, locks, gates, works.
 *
 * Properties: nothing runs inline, everything runs once; who was woken cannot be
 * overtaken; a cancelled wait leaves no trace and takes nothing away from others; a
 * loop with something left to do has a readable fd; the workers are gone afterwards.
 *
 * SPDX-License-Identifier: MIT
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#include "async/co.h"
#include "lib/simdisk.h"

struct world {
        struct simdisk *disk;
        struct loop loop;
        GString *log;
};

static void world_init(struct world *w, bool inline_work)
{
        w->disk = simdisk_new(NULL);
        loop_init(&w->loop, simdisk_engine_new(w->disk), inline_work);
        w->log = g_string_new(NULL);
}

static void world_clear(struct world *w)
{
        loop_clear(&w->loop);
        simdisk_free(w->disk);
        g_string_free(w->log, TRUE);
}

static void spin(struct world *w)
{
        g_assert_cmpint(loop_poll(&w->loop, 0), ==, 0);
}

static bool readable(struct world *w, int timeout_ms)
{
        struct pollfd pollfd = { .fd = loop_fd(&w->loop), .events = POLLIN };

        return poll(&pollfd, 1, timeout_ms) == 1;
}

/* ---- deferred calls and tasks ---- */

struct call {
        struct deferred deferred;
        struct world *w;
        char name;
        struct call *next;              /* deferred from inside */
};

static void call_run(struct deferred *d)
{
        struct call *call = (struct call *)d;

        g_string_append_c(call->w->log, call->name);
        if (call->next != NULL)
                loop_defer(&call->w->loop, &call->next->deferred, call_run);
}

static void test_defer(void)
{
        struct world w;
        struct call c = { .w = &w, .name = 'c' };
        struct call a = { .w = &w, .name = 'a', .next = &c };
        struct call b = { .w = &w, .name = 'b' };

        world_init(&w, true);
        loop_defer(&w.loop, &a.deferred, call_run);
        loop_defer(&w.loop, &b.deferred, call_run);
        loop_defer(&w.loop, &a.deferred, call_run);     /* queued already: once */
        g_assert_cmpstr(w.log->str, ==, "");
        spin(&w);
        g_assert_cmpstr(w.log->str, ==, "abc");
        world_clear(&w);
}

/* A call that defers itself for ever: loop_poll returns, the fd stays readable. */
static void test_endless(void)
{
        struct world w;
        struct call a = { .w = &w, .name = 'a', .next = &a };

        world_init(&w, true);
        loop_defer(&w.loop, &a.deferred, call_run);
        spin(&w);
        g_assert_cmpuint(w.log->len, >, 1);
        g_assert_true(readable(&w, 0));
        a.next = NULL;
        spin(&w);
        g_assert_false(readable(&w, 0));
        world_clear(&w);
}

static int step_wakes_itself(struct task *task)
{
        task_wake(task);
        return -EIO;
}

static void done_frees(struct task *task, int result)
{
        g_assert_cmpint(result, ==, -EIO);
        g_free(task);
}

static void test_done_frees(void)
{
        struct world w;

        world_init(&w, true);
        task_start(g_new0(struct task, 1), &w.loop, "freed", step_wakes_itself, done_frees);
        spin(&w);
        g_assert_true(g_queue_is_empty(&w.loop.tasks));
        world_clear(&w);
}

/* Waiting for ever for nothing is a lost wake-up; the simulated engine says so. */
static void test_deadlock(void)
{
        struct world w;

        world_init(&w, true);
        g_assert_cmpint(loop_poll(&w.loop, -1), ==, -EDEADLK);
        loop_notify(&w.loop);
        g_assert_cmpint(loop_poll(&w.loop, -1), ==, 0);
        world_clear(&w);
}

/* ---- tasks that wait ---- */

struct actor {
        struct task task;
        struct co co;
        struct waiter waiter;
        struct waiter pause_waiter;
        struct world *w;
        char name;
        struct waitq pause;             /* where it stays with what it has got */
        struct waitq *queue;
        struct co_lock *lock;
        struct gate *gate;
        bool done;
        int result;
};

static void note(struct actor *s, char what)
{
        g_string_append_printf(s->w->log, "%c%c ", s->name, what);
}

static int wait_step(struct task *task)
{
        struct actor *s = (struct actor *)task;

        CO_BEGIN(s);
        CO_TRY(s, done, waitq_wait(s->queue, &s->waiter));
        note(s, '!');
done:
        CO_END(s);
}

static int lock_step(struct task *task)
{
        struct actor *s = (struct actor *)task;

        CO_BEGIN(s);
        CO_TRY(s, done, co_lock_acquire(s->lock, &s->waiter));
        note(s, '+');
        CO_TRY(s, unlock, waitq_wait(&s->pause, &s->pause_waiter));
unlock:
        note(s, '-');
        co_lock_release(s->lock);
done:
        CO_END(s);
}

static int enter_step(struct task *task)
{
        struct actor *s = (struct actor *)task;

        CO_BEGIN(s);
        CO_TRY(s, done, gate_enter(s->gate, &s->waiter));
        note(s, '+');
        CO_TRY(s, leave, waitq_wait(&s->pause, &s->pause_waiter));
leave:
        note(s, '-');
        gate_leave(s->gate);
done:
        CO_END(s);
}

static int close_step(struct task *task)
{
        struct actor *s = (struct actor *)task;

        CO_BEGIN(s);
        CO_TRY(s, done, gate_close(s->gate, &s->waiter));
        note(s, '[');
        g_assert_cmpuint(s->gate->inside, ==, 0);
        CO_TRY(s, open, waitq_wait(&s->pause, &s->pause_waiter));
open:
        note(s, ']');
        gate_open(s->gate);
done:
        CO_END(s);
}

static void actor_done(struct task *task, int result)
{
        struct actor *s = (struct actor *)task;

        s->done = true;
        s->result = result;
}

static void act(struct world *w, struct actor *s, int (*step)(struct task *task))
{
        s->w = w;
        s->done = false;
        task_start(&s->task, &w->loop, "actor", step, actor_done);
        spin(w);
}

static void go_on(struct actor *s)
{
        waitq_wake_one(&s->pause);
        spin(s->w);
}

static void cancel(struct actor *s)
{
        task_cancel(&s->task);
        spin(s->w);
}

static void test_waitq(void)
{
        struct world w;
        struct waitq queue = { 0 };
        struct actor a = { .name = 'a', .queue = &queue };
        struct actor b = { .name = 'b', .queue = &queue };
        struct actor c = { .name = 'c', .queue = &queue };

        world_init(&w, true);
        act(&w, &a, wait_step);
        act(&w, &b, wait_step);
        act(&w, &c, wait_step);
        waitq_wake_one(&queue);
        g_assert_cmpstr(w.log->str, ==, "");            /* not inline */
        cancel(&b);
        g_assert_cmpint(b.result, ==, -ECANCELED);
        waitq_wake_all(&queue);
        waitq_wake_all(&queue);
        spin(&w);
        g_assert_cmpstr(w.log->str, ==, "a! c! ");
        world_clear(&w);
}

/* Woken and cancelled in one go: what was given is not lost. */
static void test_waitq_woken_cancelled(void)
{
        struct world w;
        struct waitq queue = { 0 };
        struct actor a = { .name = 'a', .queue = &queue };

        world_init(&w, true);
        act(&w, &a, wait_step);
        waitq_wake_one(&queue);
        cancel(&a);
        g_assert_cmpint(a.result, ==, 0);
        g_assert_cmpstr(w.log->str, ==, "a! ");
        world_clear(&w);
}

static void test_lock(void)
{
        struct world w;
        struct co_lock lock = { 0 };
        struct actor a = { .name = 'a', .lock = &lock };
        struct actor b = { .name = 'b', .lock = &lock };
        struct actor c = { .name = 'c', .lock = &lock };
        struct actor d = { .name = 'd', .lock = &lock };

        world_init(&w, true);
        act(&w, &a, lock_step);
        act(&w, &b, lock_step);
        act(&w, &c, lock_step);
        g_assert_cmpstr(w.log->str, ==, "a+ ");

        /* d comes in the very moment that a lets go: b was first. */
        waitq_wake_one(&a.pause);
        act(&w, &d, lock_step);
        g_assert_cmpstr(w.log->str, ==, "a+ a- b+ ");
        cancel(&c);
        g_assert_cmpint(c.result, ==, -ECANCELED);
        go_on(&b);
        go_on(&d);
        g_assert_cmpstr(w.log->str, ==, "a+ a- b+ b- d+ d- ");
        g_assert_false(lock.held);
        world_clear(&w);
}

static void test_gate(void)
{
        struct world w;
        struct gate gate = { 0 };
        struct actor a = { .name = 'a', .gate = &gate };
        struct actor b = { .name = 'b', .gate = &gate };
        struct actor x = { .name = 'x', .gate = &gate };
        struct actor c = { .name = 'c', .gate = &gate };

        world_init(&w, true);
        act(&w, &a, enter_step);
        act(&w, &b, enter_step);
        act(&w, &x, close_step);
        act(&w, &c, enter_step);
        g_assert_false(gate_try_enter(&gate));
        go_on(&b);
        g_assert_cmpstr(w.log->str, ==, "a+ b+ b- ");
        go_on(&a);
        g_assert_cmpstr(w.log->str, ==, "a+ b+ b- a- x[ ");
        go_on(&x);
        g_assert_cmpstr(w.log->str, ==, "a+ b+ b- a- x[ x] c+ ");
        go_on(&c);
        g_assert_true(gate_try_enter(&gate));
        gate_leave(&gate);
        world_clear(&w);
}

static void test_gate_two_closers(void)
{
        struct world w;
        struct gate gate = { 0 };
        struct actor x = { .name = 'x', .gate = &gate };
        struct actor y = { .name = 'y', .gate = &gate };
        struct actor a = { .name = 'a', .gate = &gate };

        world_init(&w, true);
        act(&w, &x, close_step);
        act(&w, &y, close_step);
        act(&w, &a, enter_step);
        g_assert_cmpstr(w.log->str, ==, "x[ ");
        go_on(&x);                              /* y came before a */
        g_assert_cmpstr(w.log->str, ==, "x[ x] y[ ");
        go_on(&y);
        g_assert_cmpstr(w.log->str, ==, "x[ x] y[ y] a+ ");
        go_on(&a);
        g_assert_true(x.done && y.done && a.done);
        world_clear(&w);
}

/* Closing is cancelled while somebody is inside: open again, for those outside too. */
static void test_gate_close_cancelled(void)
{
        struct world w;
        struct gate gate = { 0 };
        struct actor a = { .name = 'a', .gate = &gate };
        struct actor b = { .name = 'b', .gate = &gate };
        struct actor x = { .name = 'x', .gate = &gate };

        world_init(&w, true);
        act(&w, &a, enter_step);
        act(&w, &x, close_step);
        act(&w, &b, enter_step);
        g_assert_true(gate.closed);
        cancel(&x);
        g_assert_cmpint(x.result, ==, -ECANCELED);
        g_assert_false(gate.closed);
        g_assert_cmpstr(w.log->str, ==, "a+ b+ ");
        go_on(&a);
        go_on(&b);

        act(&w, &x, close_step);                /* and can be closed as ever */
        g_assert_true(gate.closed);
        cancel(&x);                             /* closed, not closing: its owner opens */
        g_assert_cmpstr(w.log->str, ==, "a+ b+ a- b- x[ x] ");
        g_assert_cmpint(x.result, ==, -ECANCELED);
        world_clear(&w);
}

static void test_gate_enter_cancelled(void)
{
        struct world w;
        struct gate gate = { 0 };
        struct actor x = { .name = 'x', .gate = &gate };
        struct actor a = { .name = 'a', .gate = &gate };

        world_init(&w, true);
        act(&w, &x, close_step);
        act(&w, &a, enter_step);
        cancel(&a);
        g_assert_cmpint(a.result, ==, -ECANCELED);
        g_assert_cmpuint(gate.inside, ==, 0);
        go_on(&x);
        g_assert_true(g_queue_is_empty(&gate.outside.waiters));
        world_clear(&w);
}

static void collect(void *opaque, const char *text)
{
        g_ptr_array_add(opaque, g_strdup(text));
}

static void test_dump(void)
{
        struct world w;
        struct waitq queue = { 0 };
        struct actor a = { .name = 'a', .queue = &queue };
        GPtrArray *lines = g_ptr_array_new_with_free_func(g_free);
        char *expected;

        world_init(&w, true);
        act(&w, &a, wait_step);
        loop_dump(&w.loop, collect, lines);
        g_assert_cmpuint(lines->len, ==, 1);
        expected = g_strdup_printf("actor  %s:%u", __FILE__, a.co.line);
        g_assert_cmpstr(g_ptr_array_index(lines, 0), ==, expected);
        waitq_wake_all(&queue);
        spin(&w);
        loop_dump(&w.loop, collect, lines);
        g_assert_cmpuint(lines->len, ==, 1);
        g_free(expected);
        g_ptr_array_free(lines, TRUE);
        world_clear(&w);
}

/* ---- works ---- */

enum { WORK_COUNT = 500 };

struct job {
        struct task task;
        struct co co;
        struct work work;
        struct world *w;
        GThread *thread;                /* where it ran */
        sigset_t blocked;               /* there */
        unsigned input;
        unsigned output;
        unsigned *left;
        int result;
};

static int square(struct work *work)
{
        struct job *job = (struct job *)((char *)work - offsetof(struct job, work));

        pthread_sigmask(SIG_BLOCK, NULL, &job->blocked);
        job->thread = g_thread_self();
        job->output = job->input * job->input;
        return job->input % 7 == 0 ? -EILSEQ : 0;
}

static int job_step(struct task *task)
{
        struct job *s = (struct job *)task;

        s->work.run = square;
        CO_BEGIN(s);
        CO_TRY(s, done, work_await(&s->w->loop, &s->work));
done:
        CO_END(s);
}

static void job_done(struct task *task, int result)
{
        struct job *s = (struct job *)task;

        s->result = result;
        --*s->left;
}

static unsigned thread_count(void)
{
        DIR *dir = opendir("/proc/self/task");
        unsigned count = 0;

        g_assert_nonnull(dir);
        while (readdir(dir) != NULL)
                count++;
        closedir(dir);
        return count;
}

/* A thread that was joined may be in the list a moment longer. */
static void expect_threads(unsigned count)
{
        gint64 until = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND;

        while (thread_count() != count && g_get_monotonic_time() < until)
                g_thread_yield();
        g_assert_cmpuint(thread_count(), ==, count);
}

static void check_works(bool inline_work)
{
        struct job *jobs = g_new0(struct job, WORK_COUNT);
        unsigned threads_before = thread_count();
        unsigned left = WORK_COUNT;
        struct world w;
        unsigned i;

        world_init(&w, inline_work);
        for (i = 0; i < WORK_COUNT; i++) {
                jobs[i].w = &w;
                jobs[i].input = i;
                jobs[i].left = &left;
                task_start(&jobs[i].task, &w.loop, "job", job_step, job_done);
        }
        while (left > 0)
                g_assert_cmpint(loop_poll(&w.loop, -1), ==, 0);
        for (i = 0; i < WORK_COUNT; i++) {
                g_assert_cmpuint(jobs[i].output, ==, i * i);
                g_assert_cmpint(jobs[i].result, ==, i % 7 == 0 ? -EILSEQ : 0);
                g_assert_true((jobs[i].thread == g_thread_self()) == inline_work);
                g_assert_cmpint(sigismember(&jobs[i].blocked, SIGTERM), ==, !inline_work);
                g_assert_cmpint(sigismember(&jobs[i].blocked, SIGSYS), ==, 0);
        }
        world_clear(&w);
        expect_threads(threads_before);
        g_free(jobs);
}

static void test_works(void)
{
        check_works(false);
}

static void test_works_inline(void)
{
        check_works(true);
}

/* A host that sleeps on the fd hears of finished work. */
static void test_works_fd(void)
{
        struct world w;
        unsigned left = 1;
        struct job job = { .w = &w, .input = 3, .left = &left };

        world_init(&w, false);
        task_start(&job.task, &w.loop, "job", job_step, job_done);
        spin(&w);
        while (left > 0) {
                g_assert_true(readable(&w, 10000));
                spin(&w);
        }
        g_assert_cmpuint(job.output, ==, 9);
        g_assert_false(readable(&w, 0));
        world_clear(&w);
}

static gpointer do_nothing(gpointer data)
{
        return data;
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        /* The thread sanitizer's own thread comes with the first and stays. */
        g_thread_join(g_thread_new("first", do_nothing, NULL));
        g_test_add_func("/loop/defer", test_defer);
        g_test_add_func("/loop/endless", test_endless);
        g_test_add_func("/loop/done-frees", test_done_frees);
        g_test_add_func("/loop/deadlock", test_deadlock);
        g_test_add_func("/loop/waitq", test_waitq);
        g_test_add_func("/loop/waitq-woken-cancelled", test_waitq_woken_cancelled);
        g_test_add_func("/loop/lock", test_lock);
        g_test_add_func("/loop/gate", test_gate);
        g_test_add_func("/loop/gate-two-closers", test_gate_two_closers);
        g_test_add_func("/loop/gate-close-cancelled", test_gate_close_cancelled);
        g_test_add_func("/loop/gate-enter-cancelled", test_gate_enter_cancelled);
        g_test_add_func("/loop/dump", test_dump);
        g_test_add_func("/loop/works", test_works);
        g_test_add_func("/loop/works-inline", test_works_inline);
        g_test_add_func("/loop/works-fd", test_works_fd);
        return g_test_run();
}
