/*
 * engine-uring-tables.c - files and memory that the ring knows beforehand.
 *
 * A registered file spares the kernel looking up and holding the file for each
 * request; registered memory spares it pinning the pages.  Both are sparse tables
 * that are filled slot by slot.  Older kernels have neither, and any kernel may
 * refuse a single one (RLIMIT_MEMLOCK): then the plain way is taken.  Only a
 * restricted ring (engine-uring-ring.c) has no plain way to a file.
 *
 * Invariants:
 *  1. A file with slot >= 0 has its fd in that slot of the attached ring.
 *  2. A region with slot_count > 0 has all its chunks in the attached ring.
 *  3. What is refused now is not tried again before the next attach.
 *  4. Slot URING_NOTIFY_SLOT of a file table is notify_fd's and no io_file's.
 *  5. In a restricted ring every io_file has a slot.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <sys/resource.h>

#include "async/engine-uring.h"
#include "async/regions.h"

/* The kernel's limit for one buffer. */
static const size_t chunk_bytes = (size_t)1 << 30;

/* 0 or -errno. */
static int file_register(struct uring *u, unsigned slot, int fd)
{
        int ret = u->files_registered ? io_uring_register_files_update(&u->ring, slot, &fd, 1)
                                      : -ENXIO;

        return MIN(ret, 0);
}

/* -EMFILE: none. */
static int free_file_slot(const struct uring *u)
{
        unsigned slot;

        for (slot = URING_NOTIFY_SLOT + 1; slot < u->file_slots; slot++)
                if (u->files[slot] == NULL)
                        return slot;
        return -EMFILE;
}

int uring_file_add(struct engine *engine, struct io_file *file)
{
        struct uring *u = (struct uring *)engine;
        int slot;
        int ret;

        ret = io_file_probe(file);
        if (ret < 0)
                return ret;

        slot = free_file_slot(u);
        ret = slot < 0 ? slot : file_register(u, slot, file->fd);
        if (ret == 0) {
                u->files[slot] = file;
                file->slot = slot;
        }
        return u->restricted ? ret : 0;
}

void uring_file_remove(struct engine *engine, struct io_file *file)
{
        struct uring *u = (struct uring *)engine;

        if (file->slot < 0)
                return;
        g_assert(u->files[file->slot] == file);
        if (u->attached)
                file_register(u, file->slot, -1);
        u->files[file->slot] = NULL;
        file->slot = -1;
}

static bool buffer_update(struct uring *u, unsigned slot, void *address, size_t length)
{
        struct iovec iov = { .iov_base = address, .iov_len = length };
        __u64 tag = 0;

        return u->buffers_registered &&
               io_uring_register_buffers_update_tag(&u->ring, slot, &iov, &tag, 1) == 1;
}

static void region_unregister(struct uring *u, struct region *region)
{
        unsigned i;

        for (i = 0; i < region->slot_count; i++) {
                buffer_update(u, region->first_slot + i, NULL, 0);
                u->slot_used[region->first_slot + i] = false;
        }
        region->slot_count = 0;
}

/* The first of count free slots in a row, or -1. */
static int free_buffer_slots(const struct uring *u, unsigned count)
{
        unsigned run = 0;
        unsigned slot;

        for (slot = 0; slot < URING_BUFFERS_MAX; slot++) {
                run = u->slot_used[slot] ? 0 : run + 1;
                if (run == count)
                        return slot + 1 - count;
        }
        return -1;
}

/* All chunks or none. */
static void region_register(struct uring *u, struct region *region)
{
        size_t chunk_count = (region->length - 1) / chunk_bytes + 1;
        size_t offset = 0;
        int first;

        g_assert(region->slot_count == 0);
        if (!u->buffers_registered || chunk_count > URING_BUFFERS_MAX)
                return;
        first = free_buffer_slots(u, chunk_count);
        if (first < 0)
                return;

        region->first_slot = first;
        while (region->slot_count < chunk_count) {
                unsigned slot = region->first_slot + region->slot_count;

                if (!buffer_update(u, slot, region->address + offset,
                                   MIN(region->length - offset, chunk_bytes))) {
                        region_unregister(u, region);
                        return;
                }
                u->slot_used[slot] = true;
                region->slot_count++;
                offset += chunk_bytes;
        }
}

int uring_map(struct engine *engine, void *address, size_t length)
{
        struct uring *u = (struct uring *)engine;
        struct region region = { .address = address, .length = length };

        if (length == 0)
                return -EINVAL;
        region_register(u, &region);
        g_array_append_val(u->regions, region);
        return 0;
}

int uring_unmap(struct engine *engine, void *address, size_t length)
{
        struct uring *u = (struct uring *)engine;
        int index = regions_find(u->regions, address, length);

        if (index < 0)
                return -EINVAL;
        region_unregister(u, regions_at(u->regions, index));
        g_array_remove_index_fast(u->regions, index);
        return 0;
}

int uring_buffer_slot(struct uring *u, const struct iovec *iov)
{
        uintptr_t address = (uintptr_t)iov->iov_base;
        unsigned i;

        for (i = 0; i < u->regions->len; i++) {
                const struct region *region = regions_at(u->regions, i);
                uintptr_t start = address - (uintptr_t)region->address;
                uintptr_t last = start + iov->iov_len - 1;

                /* An address below the region wraps to a start beyond its end. */
                if (region->slot_count == 0 || start >= region->length ||
                    iov->iov_len > region->length - start)
                        continue;
                if (start / chunk_bytes == last / chunk_bytes)
                        return region->first_slot + start / chunk_bytes;
        }
        return -1;
}

/* How many slots the kernel lets us have. */
static unsigned file_slots(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > URING_FILES_MAX)
                return URING_FILES_MAX;
        return limit.rlim_cur;
}

/* 0; -errno when a file of a restricted ring has no slot. */
static int files_register(struct uring *u)
{
        int fds[URING_FILES_MAX];
        unsigned slot;
        int ret;

        u->file_slots = file_slots();
        for (slot = 0; slot < URING_FILES_MAX; slot++)
                fds[slot] = -1;
        fds[URING_NOTIFY_SLOT] = u->notify_fd;
        /* The old call, which takes -1 for an empty slot, works everywhere. */
        ret = io_uring_register_files(&u->ring, fds, u->file_slots);
        u->files_registered = ret == 0;
        if (ret < 0 && u->restricted)
                return ret;

        for (slot = URING_NOTIFY_SLOT + 1; slot < URING_FILES_MAX; slot++) {
                struct io_file *file = u->files[slot];

                if (file == NULL)
                        continue;
                ret = file_register(u, slot, file->fd);
                if (ret < 0 && u->restricted)
                        return ret;
                if (ret == 0)
                        continue;
                file->slot = -1;
                u->files[slot] = NULL;
        }
        return 0;
}

static void buffers_register(struct uring *u)
{
        unsigned i;

        u->buffers_registered =
                io_uring_register_buffers_sparse(&u->ring, URING_BUFFERS_MAX) == 0;
        for (i = 0; i < URING_BUFFERS_MAX; i++)
                u->slot_used[i] = false;
        for (i = 0; i < u->regions->len; i++) {
                regions_at(u->regions, i)->slot_count = 0;
                region_register(u, regions_at(u->regions, i));
        }
}

int uring_tables_register(struct uring *u)
{
        int ret = files_register(u);

        if (ret == 0)
                buffers_register(u);
        return ret;
}
