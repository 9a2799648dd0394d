/*
 * co.c - what the coroutine macros need outside of themselves.
 *
 * Each step of a task leaves behind the places where it waits: CO_AWAIT notes
 * its own on the way out, so the leaf comes first and the root last.  That trace
 * is the list of live operations that a host can ask for.
 *
 * Invariants:
 *  1. A trace is complete or cut at the root's end, never mixed from two steps.
 *  2. A failed undo step is counted in the loop whose task it belongs to.
 *
 * SPDX-License-Identifier: MIT
 */
#include "async/co.h"

#include "async/loop.h"

int co_pending(const char *file, unsigned line)
{
        struct task *task = task_current();

        if (task->trace_count < TASK_TRACE_DEPTH) {
                task->trace[task->trace_count].file = file;
                task->trace[task->trace_count].line = line;
                task->trace_count++;
        }
        return CO_PENDING;
}

void co_bad_resume(const char *file, unsigned line)
{
        g_assertion_message("co", file, line, "CO_BEGIN", "no await to resume at in this line");
        __builtin_trap();       /* it did not return, but does not say so to the compiler */
}

void co_leak(int error)
{
        g_assert(error < 0);
        task_current()->loop->leaks++;
}

void co_shield_begin(void)
{
        task_current()->shield_count++;
}

void co_shield_end(void)
{
        struct task *task = task_current();

        g_assert(task->shield_count > 0);
        task->shield_count--;
}
