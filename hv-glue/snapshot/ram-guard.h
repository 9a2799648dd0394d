/*
 * ram-guard.h - RAM that is saved and loaded while the guest runs: who may touch what when.
 *
 * RAM is divided into units of 64 KiB.  userfaultfd stops whoever writes to a unit that is
 * protected, or touches one that is absent; the guard's thread does what must be done first
 * and lets them go on.
 *
 *   OPEN    the guest writes as it likes
 *   SHUT    protected.  First write: is it DUE, its contents are copied away; then OPEN
 *   ABSENT  not loaded yet.  First touch: filled from the VM state, then SHUT; or with zeros where
 *           that has a hole, then OPEN
 *
 * Saving.  The guest running, approach shuts all units, again and again while the guest opens
 * some, until few are open.  With the machine paused, cut shuts these and makes units DUE: what
 * they hold now is the snapshot's.  The guest running again, each DUE unit is copied, by
 * whoever comes first: the guard before its first write, or the saver, who takes the copies and
 * writes them.  A vcpu that writes waits for a copy, never for a disk, as long as fewer than
 * RAM_COPIES_MAX copies wait to be written.
 *
 * Knowing what changed.  Protection stays when all is saved or loaded.  So a unit that is not
 * CHANGED holds what the last snapshot that was saved or loaded (the base) has of it.
 *
 * Invariants, under the lock:
 *  1. A unit that is not CHANGED holds what the base has.  Without a base all are CHANGED.
 *  2. A DUE unit is SHUT or ABSENT, and holds what it held at the cut.
 *  3. What the kernel protects, and no more, is SHUT.
 *
 * Memory that an I/O ring has registered does not fault: such memory cannot be guarded.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_RAM_GUARD_H
#define SNAPSHOT_RAM_GUARD_H

#include "snapshot/page-map.h"
#include "snapshot/vm-snapshot.h"
#include "vm/memory.h"

enum {
        RAM_UNIT_BYTES = 64 << 10,
        RAM_UNIT_PAGES = RAM_UNIT_BYTES / GUEST_PAGE_BYTES,
        RAM_COPIES_MAX = 1024,          /* 64 MiB */
};

struct ram_guard;

/* The snapshot that unchanged units are those of. */
struct ram_base {
        struct hvb_snapshot_info info;  /* id, and date and clock to know it again */
        const struct machine_disk *disk;        /* that has its VM state; NULL: no base */
        uint64_t ram_offset;
        struct page_map map;            /* owned */
};
void ram_base_clear(struct ram_base *base);

/*
 * Guards memory, which lives on as it is, and is freed with it (or guest_memory_unwatch).  May be
 * called while the guest runs.  An error says why RAM cannot be guarded here.
 */
int ram_guard_new(struct machine *m, struct guest_memory *memory, struct ram_guard **ret_guard,
                  struct hvb_error *err);
/* The guard of memory, or NULL. */
struct ram_guard *ram_guard_of(const struct guest_memory *memory);

/* ---- Saving; one at a time ------------------------------------------------------------ */

/* The guest runs: leaves few units open.  -ECANCELED. */
int ram_guard_approach(struct ram_guard *g, struct vm_job *job, struct hvb_error *err);

/*
 * The machine is paused, devices quiet.  Makes units DUE: those that CHANGED, all others of
 * the same cluster, of cluster_bytes, and a cluster that RAM does not fill; all of them with whole
 * set, or without a base.  From now on ram_guard_end must follow.
 */
int ram_guard_cut(struct ram_guard *g, uint64_t cluster_bytes, bool whole, struct vm_job *job,
                  struct hvb_error *err);

/* Which units from unit on, at most max_units, are alike: DUE at the cut, or the base's. */
uint64_t ram_guard_run(const struct ram_guard *g, uint64_t unit, uint64_t max_units,
                       bool *ret_due);
const struct ram_base *ram_guard_base(const struct ram_guard *g);

/* What a unit held at the cut.  The saver's, who counts in writes, until it gives it back. */
struct ram_copy {
        GList link;                     /* the guard's */
        uint64_t unit;
        unsigned writes;
        uint8_t *bytes;
};

/* 1: *ret_copy is the next; units of zeros never are.  0: that was all.  Or an error. */
int ram_guard_take(struct ram_guard *g, struct ram_copy **ret_copy);
void ram_guard_give_back(struct ram_guard *g, struct ram_copy *copy);

/* Nobody looks at copies any more.  new_base: the snapshot has become the base, which is moved from
 * there; NULL: the saving failed, the old base stays. */
void ram_guard_end(struct ram_guard *g, struct ram_base *new_base);

#endif
