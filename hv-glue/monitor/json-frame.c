/*
 * json-frame.c - where one JSON object ends in a stream of bytes, and what is refused early.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/json-frame.h"

#include <errno.h>
#include <math.h>
#include <string.h>

void json_frame_init(struct json_frame *frame)
{
        *frame = (struct json_frame) { .text = g_string_new(NULL) };
}

void json_frame_clear(struct json_frame *frame)
{
        g_string_free(frame->text, TRUE);
}

static void reset(struct json_frame *frame)
{
        g_string_truncate(frame->text, 0);
        frame->state = JSON_FRAME_BETWEEN;
        frame->depth = frame->member_count = 0;
        frame->half_pair = false;
}

static bool is_word_byte(uint8_t byte)
{
        return g_ascii_isalnum(byte) || byte == '-' || byte == '+' || byte == '.';
}

/* A keyword, or a number that 64 bits or a double hold. */
static bool is_value(const char *word)
{
        static const char number[] = "^-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?$";

        if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0 || strcmp(word, "null") == 0)
                return true;
        if (!g_regex_match_simple(number, word, G_REGEX_DOLLAR_ENDONLY, 0))
                return false;
        if (strpbrk(word, ".eE") != NULL)
                return isfinite(g_ascii_strtod(word, NULL));
        return g_ascii_string_to_signed(word, 10, G_MININT64, G_MAXINT64, NULL, NULL);
}

static const char *between(struct json_frame *frame, uint8_t byte)
{
        if (frame->depth == 0 && byte != '{')
                return "QMP input must be a JSON object";
        switch (byte) {
        case '{':
        case '[':
                if (frame->depth == JSON_FRAME_DEPTH)
                        return "JSON nesting depth limit exceeded";
                frame->depth++;
                break;
        case '}':
        case ']':
                frame->depth--;
                break;
        case ':':
                frame->member_count++;
                break;
        case '"':
        case '\'':
                frame->state = JSON_FRAME_STRING;
                frame->quote = byte;
                byte = '"';
                break;
        case ',':
                break;
        default:
                if (!is_word_byte(byte))
                        return "JSON parse error, stray character";
                frame->state = JSON_FRAME_WORD;
                frame->word_begin = frame->text->len;
        }
        g_string_append_c(frame->text, (char) byte);
        return NULL;
}

static const char *in_string(struct json_frame *frame, uint8_t byte)
{
        if (byte < ' ')
                return "JSON parse error, control character in string";
        if (frame->half_pair && byte != '\\')
                return "JSON parse error, not a valid Unicode character";
        if (byte == '\\') {
                frame->state = JSON_FRAME_ESCAPE;
                return NULL;
        }
        if (byte == frame->quote) {
                frame->state = JSON_FRAME_BETWEEN;
                byte = '"';
        } else if (byte == '"') {
                g_string_append_c(frame->text, '\\');
        }
        g_string_append_c(frame->text, (char) byte);
        return NULL;
}

static const char *in_escape(struct json_frame *frame, uint8_t byte)
{
        frame->state = JSON_FRAME_STRING;
        if (byte == '\'') {
                g_string_append_c(frame->text, '\'');
                return frame->half_pair ? "JSON parse error, not a valid Unicode character" : NULL;
        }
        if (byte == '\0' || strchr("\"\\/bfnrtu", byte) == NULL)
                return "JSON parse error, invalid escape sequence in string";
        g_string_append_c(frame->text, '\\');
        g_string_append_c(frame->text, (char) byte);
        if (byte == 'u') {
                frame->state = JSON_FRAME_UNICODE;
                frame->unicode_digits = frame->unicode_value = 0;
        } else if (frame->half_pair) {
                return "JSON parse error, not a valid Unicode character";
        }
        return NULL;
}

static const char *in_unicode(struct json_frame *frame, uint8_t byte)
{
        unsigned value;

        if (!g_ascii_isxdigit(byte))
                return "JSON parse error, invalid escape sequence in string";
        g_string_append_c(frame->text, (char) byte);
        frame->unicode_value = frame->unicode_value << 4
                | (unsigned) g_ascii_xdigit_value((char) byte);
        if (++frame->unicode_digits < 4)
                return NULL;
        value = frame->unicode_value;
        if (value == 0 || frame->half_pair != (value >= 0xdc00 && value < 0xe000))
                return "JSON parse error, not a valid Unicode character";
        frame->half_pair = value >= 0xd800 && value < 0xdc00;
        frame->state = JSON_FRAME_STRING;
        return NULL;
}

static bool is_space(uint8_t byte)
{
        return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* NULL, or what is wrong with byte here. */
static const char *take(struct json_frame *frame, uint8_t byte)
{
        if (frame->text->len >= JSON_FRAME_BYTES)
                return "JSON token size limit exceeded";
        switch (frame->state) {
        case JSON_FRAME_STRING:
                return in_string(frame, byte);
        case JSON_FRAME_ESCAPE:
                return in_escape(frame, byte);
        case JSON_FRAME_UNICODE:
                return in_unicode(frame, byte);
        case JSON_FRAME_WORD:
                if (is_word_byte(byte)) {
                        g_string_append_c(frame->text, (char) byte);
                        return NULL;
                }
                if (!is_value(frame->text->str + frame->word_begin))
                        return "JSON parse error, invalid keyword or number";
                frame->state = JSON_FRAME_BETWEEN;
                break;
        default:
                break;
        }
        if (!is_space(byte))
                return between(frame, byte);
        /* Keeps words apart, once. */
        if (frame->depth > 0 && frame->text->str[frame->text->len - 1] != ' ')
                g_string_append_c(frame->text, ' ');
        return NULL;
}

int json_frame_byte(struct json_frame *frame, uint8_t byte, const char **ret_error)
{
        const char *error;

        if (frame->state == JSON_FRAME_SKIP) {
                if (byte == '\n')
                        reset(frame);
                return 0;
        }
        if (frame->depth == 0)
                reset(frame);           /* the object before has been used */
        error = take(frame, byte);
        if (error != NULL) {
                reset(frame);
                if (byte != '\n')
                        frame->state = JSON_FRAME_SKIP;
                *ret_error = error;
                return -EINVAL;
        }
        return frame->text->len > 0 && frame->depth == 0 ? 1 : 0;
}

static unsigned count_members(JsonNode *node)
{
        unsigned count = 0;
        JsonObjectIter iter;
        JsonNode *member;

        if (JSON_NODE_HOLDS_ARRAY(node)) {
                JsonArray *array = json_node_get_array(node);

                for (guint i = 0; i < json_array_get_length(array); i++)
                        count += count_members(json_array_get_element(array, i));
        } else if (JSON_NODE_HOLDS_OBJECT(node)) {
                json_object_iter_init(&iter, json_node_get_object(node));
                while (json_object_iter_next(&iter, NULL, &member))
                        count += 1 + count_members(member);
        }
        return count;
}

JsonNode *json_frame_parse(struct json_frame *frame, const char **ret_error)
{
        g_autoptr(JsonParser) parser = json_parser_new();
        const char *text = frame->text->str;
        JsonNode *root = NULL;

        if (!g_utf8_validate(text, (gssize) frame->text->len, NULL)) {
                *ret_error = "JSON parse error, invalid UTF-8 sequence in string";
        } else if (!json_parser_load_from_data(parser, text, (gssize) frame->text->len, NULL)) {
                *ret_error = "JSON parse error, expecting value";
        } else if (count_members(json_parser_get_root(parser)) != frame->member_count) {
                *ret_error = "JSON parse error, duplicate key";
        } else {
                root = json_parser_steal_root(parser);
        }
        return root;
}
