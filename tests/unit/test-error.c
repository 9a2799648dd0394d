/*
 * test-error.c - what arrives at the host is one line of UTF-8, from who spoke first.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "disk/error.h"

static void the_first_speaks(void)
{
        struct hvb_error err = { .struct_bytes = sizeof(err) };

        g_assert_cmpint(error_set(&err, -EIO, "read at %d", 7), ==, -EIO);
        g_assert_cmpint(error_set(&err, -EINVAL, "later"), ==, -EINVAL);
        g_assert_cmpint(err.code, ==, -EIO);
        g_assert_cmpstr(err.text, ==, "read at 7");
        g_assert_cmpint(error_set(NULL, -ENOSPC, "nobody listens"), ==, -ENOSPC);
}

static void one_line_of_utf8(void)
{
        struct hvb_error err = { .struct_bytes = sizeof(err) };

        error_set(&err, -EINVAL, "name '%s'", "a\nb\x1b[2J\xff\xc3\xa4\xc3");
        g_assert_cmpstr(err.text, ==, "name 'a?b?[2J?\xc3\xa4?'");
}

static void too_long_is_cut(void)
{
        struct hvb_error err = { .struct_bytes = sizeof(err) };
        g_autofree char *name = g_malloc0(5000);

        for (unsigned i = 0; i < 4998; i += 2)
                memcpy(name + i, "\xc3\xa4", 2);
        error_set(&err, -EINVAL, "%s", name);
        g_assert_cmpuint(strlen(err.text), ==, sizeof(err.text) - 1);
        g_assert_true(g_utf8_validate(err.text, -1, NULL));
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/error/the-first-speaks", the_first_speaks);
        g_test_add_func("/error/one-line-of-utf8", one_line_of_utf8);
        g_test_add_func("/error/too-long-is-cut", too_long_is_cut);
        return g_test_run();
}
