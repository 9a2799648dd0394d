/*
 * bed.h - monitors of a fake machine, and clients on real sockets.
 *
 * Clients and monitors share the test's thread: whoever waits runs the main loop.  A
 * wait that lasts too long fails the test.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_BED_H
#define MONITOR_BED_H

#include <json-glib/json-glib.h>

#include "monitor/fake-machine.h"

struct bed {
        struct machine *machine;
        struct monitors *monitors;
        char *hmp_path, *qmp_path;
        unsigned quit_count;
};

void bed_set_up(struct bed *bed, gconstpointer paths);
void bed_tear_down(struct bed *bed, gconstpointer unused);
/* Ends the monitors early; tear_down may follow. */
void bed_end_monitors(struct bed *bed);

/* Runs the main loop until it is true. */
void bed_wait(bool (*is_true)(void *opaque), void *opaque);
/* Until so many calls wait in the machine. */
void bed_wait_held(struct bed *bed, unsigned count);

struct client {
        int fd;
        GString *input;                 /* read, not yet taken */
        bool ended;                     /* the monitor has closed the connection */
};

/* Waits until somebody listens there. */
struct client *client_new(const char *path);
struct client *client_new_fd(int fd);   /* which it owns */
void client_free(struct client *client);
void client_send(struct client *client, const void *bytes, size_t count);
/* Reads up to and with marker; returns what was before it.  g_free. */
char *client_until(struct client *client, const char *marker);
void client_wait_end(struct client *client);

/* HMP: the greeting read; a line sent and what comes before the next prompt, its echo cut off. */
struct client *hmp_client_new(const struct bed *bed);
char *hmp_ask(struct client *client, const char *line);

/* QMP: negotiated; a line sent, and the reply to it or an event. */
struct client *qmp_client_new(const char *path);
JsonObject *qmp_read(struct client *client);
JsonObject *qmp_ask(struct client *client, const char *line);
/* Reads until an event of that name; returns its data or NULL. */
JsonObject *qmp_event(struct client *client, const char *name);
/* The text that qmp_ask() would give, id and all. */
char *qmp_ask_text(struct client *client, const char *line);

#endif
