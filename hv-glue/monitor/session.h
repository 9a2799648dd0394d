/*
 * session.h - what the files of the monitor share.
 *
 *   monitor.c        all monitors of a machine: sockets, sessions, events
 *   server.c         a unix socket, one client at a time
 *   stream.c         a peer's bytes, bounded both ways
 *   tasks.c          worker threads
 *   jobs.c           savevm, loadvm, delvm in the background
 *   hmp.c            a person's session: prompt, line editing, progress
 *   hmp-command.c    a line becomes a call of a command
 *   hmp-commands.c   the commands
 *   qmp.c            a program's session: negotiation, calls, replies
 *   qmp-params.c     arguments judged
 *   qmp-commands.c   the commands, qmp-block.c and qmp-snapshot.c some of them
 *   json-frame.c     where a JSON object ends; json-text.c: how one is written
 *
 * A call is one command at work.  Most end before they return; those that wait hold
 * their session's input until they end.  A call outlives its session when the peer hangs
 * up: whoever waited has then forgotten it, and its answer goes nowhere.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_SESSION_H
#define MONITOR_SESSION_H

#include <json-glib/json-glib.h>

#include "monitor/jobs.h"
#include "monitor/monitor.h"
#include "monitor/server.h"
#include "monitor/stream.h"

struct monitors {
        struct machine *machine;
        struct monitor_host host;
        struct tasks *tasks;
        struct jobs *jobs;
        GPtrArray *listeners;
        GPtrArray *hmps, *qmps;         /* sessions */
        bool running;                   /* as the clients know it */
};

/* To each QMP client that has negotiated.  data: taken over; NULL for none. */
void monitors_event(struct monitors *monitors, const char *event, JsonObject *data);
/* Leaves: the "quit" of whichever monitor. */
void monitors_quit(struct monitors *monitors);

/* stop, cont, system_reset: on a worker; done back on the main thread. */
void monitors_call_machine(struct monitors *monitors,
                           int (*call)(struct machine *machine, struct hvb_error *err),
                           void (*done)(void *opaque, int result, const struct hvb_error *err),
                           void *opaque);

/* ---- HMP --------------------------------------------------------------------------- */

struct hmp_call {
        struct monitors *monitors;
        GString *output;                /* lines end with "\n" */
        struct job *job;                /* what it waits for, for showing progress, or NULL */
        /* Told when it has ended, right before it is freed; NULL: nobody waits. */
        void (*done)(void *opaque, struct hmp_call *call);
        void *opaque;
};

/* Runs a line.  Returns the call, or NULL when it has ended (done was called). */
struct hmp_call *hmp_call_start(struct monitors *monitors, const char *line,
                                void (*done)(void *opaque, struct hmp_call *call), void *opaque);
/* For commands: the call is over, its output complete. */
void hmp_call_end(struct hmp_call *call);
void hmp_call_end_error(struct hmp_call *call, const char *text);
/* Output as it goes over the wire: "\r\n", and nothing that a terminal would obey. */
char *hmp_wire_text(const char *output);

enum { HMP_ARGS_MAX = 4 };

struct hmp_command {
        const char *name;               /* "cont|c" */
        const char *params;             /* for help */
        const char *help;
        const char *flags;              /* letters of its options, or NULL */
        unsigned required_count;        /* words that it needs */
        unsigned optional_count;        /* and may get */
        /* args: words, NULL where missing; flag: the option's letter or 0. */
        void (*run)(struct hmp_call *call, char *const *args, char flag);
};
/* Both end with an entry without name. */
extern const struct hmp_command hmp_commands[];
extern const struct hmp_command hmp_info_commands[];
/* The one with that name among table, or NULL. */
const struct hmp_command *hmp_command_find(const struct hmp_command *table, const char *name);

struct hmp_session;

/* closed: the session has ended and is freed.  fds stay the caller's. */
struct hmp_session *hmp_session_new(struct monitors *monitors, int in_fd, int out_fd,
                                    bool is_terminal, void (*closed)(void *opaque),
                                    void *opaque);
void hmp_session_free(struct hmp_session *session);
void hmp_session_message(struct hmp_session *session, const char *text);

/* ---- QMP --------------------------------------------------------------------------- */

struct qmp_session;

struct qmp_call {
        struct monitors *monitors;
        struct qmp_session *session;    /* NULL: it has hung up */
        const struct qmp_command *command;
        JsonNode *request;
        JsonObject *arguments;          /* of request, judged; NULL when there are none */
};

enum qmp_type { QMP_STRING, QMP_INT, QMP_BOOL, QMP_STRINGS };

struct qmp_param {
        const char *name;
        enum qmp_type type;
        bool optional;
};

enum { QMP_PARAMS_MAX = 5 };

struct qmp_command {
        const char *name;
        void (*run)(struct qmp_call *call);
        struct qmp_param params[QMP_PARAMS_MAX + 1];    /* ends with one without name */
};

extern const struct qmp_command qmp_commands[];         /* ends with one without name */

/* 0, or -EINVAL with err: an argument is missing, of the wrong type, or unknown. */
int qmp_params_check(const struct qmp_param *params, JsonObject *arguments,
                     struct hvb_error *err);
/* Judged arguments; NULL when they were not given. */
const char *qmp_arg_string(const struct qmp_call *call, const char *name);
/* NULL-terminated.  g_strfreev. */
char **qmp_arg_strings(const struct qmp_call *call, const char *name);

/* Each call ends with one of these.  value: taken over; NULL for {}. */
void qmp_call_return(struct qmp_call *call, JsonNode *value);
void qmp_call_fail(struct qmp_call *call, const char *text);

struct qmp_session *qmp_session_new(struct monitors *monitors, int fd,
                                    void (*closed)(void *opaque), void *opaque);
void qmp_session_free(struct qmp_session *session);
/* An event, a whole line; dropped before the negotiation. */
void qmp_session_event(struct qmp_session *session, const char *line);

/* Values to return; the object or array is taken over. */
JsonNode *qmp_object(JsonObject *object);
JsonNode *qmp_array(JsonArray *array);
JsonNode *qmp_version(const struct monitors *monitors);
JsonObject *qmp_snapshot_info(const struct hvb_snapshot_info *info);

void qmp_query_block(struct qmp_call *call);
void qmp_query_named_block_nodes(struct qmp_call *call);
void qmp_snapshot_backup(struct qmp_call *call);
void qmp_snapshot_save(struct qmp_call *call);
void qmp_snapshot_load(struct qmp_call *call);
void qmp_snapshot_delete(struct qmp_call *call);
void qmp_query_jobs(struct qmp_call *call);
void qmp_job_cancel(struct qmp_call *call);
void qmp_job_dismiss(struct qmp_call *call);
void qmp_blockdev_snapshot(struct qmp_call *call);
void qmp_blockdev_snapshot_delete(struct qmp_call *call);

#endif
