/*
 * table-reads.h - reading many tables in a row with the ring kept full.
 *
 * The caller begins reads in the order of the file as long as there is room, and
 * takes the tables in the same order.  A table's bytes stay until the next begin.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_TABLE_READS_H
#define OPS_TABLE_READS_H

#include "async/io.h"

struct table_read {
        struct io io;
        uint64_t tag;
};

struct table_reads {
        struct co co;
        struct io_file *file;
        uint64_t table_bytes;
        unsigned depth;
        unsigned begun;
        unsigned ended;
        struct table_read *slots;       /* owned, depth of them */
        uint8_t *buffer;                /* owned, depth * table_bytes */
};

/* table_count: how many there will be, for the depth.  -ENOMEM. */
int table_reads_open(struct table_reads *t, struct io_file *file, uint64_t table_bytes,
                     uint64_t table_count);

static inline bool table_reads_full(const struct table_reads *t)
{
        return t->begun - t->ended == t->depth;
}

static inline bool table_reads_idle(const struct table_reads *t)
{
        return t->begun == t->ended;
}

/* There must be room.  tag: the caller's name for the table. */
void table_reads_begin(struct table_reads *t, uint64_t host_offset, uint64_t tag);

/*
 * Leaf: the oldest table begun (there must be one).  0 or -errno of its reading, either way with
 * *ret_tag.  What lies beyond the end of the file reads as zeros.
 */
int table_reads_next(struct table_reads *t, uint8_t **ret_bytes, uint64_t *ret_tag);

/* How much of the table that was taken last lies beyond the end of the file. */
uint64_t table_reads_eof_bytes(const struct table_reads *t);

/* Coroutine: waits for what is in flight and frees all.  Never fails.  May be called on zeroed
 * memory and twice. */
int table_reads_close(struct table_reads *t);

#endif
