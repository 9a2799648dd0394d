/*
 * model.h - what a disk must contain.
 *
 * A disk is a sparse array of pages that clones share until one of them writes
 * (so a snapshot costs an array of pointers).  The model knows no qcow2: it is
 * the raw disk that a guest believes in, plus its snapshots with their VM state.
 *
 * Where the rules leave the driver a choice - a discarded byte may keep its value
 * or become zero, a snapshot taken while a write is in flight may hold it or not -
 * the model keeps two disks, "one of these", and narrows the choice down
 * to what was read first (disk_settle).  From then on it may not change any more.
 *
 * Invariants: bytes of the last page beyond the end of the disk are zero; a page
 * pointer is NULL for a page of zeros that nobody wrote.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef INTEROP_MODEL_H
#define INTEROP_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_PAGE_BYTES 4096u

struct model_page;

struct model_disk {
        uint64_t size_bytes;
        size_t page_count;
        struct model_page **pages;
};

struct model_disk *disk_new(uint64_t size_bytes);
struct model_disk *disk_clone(const struct model_disk *disk);
void disk_free(struct model_disk *disk);

/* Growing adds zeros. */
void disk_resize(struct model_disk *disk, uint64_t size_bytes);

/* Ranges must lie inside the disk. */
void disk_read(const struct model_disk *disk, uint64_t offset, void *buf, size_t length_bytes);
void disk_write(struct model_disk *disk, uint64_t offset, const void *buf, size_t length_bytes);
void disk_fill(struct model_disk *disk, uint64_t offset, uint8_t byte, size_t length_bytes);
bool disk_is_zero(const struct model_disk *disk, uint64_t offset, uint64_t length_bytes);

/* Do got[0, length) hold, byte for byte, what disk or other has at offset?  other
 * may be NULL.  *ret_bad is the first offset that holds neither. */
bool disk_allows(const struct model_disk *disk, const struct model_disk *other, uint64_t offset,
                 const void *got, size_t length_bytes, uint64_t *ret_bad);

/* A sparse raw file with this content, size_bytes long.  Returns 0 or -errno. */
int disk_export(const struct model_disk *disk, const char *path);

struct model_snapshot {
        char id[128];
        char name[256];
        struct model_disk *disk;
        struct model_disk *other;       /* what it may hold instead, or NULL: settled */
        struct model_disk *vm_state;    /* size_bytes 0: disk only */
};

#define MODEL_SNAPSHOTS_MAX 64

struct model {
        struct model_disk *disk;
        struct model_snapshot *snapshots[MODEL_SNAPSHOTS_MAX];
        unsigned snapshot_count;
};

void model_init(struct model *model, uint64_t size_bytes);
void model_clear(struct model *model);

/* The new snapshot has the disk's content of now, no VM state, and id max + 1. */
struct model_snapshot *model_snapshot_create(struct model *model, const char *name);
struct model_snapshot *model_snapshot_find(struct model *model, const char *name);
void model_snapshot_goto(struct model *model, const struct model_snapshot *snapshot);
void model_snapshot_delete(struct model *model, struct model_snapshot *snapshot);

/* got is the snapshot's whole disk in ranges that were read: adopt it. */
void snapshot_settle(struct model_snapshot *snapshot, struct model_disk *got);

#endif
