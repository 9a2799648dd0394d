/*
 * model.c - the disk in memory that images are compared with; see model.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "model.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib.h>

struct model_page {
        unsigned ref_count;
        uint8_t bytes[MODEL_PAGE_BYTES];
};

static const uint8_t zero_page[MODEL_PAGE_BYTES];

static size_t pages_of(uint64_t size_bytes)
{
        return (size_bytes + MODEL_PAGE_BYTES - 1) / MODEL_PAGE_BYTES;
}

static void page_drop(struct model_page *page)
{
        if (page && --page->ref_count == 0)
                g_free(page);
}

/* The page, private to this disk and writable. */
static struct model_page *page_own(struct model_disk *disk, size_t index)
{
        struct model_page *page = disk->pages[index];

        assert(index < disk->page_count);
        if (page && page->ref_count == 1)
                return page;

        struct model_page *copy = g_new0(struct model_page, 1);

        copy->ref_count = 1;
        if (page)
                memcpy(copy->bytes, page->bytes, MODEL_PAGE_BYTES);
        page_drop(page);
        disk->pages[index] = copy;
        return copy;
}

static const uint8_t *page_bytes(const struct model_disk *disk, size_t index)
{
        return disk->pages[index] ? disk->pages[index]->bytes : zero_page;
}

struct model_disk *disk_new(uint64_t size_bytes)
{
        struct model_disk *disk = g_new0(struct model_disk, 1);

        disk->size_bytes = size_bytes;
        disk->page_count = pages_of(size_bytes);
        disk->pages = g_new0(struct model_page *, disk->page_count);
        return disk;
}

struct model_disk *disk_clone(const struct model_disk *disk)
{
        struct model_disk *copy = disk_new(disk->size_bytes);

        for (size_t i = 0; i < disk->page_count; i++) {
                copy->pages[i] = disk->pages[i];
                if (copy->pages[i])
                        copy->pages[i]->ref_count++;
        }
        return copy;
}

void disk_free(struct model_disk *disk)
{
        if (!disk)
                return;
        for (size_t i = 0; i < disk->page_count; i++)
                page_drop(disk->pages[i]);
        g_free(disk->pages);
        g_free(disk);
}

void disk_resize(struct model_disk *disk, uint64_t size_bytes)
{
        size_t page_count = pages_of(size_bytes);

        for (size_t i = page_count; i < disk->page_count; i++)
                page_drop(disk->pages[i]);
        disk->pages = g_renew(struct model_page *, disk->pages, page_count);
        for (size_t i = disk->page_count; i < page_count; i++)
                disk->pages[i] = NULL;
        disk->page_count = page_count;

        size_t tail = size_bytes % MODEL_PAGE_BYTES;

        if (size_bytes < disk->size_bytes && tail && disk->pages[page_count - 1])
                memset(page_own(disk, page_count - 1)->bytes + tail, 0, MODEL_PAGE_BYTES - tail);
        disk->size_bytes = size_bytes;
}

/* Bytes of [offset, offset + length) that lie in offset's page. */
static size_t in_page(uint64_t offset, size_t length_bytes)
{
        size_t room = MODEL_PAGE_BYTES - offset % MODEL_PAGE_BYTES;

        return length_bytes < room ? length_bytes : room;
}

void disk_read(const struct model_disk *disk, uint64_t offset, void *buf, size_t length_bytes)
{
        uint8_t *to = buf;

        assert(offset + length_bytes <= disk->size_bytes);
        while (length_bytes) {
                size_t n = in_page(offset, length_bytes);

                memcpy(to, page_bytes(disk, offset / MODEL_PAGE_BYTES) + offset % MODEL_PAGE_BYTES,
                       n);
                to += n;
                offset += n;
                length_bytes -= n;
        }
}

void disk_write(struct model_disk *disk, uint64_t offset, const void *buf, size_t length_bytes)
{
        const uint8_t *from = buf;

        assert(offset + length_bytes <= disk->size_bytes);
        while (length_bytes) {
                size_t n = in_page(offset, length_bytes);
                size_t index = offset / MODEL_PAGE_BYTES;

                if (disk->pages[index] || memcmp(from, zero_page, n))
                        memcpy(page_own(disk, index)->bytes + offset % MODEL_PAGE_BYTES, from, n);
                from += n;
                offset += n;
                length_bytes -= n;
        }
}

void disk_fill(struct model_disk *disk, uint64_t offset, uint8_t byte, size_t length_bytes)
{
        assert(offset + length_bytes <= disk->size_bytes);
        while (length_bytes) {
                size_t n = in_page(offset, length_bytes);
                size_t index = offset / MODEL_PAGE_BYTES;

                if (byte || disk->pages[index])
                        memset(page_own(disk, index)->bytes + offset % MODEL_PAGE_BYTES, byte, n);
                offset += n;
                length_bytes -= n;
        }
}

bool disk_is_zero(const struct model_disk *disk, uint64_t offset, uint64_t length_bytes)
{
        assert(offset + length_bytes <= disk->size_bytes);
        while (length_bytes) {
                size_t n = in_page(offset, length_bytes);
                const uint8_t *page = page_bytes(disk, offset / MODEL_PAGE_BYTES);

                if (page != zero_page && memcmp(page + offset % MODEL_PAGE_BYTES, zero_page, n))
                        return false;
                offset += n;
                length_bytes -= n;
        }
        return true;
}

bool disk_allows(const struct model_disk *disk, const struct model_disk *other, uint64_t offset,
                 const void *got, size_t length_bytes, uint64_t *ret_bad)
{
        const uint8_t *from = got;

        assert(offset + length_bytes <= disk->size_bytes);
        assert(!other || other->size_bytes == disk->size_bytes);
        while (length_bytes) {
                size_t n = in_page(offset, length_bytes);
                size_t at = offset % MODEL_PAGE_BYTES;
                const uint8_t *a = page_bytes(disk, offset / MODEL_PAGE_BYTES) + at;
                const uint8_t *b = other ? page_bytes(other, offset / MODEL_PAGE_BYTES) + at : a;

                for (size_t i = 0; memcmp(a, from, n) != 0 && i < n; i++) {
                        if (from[i] != a[i] && from[i] != b[i]) {
                                *ret_bad = offset + i;
                                return false;
                        }
                }
                from += n;
                offset += n;
                length_bytes -= n;
        }
        return true;
}

static int export_pages(const struct model_disk *disk, int fd)
{
        for (size_t i = 0; i < disk->page_count; i++) {
                uint64_t offset = (uint64_t)i * MODEL_PAGE_BYTES;
                uint64_t left = disk->size_bytes - offset;
                size_t n = left < MODEL_PAGE_BYTES ? left : MODEL_PAGE_BYTES;

                if (!disk->pages[i] || !memcmp(disk->pages[i]->bytes, zero_page, n))
                        continue;
                if (pwrite(fd, disk->pages[i]->bytes, n, offset) != (ssize_t)n)
                        return errno ? -errno : -EIO;
        }
        return ftruncate(fd, disk->size_bytes) < 0 ? -errno : 0;
}

int disk_export(const struct model_disk *disk, const char *path)
{
        int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

        if (fd < 0)
                return -errno;

        int ret = export_pages(disk, fd);

        close(fd);
        return ret;
}

void model_init(struct model *model, uint64_t size_bytes)
{
        memset(model, 0, sizeof(*model));
        model->disk = disk_new(size_bytes);
}

static void snapshot_free(struct model_snapshot *snapshot)
{
        disk_free(snapshot->disk);
        disk_free(snapshot->other);
        disk_free(snapshot->vm_state);
        g_free(snapshot);
}

void model_clear(struct model *model)
{
        for (unsigned i = 0; i < model->snapshot_count; i++)
                snapshot_free(model->snapshots[i]);
        disk_free(model->disk);
        memset(model, 0, sizeof(*model));
}

static unsigned long next_id(const struct model *model)
{
        unsigned long max = 0;

        for (unsigned i = 0; i < model->snapshot_count; i++) {
                unsigned long id = strtoul(model->snapshots[i]->id, NULL, 10);

                max = id > max ? id : max;
        }
        return max + 1;
}

struct model_snapshot *model_snapshot_create(struct model *model, const char *name)
{
        struct model_snapshot *snapshot = g_new0(struct model_snapshot, 1);

        assert(model->snapshot_count < MODEL_SNAPSHOTS_MAX);
        snprintf(snapshot->id, sizeof(snapshot->id), "%lu", next_id(model));
        g_strlcpy(snapshot->name, name, sizeof(snapshot->name));
        snapshot->disk = disk_clone(model->disk);
        snapshot->vm_state = disk_new(0);
        model->snapshots[model->snapshot_count++] = snapshot;
        return snapshot;
}

struct model_snapshot *model_snapshot_find(struct model *model, const char *name)
{
        for (unsigned i = 0; i < model->snapshot_count; i++)
                if (!strcmp(model->snapshots[i]->name, name))
                        return model->snapshots[i];
        return NULL;
}

void model_snapshot_goto(struct model *model, const struct model_snapshot *snapshot)
{
        assert(!snapshot->other);               /* settle it first */
        disk_free(model->disk);
        model->disk = disk_clone(snapshot->disk);
}

void model_snapshot_delete(struct model *model, struct model_snapshot *snapshot)
{
        unsigned i = 0;

        while (i < model->snapshot_count && model->snapshots[i] != snapshot)
                i++;
        assert(i < model->snapshot_count);
        snapshot_free(snapshot);
        model->snapshot_count--;
        memmove(&model->snapshots[i], &model->snapshots[i + 1],
                (model->snapshot_count - i) * sizeof(model->snapshots[0]));
}

void snapshot_settle(struct model_snapshot *snapshot, struct model_disk *got)
{
        assert(got->size_bytes == snapshot->disk->size_bytes);
        disk_free(snapshot->disk);
        disk_free(snapshot->other);
        snapshot->disk = got;
        snapshot->other = NULL;
}
