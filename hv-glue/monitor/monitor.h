/*
 * monitor.h - HMP and QMP: how people and programs talk to a running machine.
 *
 * HMP is for people and for scripts that expect QEMU's prompt; QMP is JSON for programs.
 * Commands, texts and shapes are QEMU's.  A socket serves one client at a time; the
 * next one waits in the kernel.  All monitors of a machine share its jobs and events.
 *
 * Threads: everything here is called on the main thread, which runs the default
 * GMainContext.  What waits (stop, cont, snapshots) runs on worker threads, so the loop
 * goes on and other monitors are answered.
 *
 * The process ignores SIGPIPE.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include "vm/machine.h"

struct monitors;

/* What monitors ask of the process. */
struct monitor_host {
        void *opaque;
        const char *version;            /* "MAJOR.MINOR.MICRO", of hv */
        bool eager;                     /* loadvm: see struct vm_snapshot_options */
        void (*quit)(void *opaque);     /* "quit": leave the main loop.  May come again */
};

/* host's strings are borrowed. */
struct monitors *monitors_new(struct machine *machine, const struct monitor_host *host);

/*
 * Before machine_free.  Running jobs are cancelled and waited for; connections get
 * what the kernel takes at once of what they wait for, and are closed; sockets' files are
 * removed.  NULL is fine.
 */
void monitors_free(struct monitors *monitors);

/*
 * HMP over a pair of descriptors (may be the same one twice), which are made
 * non-blocking and stay the caller's; put back as they were by monitors_free or when input
 * ends.  A terminal is set to give each key at once, without echo: the monitor
 * edits the line.  Only there long commands show their progress; is_terminal says so
 * for descriptors that are none but lead to one (a multiplexer).  0 or -errno.
 */
int monitors_add_hmp(struct monitors *monitors, int in_fd, int out_fd, bool is_terminal,
                     struct hvb_error *err);

/* Listens on a new unix socket at path, mode 0600.  A dead socket's file is replaced, a
 * living one's is -EADDRINUSE.  0 or -errno with err filled. */
int monitors_add_hmp_socket(struct monitors *monitors, const char *path, struct hvb_error *err);
int monitors_add_qmp_socket(struct monitors *monitors, const char *path, struct hvb_error *err);

/*
 * What the machine tells (struct machine_watch) is to be passed on: QMP clients get
 * events, HMP clients the messages.
 */
void monitors_run_state(struct monitors *monitors, enum run_state state);
void monitors_message(struct monitors *monitors, const char *text);
void monitors_shutdown(struct monitors *monitors, bool by_guest);
void monitors_reset(struct monitors *monitors, bool by_guest);

#endif
