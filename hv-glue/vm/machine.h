/*
 * machine.h - a virtual machine: memory, vcpus, devices, disks, and whether it runs.
 *
 * Threads: each vcpu has one, each disk has one (drive-thread.h); the main thread runs a
 * GMainLoop with monitors and the serial line; jobs (savevm, ...) run on worker threads.
 * Functions here are called from any thread but vcpus' and disks', unless they say
 * otherwise.
 *
 *   PRELAUNCH         -cont->  RUNNING  -stop->  PAUSED  -cont->  RUNNING
 *   RUNNING, PAUSED   -savevm->  SAVE_VM  ->  as before
 *   any               -loadvm->  RESTORE_VM  ->  as before (PAUSED where that was an error),
 *                                                or INTERNAL_ERROR
 *   RUNNING           -the guest powers off, or resets with no_reboot->  SHUTDOWN
 *   RUNNING           -an I/O error with policy stop->  IO_ERROR  -cont, which retries->  RUNNING
 *   RUNNING           -KVM fails->  INTERNAL_ERROR
 *   any               -system_reset->  RUNNING if it ran, else PRELAUNCH
 *
 * From INTERNAL_ERROR and SHUTDOWN only loadvm and system_reset lead out.
 *
 * Clocks: the guest's time is the time that vcpus have run.  While they are stopped the
 * guest's kvmclock stands still; after loadvm it goes on from the saved value, and so
 * does the TSC.  The wall clock that kvmclock tells is the host's, at every moment.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_MACHINE_H
#define VM_MACHINE_H

#include <glib.h>
#include <string.h>

#include "host/drive-thread.h"
#include "vm/device.h"
#include "vm/memory.h"
#include "vm/virtio-blk.h"

enum {
        MACHINE_CPUS_MAX = 64,
        MACHINE_DISKS_MAX = 16,
};

enum run_state {                        /* QMP RunState names: see run_state_name */
        RUN_STATE_PRELAUNCH,
        RUN_STATE_RUNNING,
        RUN_STATE_PAUSED,
        RUN_STATE_SAVE_VM,
        RUN_STATE_RESTORE_VM,
        RUN_STATE_IO_ERROR,
        RUN_STATE_INTERNAL_ERROR,
        RUN_STATE_SHUTDOWN,
};

/* One -drive.  Strings are borrowed for the machine's life. */
struct machine_disk_config {
        const char *id;                 /* QEMU's default: "virtio0", "virtio1", ... */
        const char *path;
        const char *format;             /* "qcow2" or "raw" */
        const char *serial;             /* virtio-blk's get id, at most 20 bytes; or NULL */
        bool read_only;
        unsigned queue_size;            /* virtqueue descriptors, power of 2; 0: 256 */
        struct drive_cache cache;
        unsigned lock_timeout_ms;       /* as in struct drive_options */
        bool discard_unmap;
        const struct policy *policy;    /* which backing files; NULL: none */
        enum disk_error_policy write_error;
        enum disk_error_policy read_error;
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
        int serial_in;                  /* -1: none; the machine reads it, non-blocking or not */
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

/*
 * Makes everything, does not run it (PRELAUNCH).  -ENOENT/-EACCES for /dev/kvm say in err
 * how to get it.  On the main thread; SIGUSR1 belongs to the machine from now on.
 */
int machine_new(const struct machine_config *config, struct machine **ret_machine,
                struct hvb_error *err);
/* Stops, closes the disks (the first error is returned and told), frees.  On the main
 * thread, when no job runs.  NULL is fine. */
int machine_free(struct machine *m, struct hvb_error *err);

/* Vcpus run.  -EPERM with err filled when the state does not allow it; -EBUSY: a job has
 * paused the machine. */
int machine_cont(struct machine *m, struct hvb_error *err);
/* Vcpus are stopped, devices quiet, disks flushed when it returns.  Idempotent. */
int machine_stop(struct machine *m, struct hvb_error *err);
int machine_reset(struct machine *m, struct hvb_error *err);      /* system_reset */

enum run_state machine_run_state(struct machine *m);
const char *run_state_name(enum run_state state);       /* "running", "paused", "save-vm", ... */

/*
 * For jobs.  pause: the vcpus are stopped and devices quiet, nothing is flushed; state
 * becomes `during`.  A reset or power-off that the guest asked for before is done first.
 * -EPERM: to be saved, but it has failed.
 * resume: back to the state before (vcpus run if they did).  fail: INTERNAL_ERROR instead,
 * with text told to the operator.  ret_pause_nsec (may be NULL): how long the vcpus were
 * stopped.  One pauser at a time: others get -EBUSY.
 */
int machine_pause(struct machine *m, enum run_state during, struct hvb_error *err);
void machine_resume(struct machine *m, uint64_t *ret_pause_nsec);
void machine_fail(struct machine *m, const char *text);

/* Constant for the machine's life, but for what machine_swap_memory exchanges. */
struct guest_memory *machine_memory(struct machine *m);
/* Paused: exchanges RAM with *memory, which has the same size.  An error: the machine is to
 * fail, and what it had is in *memory or not. */
int machine_swap_memory(struct machine *m, struct guest_memory *memory, struct hvb_error *err);
/* Paused: the guest and its RAM go, and with them what they wanted of the machine: a reset,
 * memory_lost. */
void machine_forget_wanted(struct machine *m);
unsigned machine_cpu_count(struct machine *m);
/*
 * For RAM that is saved or loaded while the guest runs; from any thread.  kick_disks: they look
 * at their queues again.  memory_lost: RAM cannot be had, the guest must not go on: when this
 * returns no vcpu enters it any more, and the machine becomes INTERNAL_ERROR.  tell: a line for
 * the operator.
 */
void machine_kick_disks(struct machine *m);
void machine_memory_lost(struct machine *m, const char *text);
void machine_tell(struct machine *m, const char *text);

/* In the order of saving and loading. */
struct device *const *machine_devices(struct machine *m, unsigned *ret_count);
struct machine_disk *machine_disks(struct machine *m, unsigned *ret_count);
/* The one with that id, or NULL. */
static inline struct machine_disk *machine_find_disk(struct machine *m, const char *id)
{
        unsigned count;
        struct machine_disk *disks = machine_disks(m, &count);

        for (unsigned i = 0; i < count; i++)
                if (strcmp(disks[i].id, id) == 0)
                        return &disks[i];
        return NULL;
}

/* Guest time: nanoseconds that vcpus have run, kept across loadvm (vm_clock_nsec of
 * snapshots).  set: while paused, as the last step of a load that succeeded. */
uint64_t machine_clock_nsec(struct machine *m);
void machine_set_clock_nsec(struct machine *m, uint64_t nsec);

/* Told on the main thread of every change of run state and of texts for the operator; set
 * once, before the first cont.  Members may be NULL. */
struct machine_watch {
        void *opaque;
        void (*run_state)(void *opaque, enum run_state state);
        void (*message)(void *opaque, const char *text);
        void (*shutdown)(void *opaque);      /* the guest has powered off */
        void (*reset)(void *opaque, bool by_guest);
};
void machine_set_watch(struct machine *m, const struct machine_watch *watch);

#endif
