/*
 * simdisk-image.c - the bytes of one simulated file, cheap to copy.
 *
 * Pages hang in a radix tree, 64 to a node.  Nodes are counted and shared between
 * images; a write copies the path to its page where it is shared.  So a clone costs
 * nothing, and a state of the disk after a power cut costs only what differs.
 *
 * Each node remembers the hash of what is below it.  A page's hash mixes in its
 * index and is 0 for zeros; a node's is the sum of its children's: neither the
 * shape of the tree nor pages of zeros show.
 *
 * Invariants:
 *  1. A node with more than one reference is never written to.
 *  2. A node whose hash is valid has only such nodes below it.
 *  3. Bytes at and past length_bytes are zero in the pages.
 *
 * SPDX-License-Identifier: MIT
 */
#include "lib/simdisk-image.h"

#include <errno.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

enum { SLOT_BITS = 6, SLOTS = 1 << SLOT_BITS, HEIGHT_MAX = 9 };

struct sim_node {
        unsigned refs;
        bool hashed;
        uint64_t hash;
};

struct page {
        struct sim_node node;
        uint8_t bytes[SIM_PAGE_BYTES];
};

struct inner {
        struct sim_node node;
        struct sim_node *child[SLOTS];
};

static struct page *as_page(struct sim_node *node)
{
        return (struct page *)node;
}

static struct inner *as_inner(struct sim_node *node)
{
        return (struct inner *)node;
}

/* Pages below a node of this height. */
static uint64_t span(unsigned height)
{
        return (uint64_t)1 << (SLOT_BITS * height);
}

static struct sim_node *node_ref(struct sim_node *node)
{
        if (node != NULL)
                node->refs++;
        return node;
}

static void node_unref(struct sim_node *node, unsigned height)
{
        unsigned i;

        if (node == NULL || --node->refs > 0)
                return;
        for (i = 0; height > 0 && i < SLOTS; i++)
                node_unref(as_inner(node)->child[i], height - 1);
        g_free(node);
}

static struct sim_node *node_new(unsigned height)
{
        struct sim_node *node = g_malloc0(height == 0 ? sizeof(struct page) : sizeof(struct inner));

        node->refs = 1;
        return node;
}

static struct sim_node *node_copy(struct sim_node *node, unsigned height)
{
        struct sim_node *copy;
        unsigned i;

        if (height == 0) {
                copy = g_memdup2(node, sizeof(struct page));
        } else {
                copy = g_memdup2(node, sizeof(struct inner));
                for (i = 0; i < SLOTS; i++)
                        node_ref(as_inner(copy)->child[i]);
        }
        copy->refs = 1;
        return copy;
}

/* Makes *slot ours alone, to be changed. */
static struct sim_node *node_own(struct sim_node **slot, unsigned height)
{
        struct sim_node *node = *slot;

        if (node == NULL) {
                *slot = node_new(height);
        } else if (node->refs > 1) {
                *slot = node_copy(node, height);
                node_unref(node, height);
        }
        (*slot)->hashed = false;
        return *slot;
}

struct sim_image sim_image_clone(const struct sim_image *image)
{
        node_ref(image->root);
        return *image;
}

void sim_image_clear(struct sim_image *image)
{
        node_unref(image->root, image->height);
        *image = (struct sim_image) { 0 };
}

static const struct page *page_find(const struct sim_image *image, uint64_t page_index)
{
        struct sim_node *node = image->root;
        unsigned height = image->height;

        if (page_index >= span(height))
                return NULL;
        while (node != NULL && height > 0) {
                height--;
                node = as_inner(node)->child[page_index / span(height) % SLOTS];
        }
        return (const struct page *)node;
}

static struct page *page_own(struct sim_image *image, uint64_t page_index)
{
        struct sim_node **slot = &image->root;
        unsigned height;

        while (page_index >= span(image->height)) {
                struct sim_node *root = image->root;

                g_assert(image->height < HEIGHT_MAX);
                image->height++;
                if (root == NULL)
                        continue;
                image->root = node_new(image->height);
                as_inner(image->root)->child[0] = root;
        }
        for (height = image->height; height > 0; height--) {
                struct sim_node *node = node_own(slot, height);

                slot = &as_inner(node)->child[page_index / span(height - 1) % SLOTS];
        }
        return as_page(node_own(slot, 0));
}

void sim_image_read(const struct sim_image *image, uint64_t offset, void *buffer, size_t length)
{
        while (length > 0) {
                const struct page *page = page_find(image, offset / SIM_PAGE_BYTES);
                size_t start = offset % SIM_PAGE_BYTES;
                size_t n = MIN(length, SIM_PAGE_BYTES - start);

                if (page == NULL)
                        memset(buffer, 0, n);
                else
                        memcpy(buffer, page->bytes + start, n);
                buffer = (char *)buffer + n;
                offset += n;
                length -= n;
        }
}

void sim_image_write(struct sim_image *image, uint64_t offset, const void *buffer, size_t length)
{
        image->length_bytes = MAX(image->length_bytes, offset + length);
        while (length > 0) {
                struct page *page = page_own(image, offset / SIM_PAGE_BYTES);
                size_t start = offset % SIM_PAGE_BYTES;
                size_t n = MIN(length, SIM_PAGE_BYTES - start);

                memcpy(page->bytes + start, buffer, n);
                buffer = (const char *)buffer + n;
                offset += n;
                length -= n;
        }
}

/* Drops pages [first, end) below *slot, whose own first page is base. */
static void drop_pages(struct sim_node **slot, unsigned height, uint64_t base, uint64_t first,
                       uint64_t end)
{
        uint64_t step;
        unsigned i;

        if (*slot == NULL || first >= base + span(height) || end <= base)
                return;
        if (first <= base && end >= base + span(height)) {
                node_unref(*slot, height);
                *slot = NULL;
                return;
        }
        step = span(height - 1);
        node_own(slot, height);
        for (i = 0; i < SLOTS; i++)
                drop_pages(&as_inner(*slot)->child[i], height - 1, base + i * step, first, end);
}

static void zero_in_page(struct sim_image *image, uint64_t offset, size_t length)
{
        uint64_t page_index = offset / SIM_PAGE_BYTES;

        if (length == 0 || page_find(image, page_index) == NULL)
                return;
        memset(page_own(image, page_index)->bytes + offset % SIM_PAGE_BYTES, 0, length);
}

void sim_image_zero(struct sim_image *image, uint64_t offset, uint64_t length_bytes)
{
        uint64_t end = MIN(offset + length_bytes, image->length_bytes);
        uint64_t first_whole = (offset + SIM_PAGE_BYTES - 1) / SIM_PAGE_BYTES;
        uint64_t end_whole = end / SIM_PAGE_BYTES;

        if (offset >= end)
                return;
        if (first_whole > end_whole) {
                zero_in_page(image, offset, end - offset);
                return;
        }
        zero_in_page(image, offset, first_whole * SIM_PAGE_BYTES - offset);
        drop_pages(&image->root, image->height, 0, first_whole, end_whole);
        zero_in_page(image, end_whole * SIM_PAGE_BYTES, end % SIM_PAGE_BYTES);
}

void sim_image_set_length(struct sim_image *image, uint64_t length_bytes)
{
        if (length_bytes < image->length_bytes)
                sim_image_zero(image, length_bytes, image->length_bytes - length_bytes);
        image->length_bytes = length_bytes;
}

static uint64_t mix(uint64_t x)
{
        x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
        x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
        return x ^ (x >> 32);
}

static uint64_t page_hash(const struct page *page, uint64_t page_index)
{
        const uint64_t *words = (const uint64_t *)page->bytes;
        uint64_t lane[4] = { 1, 2, 3, 4 };      /* independent, to keep the multiplier busy */
        uint64_t any = 0;
        unsigned i, k;

        for (i = 0; i < SIM_PAGE_BYTES / sizeof(*words); i += 4) {
                for (k = 0; k < 4; k++) {
                        any |= words[i + k];
                        lane[k] = (lane[k] ^ words[i + k]) * 0x9e3779b97f4a7c15u;
                        lane[k] ^= lane[k] >> 29;
                }
        }
        if (any == 0)
                return 0;
        return mix(mix(mix(mix(mix(page_index + 1) + lane[0]) + lane[1]) + lane[2]) + lane[3]);
}

static uint64_t node_hash(struct sim_node *node, unsigned height, uint64_t base)
{
        uint64_t step;
        unsigned i;

        if (node == NULL)
                return 0;
        if (node->hashed)
                return node->hash;
        if (height == 0) {
                node->hash = page_hash(as_page(node), base);
        } else {
                step = span(height - 1);
                node->hash = 0;
                for (i = 0; i < SLOTS; i++)
                        node->hash += node_hash(as_inner(node)->child[i], height - 1,
                                                base + i * step);
        }
        node->hashed = true;
        return node->hash;
}

uint64_t sim_image_hash(const struct sim_image *image)
{
        return mix(image->length_bytes + mix(node_hash(image->root, image->height, 0)));
}

/* The first page at or after first below node, UINT64_MAX: none. */
static uint64_t next_page(struct sim_node *node, unsigned height, uint64_t base, uint64_t first)
{
        uint64_t found = UINT64_MAX;
        uint64_t step;
        unsigned i;

        if (node == NULL || first >= base + span(height))
                return UINT64_MAX;
        if (height == 0)
                return base;
        step = span(height - 1);
        for (i = 0; i < SLOTS && found == UINT64_MAX; i++)
                found = next_page(as_inner(node)->child[i], height - 1, base + i * step, first);
        return found;
}

uint64_t sim_image_next_data(const struct sim_image *image, uint64_t offset)
{
        uint64_t page = next_page(image->root, image->height, 0, offset / SIM_PAGE_BYTES);

        return page == UINT64_MAX ? UINT64_MAX : page * SIM_PAGE_BYTES;
}

static int import_range(struct sim_image *image, int fd, uint64_t offset, uint64_t end)
{
        uint8_t buffer[16 * SIM_PAGE_BYTES];
        ssize_t n;

        while (offset < end) {
                n = pread(fd, buffer, MIN(sizeof(buffer), end - offset), offset);
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                sim_image_write(image, offset, buffer, n);
                offset += n;
        }
        return 0;
}

int sim_image_import(struct sim_image *image, int fd)
{
        off_t length = lseek(fd, 0, SEEK_END);
        off_t data = 0;
        off_t hole;
        int ret;

        if (length < 0)
                return -errno;
        sim_image_clear(image);
        while ((data = lseek(fd, data, SEEK_DATA)) >= 0) {
                hole = lseek(fd, data, SEEK_HOLE);
                if (hole < 0)
                        return -errno;
                ret = import_range(image, fd, data, hole);
                if (ret < 0)
                        return ret;
                data = hole;
        }
        if (errno != ENXIO)             /* what SEEK_DATA says past the last data */
                return -errno;
        sim_image_set_length(image, length);
        return 0;
}

int sim_image_export(const struct sim_image *image, int fd)
{
        uint8_t buffer[SIM_PAGE_BYTES];
        uint64_t offset;

        if (ftruncate(fd, 0) < 0 || ftruncate(fd, image->length_bytes) < 0)
                return -errno;
        for (offset = sim_image_next_data(image, 0); offset < image->length_bytes;
             offset = sim_image_next_data(image, offset + SIM_PAGE_BYTES)) {
                size_t n = MIN(sizeof(buffer), image->length_bytes - offset);

                sim_image_read(image, offset, buffer, n);
                if (pwrite(fd, buffer, n, offset) != (ssize_t)n)
                        return errno != 0 ? -errno : -EIO;
        }
        return 0;
}
