/*
 * json-text.h - JSON on one line as QEMU writes it.
 *
 * A space after ':' and ',', ASCII only: scripts grep for '"status": "running"'.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef MONITOR_JSON_TEXT_H
#define MONITOR_JSON_TEXT_H

#include <json-glib/json-glib.h>

/* As deep as node is; strings that are no UTF-8 get replacement characters. */
void json_text_append(GString *text, JsonNode *node);

#endif
