/*
 * peer.h - running QEMU's tools, the other side of the comparison.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef INTEROP_PEER_H
#define INTEROP_PEER_H

#include <stdbool.h>

#include <glib.h>

/* What a program said.  Clear it with peer_result_clear. */
struct peer_result {
        int status;                     /* exit status, or 128 + signal */
        char *out;
        char *err;
};

void peer_result_clear(struct peer_result *result);

/* Are qemu-img and qemu-io there? */
bool peer_exists(void);

/*
 * Runs a program with a NULL-terminated list of arguments in directory.
 * Returns its exit status; result may be NULL.
 */
int peer_run(const char *directory, struct peer_result *result, const char *const *argv);

/* The same with the arguments in the call: peer(directory, &result, "qemu-img", "check", path) */
#define peer(directory, result, ...) \
        peer_run((directory), (result), (const char *const[]) { __VA_ARGS__, NULL })

/* A program's arguments, built piecemeal. */
GPtrArray *peer_args_new(const char *program);
void peer_args_add(GPtrArray *args, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Runs and frees them. */
int peer_args_run(GPtrArray *args, const char *directory, struct peer_result *result);

#endif
