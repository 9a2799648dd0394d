/*
 * error.h - filling struct hvb_error on the host's side of the ABI.
 *
 * One dialect everywhere: a function returns 0 or a negative errno, and the place
 * that knows the fact fills the text.  Whoever passes the error on may only put
 * words in front of it.  Nobody logs and returns.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_ERROR_H
#define HOST_ERROR_H

#include "hv-block.h"

#define ERROR_INIT { .struct_bytes = sizeof(struct hvb_error) }

/* Makes err one in which nothing failed.  err may be NULL. */
void error_clear(struct hvb_error *err);

/* Fills err (may be NULL) with code, a negative errno, and a text.  Returns code. */
int error_set(struct hvb_error *err, int code, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* Puts words in front of the text of err (may be NULL). */
void error_prepend(struct hvb_error *err, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/* QEMU's question that follows a lock's refusal, on a line of its own, or "".  g_free. */
char *error_lock_hint(const char *path, const struct hvb_error *err);

/* The text of err, or strerror of code when nobody wrote one. */
const char *error_text(const struct hvb_error *err, int code);

#endif
