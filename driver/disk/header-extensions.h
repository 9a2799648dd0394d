/*
 * header-extensions.h - what lies between the fixed header and the backing name.
 *
 * For header.c alone; everybody else sees struct header.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef DISK_HEADER_EXTENSIONS_H
#define DISK_HEADER_EXTENSIONS_H

#include "disk/header.h"

/* Appends the extensions in area to h->extensions, and fills h->backing_format.  On
 * failure what stood before the bad one has been taken. */
int extensions_decode(struct header *h, const uint8_t *area, size_t area_bytes,
                      struct hvb_error *err);

void extensions_clear(struct header *h);

/* Room that encoding takes, END included; a multiple of 8. */
size_t extensions_encoded_bytes(const struct header *h, bool with_feature_names);
/* Writes that many bytes to a zeroed area. */
void extensions_encode(const struct header *h, bool with_feature_names, uint8_t *area);

/* Names the incompatible features in mask, separated by commas; g_free() it.  Features
 * of the format go by their own names, others by what h's feature name table says. */
char *extensions_name_features(const struct header *h, uint64_t mask);

#endif
