/*
 * header.h - cluster 0: the header, its extensions, the backing file name.
 *
 * Decoding validates everything against the limits and the file's length, so
 * that nothing behind it needs to.  Unknown fields and extensions are kept.
 * Source: format sections "General", "Header extensions", "Feature name table".
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef DISK_HEADER_H
#define DISK_HEADER_H

#include <glib.h>

#include "disk/format.h"
#include "hv-block.h"

struct header_extension {
        uint32_t type;
        uint32_t length_bytes;
        uint8_t *data;                  /* owned; length_bytes, unpadded */
};

struct header {
        struct geometry geometry;
        unsigned version;
        uint64_t size_bytes;            /* virtual disk size */
        uint32_t crypt_method;
        uint32_t l1_entries;
        uint64_t l1_offset;
        uint64_t reftable_offset;
        uint32_t reftable_clusters;
        uint32_t snapshot_count;
        uint64_t snapshots_offset;
        uint64_t incompatible;
        uint64_t compatible;
        uint64_t autoclear;
        uint32_t header_bytes;          /* 72 for v2 */
        uint8_t compression;            /* enum hvb_compression */
        char *backing_name;             /* owned; NULL: none */
        char *backing_format;           /* owned; NULL: none named */
        GArray *extensions;             /* of struct header_extension, in file order, owned; all
                                         * but END, backing format included */
        uint8_t *unknown;               /* owned; header bytes beyond those we know, or NULL */
        uint32_t unknown_bytes;
};

/* How many bytes of the file decoding wants: cluster 0.  head: at least the first
 * 104 bytes (less if the file is shorter).  Refuses what is not qcow2 v2/v3. */
int header_peek(const uint8_t *head, size_t head_bytes, uint64_t *ret_wanted_bytes,
                struct hvb_error *err);

/*
 * bytes: cluster 0, or what the file has of it.  file_bytes: the file's length, for checking that
 * tables lie inside.  On failure ret_header is cleared.  Features that no code here serves
 * (incompatible bits; encryption) are refused by name.
 */
int header_decode(struct header *ret_header, const uint8_t *bytes, size_t byte_count,
                  uint64_t file_bytes, struct hvb_error *err);

void header_clear(struct header *h);

/*
 * The list of extensions.  set replaces the first of its type or appends; data is copied; 0 or
 * -ENOMEM with the list as before.  remove drops all of that type.  A found extension is valid
 * until the list changes.  The backing format is set through backing_format, not here.
 */
struct header_extension *header_extension_find(const struct header *h, uint32_t type);
int header_extension_set(struct header *h, uint32_t type, const void *data, uint32_t length_bytes);
void header_extension_remove(struct header *h, uint32_t type);

/*
 * Puts the fields of the first 512 bytes (of the fixed header, up to 112) into sector, which
 * holds what the file has there; all other bytes stay.  This is the root switch.
 */
void header_patch_root(const struct header *h, uint8_t sector[ROOT_SECTOR_BYTES]);

/* Lays out a whole cluster 0 (zeroed first): header, extensions, feature names,
 * backing name.  -EINVAL if it does not fit. */
int header_build(const struct header *h, uint8_t *cluster, struct hvb_error *err);

#endif
