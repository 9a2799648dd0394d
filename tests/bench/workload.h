/*
 * workload.h - what the request benchmarks ask for, and in which order.
 *
 * The pattern is that of `qemu-img bench`, so that its figures are for the same
 * work: offsets advance by a step and wrap at the end of the disk; with a flush
 * interval, requests are drained before each flush.  A step that is an odd number
 * of blocks, on a disk of 2^n blocks, visits each block once before any twice.
 *
 * The workload decides; the program does what workload_next() says and reports
 * back.  In words of states:
 *
 *   requests in flight --count of unstarted ones reaches an interval--> flush due
 *   flush due --nothing in flight--> flushing --workload_flushed--> requests
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WORKLOAD_DEPTH_MAX = 1024, WORKLOAD_ALIGNMENT = 4096 };

enum workload_step {
        WORKLOAD_WAIT,                  /* nothing to start before something completes */
        WORKLOAD_REQUEST,
        WORKLOAD_FLUSH,
};

enum workload_flush {
        FLUSH_NONE,
        FLUSH_DUE,                      /* as soon as nothing is in flight */
        FLUSH_RUNNING,
};

struct workload {
        const char *path;
        bool write;
        bool direct;                    /* O_DIRECT */
        bool random;                    /* offsets at random rather than by steps */
        unsigned depth;
        uint32_t request_bytes;
        uint64_t step_bytes;
        unsigned flush_interval;        /* requests; 0: never */

        uint64_t disk_bytes;            /* the program's to set before the first step */
        uint64_t unstarted;
        unsigned in_flight;
        enum workload_flush flush;
        uint64_t next_offset;
        uint64_t random_state;
        uint8_t *buffers;               /* depth of them, each request_bytes long */
};

/* Reads the command line; a wrong one ends the program. */
void workload_init(struct workload *w, const char *program, int argc, char **argv);
void workload_clear(struct workload *w);

/* What to start now.  A request counts as in flight from here on. */
enum workload_step workload_next(struct workload *w, uint64_t *ret_offset);
void workload_requested(struct workload *w);    /* a request has completed */
void workload_flushed(struct workload *w);      /* the flush has completed */
bool workload_done(const struct workload *w);

void *workload_buffer(const struct workload *w, unsigned slot);

/* Monotonic, in seconds. */
double workload_now(void);

#endif
