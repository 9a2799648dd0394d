/*
 * co.h - stackless coroutines with child frames.
 *
 * A coroutine is a function over a frame struct whose first use of `co` is
 * between CO_BEGIN and CO_END.  It returns 0 (done), a negative errno, or
 * CO_PENDING: call me again.  A child's frame is a member of its parent's; the
 * root (a task, loop.h) is called again when something it waits for happened,
 * and walks down to the leaf that waited.
 *
 * Rules, checked by tests/tidy and by the compiler where it can:
 *  1. What outlives a wait lives in the frame.  A local does not.
 *  2. The awaited call is made again at each resume, so its arguments are frame
 *     fields or derive from them.
 *  3. No `switch` around an await; at most one await on a source line.
 *  4. A child that fails has undone its own work.  A failing undo never replaces
 *     the first error; it is counted as a leak.
 *  5. A frame starts zeroed.  After CO_END it may be used again as it is.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef ASYNC_CO_H
#define ASYNC_CO_H

enum { CO_PENDING = 1 };

struct co {
        unsigned line;          /* where to resume; 0: not begun */
        int ret;                /* what the last awaited call returned */
        int err;                /* the first error, returned at CO_END */
};

/* Notes the place in the live-operation trace of the running task. */
int co_pending(const char *file, unsigned line);

/* A resume that matches no await: a `switch` swallowed a label.  Aborts. */
void co_bad_resume(const char *file, unsigned line) __attribute__((noreturn));

/* An undo step failed: clusters leak.  Counted in the running task's loop. */
void co_leak(int error);

/* Around a call whose waits a cancelled task may still make. */
void co_shield_begin(void);
void co_shield_end(void);

#define co_shielded(call)                                                       \
        __extension__ ({                                                        \
                int co_shielded_ret;                                            \
                                                                                \
                co_shield_begin();                                              \
                co_shielded_ret = (call);                                       \
                co_shield_end();                                                \
                co_shielded_ret;                                                \
        })

#define CO_BEGIN(s)                                                             \
        switch ((s)->co.line) {                                                 \
        default:                                                                \
                co_bad_resume(__FILE__, (s)->co.line);                          \
        case 0:                                                                 \
                (s)->co.err = 0;

/* Ends the coroutine with the first error, or 0.  A label may stand before it, which
 * before C23 needs a statement. */
#define CO_END(s)                                                               \
        ;                                                                       \
        }                                                                       \
        (s)->co.line = 0;                                                       \
        return (s)->co.err

/* Waits for call; its result is in (s)->co.ret. */
#define CO_AWAIT(s, call)                                                       \
        do {                                                                    \
                (s)->co.line = __LINE__;                                        \
                __attribute__((fallthrough));                                   \
        case __LINE__:                                                          \
                (s)->co.ret = (call);                                           \
                if ((s)->co.ret == CO_PENDING)                                  \
                        return co_pending(__FILE__, __LINE__);                  \
        } while (0)

/* Fails with error (unless something failed before): goes to label. */
#define CO_FAIL(s, label, error)                                                \
        do {                                                                    \
                if ((s)->co.err == 0)                                           \
                        (s)->co.err = (error);                                  \
                goto label;                                                     \
        } while (0)

/* Waits for call; on error goes to label. */
#define CO_TRY(s, label, call)                                                  \
        do {                                                                    \
                CO_AWAIT(s, call);                                              \
                if ((s)->co.ret < 0)                                            \
                        CO_FAIL(s, label, (s)->co.ret);                         \
        } while (0)

/* Waits for call, which takes back what an earlier step did; it is not cancelled. */
#define CO_UNDO(s, call)                                                        \
        do {                                                                    \
                CO_AWAIT(s, co_shielded(call));                                 \
                if ((s)->co.ret < 0)                                            \
                        co_leak((s)->co.ret);                                   \
        } while (0)

#endif
