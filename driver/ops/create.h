/*
 * create.h - formatting a file, and giving a disk its clusters ahead of time.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_CREATE_H
#define OPS_CREATE_H

#include "async/io.h"
#include "disk/header.h"

/* Where everything of an empty image lies: header, refcount table, blocks, L1, in a row. */
struct create_layout {
        uint64_t reftable_clusters;
        uint64_t block_count;
        uint64_t l1_entries;
        uint64_t l1_clusters;
        uint64_t cluster_count;
};

struct create {
        struct co co;
        struct { struct co co; } zero;
        struct { struct co co; } tables;
        struct io io;
        struct io_file *file;
        struct header header;
        struct create_layout layout;
        uint64_t root_bytes;            /* what the last write of all covers */
        uint8_t *cluster;               /* owned; cluster 0 */
        uint8_t *buffer;                /* owned; one cluster of a table */
        uint64_t position;
        uint64_t end;
};

/* Can an image of this geometry have a disk of so many bytes?  -EINVAL, -EFBIG with a text that
 * says which cluster size would do. */
int create_check_size(const struct geometry *g, uint64_t size_bytes, struct hvb_error *err);

/*
 * Coroutine: formats file, which loses its content, with an empty image.  -EINVAL, -EFBIG: args
 * ask for what cannot be (nothing was written).  args->preallocation is left to preallocate(),
 * which needs the image opened.  A crash leaves no qcow2 file, or all of it.
 */
int create_file(struct create *s, struct loop *loop, struct io_file *file,
                const struct hvb_create_args *args, struct hvb_error *err);

#endif
