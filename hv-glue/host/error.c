/*
 * error.c - filling struct hvb_error on the host's side of the ABI.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/error.h"

#include <glib.h>
#include <stdarg.h>
#include <stdio.h>

void error_clear(struct hvb_error *err)
{
        if (err != NULL)
                *err = (struct hvb_error) ERROR_INIT;
}

int error_set(struct hvb_error *err, int code, const char *format, ...)
{
        va_list args;

        g_assert(code < 0);
        if (err == NULL)
                return code;
        error_clear(err);
        err->code = code;
        va_start(args, format);
        vsnprintf(err->text, sizeof(err->text), format, args);
        va_end(args);
        return code;
}

void error_prepend(struct hvb_error *err, const char *format, ...)
{
        g_autofree char *front = NULL;
        g_autofree char *whole = NULL;
        va_list args;

        if (err == NULL)
                return;
        va_start(args, format);
        front = g_strdup_vprintf(format, args);
        va_end(args);
        whole = g_strconcat(front, err->text, NULL);
        g_strlcpy(err->text, whole, sizeof(err->text));
}

const char *error_text(const struct hvb_error *err, int code)
{
        if (err != NULL && err->text[0] != '\0')
                return err->text;
        return g_strerror(code < 0 ? -code : code);
}

char *error_lock_hint(const char *path, const struct hvb_error *err)
{
        if (!g_str_has_prefix(err->text, "Failed to get "))
                return g_strdup("");
        return g_strdup_printf("\nIs another process using the image [%s]?", path);
}
