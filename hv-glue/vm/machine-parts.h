/*
 * machine-parts.h - what machine.c (parts, life) and machine-run.c (running) share.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VM_MACHINE_PARTS_H
#define VM_MACHINE_PARTS_H

#include <pthread.h>

#include "vm/boot.h"
#include "vm/bus.h"
#include "vm/kvm.h"
#include "vm/machine.h"
#include "vm/ports.h"
#include "vm/serial.h"
#include "vm/vcpu.h"
#include "vm/virtio-blk.h"

/* What the guest or a disk wants of the main thread; bits of machine.wanted. */
enum {
        WANT_RESET      = 1 << 0,
        WANT_POWER_OFF  = 1 << 1,
        WANT_IO_STOP    = 1 << 2,
        WANT_FAIL       = 1 << 3,
};

/* A disk, its device, and how the drive's questions reach both. */
struct machine_slot {
        struct machine *machine;
        struct virtio_blk *blk;
        struct drive_watch watch;
        struct machine_disk *disk;
};

struct machine {
        struct guest_memory mem;
        struct kvm kvm;
        struct bus ports;
        struct bus mmio;
        struct vcpu_env vcpu_env;
        struct vcpus *vcpus;
        struct serial *serial;
        struct device *clock;
        struct boot *boot;
        struct machine_disk *disks;
        struct machine_slot *slots;
        unsigned disk_count;
        GPtrArray *devices;             /* of struct device */
        unsigned cpu_count;
        bool no_reboot;

        bool at_rest;                   /* vcpus and devices; whoever is changing */

        /* Main thread. */
        GSource *bell;                  /* dispatched there when rung from anywhere */
        struct machine_watch watch;
        GAsyncQueue *news;              /* of struct machine_news, for the watch */

        pthread_mutex_t lock;           /* of all below */
        pthread_cond_t changed;
        enum run_state state;
        bool changing;                  /* somebody is between two states */
        bool paused_by_job;
        bool loaded;                    /* by the job: the state before is gone */
        enum run_state state_before;    /* the job */
        unsigned wanted;                /* WANT_* */
        char *fail_text;                /* of WANT_FAIL */
        gint64 stopped_since;           /* by the job; microseconds */
        uint64_t clock_nsec;            /* that vcpus have run until clock_since */
        gint64 clock_since;             /* microseconds; 0: they are stopped */
};

/* What the watch is to hear. */
enum news_kind { NEWS_STATE, NEWS_MESSAGE, NEWS_SHUTDOWN, NEWS_RESET };
struct machine_news {
        enum news_kind kind;
        enum run_state state;
        bool by_guest;
        char *text;
};

/* machine-run.c */
void machine_run_init(struct machine *m);
void machine_rest(struct machine *m);   /* before its parts are freed */
void machine_run_clear(struct machine *m);
/* Any thread: the vcpus stop soon, and the main thread does what is wanted. */
void machine_want(struct machine *m, unsigned want, const char *text);

/* machine.c: loads the kernel and sets the first vcpu.  Everything is as after power-on. */
int machine_boot(struct machine *m, struct hvb_error *err);

#endif
