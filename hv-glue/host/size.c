/*
 * size.c - sizes as people write and read them.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/size.h"

#include <errno.h>
#include <glib.h>
#include <stdbool.h>
#include <string.h>

/* The shift that a suffix stands for; -1: no such suffix. */
static int suffix_shift(char suffix)
{
        static const char suffixes[] = "bkmgtpe";
        const char *found = suffix == '\0' ? suffixes : strchr(suffixes, g_ascii_tolower(suffix));

        return found == NULL ? -1 : (int) (found - suffixes) * 10;
}

static int parse_hex(const char *text, uint64_t *ret_bytes)
{
        guint64 value;

        if (!g_ascii_string_to_unsigned(text, 16, 0, G_MAXUINT64, &value, NULL))
                return -EINVAL;
        *ret_bytes = value;
        return 0;
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
        uint64_t whole = 0, sum;
        double fraction = 0, unit = 0.1;
        const char *p = text;
        bool is_fraction = false;
        int shift;

        if (g_ascii_strncasecmp(p, "0x", 2) == 0)
                return parse_hex(p + 2, ret_bytes);
        if (!g_ascii_isdigit(*p))
                return -EINVAL;
        for (; g_ascii_isdigit(*p); p++)
                if (!g_uint64_checked_mul(&whole, whole, 10)
                    || !g_uint64_checked_add(&whole, whole, g_ascii_digit_value(*p)))
                        return -ERANGE;
        if (*p == '.') {
                for (p++; g_ascii_isdigit(*p); p++, unit /= 10) {
                        fraction += g_ascii_digit_value(*p) * unit;
                        is_fraction = true;
                }
        }
        shift = suffix_shift(*p);
        if (shift < 0 || (*p != '\0' && p[1] != '\0') || (is_fraction && shift == 0))
                return -EINVAL;
        if (!g_uint64_checked_mul(&sum, whole, UINT64_C(1) << shift)
            || !g_uint64_checked_add(&sum, sum,
                                     (uint64_t) (fraction * (double) (UINT64_C(1) << shift))))
                return -ERANGE;
        *ret_bytes = sum;
        return 0;
}

char *size_text(uint64_t bytes)
{
        static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
        double value = bytes;
        unsigned i = 0;

        /* Never four digits before the point: 1000 KiB is 0.977 MiB. */
        for (; value >= 1000 && i + 1 < G_N_ELEMENTS(units); i++)
                value /= 1024;
        return g_strdup_printf("%0.3g %s", value, units[i]);
}
