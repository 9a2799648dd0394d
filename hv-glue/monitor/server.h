/*
 * server.h - a unix socket that serves one client at a time.
 *
 * While a client is connected nobody else is accepted: the next one waits in the
 * kernel, as with QEMU's monitors.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_SERVER_H
#define MONITOR_SERVER_H

#include "hv-block.h"

struct server;

/* A socket that listens at path, close-on-exec, for this user alone; its descriptor, or -errno.
 * A dead one there is replaced; anything else stands in the way. */
int server_listen(const char *path);

/* accepted gets a non-blocking descriptor, which it closes; server_next when it is done. */
int server_new(const char *path, void (*accepted)(struct server *server, int fd, void *opaque),
               void *opaque, struct server **ret_server, struct hvb_error *err);
/* Removes the socket's file. */
void server_free(struct server *server);
/* The client is gone; the next, please. */
void server_next(struct server *server);

#endif
