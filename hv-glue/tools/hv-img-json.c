/*
 * hv-img-json.c - JSON laid out as qemu-img lays it out.
 *
 * Scripts compare and grep this output: four spaces, `"key": value`, one item a
 * line, the empty list on two lines, ASCII only.  JSON libraries have layouts of
 * their own, and to write needs no tree.
 *
 * SPDX-License-Identifier: MIT
 */
#include <inttypes.h>
#include <stdio.h>

#include "hv-img.h"

static void print_escaped(const char *text)
{
        putchar('"');
        while (*text != '\0') {
                gunichar c = g_utf8_get_char_validated(text, -1);

                if (c == (gunichar) -1 || c == (gunichar) -2) {
                        printf("\\uFFFD");
                        text++;
                        continue;
                }
                text = g_utf8_next_char(text);
                if (c == '"' || c == '\\')
                        printf("\\%c", (char) c);
                else if (c == '\n')
                        printf("\\n");
                else if (c == '\r')
                        printf("\\r");
                else if (c == '\t')
                        printf("\\t");
                else if (c >= 0x10000)
                        printf("\\u%04X\\u%04X", 0xd800 + ((c - 0x10000) >> 10),
                               0xdc00 + ((c - 0x10000) & 0x3ff));
                else if (c < ' ' || c > '~')
                        printf("\\u%04X", c);
                else
                        putchar(c);
        }
        putchar('"');
}

/* The comma after the item before, the indentation, the key. */
static void item_begin(struct json *json, const char *key)
{
        if (json->has_items)
                putchar(',');
        if (json->depth > 0)
                printf("\n%*s", json->depth * 4, "");
        if (key != NULL) {
                print_escaped(key);
                printf(": ");
        }
        json->has_items = true;
}

static void nest_begin(struct json *json, const char *key, char bracket)
{
        item_begin(json, key);
        putchar(bracket);
        json->depth++;
        json->has_items = false;
}

static void nest_end(struct json *json, char bracket)
{
        g_assert(json->depth > 0);
        json->depth--;
        json->has_items = true;
        printf("\n%*s%c", json->depth * 4, "", bracket);
        if (json->depth == 0)
                putchar('\n');
}

void json_object_begin(struct json *json, const char *key)
{
        nest_begin(json, key, '{');
}

void json_object_end(struct json *json)
{
        nest_end(json, '}');
}

void json_array_begin(struct json *json, const char *key)
{
        nest_begin(json, key, '[');
}

void json_array_end(struct json *json)
{
        nest_end(json, ']');
}

void json_string(struct json *json, const char *key, const char *value)
{
        item_begin(json, key);
        print_escaped(value);
}

void json_uint(struct json *json, const char *key, uint64_t value)
{
        item_begin(json, key);
        printf("%" PRIu64, value);
}

void json_bool(struct json *json, const char *key, bool value)
{
        item_begin(json, key);
        fputs(value ? "true" : "false", stdout);
}
