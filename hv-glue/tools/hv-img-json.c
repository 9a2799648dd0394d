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

#include "host/json-escape.h"
#include "hv-img.h"

static void print_escaped(const char *text)
{
        g_autoptr(GString) escaped = g_string_new(NULL);

        json_escape_append(escaped, text);
        fputs(escaped->str, stdout);
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
