/*
 * size.h - sizes as people write and read them.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_SIZE_H
#define HOST_SIZE_H

#include <stdint.h>

/*
 * A number of bytes: digits, a fraction if a suffix follows, then one of bkKMGTPE or
 * nothing; or 0x and hexadecimal digits.  0, -EINVAL: no such number, -ERANGE: not
 * below 2^64.
 */
int size_parse(const char *text, uint64_t *ret_bytes);
/* "1.5 GiB": three digits.  g_free. */
char *size_text(uint64_t bytes);

#endif
