/*
 * table-reads.c - a ring of reads, see table-reads.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/bytes.h"
#include "ops/table-reads.h"

enum {
        MAX_DEPTH = 64,
        MIN_DEPTH = 2,
        MAX_BYTES_IN_FLIGHT = 16 << 20,
};

int table_reads_open(struct table_reads *t, struct io_file *file, uint64_t table_bytes,
                     uint64_t table_count)
{
        uint64_t depth = u64_max(MAX_BYTES_IN_FLIGHT / table_bytes, MIN_DEPTH);

        depth = u64_min(u64_min(depth, MAX_DEPTH), u64_max(table_count, 1));
        *t = (struct table_reads) {
                .file = file,
                .table_bytes = table_bytes,
                .depth = (unsigned)depth,
                .slots = g_try_new0(struct table_read, depth),
                .buffer = io_buffer_try_new(depth * table_bytes),
        };
        if (t->slots && t->buffer)
                return 0;
        g_free(t->slots);
        free(t->buffer);
        *t = (struct table_reads) { .file = NULL };
        return -ENOMEM;
}

void table_reads_begin(struct table_reads *t, uint64_t host_offset, uint64_t tag)
{
        unsigned slot = t->begun % t->depth;
        struct table_read *r = &t->slots[slot];

        g_assert(!table_reads_full(t));
        r->tag = tag;
        io_prepare(&r->io, IO_READ, t->file, host_offset, t->buffer + slot * t->table_bytes,
                   t->table_bytes);
        io_start(&r->io);
        t->begun++;
}

int table_reads_next(struct table_reads *t, uint8_t **ret_bytes, uint64_t *ret_tag)
{
        unsigned slot = t->ended % t->depth;
        struct table_read *r = &t->slots[slot];
        int ret;

        g_assert(!table_reads_idle(t));
        ret = io_wait(&r->io);
        if (ret == CO_PENDING)
                return ret;
        t->ended++;
        *ret_tag = r->tag;
        if (ret == 0)
                *ret_bytes = t->buffer + slot * t->table_bytes;
        return ret;
}

uint64_t table_reads_eof_bytes(const struct table_reads *t)
{
        g_assert(t->ended > 0);
        return t->slots[(t->ended - 1) % t->depth].io.eof_bytes;
}

int table_reads_close(struct table_reads *t)
{
        CO_BEGIN(t);
        while (!table_reads_idle(t)) {
                CO_AWAIT(t, io_wait(&t->slots[t->ended % t->depth].io));
                t->ended++;
        }
        g_free(t->slots);
        free(t->buffer);
        t->slots = NULL;
        t->buffer = NULL;
        CO_END(t);
}
