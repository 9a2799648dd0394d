/*
 * hv-io-sandbox.c - what the commands will need, and giving up the rest.
 *
 * Commands of -c are known beforehand: what they open is planned for, and when the file is
 * open and none of them opens another one, opening is given up.  Commands from standard
 * input may open what lies in or below the current directory, read-write.
 *
 * SPDX-License-Identifier: MIT
 */
#include "hv-io.h"

#include <string.h>

#include <glib.h>

#include "host/loader.h"
#include "host/sandbox.h"

/* The words of a line, as session_run() splits them; none is empty. */
static GPtrArray *line_words(const char *line)
{
        g_auto(GStrv) pieces = g_strsplit_set(line, " \t\n", -1);
        GPtrArray *words = g_ptr_array_new_with_free_func(g_free);

        for (int i = 0; pieces[i]; i++)
                if (*pieces[i])
                        g_ptr_array_add(words, g_strdup(pieces[i]));
        return words;
}

static bool line_is(const GPtrArray *words, const char *name)
{
        const struct io_command *command =
                words->len > 0 ? command_find(g_ptr_array_index(words, 0)) : NULL;

        return command && !strcmp(command->name, name);
}

/* Plans for what one line opens; false: nothing. */
static bool plan_line(struct sandbox_plan *plan, const char *line)
{
        g_autoptr(GPtrArray) words = line_words(line);
        bool opens = line_is(words, "open") || line_is(words, "reopen");

        if (line_is(words, "open"))
                sandbox_plan_image(plan, g_ptr_array_index(words, words->len - 1), true);
        /* write's -s FILE, perhaps at the end of several flags. */
        for (guint i = 1; line_is(words, "write") && i + 1 < words->len; i++) {
                const char *word = g_ptr_array_index(words, i);

                if (*word != '-' || !g_str_has_suffix(word, "s"))
                        continue;
                sandbox_plan_read(plan, g_ptr_array_index(words, i + 1));
                opens = true;
        }
        return opens;
}

int session_contain(struct io_session *session, char **lines)
{
        struct sandbox_plan *plan = sandbox_plan_new();
        const char *path = session->defaults.path;
        const char *format = session->defaults.format;
        struct hvb_error err = ERROR_INIT;
        const struct hvb_driver *driver;
        int ret = 0;

        if (path)
                sandbox_plan_image(plan, path, session->defaults.flags & HVB_OPEN_RDWR ||
                                               !lines);
        if (!lines)
                sandbox_plan_write(plan, ".");
        for (int i = 0; lines && lines[i]; i++)
                plan_line(plan, lines[i]);
        for (int i = 0; session->directories && session->directories[i]; i++)
                sandbox_plan_read(plan, session->directories[i]);
        session->policy = session->is_uncontained ? policy_new_all() : sandbox_plan_policy(plan);
        policy_set_probe(session->policy, POLICY_PROBE_WARN);
        if (!session->is_uncontained) {
                loader_load(format ? format : "qcow2", &driver, NULL);  /* opening says why not */
                ret = sandbox_enter(plan, &err);
        }
        sandbox_plan_free(plan);
        return ret < 0 ? text_error(&err, ret) : 0;
}

int session_seal(struct io_session *session, char **lines)
{
        struct sandbox_plan *unused = sandbox_plan_new();
        struct hvb_error err = ERROR_INIT;
        bool opens = !lines;
        int ret = 0;

        for (int i = 0; lines && lines[i]; i++)
                opens = plan_line(unused, lines[i]) || opens;
        sandbox_plan_free(unused);
        if (!session->is_uncontained && !opens)
                ret = sandbox_seal(&err);
        return ret < 0 ? text_error(&err, ret) : 0;
}
