/*
 * test-co.c - the coroutine macros.
 *
 * Properties: a coroutine goes on where it waited, however deep that is; the first
 * error is the one returned; what was done is taken back in reverse, even by a
 * cancelled task; an undo that fails is counted and changes nothing else; the trace
 * names every place that waits, the leaf first.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "async/co.h"
#include "lib/simdisk.h"

enum { STEPS_MAX = 4 };

/* A leaf that waits until the test lets it go, and a log of what was called. */
struct stage {
        struct waitq queue;
        GString *calls;
        int fail_step;                  /* this step fails with -EIO; 0: none */
        bool fail_undo;
};

struct leaf {
        struct waiter waiter;
        bool entered;
};

struct child {
        struct co co;
        struct leaf leaf;
};

struct ladder {
        struct co co;
        struct stage *stage;
        struct child child[STEPS_MAX];
        struct child undo[STEPS_MAX];
};

struct run {
        struct task task;
        struct ladder ladder;
        struct stage stage;
        struct simdisk *disk;
        struct loop loop;
        bool done;
        int result;
};

static int leaf_wait(struct stage *stage, struct leaf *leaf, const char *name)
{
        if (!leaf->entered)
                g_string_append_printf(stage->calls, "%s ", name);
        leaf->entered = true;
        return waitq_wait(&stage->queue, &leaf->waiter);
}

static int child_do(struct child *s, struct stage *stage, int step)
{
        static const char *const names[] = { "", "one", "two", "three" };

        CO_BEGIN(s);
        CO_TRY(s, done, leaf_wait(stage, &s->leaf, names[step]));
        if (stage->fail_step == step)
                CO_FAIL(s, done, -EIO);
done:
        s->leaf.entered = false;
        CO_END(s);
}

static int child_undo(struct child *s, struct stage *stage, int step)
{
        static const char *const names[] = { "", "un-one", "un-two", "un-three" };

        CO_BEGIN(s);
        CO_TRY(s, done, leaf_wait(stage, &s->leaf, names[step]));
        if (stage->fail_undo)
                CO_FAIL(s, done, -ENOSPC);
done:
        s->leaf.entered = false;
        CO_END(s);
}

static int ladder_climb(struct ladder *s)
{
        struct stage *stage = s->stage;

        CO_BEGIN(s);
        CO_TRY(s, done, child_do(&s->child[1], stage, 1));
        CO_TRY(s, one,  child_do(&s->child[2], stage, 2));
        CO_TRY(s, two,  child_do(&s->child[3], stage, 3));
        goto done;
two:
        CO_UNDO(s, child_undo(&s->undo[2], stage, 2));
one:
        CO_UNDO(s, child_undo(&s->undo[1], stage, 1));
done:
        CO_END(s);
}

static int run_step(struct task *task)
{
        return ladder_climb(&((struct run *)task)->ladder);
}

static void run_done(struct task *task, int result)
{
        struct run *run = (struct run *)task;

        run->done = true;
        run->result = result;
}

static struct run *run_new(void)
{
        struct run *run = g_new0(struct run, 1);

        run->disk = simdisk_new(NULL);
        loop_init(&run->loop, simdisk_engine_new(run->disk), true);
        run->stage.calls = g_string_new(NULL);
        run->ladder.stage = &run->stage;
        return run;
}

static void run_free(struct run *run)
{
        loop_clear(&run->loop);
        simdisk_free(run->disk);
        g_string_free(run->stage.calls, TRUE);
        g_free(run);
}

static void poll_once(struct run *run)
{
        g_assert_cmpint(loop_poll(&run->loop, 0), ==, 0);
}

static void run_begin(struct run *run)
{
        run->done = false;
        g_string_truncate(run->stage.calls, 0);
        task_start(&run->task, &run->loop, "climb", run_step, run_done);
        poll_once(run);
}

/* Lets every leaf go; returns how often that was necessary. */
static unsigned run_to_end(struct run *run)
{
        unsigned wakes;

        for (wakes = 0; !run->done; wakes++) {
                g_assert_cmpuint(wakes, <, 100);
                waitq_wake_one(&run->stage.queue);
                poll_once(run);
        }
        return wakes;
}

static void test_order(void)
{
        struct run *run = run_new();

        run_begin(run);
        g_assert_cmpstr(run->stage.calls->str, ==, "one ");
        g_assert_cmpuint(run_to_end(run), ==, 3);
        g_assert_cmpint(run->result, ==, 0);
        g_assert_cmpstr(run->stage.calls->str, ==, "one two three ");

        /* A frame may be used again as it is. */
        run_begin(run);
        g_assert_cmpuint(run_to_end(run), ==, 3);
        g_assert_cmpstr(run->stage.calls->str, ==, "one two three ");
        run_free(run);
}

static void test_spurious_wake(void)
{
        struct run *run = run_new();
        unsigned i;

        run_begin(run);
        for (i = 0; i < 10; i++) {
                task_wake(&run->task);
                poll_once(run);
        }
        g_assert_cmpstr(run->stage.calls->str, ==, "one ");
        g_assert_cmpuint(run_to_end(run), ==, 3);
        run_free(run);
}

static void check_undo(int fail_step, const char *calls)
{
        struct run *run = run_new();

        run->stage.fail_step = fail_step;
        run_begin(run);
        run_to_end(run);
        g_assert_cmpint(run->result, ==, -EIO);
        g_assert_cmpstr(run->stage.calls->str, ==, calls);
        g_assert_cmpuint(run->loop.leaks, ==, 0);
        run_free(run);
}

static void test_undo(void)
{
        check_undo(1, "one ");
        check_undo(2, "one two un-one ");
        check_undo(3, "one two three un-two un-one ");
}

static void test_undo_fails(void)
{
        struct run *run = run_new();

        run->stage.fail_step = 3;
        run->stage.fail_undo = true;
        run_begin(run);
        run_to_end(run);
        g_assert_cmpint(run->result, ==, -EIO);
        g_assert_cmpstr(run->stage.calls->str, ==, "one two three un-two un-one ");
        g_assert_cmpuint(run->loop.leaks, ==, 2);
        run_free(run);
}

/* The leaf returns -ECANCELED at once, and the undo waits all the same. */
static void test_cancel(void)
{
        struct run *run = run_new();

        run_begin(run);
        waitq_wake_one(&run->stage.queue);
        poll_once(run);
        task_cancel(&run->task);
        poll_once(run);
        g_assert_cmpstr(run->stage.calls->str, ==, "one two un-one ");
        g_assert_false(run->done);

        g_assert_cmpuint(run_to_end(run), ==, 1);
        g_assert_cmpint(run->result, ==, -ECANCELED);
        g_assert_cmpuint(run->loop.leaks, ==, 0);
        run_free(run);
}

/* Cancelled in the middle of an undo: nothing changes. */
static void test_cancel_undo(void)
{
        struct run *run = run_new();

        run->stage.fail_step = 3;
        run_begin(run);
        while (strstr(run->stage.calls->str, "un-two") == NULL) {
                waitq_wake_one(&run->stage.queue);
                poll_once(run);
        }
        task_cancel(&run->task);
        poll_once(run);
        run_to_end(run);
        g_assert_cmpint(run->result, ==, -EIO);
        g_assert_cmpstr(run->stage.calls->str, ==, "one two three un-two un-one ");
        g_assert_cmpuint(run->loop.leaks, ==, 0);
        run_free(run);
}

static void test_trace(void)
{
        struct run *run = run_new();
        const struct task *task = &run->task;

        run_begin(run);
        g_assert_cmpuint(task->trace_count, ==, 2);
        g_assert_cmpstr(task->trace[0].file, ==, __FILE__);
        g_assert_cmpuint(task->trace[0].line, ==, run->ladder.child[1].co.line);
        g_assert_cmpuint(task->trace[1].line, ==, run->ladder.co.line);

        /* A spurious resume does not make it longer. */
        task_wake(&run->task);
        poll_once(run);
        g_assert_cmpuint(task->trace_count, ==, 2);
        run_to_end(run);
        run_free(run);
}

static int pend_often(struct task *task)
{
        unsigned i;

        if (task->cancelled)
                return -ECANCELED;
        for (i = 1; i <= TASK_TRACE_DEPTH + 3; i++)
                co_pending("deep.c", i);
        return CO_PENDING;
}

static void test_trace_limit(void)
{
        struct run *run = run_new();

        task_start(&run->task, &run->loop, "deep", pend_often, run_done);
        poll_once(run);
        g_assert_cmpuint(run->task.trace_count, ==, TASK_TRACE_DEPTH);
        g_assert_cmpuint(run->task.trace[0].line, ==, 1);
        task_cancel(&run->task);
        poll_once(run);
        g_assert_true(run->done);
        run_free(run);
}

static void test_bad_resume(void)
{
        struct ladder ladder = { .co.line = 1 };
        struct stage stage = { .fail_step = 0 };

        if (g_test_subprocess()) {
                ladder.stage = &stage;
                ladder_climb(&ladder);
                return;
        }
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_failed();
        g_test_trap_assert_stderr("*test-co.c:1:*no await*");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/co/order", test_order);
        g_test_add_func("/co/spurious-wake", test_spurious_wake);
        g_test_add_func("/co/undo", test_undo);
        g_test_add_func("/co/undo-fails", test_undo_fails);
        g_test_add_func("/co/cancel", test_cancel);
        g_test_add_func("/co/cancel-undo", test_cancel_undo);
        g_test_add_func("/co/trace", test_trace);
        g_test_add_func("/co/trace-limit", test_trace_limit);
        g_test_add_func("/co/bad-resume", test_bad_resume);
        return g_test_run();
}
