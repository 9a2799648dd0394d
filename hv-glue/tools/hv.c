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
#include "monitor/monitor.h"
#include "snapshot/vm-snapshot.h"
#include "tools/hv-channel.h"
#include "tools/hv-options.h"
#include "tools/hv-terminal.h"

#ifndef HV_VERSION
#define HV_VERSION "0"
#endif

struct hv {
        struct hv_options options;
        struct terminal *terminal;      /* NULL: serial line and monitor share none */
        int serial_in;
        int serial_out;
        int monitor_fd;                 /* of the terminal */
        bool has_pid_file;              /* that is ours */
        struct machine *machine;
        struct monitors *monitors;
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

        monitors_run_state(hv->monitors, state);
        if (state == RUN_STATE_INTERNAL_ERROR && !is_attended(hv)) {
                hv->failed = true;
                quit(hv);
        }
}

/* Into the middle of a terminal that is in use goes only what its monitor prints. */
static void on_message(void *opaque, const char *text)
{
        struct hv *hv = opaque;

        monitors_message(hv->monitors, text);
        if (hv->terminal == NULL)
                complain(text);
}

static void on_shutdown(void *opaque)
{
        struct hv *hv = opaque;

        monitors_shutdown(hv->monitors, true);
        quit(hv);
}

static void on_reset(void *opaque, bool by_guest)
{
        struct hv *hv = opaque;

        monitors_reset(hv->monitors, by_guest);
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
                .reset = on_reset,
        };
        int ret;

        config.serial_in = hv->serial_in;
        config.serial_out = hv->serial_out;
        ret = machine_new(&config, &hv->machine, err);
        if (ret == 0)
                machine_set_watch(hv->machine, &watch);
        return ret;
}

static int add_monitor(struct hv *hv, struct hvb_error *err)
{
        bool is_terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);

        switch (hv->options.monitor.kind) {
        case CHANNEL_STDIO:
                if (hv->terminal != NULL)
                        return monitors_add_hmp(hv->monitors, hv->monitor_fd, hv->monitor_fd,
                                                is_terminal, err);
                return monitors_add_hmp(hv->monitors, STDIN_FILENO, STDOUT_FILENO, is_terminal,
                                        err);
        case CHANNEL_UNIX_SERVER:
                return monitors_add_hmp_socket(hv->monitors, hv->options.monitor.path, err);
        default:
                return 0;
        }
}

static int make_monitors(struct hv *hv, struct hvb_error *err)
{
        const struct monitor_host host = {
                .opaque = hv,
                .version = HV_VERSION,
                .eager = hv->options.eager,
                .quit = quit,
        };
        int ret;

        hv->monitors = monitors_new(hv->machine, &host);
        ret = add_monitor(hv, err);
        if (ret == 0 && hv->options.qmp.kind != CHANNEL_NONE)
                ret = monitors_add_qmp_socket(hv->monitors, hv->options.qmp.path, err);
        return ret;
}

/* From a snapshot, or from the start; disks that a load has left halfway only the former. */
static int start(struct hv *hv, struct hvb_error *err)
{
        const struct vm_snapshot_options options = {
                .tag = hv->options.load_tag, .eager = hv->options.eager,
        };
        g_autofree char *tag = NULL;
        int ret;

        if (options.tag != NULL)
                ret = vm_loadvm(hv->machine, &options, NULL, err);
        else
                ret = vm_loadvm_unfinished(hv->machine, &tag, err);
        if (ret > 0)
                return error_set(err, -EUCLEAN, "loadvm of '%s' was interrupted: the disks do not "
                                 "fit together.  Start with -loadvm '%s' to repeat it; or keep "
                                 "them as they are: hv-img snapshot -d 'loadvm-unfinished:%s' "
                                 "DISK", tag, tag, tag);
        if (ret == 0 && !hv->options.paused)
                ret = machine_cont(hv->machine, err);
        return ret;
}

static int write_pid_file(struct hv *hv, struct hvb_error *err)
{
        g_autofree char *text = g_strdup_printf("%d\n", getpid());
        g_autoptr(GError) error = NULL;

        if (hv->options.pid_file == NULL)
                return 0;
        if (!g_file_set_contents(hv->options.pid_file, text, -1, &error))
                return error_set(err, -EIO, "-pidfile: %s", error->message);
        hv->has_pid_file = true;
        return 0;
}

/* Only now: what opens the serial line may wait, and looks at no main loop. */
static void add_signals(struct hv *hv)
{
        g_unix_signal_add(SIGINT, on_signal, hv);
        g_unix_signal_add(SIGTERM, on_signal, hv);
        g_unix_signal_add(SIGHUP, on_signal, hv);
}

static int run(struct hv *hv, struct hvb_error *err)
{
        int ret = open_serial(hv, err);

        add_signals(hv);
        if (ret == 0)
                ret = make_machine(hv, err);
        if (ret == 0)
                ret = make_monitors(hv, err);
        if (ret == 0)
                ret = write_pid_file(hv, err);
        if (ret == 0)
                ret = start(hv, err);
        if (ret == 0)
                g_main_loop_run(hv->loop);
        return ret;
}

/* The same way back; the first error counts. */
static int take_apart(struct hv *hv, int ret, struct hvb_error *err)
{
        struct hvb_error closing = ERROR_INIT;
        int closed;

        monitors_free(hv->monitors);
        closed = machine_free(hv->machine, &closing);
        terminal_free(hv->terminal);
        if (hv->has_pid_file)
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
