/*
 * be.h - big-endian numbers in bytes, at any alignment.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_BE_H
#define SNAPSHOT_BE_H

#include <glib.h>
#include <stdint.h>
#include <string.h>

static inline void put32(uint8_t *at, uint32_t value)
{
        value = GUINT32_TO_BE(value);
        memcpy(at, &value, sizeof(value));
}

static inline void put64(uint8_t *at, uint64_t value)
{
        value = GUINT64_TO_BE(value);
        memcpy(at, &value, sizeof(value));
}

static inline uint32_t get32(const uint8_t *at)
{
        uint32_t value;

        memcpy(&value, at, sizeof(value));
        return GUINT32_FROM_BE(value);
}

static inline uint64_t get64(const uint8_t *at)
{
        uint64_t value;

        memcpy(&value, at, sizeof(value));
        return GUINT64_FROM_BE(value);
}

#endif
