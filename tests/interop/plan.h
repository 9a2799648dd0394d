/*
 * plan.h - everything about a sequence that its seed decides beforehand.
 *
 * The seed alone gives the plan, so that `--seed N` replays it.  Consecutive seeds
 * walk through the groups (version x cluster size); the rest is drawn.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef INTEROP_PLAN_H
#define INTEROP_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A generator with 64 bits of state (splitmix64). */
struct rng {
        uint64_t state;
};

uint64_t rng_next(struct rng *rng);
/* Uniform in [0, bound); bound > 0. */
uint64_t rng_below(struct rng *rng, uint64_t bound);
/* Uniform in [low, high]. */
uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high);
bool rng_chance(struct rng *rng, unsigned percent);

enum plan_backing {
        BACKING_NONE, BACKING_RAW, BACKING_QCOW2,
        BACKING_QCOW2_OTHER,            /* of another cluster size */
        BACKING_COUNT,
};

enum plan_mode {
        MODE_PLAIN,                     /* writes in flight are disjoint */
        MODE_RACE,                      /* they may overlap */
        MODE_LIVE,                      /* snapshots are taken while they are in flight */
        MODE_COUNT,
};

enum plan_length { LENGTH_EQUAL, LENGTH_SHORTER, LENGTH_LONGER, LENGTH_COUNT };

enum { PLAN_GROUPS = 26, PLAN_CLUSTER_BITS_MIN = 9 };

struct plan {
        uint64_t seed;
        unsigned version;               /* 2 or 3 */
        unsigned cluster_bits;          /* 9..21 */
        unsigned refcount_bits;         /* 1..64 */
        bool lazy_refcounts;
        bool zstd;
        bool made_by_peer;              /* else by the driver's create */
        bool preallocated;              /* metadata */
        enum plan_backing backing;
        enum plan_length backing_length;
        unsigned backing_cluster_bits;
        enum plan_mode mode;
        uint64_t size_bytes;
        uint64_t backing_bytes;
        unsigned op_count;              /* at least so many operations */
};

struct plan plan_from_seed(uint64_t seed);
/* Which test point the plan belongs to, below PLAN_GROUPS. */
unsigned plan_group(const struct plan *plan);
void plan_group_name(unsigned group, char *buf, size_t buf_bytes);
/* One line: "seed=1 version=2 cluster=512 ...". */
void plan_describe(const struct plan *plan, char *buf, size_t buf_bytes);
/* Does the description contain the word "key=value"? */
bool plan_matches(const struct plan *plan, const char *filter);

#endif
