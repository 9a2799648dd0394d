/*
 * simdisk-image.h - the bytes of one simulated file, cheap to copy.
 *
 * A sim_image is a value: zeroed it is an empty file, sim_image_clone gives a
 * copy that shares all pages until one side writes, sim_image_clear lets go.
 * One thread only.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_LIB_SIMDISK_IMAGE_H
#define TESTS_LIB_SIMDISK_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SIM_PAGE_BYTES = 4096 };

struct sim_node;

struct sim_image {
        struct sim_node *root;          /* NULL: all zeros */
        unsigned height;                /* levels above the pages */
        uint64_t length_bytes;
};

/* In constant time. */
struct sim_image sim_image_clone(const struct sim_image *image);
void sim_image_clear(struct sim_image *image);

/* Grows with zeros; what is cut off is gone. */
void sim_image_set_length(struct sim_image *image, uint64_t length_bytes);

/* Past the end zeros are read. */
void sim_image_read(const struct sim_image *image, uint64_t offset, void *buffer, size_t length);
void sim_image_write(struct sim_image *image, uint64_t offset, const void *buffer, size_t length);

/* Whole pages are dropped.  Keeps the length. */
void sim_image_zero(struct sim_image *image, uint64_t offset, uint64_t length_bytes);

/* Equal content and length give equal hashes, whatever the history.  Parts that did
 * not change since the last call, here or in a clone, are not read again. */
uint64_t sim_image_hash(const struct sim_image *image);

/* The offset of the first page at or after offset that may hold data; UINT64_MAX: none. */
uint64_t sim_image_next_data(const struct sim_image *image, uint64_t offset);

/* From and to a real file, holes kept.  0 or -errno. */
int sim_image_import(struct sim_image *image, int fd);
int sim_image_export(const struct sim_image *image, int fd);

#endif
