/*
 * json-text.c - JSON on one line as QEMU writes it.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/json-text.h"

#include <string.h>

#include "host/json-escape.h"

static void append_array(GString *text, JsonArray *array)
{
        g_string_append_c(text, '[');
        for (guint i = 0; i < json_array_get_length(array); i++) {
                if (i > 0)
                        g_string_append(text, ", ");
                json_text_append(text, json_array_get_element(array, i));
        }
        g_string_append_c(text, ']');
}

static void append_object(GString *text, JsonObject *object)
{
        JsonObjectIter iter;
        const char *name, *separator = "";
        JsonNode *member;

        g_string_append_c(text, '{');
        json_object_iter_init_ordered(&iter, object);
        while (json_object_iter_next_ordered(&iter, &name, &member)) {
                g_string_append(text, separator);
                json_escape_append(text, name);
                g_string_append(text, ": ");
                json_text_append(text, member);
                separator = ", ";
        }
        g_string_append_c(text, '}');
}

static void append_value(GString *text, JsonNode *node)
{
        char number[G_ASCII_DTOSTR_BUF_SIZE];

        switch (json_node_get_value_type(node)) {
        case G_TYPE_STRING:
                json_escape_append(text, json_node_get_string(node));
                break;
        case G_TYPE_BOOLEAN:
                g_string_append(text, json_node_get_boolean(node) ? "true" : "false");
                break;
        case G_TYPE_DOUBLE:
                g_ascii_formatd(number, sizeof(number), "%.17g", json_node_get_double(node));
                g_string_append(text, number);
                break;
        default:
                g_string_append_printf(text, "%" G_GINT64_FORMAT, json_node_get_int(node));
        }
}

void json_text_append(GString *text, JsonNode *node)
{
        switch (json_node_get_node_type(node)) {
        case JSON_NODE_OBJECT:
                append_object(text, json_node_get_object(node));
                break;
        case JSON_NODE_ARRAY:
                append_array(text, json_node_get_array(node));
                break;
        case JSON_NODE_NULL:
                g_string_append(text, "null");
                break;
        case JSON_NODE_VALUE:
                append_value(text, node);
                break;
        }
}
