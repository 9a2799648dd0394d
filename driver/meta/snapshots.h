/*
 * snapshots.h - the snapshot table in memory, and publishing a new one.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef META_SNAPSHOTS_H
#define META_SNAPSHOTS_H

#include "meta/commit.h"
#include "meta/refs.h"

struct snapshots_read {
        struct co co;
        struct io io;
        uint8_t *buffer;
        uint64_t buffer_bytes;
        uint64_t limit;
};

/* Coroutine: reads header.snapshot_count entries. */
int snapshots_read(struct snapshots_read *s, struct image *img, struct hvb_error *err);
void snapshots_clear(struct image *img);

/* Index of the first snapshot with this id and/or name (NULL: not asked), or -ENOENT. */
int snapshots_find(const struct image *img, const char *id, const char *name);

/* The same for control operations: fills err. */
int snapshots_require(const struct image *img, const char *id, const char *name,
                      struct hvb_error *err);

/* The same for who reads the snapshot: its disk size and L1 must make sense, too (-EFBIG,
 * -EINVAL). */
int snapshots_require_readable(struct image *img, const char *id, const char *name,
                               struct hvb_error *err);

/* The same for who moves the counts of what it maps: the image must be writable, its L1 make
 * sense. */
int snapshots_require_countable(struct image *img, const char *id, const char *name,
                                struct hvb_error *err);

enum { SNAPSHOT_ID_BYTES = 32 };

/* The next id: highest numeric one plus 1.  buffer of SNAPSHOT_ID_BYTES. */
void snapshots_next_id(const struct image *img, char *buffer);

/*
 * A deep copy of the list but for entry `without` (-1: of all), with room for one
 * more at its end.  NULL: no memory.
 */
struct snapshot *snapshots_copy(const struct image *img, int without);
void snapshots_free_list(struct snapshot *list, uint32_t count);

struct snapshots_publish {
        struct co co;
        struct clusters_alloc alloc;
        struct clusters_free free;
        struct commit_wait commit;
        struct io io;
        struct root_switch root;
        struct root_change change;
        uint8_t *buffer;
        uint64_t new_offset;
        uint64_t new_bytes;
        uint64_t old_offset;
        uint64_t old_bytes;
        uint32_t old_count;
};

/*
 * Coroutine: writes list (count entries) as the new table and switches the root
 * to it, in one sector with what else is in `with` (its `what` may be 0).  All that happened before
 * the call is durable before the switch, counts included.  On success the image owns list (the old
 * one is freed) and the old table's clusters are freed.  On failure list stays the
 * caller's; unless poisoned nothing changed.
 */
int snapshots_publish(struct snapshots_publish *s, struct image *img, struct snapshot *list,
                      uint32_t count, const struct root_change *with);

#endif
