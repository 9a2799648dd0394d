/*
 * error.c - one line of text for the host, filled by whoever knows the fact.
 *
 * Texts quote names that come from an image.  Whatever those hold, what arrives
 * at the host is one line of valid UTF-8: control characters and broken
 * sequences become '?'.
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>
#include <glib.h>
#include <stdarg.h>
#include <stdio.h>

#include "disk/error.h"

static void make_one_line(char *text)
{
        const char *bad;

        while (!g_utf8_validate(text, -1, &bad))
                text[bad - text] = '?';
        for (; *text; text++) {
                if (g_ascii_iscntrl(*text))
                        *text = '?';
        }
}

int error_set(struct hvb_error *err, int code, const char *format, ...)
{
        va_list args;

        assert(code < 0);
        if (!err || err->code)
                return code;

        va_start(args, format);
        vsnprintf(err->text, sizeof(err->text), format, args);
        va_end(args);
        make_one_line(err->text);
        err->code = code;
        return code;
}

void error_prefix(struct hvb_error *err, const char *words)
{
        g_autofree char *text = NULL;

        if (!err || !err->code)
                return;
        text = g_strdup(err->text);
        g_strlcpy(err->text, words, sizeof(err->text));
        g_strlcat(err->text, text, sizeof(err->text));
}
