/*
 * ram-guard-parts.h - what ram-guard.c (units, faults, life), ram-cut.c (saving) and
 * ram-lazy.c (loading) share.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_RAM_GUARD_PARTS_H
#define SNAPSHOT_RAM_GUARD_PARTS_H

#include <glib.h>
#include <pthread.h>

#include "snapshot/ram-guard.h"
#include "snapshot/uffd.h"

/* Bits of a unit; neither SHUT nor ABSENT: open. */
enum {
        UNIT_SHUT       = 1 << 0,
        UNIT_ABSENT     = 1 << 1,
        UNIT_CHANGED    = 1 << 2,       /* since the base */
        UNIT_DUE        = 1 << 3,       /* to be copied before it changes */
        UNIT_WAS_DUE    = 1 << 4,       /* at the cut; until the end of the saving */
        UNIT_WAS_CHANGED = 1 << 5,      /* at the cut, since the base that is old then */
        UNIT_ASKED      = 1 << 6,       /* ABSENT, on its way */
        UNIT_WANTED     = 1 << 7,       /* ABSENT, and somebody has waited for it */
};

struct ram_lazy;

struct ram_guard {
        struct guest_memory_watch watch;        /* first */
        struct machine *machine;
        uint8_t *ram;
        uint64_t unit_count;
        int fd;                         /* userfaultfd */
        int quit_fd;                    /* eventfd: the thread ends */
        pthread_t thread;
        bool has_thread;
        gint pressing;                  /* threads that the guest waits for want the lock */
        gint is_tight;                  /* somebody was told so */
        gint is_lost;                   /* what was to be loaded cannot be */

        pthread_mutex_t lock;           /* of all below; units are read without it, too */
        pthread_cond_t filled;          /* some unit, or no more ever */
        uint8_t *units;
        bool is_populated;              /* every page has an entry that can be protected */
        struct ram_base base;

        /* Between cut and end. */
        struct vm_job *job;
        GQueue copies;                  /* of struct ram_copy, to be taken */
        GQueue taken;                   /* and those that were */
        unsigned copy_count;            /* of both */
        GArray *parked;                 /* uint64_t: units whose writers wait for a copy */
        uint64_t walk;                  /* units below are not DUE */
        int error;                      /* no more copies can be made */

        struct ram_lazy *lazy;          /* NULL: nothing is being loaded */
};

static inline uint8_t *unit_at(const struct ram_guard *g, uint64_t unit)
{
        return g->ram + unit * RAM_UNIT_BYTES;
}

static inline uint8_t unit_bits(const struct ram_guard *g, uint64_t unit)
{
        return __atomic_load_n(&g->units[unit], __ATOMIC_ACQUIRE);
}

static inline void unit_change(struct ram_guard *g, uint64_t unit, unsigned clear, unsigned set)
{
        __atomic_store_n(&g->units[unit], (uint8_t) ((g->units[unit] & ~clear) | set),
                         __ATOMIC_RELEASE);
}

/* For threads that the guest waits for: before those that lock patiently. */
void ram_guard_lock(struct ram_guard *g);
/* For loops over many units. */
void ram_guard_lock_patiently(struct ram_guard *g);
void ram_guard_unlock(struct ram_guard *g);

/* ---- ram-guard.c ---- */

/* Guards memory in which all is ABSENT: nobody has touched it yet. */
int ram_guard_make(struct machine *m, struct guest_memory *memory, bool is_absent,
                   struct ram_guard **ret_guard, struct hvb_error *err);

/* With the lock: */

/* A unit that is SHUT and not DUE. */
void ram_unit_open(struct ram_guard *g, uint64_t unit);
/* One that is ABSENT and a hole of what is loaded. */
void ram_unit_fill_zeros(struct ram_guard *g, uint64_t unit);

/* ---- ram-cut.c; with the lock ---- */

/* Copies a DUE unit. */
void ram_unit_copy(struct ram_guard *g, uint64_t unit);

/* ---- ram-lazy.c; with the lock ---- */

/* Is this ABSENT unit to be read?  Else it is zeros: what has CHANGED is. */
bool ram_lazy_has(const struct ram_guard *g, uint64_t unit);
/* It is read next.  False: it cannot be read, and never will. */
bool ram_lazy_urge(struct ram_guard *g, uint64_t unit);
/* Without the lock, before the guard goes: ram_lazy_leave, and its thread has ended. */
void ram_lazy_stop(struct ram_guard *g);

#endif
