/*
 * test-junk.c - what nobody should send, and peers that leave at any byte.
 *
 *      test-junk [--seed N] [--count N]
 *
 * Seeded mutations of what people and programs do send; chat.h has what must hold.  With
 * $TEST_SECONDS seeds go on for so long.
 *
 * SPDX-License-Identifier: MIT
 */
#include <signal.h>
#include <string.h>

#include "lib/effort.h"
#include "monitor/chat.h"

static gint64 first_seed = 1;
static gint count = EFFORT(1500);
static struct machine *machine;

/* ---- Mutations ----------------------------------------------------------------------- */

static const char *any_text(GRand *random, const char *const *texts)
{
        return texts[g_rand_int_range(random, 0, (gint32) g_strv_length((char **) texts))];
}

static void insert_token(GRand *random, GByteArray *bytes)
{
        static const char *const tokens[] = {
                "{", "}", "[", "]", "\"", "'", "\\", "\\u", "\\ud800", ":", ",", "-", "1e9", "null",
                "\x1b[", "\xff", "\xc2\x9b", "\xe2\x82", "\n", "\r", "\r\n", "\003", "\025", "\x7f",
                " ", "\t", "-c", "info ", "\"id\": ", "\"arguments\": ", "/*", "//", "%s%n",
        };
        const char *token = tokens[g_rand_int_range(random, 0, G_N_ELEMENTS(tokens))];
        gint32 times = g_rand_int_range(random, 0, 20) == 0 ? 5000 : 1;

        for (gint32 i = 0; i < times; i++)
                g_byte_array_append(bytes, (const guint8 *) token, strlen(token));
}

static void change_bytes(GRand *random, GByteArray *bytes)
{
        guint position, length;

        if (bytes->len == 0)
                return;
        position = (guint) g_rand_int_range(random, 0, (gint32) bytes->len);
        length = (guint) g_rand_int_range(random, 1, 16);
        length = MIN(length, bytes->len - position);
        switch (g_rand_int_range(random, 0, 3)) {
        case 0:
                bytes->data[position] = (guint8) g_rand_int_range(random, 0, 256);
                break;
        case 1:
                bytes->data[position] ^= (guint8) (1 << g_rand_int_range(random, 0, 8));
                break;
        case 2:
                g_byte_array_remove_range(bytes, position, length);
                break;
        }
}

/* [flags] [piece] text text ... with some of it changed. */
static GByteArray *make_input(GRand *random)
{
        GByteArray *bytes = g_byte_array_new();
        guint8 head[] = { (guint8) g_rand_int_range(random, 0, 8),
                          (guint8) g_rand_int_range(random, 0, 256) };
        const char *const *texts = head[0] & 1 ? chat_qmp_texts : chat_hmp_texts;
        gint32 steps = g_rand_int_range(random, 1, 12);

        g_byte_array_append(bytes, head, sizeof(head));
        for (gint32 i = 0; i < steps; i++) {
                const char *text = any_text(random, texts);

                if (g_rand_int_range(random, 0, 3) > 0)
                        g_byte_array_append(bytes, (const guint8 *) text, strlen(text));
                if (g_rand_int_range(random, 0, 3) == 0)
                        insert_token(random, bytes);
                if (g_rand_int_range(random, 0, 2) == 0)
                        change_bytes(random, bytes);
        }
        return bytes;
}

static void run_seed(guint32 seed)
{
        GRand *random = g_rand_new_with_seed(seed);
        g_autoptr(GByteArray) bytes = make_input(random);
        struct chat chat;

        chat_decode(&chat, bytes->data, bytes->len);
        g_free(chat_run(machine, &chat));
        g_rand_free(random);
}

static void test_mutations(void)
{
        const char *seconds = g_getenv("TEST_SECONDS");
        gint64 end_usec = g_get_monotonic_time()
                + (seconds == NULL ? 0 : g_ascii_strtoll(seconds, NULL, 10)) * G_USEC_PER_SEC;
        guint32 seed = (guint32) first_seed;

        for (gint i = 0; i < count || g_get_monotonic_time() < end_usec; i++, seed++) {
                g_test_message("seed %u", seed);
                run_seed(seed);
        }
}

/* ---- Hang-ups ------------------------------------------------------------------------ */

static char *join(const char *const *texts)
{
        return g_strjoinv("", (char **) texts);
}

/* Every beginning of a whole conversation, then the peer leaves; and then waits. */
static void leave_at_each_byte(bool is_qmp)
{
        g_autofree char *text = join(is_qmp ? chat_qmp_texts : chat_hmp_texts);

        for (unsigned i = 0; i < 2; i++) {
                for (size_t length = 0; length <= strlen(text); length++) {
                        const struct chat chat = {
                                .is_qmp = is_qmp, .negotiates = true, .hangs_up = i == 0,
                                .piece_bytes = 4096,
                                .input = (const uint8_t *) text, .input_bytes = length,
                        };

                        g_free(chat_run(machine, &chat));
                }
        }
}

static void test_hmp_leaves(void)
{
        leave_at_each_byte(false);
}

static void test_qmp_leaves(void)
{
        leave_at_each_byte(true);
}

int main(int argc, char **argv)
{
        static const GOptionEntry entries[] = {
                { "seed", 0, 0, G_OPTION_ARG_INT64, &first_seed, "the first seed", "N" },
                { "count", 0, 0, G_OPTION_ARG_INT, &count, "how many seeds", "N" },
                { 0 },
        };
        g_autoptr(GOptionContext) context = g_option_context_new(NULL);
        int status;

        signal(SIGPIPE, SIG_IGN);
        g_test_init(&argc, &argv, NULL);
        g_option_context_add_main_entries(context, entries, NULL);
        if (!g_option_context_parse(context, &argc, &argv, NULL))
                return 2;
        g_test_add_func("/junk/hmp-leaves-at-each-byte", test_hmp_leaves);
        g_test_add_func("/junk/qmp-leaves-at-each-byte", test_qmp_leaves);
        g_test_add_func("/junk/mutations", test_mutations);
        machine = chat_machine_new(1);
        status = g_test_run();
        fake_machine_free(machine);
        return status;
}
