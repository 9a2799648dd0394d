/*
 * json-escape.h - a JSON string as QEMU writes it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_JSON_ESCAPE_H
#define HOST_JSON_ESCAPE_H

#include <glib.h>

/* With its quotes, ASCII only; bytes that are no UTF-8 become replacement characters. */
void json_escape_append(GString *text, const char *string);

#endif
