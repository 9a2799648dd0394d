/*
 * monitor.c - all monitors of a machine: sockets, sessions, events.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include "host/error.h"
#include "monitor/json-text.h"
#include "monitor/session.h"

/* A way in: a socket, or a pair of descriptors that is a session for ever. */
struct listener {
        struct monitors *monitors;
        struct server *server;          /* NULL: a pair */
        bool is_qmp;
        int in_fd, out_fd;              /* of the session; -1: nobody is connected */
        struct hmp_session *hmp;
        struct qmp_session *qmp;
        int in_flags, out_flags;        /* of a pair, as they were */
        bool has_mode;
        struct termios mode;
};

/* ---- Sessions begin and end --------------------------------------------------------- */

static void restore_pair(struct listener *l)
{
        if (l->has_mode)
                tcsetattr(l->in_fd, TCSADRAIN, &l->mode);
        fcntl(l->out_fd, F_SETFL, l->out_flags);
        fcntl(l->in_fd, F_SETFL, l->in_flags);
}

static void end_session(struct listener *l)
{
        if (l->hmp != NULL) {
                g_ptr_array_remove(l->monitors->hmps, l->hmp);
                hmp_session_free(l->hmp);
        }
        if (l->qmp != NULL) {
                g_ptr_array_remove(l->monitors->qmps, l->qmp);
                qmp_session_free(l->qmp);
        }
        if (l->in_fd >= 0 && l->server == NULL)
                restore_pair(l);
        else if (l->in_fd >= 0)
                close(l->in_fd);
        l->hmp = NULL;
        l->qmp = NULL;
        l->in_fd = l->out_fd = -1;
}

static void session_closed(void *opaque)
{
        struct listener *l = opaque;

        end_session(l);
        if (l->server != NULL)
                server_next(l->server);
}

static void begin_session(struct listener *l, bool is_terminal)
{
        if (l->is_qmp) {
                l->qmp = qmp_session_new(l->monitors, l->in_fd, session_closed, l);
                g_ptr_array_add(l->monitors->qmps, l->qmp);
        } else {
                l->hmp = hmp_session_new(l->monitors, l->in_fd, l->out_fd, is_terminal,
                                         session_closed, l);
                g_ptr_array_add(l->monitors->hmps, l->hmp);
        }
}

static void accepted(struct server *server, int fd, void *opaque)
{
        struct listener *l = opaque;

        (void) server;
        l->in_fd = l->out_fd = fd;
        begin_session(l, false);
}

static void listener_free(gpointer data)
{
        struct listener *l = data;

        end_session(l);
        if (l->server != NULL)
                server_free(l->server);
        g_free(l);
}

static struct listener *listener_new(struct monitors *monitors, bool is_qmp)
{
        struct listener *l = g_new0(struct listener, 1);

        l->monitors = monitors;
        l->is_qmp = is_qmp;
        l->in_fd = l->out_fd = -1;
        return l;
}

static int add_socket(struct monitors *monitors, const char *path, bool is_qmp,
                      struct hvb_error *err)
{
        struct listener *l = listener_new(monitors, is_qmp);
        int ret = server_new(path, accepted, l, &l->server, err);

        if (ret < 0)
                g_free(l);
        else
                g_ptr_array_add(monitors->listeners, l);
        return ret;
}

int monitors_add_hmp_socket(struct monitors *monitors, const char *path, struct hvb_error *err)
{
        return add_socket(monitors, path, false, err);
}

int monitors_add_qmp_socket(struct monitors *monitors, const char *path, struct hvb_error *err)
{
        return add_socket(monitors, path, true, err);
}

/* Keys one by one and without echo; signals and the output's newlines stay. */
static void set_terminal(struct listener *l)
{
        struct termios mode;

        if (tcgetattr(l->in_fd, &l->mode) < 0)
                return;
        mode = l->mode;
        mode.c_lflag &= ~(tcflag_t) (ICANON | ECHO);
        mode.c_iflag &= ~(tcflag_t) ICRNL;
        mode.c_cc[VMIN] = 1;
        mode.c_cc[VTIME] = 0;
        l->has_mode = tcsetattr(l->in_fd, TCSADRAIN, &mode) == 0;
}

int monitors_add_hmp(struct monitors *monitors, int in_fd, int out_fd, bool is_terminal,
                     struct hvb_error *err)
{
        int in_flags = fcntl(in_fd, F_GETFL), out_flags = fcntl(out_fd, F_GETFL);
        struct listener *l;

        if (in_flags < 0 || out_flags < 0)
                return error_set(err, -EBADF, "The monitor's input or output is closed");
        l = listener_new(monitors, false);
        l->in_fd = in_fd;
        l->out_fd = out_fd;
        l->in_flags = in_flags;
        l->out_flags = out_flags;
        fcntl(in_fd, F_SETFL, in_flags | O_NONBLOCK);
        fcntl(out_fd, F_SETFL, fcntl(out_fd, F_GETFL) | O_NONBLOCK);
        set_terminal(l);
        g_ptr_array_add(monitors->listeners, l);
        begin_session(l, is_terminal || isatty(out_fd));
        return 0;
}

/* ---- Events ------------------------------------------------------------------------- */

void monitors_event(struct monitors *monitors, const char *event, JsonObject *data)
{
        g_autoptr(GString) line = g_string_new(NULL);
        gint64 now_usec = g_get_real_time();

        g_string_printf(line, "{\"timestamp\": {\"seconds\": %" G_GINT64_FORMAT
                        ", \"microseconds\": %" G_GINT64_FORMAT "}, \"event\": \"%s\"",
                        now_usec / G_USEC_PER_SEC, now_usec % G_USEC_PER_SEC, event);
        if (data != NULL) {
                g_autoptr(JsonNode) node = qmp_object(data);

                g_string_append(line, ", \"data\": ");
                json_text_append(line, node);
        }
        g_string_append(line, "}\r\n");
        for (guint i = 0; i < monitors->qmps->len; i++)
                qmp_session_event(g_ptr_array_index(monitors->qmps, i), line->str);
}

static JsonObject *reason(bool by_guest, const char *text)
{
        JsonObject *data = json_object_new();

        json_object_set_boolean_member(data, "guest", by_guest);
        json_object_set_string_member(data, "reason", text);
        return data;
}

void monitors_run_state(struct monitors *monitors, enum run_state state)
{
        bool running = state == RUN_STATE_RUNNING;

        if (running != monitors->running)
                monitors_event(monitors, running ? "RESUME" : "STOP", NULL);
        monitors->running = running;
}

void monitors_message(struct monitors *monitors, const char *text)
{
        for (guint i = 0; i < monitors->hmps->len; i++)
                hmp_session_message(g_ptr_array_index(monitors->hmps, i), text);
}

void monitors_shutdown(struct monitors *monitors, bool by_guest)
{
        monitors_event(monitors, "SHUTDOWN",
                       reason(by_guest, by_guest ? "guest-shutdown" : "host-signal"));
}

void monitors_reset(struct monitors *monitors, bool by_guest)
{
        monitors_event(monitors, "RESET",
                       reason(by_guest, by_guest ? "guest-reset" : "host-qmp-system-reset"));
}

void monitors_quit(struct monitors *monitors)
{
        monitors_event(monitors, "SHUTDOWN", reason(false, "host-qmp-quit"));
        monitors->host.quit(monitors->host.opaque);
}

static void job_changed(void *opaque, const struct job *job)
{
        JsonObject *data = json_object_new();

        json_object_set_string_member(data, "status", job_status_name(job->status));
        json_object_set_string_member(data, "id", job->request.id);
        monitors_event(opaque, "JOB_STATUS_CHANGE", data);
}

/* ---- Calls of the machine ----------------------------------------------------------- */

struct machine_task {
        struct task task;
        struct machine *machine;
        int (*call)(struct machine *machine, struct hvb_error *err);
        void (*done)(void *opaque, int result, const struct hvb_error *err);
        void *opaque;
        int result;
        struct hvb_error err;
};

static void machine_task_run(struct task *task)
{
        struct machine_task *t = (struct machine_task *) task;

        t->result = t->call(t->machine, &t->err);
}

static void machine_task_done(struct task *task)
{
        struct machine_task *t = (struct machine_task *) task;

        t->done(t->opaque, t->result, &t->err);
        g_free(t);
}

void monitors_call_machine(struct monitors *monitors,
                           int (*call)(struct machine *machine, struct hvb_error *err),
                           void (*done)(void *opaque, int result, const struct hvb_error *err),
                           void *opaque)
{
        struct machine_task *t = g_new0(struct machine_task, 1);

        *t = (struct machine_task) {
                .task = { .run = machine_task_run, .done = machine_task_done },
                .machine = monitors->machine,
                .call = call, .done = done, .opaque = opaque,
                .err = ERROR_INIT,
        };
        tasks_push(monitors->tasks, TASK_LANE_MACHINE, &t->task);
}

/* ---- Beginning and end -------------------------------------------------------------- */

struct monitors *monitors_new(struct machine *machine, const struct monitor_host *host)
{
        struct monitors *monitors = g_new0(struct monitors, 1);

        monitors->machine = machine;
        monitors->host = *host;
        monitors->tasks = tasks_new();
        monitors->jobs = jobs_new(machine, monitors->tasks, job_changed, monitors);
        jobs_set_eager(monitors->jobs, host->eager);
        monitors->listeners = g_ptr_array_new_with_free_func(listener_free);
        monitors->hmps = g_ptr_array_new();
        monitors->qmps = g_ptr_array_new();
        monitors->running = machine_run_state(machine) == RUN_STATE_RUNNING;
        return monitors;
}

void monitors_free(struct monitors *monitors)
{
        if (monitors == NULL)
                return;
        jobs_cancel_all(monitors->jobs);
        tasks_free(monitors->tasks);    /* what waits, ends; clients hear of it */
        g_ptr_array_unref(monitors->listeners);
        jobs_free(monitors->jobs);
        g_ptr_array_unref(monitors->hmps);
        g_ptr_array_unref(monitors->qmps);
        g_free(monitors);
}
