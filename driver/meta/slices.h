/*
 * slices.h - a cache of table slices: the memory copy of parts of L2 tables or
 * refcount blocks.
 *
 * A slice is geometry.slice_bytes of a file, aligned to that.  Slices are found
 * by their host offset in O(1).  Invariants:
 *  1. A pinned, dirty or loading slice is never evicted.
 *  2. Bytes of a clean slice equal the file's, as far as our writes completed.
 *  3. Whoever keeps a slice across a wait pins it.
 *  4. A table whose cluster is freed has its slices dropped before the cluster
 *     can be allocated again.
 * The limit is soft: when all is pinned or dirty the cache grows, and writers
 * wait for a commit (commit.h).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef META_SLICES_H
#define META_SLICES_H

#include "async/io.h"
#include "disk/format.h"

struct slice {
        struct slice *next_in_bucket;
        GList in_use;                   /* in cache->clock or cache->spare */
        GList in_dirty;                 /* in cache->dirty, when dirty */
        uint64_t host_offset;
        uint8_t *bytes;
        unsigned pins;
        bool loaded;
        bool dirty;
        bool dropped;                   /* forgotten while pinned: an orphan */
        bool recent;                    /* second chance for eviction */
        int load_error;
        struct waitq loading;           /* who waits for the load */
};

struct slice_cache {
        struct io_file *file;
        uint64_t slice_bytes;
        uint64_t limit;                 /* slices */
        uint64_t count;
        GQueue watches;                 /* of struct slices_watch: reads under way */
        struct slice **buckets;
        uint64_t bucket_count;          /* a power of two */
        GQueue clock;                   /* resident slices, eviction order */
        GQueue spare;                   /* slices with memory but no content; the head's was used
                                         * last */
        GQueue dirty;                   /* in order of becoming dirty */
        GPtrArray *slabs;               /* memory that slices lie in */
};

/* -ENOMEM.  limit_bytes is rounded to slices, at least 16. */
int slices_init(struct slice_cache *c, struct io_file *file, uint64_t slice_bytes,
                uint64_t limit_bytes);
void slices_clear(struct slice_cache *c);
/* Forgets everything; nothing may be pinned, dirty or loading. */
void slices_reset(struct slice_cache *c);

static inline uint64_t slices_memory(const struct slice_cache *c)
{
        return (c->count + c->spare.length) * c->slice_bytes;
}

/* The loaded slice at host_offset (a multiple of slice_bytes), or NULL.  Not pinned. */
struct slice *slices_find(struct slice_cache *c, uint64_t host_offset);

struct slice_load {
        struct co co;
        struct io io;
        struct waiter waiter;
        struct slice *slice;
        bool owner;                     /* this frame does the reading */
};

/*
 * Coroutine: finds or loads, and pins.  On success *ret_slice must be unpinned by
 * the caller.  -EIO: the file ends before the slice or cannot be read.
 */
int slices_load(struct slice_load *s, struct slice_cache *c, uint64_t host_offset,
                struct slice **ret_slice);

static inline void slice_pin(struct slice *slice)
{
        slice->pins++;
}

void slice_unpin(struct slice_cache *c, struct slice *slice);

/* After changing bytes. */
void slice_mark_dirty(struct slice_cache *c, struct slice *slice);

/* For the commit, which now has a copy: the slice is clean, and pinned until that is written. */
void slices_take_dirty(struct slice_cache *c, struct slice *slice);

/* Put in what the file has there now: call it after the write completed;
 * resident slices are overwritten, absent ones added when add_absent and memory allows. */
void slices_put(struct slice_cache *c, uint64_t host_offset, const uint8_t *bytes,
                uint64_t byte_count, bool add_absent);

/* True if nothing of the range is dirty, pinned, or on its way to the file or from it: then the
 * file may be written past the cache, and slices_put called. */
bool slices_are_settled(struct slice_cache *c, uint64_t host_offset, uint64_t byte_count);

/* Add a slice just read, unless it is resident or being read (that one may be newer).
 * Nothing that could have changed the file's bytes may have run since the read began, or the
 * slice must be one that only changes through this cache. */
void slices_add(struct slice_cache *c, uint64_t host_offset, const uint8_t *bytes);

/* The slice gets these bytes and is dirty.  -ENOMEM.  For tables that only change through this
 * cache. */
int slices_store(struct slice_cache *c, uint64_t host_offset, const uint8_t *bytes);

/* ---- whole tables as memory has them (slices-read.c) ---- */

/* From before a range is read from the file until what was read has been used. */
struct slices_watch {
        GList link;
        uint64_t first;                 /* host offsets */
        uint64_t end;
        bool is_stale;                  /* a slice of it went: the file may be newer than what is
                                         * read */
};

void slices_watch(struct slices_watch *w, struct slice_cache *c, uint64_t host_offset,
                  uint64_t byte_count);
/* One that watches nothing may be given too. */
void slices_unwatch(struct slices_watch *w, struct slice_cache *c);

struct slices_read {
        struct co co;
        struct { struct co co; } overlay;
        struct io io;
        struct slice_load load;
        struct slice *slice;
        struct slices_watch watch;
        uint64_t at;
};

/*
 * Coroutine: brings up to date what was read from the file while it was watched: resident
 * slices may be newer, and so may be those that went since.  If the table can change meanwhile
 * the caller excludes that.
 */
int slices_overlay(struct slices_read *s, struct slice_cache *c, const struct slices_watch *watch,
                   uint8_t *bytes);

/* Coroutine: reads a table and brings it up to date.  What lies behind the end of the file is
 * zeros, and s->io.eof_bytes says how much that is. */
int slices_read(struct slices_read *s, struct slice_cache *c, uint64_t host_offset,
                uint8_t *bytes, uint64_t byte_count);

/* The slice there, if it is resident and only the file's, is not expected to be needed: its memory
 * is the next to be used. */
void slices_forget(struct slice_cache *c, uint64_t host_offset);

/* Forget the slices in a range, dirty ones too: the table is gone.  Pinned ones become
 * orphans: their holders see old bytes until they look again. */
void slices_drop(struct slice_cache *c, uint64_t host_offset, uint64_t byte_count);

#endif
