/*
 * make-mapped.c - an image whose every cluster is mapped, and none has been written.
 *
 *   make-mapped IMAGE BYTES      of the disk: a multiple of 512 MiB
 *
 * What `qemu-img create -o preallocation=metadata` makes, in seconds for 16 TiB: version 3,
 * clusters of 64 KiB, refcounts of 16 bits; in the file header, refcount table, L1 table,
 * refcount blocks, then each L2 table with its clusters behind it, which are a hole.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
        CLUSTER_BITS = 16,
        CLUSTER_BYTES = 1 << CLUSTER_BITS,
        L2_ENTRIES = CLUSTER_BYTES / 8,
        BLOCK_ENTRIES = CLUSTER_BYTES / 2,
        HEADER_BYTES = 112,
};

#define COPIED (UINT64_C(1) << 63)
#define SPAN_BYTES ((uint64_t)CLUSTER_BYTES * L2_ENTRIES)

/* In clusters. */
struct layout {
        uint64_t l2_tables;
        uint64_t reftable;
        uint64_t reftable_count;
        uint64_t l1;
        uint64_t blocks;
        uint64_t block_count;
        uint64_t first_table;
        uint64_t end;
};

static uint8_t cluster[CLUSTER_BYTES];
static const char *path;
static int fd;

static void die(const char *what)
{
        fprintf(stderr, "make-mapped: %s: %s: %s\n", path, what, strerror(errno));
        exit(1);
}

static void put(uint64_t at, uint64_t value, unsigned byte_count)
{
        while (byte_count-- > 0) {
                cluster[at + byte_count] = (uint8_t)value;
                value >>= 8;
        }
}

static void store(uint64_t index)
{
        if (pwrite(fd, cluster, CLUSTER_BYTES, (off_t)(index << CLUSTER_BITS)) != CLUSTER_BYTES)
                die("write");
        memset(cluster, 0, CLUSTER_BYTES);
}

static uint64_t clusters_of(uint64_t entries, uint64_t per_cluster)
{
        return (entries + per_cluster - 1) / per_cluster;
}

/* Refcount blocks count themselves and their table: more of them until it fits. */
static struct layout plan(uint64_t disk_bytes)
{
        struct layout l = { .l2_tables = disk_bytes / SPAN_BYTES, .reftable = 1 };

        do {
                l.block_count++;
                l.reftable_count = clusters_of(l.block_count, L2_ENTRIES);
                l.l1 = l.reftable + l.reftable_count;
                l.blocks = l.l1 + clusters_of(l.l2_tables, L2_ENTRIES);
                l.first_table = l.blocks + l.block_count;
                l.end = l.first_table + l.l2_tables * (1 + L2_ENTRIES);
        } while (l.block_count * BLOCK_ENTRIES < l.end);
        return l;
}

static uint64_t table_at(const struct layout *l, uint64_t index)
{
        return l->first_table + index * (1 + L2_ENTRIES);
}

static void write_header(const struct layout *l, uint64_t disk_bytes)
{
        memcpy(cluster, "QFI\xfb", 4);
        put(4, 3, 4);
        put(20, CLUSTER_BITS, 4);
        put(24, disk_bytes, 8);
        put(36, l->l2_tables, 4);
        put(40, l->l1 << CLUSTER_BITS, 8);
        put(48, l->reftable << CLUSTER_BITS, 8);
        put(56, l->reftable_count, 4);
        put(96, 4, 4);                  /* refcounts of 2^4 bits */
        put(100, HEADER_BYTES, 4);
        store(0);
}

/* A table of offsets: of clusters from first on, step apart. */
static void write_table(uint64_t index, uint64_t count, uint64_t first, uint64_t step,
                        uint64_t flags)
{
        for (uint64_t i = 0; i < count; i++) {
                put(i % L2_ENTRIES * 8, (first + i * step) << CLUSTER_BITS | flags, 8);
                if (i % L2_ENTRIES == L2_ENTRIES - 1 || i == count - 1)
                        store(index + i / L2_ENTRIES);
        }
}

static void write_blocks(const struct layout *l)
{
        for (uint64_t block = 0; block < l->block_count; block++) {
                for (uint64_t i = 0; i < BLOCK_ENTRIES; i++)
                        put(i * 2, block * BLOCK_ENTRIES + i < l->end, 2);
                store(l->blocks + block);
        }
}

int main(int argc, char **argv)
{
        uint64_t disk_bytes = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
        struct layout l;

        if (disk_bytes == 0 || disk_bytes % SPAN_BYTES != 0 || disk_bytes >> 50 != 0) {
                fprintf(stderr, "Usage: make-mapped IMAGE BYTES, a multiple of %" PRIu64
                        " below 1 PiB\n", SPAN_BYTES);
                return 2;
        }
        path = argv[1];
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0)
                die("open");
        l = plan(disk_bytes);
        write_header(&l, disk_bytes);
        write_table(l.reftable, l.block_count, l.blocks, 1, 0);
        write_table(l.l1, l.l2_tables, l.first_table, 1 + L2_ENTRIES, COPIED);
        write_blocks(&l);
        for (uint64_t i = 0; i < l.l2_tables; i++)
                write_table(table_at(&l, i), L2_ENTRIES, table_at(&l, i) + 1, 1, COPIED);
        if (ftruncate(fd, (off_t)(l.end << CLUSTER_BITS)) < 0 || close(fd) < 0)
                die("close");
        return 0;
}
