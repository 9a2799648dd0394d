/*
 * hv-terminal.h - the terminal that hv was started on: for the serial line, a monitor, or
 * both by turns.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TOOLS_HV_TERMINAL_H
#define TOOLS_HV_TERMINAL_H

#include <stdbool.h>

#include "hv-block.h"

struct terminal;

struct terminal_ends {
        int serial_fd;                  /* to be used for both directions; the terminal's */
        int monitor_fd;
        void (*quit)(void *opaque);     /* Ctrl-a x */
        void *opaque;
};

/*
 * Shares standard input and output between two descriptors, which it makes.  Keys go to the
 * serial line first.  On the main thread, whose loop does the work.  0 or -errno with err
 * filled.
 */
int terminal_share(struct terminal_ends *ends, struct terminal **ret_terminal,
                   struct hvb_error *err);
/* Prints what is left.  Nobody may use the descriptors any more.  NULL is fine. */
void terminal_free(struct terminal *terminal);

/* Each key at once and without echo, if standard input is a terminal; until the process
 * exits.  Signals' keys are passed on if wanted. */
void terminal_set_raw(bool pass_signals);

#endif
