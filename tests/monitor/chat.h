/*
 * chat.h - any bytes at all to a monitor, and what must hold of what comes back.
 *
 *  1. The session ends when its input has: nothing hangs.
 *  2. QMP answers in lines; each is a JSON object with a greeting, an event, a
 *     return value or an error.
 *  3. HMP's output has no control characters but those that move to the next line and erase,
 *     whatever was sent, so no escape sequences.
 *  4. Output is bounded by input.
 *
 * What does not hold ends the process with g_error().
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_CHAT_H
#define MONITOR_CHAT_H

#include "monitor/fake-machine.h"

/* Decoded from two bytes in front of the input, for fuzzers: see chat_decode. */
struct chat {
        bool is_qmp;
        bool negotiates;                /* QMP: before the input */
        bool hangs_up;                  /* at once, answers unread; else it waits for them */
        size_t piece_bytes;             /* sent at a time; > 0 */
        const uint8_t *input;
        size_t input_bytes;
};

/* bytes: [flags] [piece] input.  Any bytes are some chat. */
void chat_decode(struct chat *chat, const uint8_t *bytes, size_t count);

/* A machine for chat_run; at most one disk. */
struct machine *chat_machine_new(unsigned disk_count);
/* Runs it on monitors of its own; leaves the machine as it was.  Returns what came back,
 * where the client waited for it.  g_free. */
char *chat_run(struct machine *machine, const struct chat *chat);

/* What people and programs send: texts to mutate, NULL-terminated. */
extern const char *const chat_hmp_texts[];
extern const char *const chat_qmp_texts[];

#endif
