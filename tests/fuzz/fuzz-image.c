/*
 * fuzz-image.c - libFuzzer's side: one program, a mode at a time.
 *
 *      fuzz-image --seeds=DIRECTORY                    writes the inputs to start from
 *      fuzz-image --mode=MODE [libFuzzer's options] DIRECTORY|INPUT...
 *
 * Modes are in the table below; tests/fuzz/fuzz.sh runs them.
 *
 * SPDX-License-Identifier: MIT
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/heap.h"
#include "fuzz/mutate.h"
#include "fuzz/peer.h"
#include "fuzz/seeds.h"
#include "fuzz/trial.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static const struct {
        const char *name;
        bool asks_peer;
        enum mode mode;
} modes[] = {
        { "open", false, MODE_OPEN },
        { "check", false, MODE_CHECK },
        { "data", false, MODE_DATA },
        { "snapshots", false, MODE_SNAPSHOTS },
        { "vmstate", false, MODE_VMSTATE },
        { "repair", false, MODE_REPAIR },
        { "peer", true, MODE_CHECK },
};

static unsigned chosen = G_N_ELEMENTS(modes);

static void choose(const char *name)
{
        for (chosen = 0; chosen < G_N_ELEMENTS(modes); chosen++)
                if (strcmp(modes[chosen].name, name) == 0)
                        return;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
        int i;

        for (i = 1; i < *argc; i++) {
                if (g_str_has_prefix((*argv)[i], "--mode="))
                        choose((*argv)[i] + strlen("--mode="));
                if (g_str_has_prefix((*argv)[i], "--seeds=")) {
                        seeds_make((*argv)[i] + strlen("--seeds="));
                        exit(0);
                }
        }
        if (chosen == G_N_ELEMENTS(modes)) {
                fprintf(stderr, "fuzz-image: --mode= open, check, data, snapshots, vmstate, "
                        "repair or peer\n");
                exit(2);
        }
        heap_watch();
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in;

        input_decode(&in, data, size);
        if (modes[chosen].asks_peer)
                peer_compare(&in);
        else
                trial_run(&in, modes[chosen].mode);
        input_clear(&in);
        return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
        struct sim_random random = { seed };
        struct input in;

        input_decode(&in, data, size);
        input_mutate(&in, &random);
        size = input_encode(&in, data, max_size);
        input_clear(&in);
        return size;
}
