/*
 * hv.c - a virtual machine with KVM and block driver plugins.
 *
 * main puts the parts together: options, the machine, monitors; then the main loop runs
 * until the guest is off or somebody quits.
 *
 * Exit status: 0; 1 when something failed, having said so.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "host/error.h"
#include "tools/hv-channel.h"
#include "tools/hv-options.h"
#include "tools/hv-terminal.h"

struct hv {
        struct hv_options options;
        struct terminal *terminal;      /* NULL: serial line and monitor share none */
        int serial_in;
        int serial_out;
        int monitor_fd;                 /* of the terminal */
        struct machine *machine;
        GMainLoop *loop;
        bool failed;
};

static void complain(const char *text)
{
        fprintf(stderr, "hv: %s\n", text);
}

/* ---- What ends it ------------------------------------------------------------------------ */

static void quit(void *opaque)
{
        struct hv *hv = opaque;

        g_main_loop_quit(hv->loop);
}

static gboolean on_signal(gpointer opaque)
{
        quit(opaque);
        return G_SOURCE_CONTINUE;
}

/* ---- What the machine tells -------------------------------------------------------------- */

/* Where nobody can look into a machine that cannot go on, there is no use in waiting. */
static bool is_attended(const struct hv *hv)
{
        return hv->options.monitor.kind != CHANNEL_NONE || hv->options.qmp.kind != CHANNEL_NONE;
}

static void on_run_state(void *opaque, enum run_state state)
{
        struct hv *hv = opaque;

        if (state == RUN_STATE_INTERNAL_ERROR && !is_attended(hv)) {
                hv->failed = true;
                quit(hv);
        }
}

static void on_message(void *opaque, const char *text)
{
        (void) opaque;
        complain(text);
}

static void on_shutdown(void *opaque)
{
        quit(opaque);
}

/* ---- Putting together -------------------------------------------------------------------- */

static int open_serial(struct hv *hv, struct hvb_error *err)
{
        struct terminal_ends ends = { .quit = quit, .opaque = hv };
        int ret;

        hv->serial_in = hv->serial_out = hv->monitor_fd = -1;
        if (!hv->options.multiplexed)
                return channel_open(&hv->options.serial, &hv->serial_in, &hv->serial_out, err);
        ret = terminal_share(&ends, &hv->terminal, err);
        hv->serial_in = hv->serial_out = ends.serial_fd;
        hv->monitor_fd = ends.monitor_fd;
        return ret;
}

static int make_machine(struct hv *hv, struct hvb_error *err)
{
        struct machine_config config = hv->options.machine;
        const struct machine_watch watch = {
                .opaque = hv,
                .run_state = on_run_state,
                .message = on_message,
                .shutdown = on_shutdown,
        };
        int ret;

        config.serial_in = hv->serial_in;
        config.serial_out = hv->serial_out;
        ret = machine_new(&config, &hv->machine, err);
        if (ret == 0)
                machine_set_watch(hv->machine, &watch);
        return ret;
}

static int write_pid_file(const struct hv *hv, struct hvb_error *err)
{
        g_autofree char *text = g_strdup_printf("%d\n", getpid());
        g_autoptr(GError) error = NULL;

        if (hv->options.pid_file == NULL)
                return 0;
        if (!g_file_set_contents(hv->options.pid_file, text, -1, &error))
                return error_set(err, -EIO, "-pidfile: %s", error->message);
        return 0;
}

static int run(struct hv *hv, struct hvb_error *err)
{
        int ret = open_serial(hv, err);

        if (ret == 0)
                ret = make_machine(hv, err);
        if (ret == 0)
                ret = write_pid_file(hv, err);
        if (ret == 0 && !hv->options.paused)
                ret = machine_cont(hv->machine, err);
        if (ret == 0)
                g_main_loop_run(hv->loop);
        return ret;
}

/* The same way back; the first error counts. */
static int take_apart(struct hv *hv, int ret, struct hvb_error *err)
{
        struct hvb_error closing = ERROR_INIT;
        int closed = machine_free(hv->machine, &closing);

        terminal_free(hv->terminal);
        if (hv->options.pid_file != NULL && hv->machine != NULL)
                unlink(hv->options.pid_file);
        if (ret == 0 && closed < 0)
                *err = closing;
        return ret < 0 ? ret : closed;
}

int main(int argc, char **argv)
{
        struct hv hv = { 0 };
        struct hvb_error err = ERROR_INIT;
        int ret;

        signal(SIGPIPE, SIG_IGN);
        hv.loop = g_main_loop_new(NULL, FALSE);
        g_unix_signal_add(SIGINT, on_signal, &hv);
        g_unix_signal_add(SIGTERM, on_signal, &hv);
        g_unix_signal_add(SIGHUP, on_signal, &hv);
        ret = hv_options_parse(&hv.options, argc, argv, &err);
        if (ret == 0) {
                ret = run(&hv, &err);
                ret = take_apart(&hv, ret, &err);
        }
        if (ret < 0)
                complain(err.text);
        hv_options_clear(&hv.options);
        g_main_loop_unref(hv.loop);
        return ret < 0 || hv.failed ? 1 : 0;
}
