/*
 * workload.c - the command line and the pattern of the request benchmarks.
 *
 * SPDX-License-Identifier: MIT
 */
#include "bench/workload.h"

#include <assert.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void usage(const char *program)
{
        fprintf(stderr,
                "Usage: %s [options] FILE\n"
                "  -c COUNT   requests (75000)          -d DEPTH  in flight (64)\n"
                "  -s BYTES   of each request (4096)    -S STEP   between offsets (-s)\n"
                "  -f COUNT   requests from flush to flush, at least -d (never)\n"
                "  -w         write                     -r        offsets at random\n"
                "  -n         O_DIRECT\n"
                "Prints the seconds that the requests took, and by what.\n",
                program);
        exit(2);
}

static uint64_t number(const char *program, const char *text)
{
        char *end;
        unsigned long long value = strtoull(text, &end, 10);

        if (*text < '0' || *text > '9' || *end != '\0')
                usage(program);
        return value;
}

static void parse(struct workload *w, const char *program, int argc, char **argv)
{
        int option;

        while ((option = getopt(argc, argv, "c:d:s:S:f:wrn")) != -1) {
                switch (option) {
                case 'c': w->unstarted = number(program, optarg); break;
                case 'd': w->depth = number(program, optarg); break;
                case 's': w->request_bytes = number(program, optarg); break;
                case 'S': w->step_bytes = number(program, optarg); break;
                case 'f': w->flush_interval = number(program, optarg); break;
                case 'w': w->write = true; break;
                case 'r': w->random = true; break;
                case 'n': w->direct = true; break;
                default: usage(program);
                }
        }
        if (optind + 1 != argc)
                usage(program);
        w->path = argv[optind];
}

void workload_init(struct workload *w, const char *program, int argc, char **argv)
{
        *w = (struct workload) {
                .depth = 64,
                .request_bytes = 4096,
                .unstarted = 75000,
                .random_state = 0x9e3779b97f4a7c15,
        };
        parse(w, program, argc, argv);
        if (w->step_bytes == 0)
                w->step_bytes = w->request_bytes;
        if (w->depth == 0 || w->depth > WORKLOAD_DEPTH_MAX || w->request_bytes == 0 ||
            w->unstarted == 0 || (w->flush_interval > 0 && w->flush_interval < w->depth))
                usage(program);
        if (posix_memalign((void **)&w->buffers, WORKLOAD_ALIGNMENT,
                           (size_t)w->depth * w->request_bytes) != 0) {
                fprintf(stderr, "%s: no memory for %u requests\n", program, w->depth);
                exit(1);
        }
        memset(w->buffers, 0xa5, (size_t)w->depth * w->request_bytes);
}

void workload_clear(struct workload *w)
{
        free(w->buffers);
}

/* xorshift64*: the pattern is the same in each run. */
static uint64_t draw(struct workload *w)
{
        w->random_state ^= w->random_state >> 12;
        w->random_state ^= w->random_state << 25;
        w->random_state ^= w->random_state >> 27;
        return w->random_state * 0x2545f4914f6cdd1d;
}

static uint64_t advance(struct workload *w)
{
        uint64_t offset = w->next_offset;

        if (w->random)
                return draw(w) % (w->disk_bytes / w->request_bytes) * w->request_bytes;
        w->next_offset += w->step_bytes;
        if (w->next_offset >= w->disk_bytes)
                w->next_offset %= w->disk_bytes;
        return offset;
}

enum workload_step workload_next(struct workload *w, uint64_t *ret_offset)
{
        assert(w->disk_bytes >= w->request_bytes);

        if (w->flush == FLUSH_RUNNING || w->unstarted == 0 || w->in_flight == w->depth)
                return WORKLOAD_WAIT;
        if (w->flush == FLUSH_DUE) {
                if (w->in_flight > 0)
                        return WORKLOAD_WAIT;
                w->flush = FLUSH_RUNNING;
                return WORKLOAD_FLUSH;
        }
        w->unstarted--;
        w->in_flight++;
        *ret_offset = advance(w);
        return WORKLOAD_REQUEST;
}

void workload_requested(struct workload *w)
{
        assert(w->in_flight > 0 && w->flush != FLUSH_RUNNING);

        w->in_flight--;
        if (w->flush_interval > 0 && w->unstarted % w->flush_interval == 0)
                w->flush = FLUSH_DUE;
}

void workload_flushed(struct workload *w)
{
        assert(w->in_flight == 0 && w->flush == FLUSH_RUNNING);

        w->flush = FLUSH_NONE;
}

/* As with `qemu-img bench`, a flush after the last request is not waited for. */
bool workload_done(const struct workload *w)
{
        return w->unstarted == 0 && w->in_flight == 0;
}

void *workload_buffer(const struct workload *w, unsigned slot)
{
        assert(slot < w->depth);

        return w->buffers + (size_t)slot * w->request_bytes;
}

double workload_now(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec + now.tv_nsec / 1e9;
}
