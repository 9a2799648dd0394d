/*
 * plan.c - from a seed to a plan; see plan.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "plan.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char *const backing_names[] = { "none", "raw", "qcow2", "qcow2-other" };
static const char *const mode_names[] = { "plain", "race", "live" };
static const char *const length_names[] = { "equal", "shorter", "longer" };

uint64_t rng_next(struct rng *rng)
{
        uint64_t z = rng->state += 0x9e3779b97f4a7c15u;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
        assert(bound > 0);
        return rng_next(rng) % bound;
}

uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high)
{
        assert(low <= high);
        return low + rng_below(rng, high - low + 1);
}

bool rng_chance(struct rng *rng, unsigned percent)
{
        return rng_below(rng, 100) < percent;
}

/*
 * Small disks, so that a sequence takes a fraction of a second, of enough
 * clusters that L2 tables (and for tiny clusters refcount blocks) come in numbers.
 */
static uint64_t draw_size(struct rng *rng, unsigned cluster_bits)
{
        uint64_t size = rng_between(rng, 12, 48) << cluster_bits;

        if (size < 1u << 20)
                size = (1u << 20) + rng_below(rng, 1u << 20);
        if (size > 40u << 20)
                size = rng_between(rng, 24u << 20, 40u << 20);
        if (rng_chance(rng, 60))
                return size >> cluster_bits << cluster_bits;
        return size / 512 * 512;
}

static void draw_backing(struct rng *rng, struct plan *plan)
{
        plan->backing = rng_chance(rng, 50) ? BACKING_NONE : rng_between(rng, 1, BACKING_COUNT - 1);
        plan->backing_length = rng_below(rng, LENGTH_COUNT);
        plan->backing_cluster_bits = plan->cluster_bits;
        if (plan->backing == BACKING_QCOW2_OTHER)
                plan->backing_cluster_bits = rng_between(rng, 9, 18);
        plan->backing_bytes = plan->size_bytes;
        if (plan->backing_length == LENGTH_SHORTER)
                plan->backing_bytes = rng_between(rng, plan->size_bytes / 4,
                                                  plan->size_bytes - 512);
        if (plan->backing_length == LENGTH_LONGER)
                plan->backing_bytes += rng_between(rng, 512, plan->size_bytes / 2);
        plan->backing_bytes = plan->backing_bytes / 512 * 512;
        if (plan->backing == BACKING_NONE)
                plan->backing_bytes = 0;
}

struct plan plan_from_seed(uint64_t seed)
{
        struct rng rng = { .state = seed * 0xd1342543de82ef95u + 1 };
        unsigned group = seed % PLAN_GROUPS;
        struct plan plan = {
                .seed = seed,
                .version = 2 + group % 2,
                .cluster_bits = PLAN_CLUSTER_BITS_MIN + group / 2,
                .refcount_bits = 16,
        };

        plan.size_bytes = draw_size(&rng, plan.cluster_bits);
        draw_backing(&rng, &plan);
        plan.made_by_peer = rng_chance(&rng, 50);
        plan.mode = rng_chance(&rng, 50) ? MODE_PLAIN : rng_between(&rng, 1, MODE_COUNT - 1);
        plan.op_count = rng_between(&rng, 64, 128);
        plan.preallocated = plan.backing == BACKING_NONE && rng_chance(&rng, 10);
        if (plan.version == 3) {
                if (rng_chance(&rng, 60))
                        plan.refcount_bits = 1u << rng_below(&rng, 7);
                plan.lazy_refcounts = rng_chance(&rng, 30);
                plan.zstd = rng_chance(&rng, 15);
        }
        return plan;
}

unsigned plan_group(const struct plan *plan)
{
        return (plan->cluster_bits - PLAN_CLUSTER_BITS_MIN) * 2 + plan->version - 2;
}

void plan_group_name(unsigned group, char *buf, size_t buf_bytes)
{
        assert(group < PLAN_GROUPS);
        snprintf(buf, buf_bytes, "version %u, clusters of %u bytes", 2 + group % 2,
                 1u << (PLAN_CLUSTER_BITS_MIN + group / 2));
}

void plan_describe(const struct plan *plan, char *buf, size_t buf_bytes)
{
        snprintf(buf, buf_bytes,
                 "seed=%llu version=%u cluster=%u size=%llu refcount_bits=%u lazy=%d zstd=%d "
                 "maker=%s prealloc=%d backing=%s backing_length=%s backing_cluster=%u "
                 "backing_size=%llu mode=%s",
                 (unsigned long long)plan->seed, plan->version, 1u << plan->cluster_bits,
                 (unsigned long long)plan->size_bytes, plan->refcount_bits, plan->lazy_refcounts,
                 plan->zstd, plan->made_by_peer ? "peer" : "us", plan->preallocated,
                 backing_names[plan->backing], length_names[plan->backing_length],
                 1u << plan->backing_cluster_bits, (unsigned long long)plan->backing_bytes,
                 mode_names[plan->mode]);
}

bool plan_matches(const struct plan *plan, const char *filter)
{
        char text[512], word[128];

        plan_describe(plan, text, sizeof(text) - 1);
        strcat(text, " ");
        snprintf(word, sizeof(word), "%s ", filter);

        const char *found = strstr(text, word);

        return found && (found == text || found[-1] == ' ');
}
