/*
 * machine.h - a virtual machine: memory, vcpus, devices, disks, and whether it runs.
 *
 * Threads: each vcpu has one, each disk has one (drive-thread.h); the main thread runs a GMainLoop with monitors and the
 * serial line; jobs (savevm, ...) run on worker threads.  Functions here are called from any thread but vcpus' and disks',
 * unless they say otherwise; they take the machine's lock.
 *
 *   PRELAUNCH  -cont->  RUNNING  -stop->  PAUSED  -cont->  RUNNING
 *   RUNNING/PAUSED  -savevm->  SAVE_VM  ->  as before;   any  -loadvm->  RESTORE_VM  ->  as before, or INTERNAL_ERROR
 *   RUNNING  -guest shuts down or resets without -no-reboot->  SHUTDOWN / reset;   an I/O error with stop policy -> IO_ERROR -cont-> retried
 *   INTERNAL_ERROR (KVM failed, or a load failed half-way): only loadvm or system_reset lead out
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_MACHINE_H
#define VM_MACHINE_H

#include <glib.h>

#include "host/drive-thread.h"
#include "vm/device.h"
#include "vm/memory.h"

enum run_state {                        /* QMP RunState names: see run_state_name */
        RUN_STATE_PRELAUNCH, RUN_STATE_RUNNING, RUN_STATE_PAUSED, RUN_STATE_SAVE_VM, RUN_STATE_RESTORE_VM,
        RUN_STATE_IO_ERROR, RUN_STATE_INTERNAL_ERROR, RUN_STATE_SHUTDOWN,
};

/* One -drive.  Strings are borrowed. */
struct machine_disk_config {
        const char *id;                 /* QEMU's default: "virtio0", "virtio1", ... */
        const char *path;
        const char *format;             /* "qcow2" or "raw" */
        const char *serial;             /* virtio-blk's get id; at most 20 bytes */
        bool read_only;
        unsigned queue_size;            /* virtqueue descriptors, power of 2; 0: 256 */
        struct drive_cache cache;
        bool discard_unmap;
        const struct policy *policy;    /* which backing files; NULL: none */
        enum hvb_error_action on_error; /* werror/rerror */
};

struct machine_config {
        uint64_t ram_bytes;
        unsigned cpu_count;
        bool huge_pages;
        const struct machine_disk_config *disks;
        unsigned disk_count;
        const char *kernel_path;        /* NULL: the built-in guest */
        const char *initrd_path;
        const char *append;             /* kernel command line, or the built-in guest's options */
        int serial_in;                  /* -1: none */
        int serial_out;                 /* -1: none */
        bool no_reboot;
};

struct machine_disk {
        const char *id;
        const char *path;
        const char *format;
        bool read_only;
        struct drive_thread *thread;
};

struct machine;

/* Makes everything, does not run it (PRELAUNCH).  -ENOENT/-EACCES for /dev/kvm say in err how to get it. */
int machine_new(const struct machine_config *config, struct machine **ret_machine, struct hvb_error *err);
/* Stops, closes the disks (the first error is returned and told), frees. */
int machine_free(struct machine *m, struct hvb_error *err);

/* Vcpus run.  -EPERM with err filled when the state does not allow it. */
int machine_cont(struct machine *m, struct hvb_error *err);
/* Vcpus are stopped, devices quiet, disks flushed when it returns.  Idempotent. */
int machine_stop(struct machine *m, struct hvb_error *err);
int machine_reset(struct machine *m, struct hvb_error *err);      /* system_reset */

enum run_state machine_run_state(struct machine *m);
const char *run_state_name(enum run_state state);                 /* "running", "paused", "save-vm", ... */

/*
 * For jobs.  pause: the vcpus are stopped and devices quiet, nothing is flushed; state becomes `during`.  resume: back to the
 * state before (vcpus run if they did).  fail: INTERNAL_ERROR instead, with text told to the operator.  The time the vcpus were
 * stopped is added up in pause_nsec of resume.  One pauser at a time: others get -EBUSY.
 */
int machine_pause(struct machine *m, enum run_state during, struct hvb_error *err);
void machine_resume(struct machine *m, uint64_t *ret_pause_nsec);
void machine_fail(struct machine *m, const char *text);

/* Constant for the machine's life. */
struct guest_memory *machine_memory(struct machine *m);
unsigned machine_cpu_count(struct machine *m);
struct device *const *machine_devices(struct machine *m, unsigned *ret_count);   /* in the order of saving and loading */
struct machine_disk *machine_disks(struct machine *m, unsigned *ret_count);
/* Guest time: nanoseconds that vcpus have run, kept across loadvm (vm_clock_nsec of snapshots). */
uint64_t machine_clock_nsec(struct machine *m);
void machine_set_clock_nsec(struct machine *m, uint64_t nsec);      /* while paused */

/* Told on the main thread of every change of run state and of texts for the operator; set once. */
struct machine_watch {
        void *opaque;
        void (*run_state)(void *opaque, enum run_state state);
        void (*message)(void *opaque, const char *text);
        void (*shutdown)(void *opaque);      /* the guest has powered off */
        void (*reset)(void *opaque, bool by_guest);
};
void machine_set_watch(struct machine *m, const struct machine_watch *watch);

#endif
