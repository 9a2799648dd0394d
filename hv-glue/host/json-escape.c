/*
 * json-escape.c - a JSON string as QEMU writes it.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/json-escape.h"

#include <string.h>

static void append_character(GString *text, gunichar c)
{
        static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
        const char *found = c > 0 && c < 128 ? strchr(plain, (int) c) : NULL;

        if (found != NULL) {
                g_string_append_c(text, '\\');
                g_string_append_c(text, letters[found - plain]);
        } else if (c >= 0x10000) {
                g_string_append_printf(text, "\\u%04X\\u%04X", 0xd800 + ((c - 0x10000) >> 10),
                                       0xdc00 + ((c - 0x10000) & 0x3ff));
        } else if (c < ' ' || c > '~') {
                g_string_append_printf(text, "\\u%04X", c);
        } else {
                g_string_append_c(text, (char) c);
        }
}

void json_escape_append(GString *text, const char *string)
{
        g_string_append_c(text, '"');
        while (*string != '\0') {
                gunichar c = g_utf8_get_char_validated(string, -1);

                if (c == (gunichar) -1 || c == (gunichar) -2) {
                        g_string_append(text, "\\uFFFD");
                        string++;
                } else {
                        append_character(text, c);
                        string = g_utf8_next_char(string);
                }
        }
        g_string_append_c(text, '"');
}
