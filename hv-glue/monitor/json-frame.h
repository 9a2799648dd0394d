/*
 * json-frame.h - where one JSON object ends in a stream of bytes, and what is refused early.
 *
 * Looks at tokens only; what it hands out is at most so long and so deep that a
 * recursive parser may read it, contains nothing that parsers differ about (comments,
 * octal numbers, NUL in strings, half surrogates), and is plain JSON: QEMU's strings in
 * single quotes have become double-quoted ones.
 *
 * After an error everything is ignored until the line ends.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_JSON_FRAME_H
#define MONITOR_JSON_FRAME_H

#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>

enum {
        JSON_FRAME_BYTES = 64 << 10,    /* QEMU: 64 MiB.  No command needs a tenth of this */
        JSON_FRAME_DEPTH = 64,          /* QEMU: 1024 */
};

enum json_frame_state {
        JSON_FRAME_BETWEEN, JSON_FRAME_WORD, JSON_FRAME_STRING, JSON_FRAME_ESCAPE,
        JSON_FRAME_UNICODE, JSON_FRAME_SKIP,
};

struct json_frame {
        GString *text;                  /* the object so far */
        enum json_frame_state state;
        unsigned depth;
        unsigned member_count;          /* colons seen: members of all objects */
        uint8_t quote;
        gsize word_begin;               /* in text */
        unsigned unicode_digits;
        unsigned unicode_value;
        bool half_pair;                 /* a high surrogate: a low one must follow */
};

void json_frame_init(struct json_frame *frame);
void json_frame_clear(struct json_frame *frame);

/*
 * Takes one byte.  Returns 1 when it ended an object, which is then in text until the
 * next call; 0 when more is needed; -EINVAL with *ret_error, static, saying why.
 */
int json_frame_byte(struct json_frame *frame, uint8_t byte, const char **ret_error);

/* The object in text, or NULL with *ret_error.  json_node_unref. */
JsonNode *json_frame_parse(struct json_frame *frame, const char **ret_error);

#endif
