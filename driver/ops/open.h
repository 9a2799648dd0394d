/*
 * open.h - opening an image with its backing chain, and closing it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_OPEN_H
#define OPS_OPEN_H

#include "meta/image.h"
#include "meta/refs.h"
#include "meta/snapshots.h"
#include "ops/check.h"
#include "ops/snapshot-phases.h"

/* What the "key=value" strings of hvb_open_args say. */
struct open_options {
        uint64_t l2_cache_bytes;        /* 0: enough for the whole disk, at most 256 MiB */
        uint64_t refcount_cache_bytes;  /* 0: enough for the whole file, at most 64 MiB */
        unsigned backing_depth;         /* 200 */
        unsigned walk_share;            /* percent of the thread for walks beside the guest, 8 */
        int lazy_refcounts;             /* -1: as the image says */
        bool discard_unmap;             /* freed clusters are punched out of the file */
        char engine[16];                /* "auto", "io_uring", "threads" */
        bool restricted;                /* "restrict": the ring can do only what the driver does */
};

/* For people: "key=what (default)". */
extern const char *const open_option_texts[];

/* -EINVAL with a text for unknown keys and bad values.  options may be NULL. */
int open_options_parse(struct open_options *ret, const char *const *options,
                       struct hvb_error *err);

/* A zeroed image, not open; NULL: no memory.  name is copied. */
struct image *image_new(struct loop *loop, const struct hvb_host *host, const char *name,
                        unsigned open_flags, const struct open_options *options);
/* Frees a chain in any state but with nothing in flight; drops locks, returns child fds. */
void image_free(struct image *img);

struct image_load;
struct image_store;

struct image_open {
        struct co co;
        struct image *layer;            /* being opened */
        struct image_load *load;        /* owned while it runs */
};

/* Takes fd (borrowed) and its locks.  Simulations io_file_open img->file themselves instead. */
int image_open_file(struct image *img, int fd, struct hvb_error *err);

/*
 * Coroutine: reads img, whose file is open, and opens the chain below it.  On failure only
 * image_free may follow.
 */
int image_open(struct image_open *s, struct image *img, const struct open_options *options,
               struct hvb_error *err);

struct image_close {
        struct co co;
        struct prepared_end prepared;
        struct waiter background;
        struct image_store *store;      /* owned while it runs */
        struct commit_rest rest;
};

/*
 * Coroutine: waits for writes, writes back, clears the dirty bit, drops locks: CLOSED.
 * The first error is returned; the image is closed all the same.
 */
int image_close(struct image_close *s, struct image *img, struct hvb_error *err);

/* Coroutine: as close, but keeps the files for image_activate: INACTIVE. */
int image_inactivate(struct image_close *s, struct image *img, struct hvb_error *err);

/* Coroutine: takes the locks of the chain again and reads all metadata anew; LIVE, or
 * INACTIVE as before. */
int image_activate(struct image_open *s, struct image *img, const struct open_options *options,
                   struct hvb_error *err);
/* Lets go of locks and tables of the whole chain, without writing. */
void image_leave(struct image *img, enum image_state state);

#endif
