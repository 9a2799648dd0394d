/*
 * bytes.h - big-endian loads and stores, checked arithmetic on image numbers.
 *
 * Everything in a qcow2 file is big-endian.  Sums and products of numbers that
 * come from an image go through the checked functions here.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef DISK_BYTES_H
#define DISK_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t be16_load(const void *p)
{
        uint16_t v;

        memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        v = __builtin_bswap16(v);
#endif
        return v;
}

static inline uint32_t be32_load(const void *p)
{
        uint32_t v;

        memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        v = __builtin_bswap32(v);
#endif
        return v;
}

static inline uint64_t be64_load(const void *p)
{
        uint64_t v;

        memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        v = __builtin_bswap64(v);
#endif
        return v;
}

static inline void be16_store(void *p, uint16_t v)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        v = __builtin_bswap16(v);
#endif
        memcpy(p, &v, sizeof(v));
}

static inline void be32_store(void *p, uint32_t v)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        v = __builtin_bswap32(v);
#endif
        memcpy(p, &v, sizeof(v));
}

static inline void be64_store(void *p, uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        v = __builtin_bswap64(v);
#endif
        memcpy(p, &v, sizeof(v));
}

/* Each returns false, and leaves *ret alone, if the result does not fit. */
static inline bool u64_add(uint64_t a, uint64_t b, uint64_t *ret)
{
        uint64_t sum;

        if (__builtin_add_overflow(a, b, &sum))
                return false;
        *ret = sum;
        return true;
}

static inline bool u64_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
        uint64_t product;

        if (__builtin_mul_overflow(a, b, &product))
                return false;
        *ret = product;
        return true;
}

/* unit is a power of two; the result must fit (callers hold values below 2^63). */
static inline uint64_t round_down(uint64_t v, uint64_t unit)
{
        return v & ~(unit - 1);
}

static inline uint64_t round_up(uint64_t v, uint64_t unit)
{
        return round_down(v + unit - 1, unit);
}

static inline uint64_t div_up(uint64_t v, uint64_t unit)
{
        return v / unit + (v % unit != 0);
}

static inline uint64_t u64_min(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

static inline uint64_t u64_max(uint64_t a, uint64_t b)
{
        return a > b ? a : b;
}

static inline bool is_power_of_two(uint64_t v)
{
        return v != 0 && (v & (v - 1)) == 0;
}

#endif
