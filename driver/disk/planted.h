/*
 * planted.h - ordering rules that a test can switch off, one at a time.
 *
 * Only code compiled with PLANTED_BUGS, which tests/proof is, can break them: everywhere else
 * PLANTED() is false and leaves nothing behind.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef DISK_PLANTED_H
#define DISK_PLANTED_H

/* Named after what goes wrong. */
enum planted_bug {
        PLANTED_NONE,
        PLANTED_COUNTS_UNSTABLE,        /* entries are written while counts may still be lost */
        PLANTED_BLOCKS_UNSTABLE,        /* refcount table before its blocks are stable */
        PLANTED_REFTABLE_UNSTABLE,      /* entries before the refcount table is stable */
        PLANTED_DATA_UNSTABLE,          /* entries before the data they point to is stable */
        PLANTED_ENTRIES_UNSTABLE,       /* a flush does not wait for the entries */
        PLANTED_ENTRIES_FIRST,          /* references before counts */
        PLANTED_COUNT_DOWN_FIRST,       /* counts go down before the reference is gone */
        PLANTED_ROOT_FIRST,             /* the root switches to tables that are not stable */
        PLANTED_ROOT_UNSTABLE,          /* nobody waits for the switched root */
        PLANTED_ROOT_IN_TWO,            /* the root is switched by two writes */
        PLANTED_GOTO_IN_PLACE,          /* goto overwrites the live L1 */
        PLANTED_COPIED_KEPT,            /* create leaves COPIED set on what becomes shared */
        PLANTED_DELETE_COUNTS_FIRST,    /* delete counts down what the list still has */
        PLANTED_NO_DIRTY_BIT,           /* counts move in an image that is not marked */
        PLANTED_CLEAN_TOO_EARLY,        /* the mark goes before the counts are stable */
        PLANTED_REPAIR_TOO_EARLY,       /* ... at the end of a repair */
        PLANTED_DELTA_LOST,             /* what is mapped behind a walk has one count too few */
        PLANTED_WALK_UNLOCKED,          /* a table is counted while the guest changes it */
        PLANTED_SWITCH_KEEPS_COPIED,    /* the guest goes on in what a snapshot has taken */
        PLANTED_TABLE_FROM_FILE,        /* a table is copied without what memory has of it */
        PLANTED_NO_POISON,              /* writing goes on after a failed fsync */
        PLANTED_COUNT,
};

#ifdef PLANTED_BUGS
extern enum planted_bug planted_bug;
#define PLANTED(bug)    (planted_bug == PLANTED_##bug)
#else
#define PLANTED(bug)    0
#endif

#endif
