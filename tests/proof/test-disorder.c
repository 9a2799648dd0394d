/*
 * test-disorder.c - many runs of disorder.h, each from a seed.
 *
 *   test-disorder [--count N] [--first SEED] [--seed SEED]
 *
 * Every 8th seed runs twice: all that happened must be the same.  --seed runs one and prints
 * its steps.  TEST_SECONDS: go on for so long, from a seed that the clock gives.
 *
 * SPDX-License-Identifier: MIT
 */
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "disorder.h"

/* Under a sanitizer a sixth of the seeds takes as long. */
#ifdef __SANITIZE_ADDRESS__
enum { SLOWNESS = 6 };
#elif defined(__SANITIZE_THREAD__)
enum { SLOWNESS = 10 };
#else
enum { SLOWNESS = 1 };
#endif

enum { COUNT_DEFAULT = 2000, TWICE_EVERY = 8 };

struct series {
        uint64_t first;
        uint64_t count;
        bool one;
        unsigned soak_sec;
        uint64_t runs;
        uint64_t requests;
        unsigned differences;
};

static uint64_t running;

/* An assertion of the driver: at least which seed it was. */
static void on_abort(int signal_number)
{
        (void)signal_number;
        printf("# aborted in seed %" PRIu64 "\n", running);
        fflush(stdout);
}

static void parse_options(struct series *s, int argc, char **argv)
{
        static const struct option options[] = {
                { "count", required_argument, NULL, 'c' },
                { "first", required_argument, NULL, 'f' },
                { "seed", required_argument, NULL, 's' },
                {}
        };
        int option;

        while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
                uint64_t value = optarg ? strtoull(optarg, NULL, 10) : 0;

                switch (option) {
                case 'c':
                        s->count = MAX(value / SLOWNESS, 1);
                        break;
                case 'f':
                        s->first = value;
                        break;
                case 's':
                        s->first = value;
                        s->count = 1;
                        s->one = true;
                        break;
                default:
                        fprintf(stderr, "usage: test-disorder [--count N] [--first SEED] "
                                "[--seed SEED]\n");
                        exit(2);
                }
        }
}

static void report(struct series *s, const struct outcome *o, const char *difference)
{
        s->differences++;
        printf("# seed %" PRIu64 ": %s\n", running, difference);
        if (!s->one) {
                char **lines = g_strsplit(o->steps, "\n", -1);
                unsigned i;

                for (i = 0; lines[i] && *lines[i]; i++)
                        printf("#   %s\n", lines[i]);
                g_strfreev(lines);
        }
        printf("# replay: test-disorder --seed %" PRIu64 "\n", running);
        fflush(stdout);
}

static void outcome_clear(struct outcome *o)
{
        g_free(o->difference);
        g_free(o->steps);
}

static void run_seed(struct series *s, uint64_t seed)
{
        struct outcome o;

        running = seed;
        o = disorder_run(seed, s->one ? stdout : NULL);
        s->runs++;
        s->requests += o.request_count;
        if (o.difference) {
                report(s, &o, o.difference);
        } else if (s->one || seed % TWICE_EVERY == 0) {
                struct outcome again = disorder_run(seed, NULL);

                if (again.hash != o.hash)
                        report(s, &o, "the same seed ran in another way");
                outcome_clear(&again);
        }
        outcome_clear(&o);
}

int main(int argc, char **argv)
{
        struct series s = { .first = 1, .count = COUNT_DEFAULT };
        const char *soak = getenv("TEST_SECONDS");
        time_t begin = time(NULL);
        uint64_t i;

        signal(SIGABRT, on_abort);
        parse_options(&s, argc, argv);
        if (soak && !s.one) {
                s.soak_sec = (unsigned)strtoul(soak, NULL, 10);
                s.first = (uint64_t)begin * 100000;
                printf("# seeds from %" PRIu64 " on\n", s.first);
        }
        for (i = 0; s.soak_sec ? time(NULL) - begin < s.soak_sec : i < s.count; i++)
                run_seed(&s, s.first + i);
        printf("%sok 1 - what overlaps is ordered somehow\n1..1\n", s.differences ? "not " : "");
        printf("# %" PRIu64 " requests in %ld s\n", s.requests, (long)(time(NULL) - begin));
        printf("# proof: disorder seeds: %" PRIu64 ", differences: %u\n", s.runs, s.differences);
        return s.differences > 0;
}
