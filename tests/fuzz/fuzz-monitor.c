/*
 * fuzz-monitor.c - libFuzzer's side of the monitors.
 *
 *      fuzz-monitor --seeds=DIRECTORY                  writes the inputs to start from
 *      fuzz-monitor --mode=hmp|qmp [libFuzzer's options] DIRECTORY|INPUT...
 *
 * An input is a chat of monitor/chat.h, where the list stands of what must hold.  The
 * machine has no disk: what images say is fuzz-image's to find.
 *
 * SPDX-License-Identifier: MIT
 */
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/chat.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine *machine;
static bool is_qmp;

/* [flags] [piece] text: each text sent by a peer that waits, and whole. */
static void write_seeds(const char *directory, const char *kind, const char *const *texts)
{
        for (unsigned i = 0; texts[i] != NULL; i++) {
                g_autofree char *name = g_strdup_printf("%s-%02u", kind, i);
                g_autofree char *path = g_build_filename(directory, name, NULL);
                g_autoptr(GString) bytes = g_string_new_len("\0\0", 2);

                g_string_append(bytes, texts[i]);
                if (!g_file_set_contents(path, bytes->str, (gssize) bytes->len, NULL)) {
                        fprintf(stderr, "fuzz-monitor: cannot write %s\n", path);
                        exit(1);
                }
        }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
        bool has_mode = false;

        for (int i = 1; i < *argc; i++) {
                const char *arg = (*argv)[i];

                if (g_str_has_prefix(arg, "--seeds=")) {
                        write_seeds(arg + strlen("--seeds="), "hmp", chat_hmp_texts);
                        write_seeds(arg + strlen("--seeds="), "qmp", chat_qmp_texts);
                        exit(0);
                }
                is_qmp = is_qmp || strcmp(arg, "--mode=qmp") == 0;
                has_mode = has_mode || is_qmp || strcmp(arg, "--mode=hmp") == 0;
        }
        if (!has_mode) {
                fprintf(stderr, "fuzz-monitor: --mode= hmp or qmp\n");
                exit(2);
        }
        signal(SIGPIPE, SIG_IGN);
        machine = chat_machine_new(0);
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct chat chat;

        chat_decode(&chat, data, size);
        chat.is_qmp = is_qmp;
        g_free(chat_run(machine, &chat));
        return 0;
}
