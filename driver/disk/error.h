/*
 * error.h - filling in the host's hvb_error.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef DISK_ERROR_H
#define DISK_ERROR_H

#include "hv-block.h"

/* Returns code.  Fills err unless it is NULL or already filled: the place that
 * knows the fact speaks first. */
int error_set(struct hvb_error *err, int code, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* Puts words before a text that is there. */
void error_prefix(struct hvb_error *err, const char *words);

#endif
