/*
 * commit.h - writing metadata back, in an order that any crash survives.
 *
 * A commit takes copies of everything dirty at its beginning and then:
 *
 *   1. refcount slices (and the data written so far);              fsync
 *   2. refcount table sectors, if blocks were added;               fsync
 *   3. L2 slices and L1 sectors;                                   fsync
 *   4. counts down what the now durable entries no longer reference (in memory)
 *
 * Every step leaves counts >= references (image.h).  One commit runs at a time;
 * all that wait share the next one (group commit).  If only data was written, a
 * commit is one fsync.  A failed write leaves everything dirty, to be tried again; a
 * failed fsync poisons the image.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef META_COMMIT_H
#define META_COMMIT_H

#include "meta/image.h"

struct commit *commit_new(struct image *img);
void commit_free(struct commit *c);

struct commit_wait {
        struct co co;
        struct waiter waiter;
        uint64_t target;
};

/* Coroutine: everything that happened before the call is durable.  -EIO on a
 * poisoned image. Read-only images: 0 at once. */
int meta_commit(struct commit_wait *s, struct image *img);

/* Coroutine: the same, and counts are durable too where they are lazy. */
int meta_commit_counts(struct commit_wait *s, struct image *img);

struct commit_drain {
        struct co co;
        struct commit_wait wait;
        struct waiter waiter;
};

/* Coroutine: the same as meta_commit_counts; moreover what was to be freed when it was called has
 * been, after all I/O that could still touch it. */
int meta_drain(struct commit_drain *s, struct image *img);

struct commit_rest {
        struct co co;
        struct waiter waiter;
};

/* Coroutine: nothing of a commit is on its way, whatever became of it. */
int commit_rest(struct commit_rest *s, struct image *img);

struct commit_settle {
        struct co co;
        struct commit_wait wait;
        struct waiter waiter;
        unsigned round;
};

/* Coroutine: commits until no frees are pending and nothing is dirty.  With the
 * write gate closed it ends; then tables on disk are what is in memory. */
int meta_settle(struct commit_settle *s, struct image *img);

/* The refcount table is another one from now on, whole on disk: nothing of the old one is put back
 * into memory as dirty. */
void commit_forget_table(struct image *img);

/* Start a commit if much is dirty; for writers, after each change. */
void commit_kick(struct image *img);

/* The same for walks over all tables, of which a guest's flush is to inherit little.  True: the
 * caller should wait for a commit. */
bool commit_kick_walk(struct image *img);

/* True if writers should wait for a commit before making more dirty. */
bool commit_needed(const struct image *img);

#endif
