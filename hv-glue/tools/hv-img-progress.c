/*
 * hv-img-progress.c - "(12.34/100%)", rewritten in place on stdout.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>

#include "hv-img.h"

static struct {
        bool wanted;
        double printed;                 /* percent shown last */
} progress;

static void show(double percent)
{
        progress.printed = percent;
        printf("    (%3.2f/100%%)\r", percent);
        fflush(stdout);
}

void progress_begin(bool wanted)
{
        progress.wanted = wanted;
        if (wanted)
                show(0);
}

void progress_update(uint64_t done, uint64_t total)
{
        double percent = total == 0 ? 100 : 100.0 * done / total;

        if (progress.wanted && percent - progress.printed >= 1)
                show(percent);
}

void progress_end(void)
{
        if (!progress.wanted)
                return;
        show(100);
        putchar('\n');
        progress.wanted = false;
}
