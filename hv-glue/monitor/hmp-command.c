/*
 * hmp-command.c - a line becomes a call of a command.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "monitor/session.h"

/* ---- Words -------------------------------------------------------------------------- */

static const char *skip_spaces(const char *text)
{
        while (g_ascii_isspace(*text))
                text++;
        return text;
}

/* The character that stands behind a backslash; 0: none does. */
static char escaped(char letter)
{
        static const char letters[] = "nr\\'\"", meanings[] = "\n\r\\'\"";
        const char *found = letter == '\0' ? NULL : strchr(letters, letter);

        return found == NULL ? '\0' : meanings[found - letters];
}

/* The rest of a word that began with a quote.  NULL: it does not end, or an unknown escape. */
static char *quoted_word(const char **text)
{
        g_autoptr(GString) word = g_string_new(NULL);
        const char *p = *text;

        for (; *p != '"'; p++) {
                char c = *p == '\\' ? escaped(*++p) : *p;

                if (c == '\0')
                        return NULL;
                g_string_append_c(word, c);
        }
        *text = p + 1;
        return g_string_free(g_steal_pointer(&word), FALSE);
}

/* Takes the next word from *text; there is one. */
static char *next_word(const char **text)
{
        const char *begin = *text;

        if (*begin == '"') {
                *text = begin + 1;
                return quoted_word(text);
        }
        while (**text != '\0' && !g_ascii_isspace(**text))
                (*text)++;
        return g_strndup(begin, (gsize) (*text - begin));
}

/* ---- Calls -------------------------------------------------------------------------- */

void hmp_call_end(struct hmp_call *call)
{
        if (call->done != NULL)
                call->done(call->opaque, call);
        g_string_free(call->output, TRUE);
        g_free(call);
}

void hmp_call_end_error(struct hmp_call *call, const char *text)
{
        g_string_append_printf(call->output, "Error: %s\n", text);
        hmp_call_end(call);
}

const struct hmp_command *hmp_command_find(const struct hmp_command *table, const char *name)
{
        for (; table->name != NULL; table++) {
                g_auto(GStrv) names = g_strsplit(table->name, "|", 0);

                if (g_strv_contains((const char *const *) names, name))
                        return table;
        }
        return NULL;
}

/* Options and words of command into flag and args; false, having said what is wrong. */
static bool parse_args(struct hmp_call *call, const struct hmp_command *command,
                       const char *text, char **args, char *flag)
{
        unsigned count = 0;

        text = skip_spaces(text);
        while (command->flags != NULL && *text == '-') {
                *flag = text[1];
                if (*flag == '\0' || strchr(command->flags, *flag) == NULL) {
                        g_string_append_printf(call->output, "%s: unsupported option -%c\n",
                                               command->name, *flag);
                        return false;
                }
                text = skip_spaces(text + 2);
        }
        while (count < command->required_count + command->optional_count) {
                if (*text == '\0' && count >= command->required_count)
                        break;
                args[count] = *text == '\0' ? NULL : next_word(&text);
                if (args[count] == NULL) {
                        g_string_append_printf(call->output, "%s: string expected\n",
                                               command->name);
                        return false;
                }
                count++;
                text = skip_spaces(text);
        }
        if (*text != '\0') {
                g_string_append_printf(call->output,
                                       "%s: extraneous characters at the end of line\n",
                                       command->name);
                return false;
        }
        return true;
}

/* Names of commands are not quoted. */
static const char *skip_word(const char *text)
{
        while (*text != '\0' && !g_ascii_isspace(*text))
                text++;
        return text;
}

/* The command that text begins with, which ends at *ret_end; NULL: there is no such. */
static const struct hmp_command *find_command(const char *text, const char **ret_end)
{
        const char *end = skip_word(text), *sub = skip_spaces(end);
        g_autofree char *name = g_strndup(text, (gsize) (end - text));
        const struct hmp_command *command = hmp_command_find(hmp_commands, name);

        if (command != NULL && strcmp(name, "info") == 0 && *sub != '\0') {
                g_autofree char *sub_name = NULL;

                end = skip_word(sub);
                sub_name = g_strndup(sub, (gsize) (end - sub));
                command = hmp_command_find(hmp_info_commands, sub_name);
        }
        *ret_end = end;
        return command;
}

static void run_line(struct hmp_call *call, const char *line)
{
        char *args[HMP_ARGS_MAX] = { NULL };
        const char *text = skip_spaces(line), *end;
        const struct hmp_command *command = find_command(text, &end);
        char flag = '\0';

        if (*text == '\0') {
                hmp_call_end(call);
        } else if (command == NULL) {
                g_string_append_printf(call->output, "unknown command: '%.*s'\n",
                                       (int) (end - text), text);
                hmp_call_end(call);
        } else if (parse_args(call, command, end, args, &flag)) {
                command->run(call, args, flag);
        } else {
                g_string_append_printf(call->output, "Try \"help %.*s\" for more information\n",
                                       (int) (end - text), text);
                hmp_call_end(call);
        }
        for (unsigned i = 0; i < HMP_ARGS_MAX; i++)
                g_free(args[i]);
}

struct start {
        void (*done)(void *opaque, struct hmp_call *call);
        void *opaque;
        bool ended;
};

static void started_call_done(void *opaque, struct hmp_call *call)
{
        struct start *start = opaque;

        start->ended = true;
        start->done(start->opaque, call);
}

struct hmp_call *hmp_call_start(struct monitors *monitors, const char *line,
                                void (*done)(void *opaque, struct hmp_call *call), void *opaque)
{
        struct hmp_call *call = g_new0(struct hmp_call, 1);
        struct start start = { .done = done, .opaque = opaque };

        *call = (struct hmp_call) {
                .monitors = monitors, .output = g_string_new(NULL),
                .done = started_call_done, .opaque = &start,
        };
        run_line(call, line);
        if (start.ended)
                return NULL;
        call->done = done;
        call->opaque = opaque;
        return call;
}

/* ---- Output ------------------------------------------------------------------------- */

/* Snapshots' and files' names are others': no escape sequences from there. */
char *hmp_wire_text(const char *output)
{
        GString *wire = g_string_sized_new(strlen(output) + 64);

        for (const char *p = output; *p != '\0'; p++) {
                uint8_t byte = (uint8_t) *p;
                bool is_c1 = byte == 0xc2 && ((uint8_t) p[1] & 0xe0) == 0x80;

                if (byte == '\n') {
                        g_string_append(wire, "\r\n");
                } else if (is_c1 || byte < ' ' || byte == 0x7f) {
                        g_string_append_c(wire, '?');
                        p += is_c1;
                } else {
                        g_string_append_c(wire, (char) byte);
                }
        }
        return g_string_free(wire, FALSE);
}
