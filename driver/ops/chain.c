/*
 * chain.c - the way down a backing chain.
 *
 * Each layer says of the range: mine, zeros, or ask below.  The range shrinks to
 * what all layers passed so far say in one voice.  Layers are visited one after
 * the other, not recursively: a chain may be 200 deep.
 *
 * Invariant: from the top down every layer was UNALLOCATED for the range when it
 * was looked at.  Layers below the top are read-only, so that stays true.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/chain.h"

#include <errno.h>

static void enter_layer(struct content *c, struct image *layer, uint64_t offset)
{
        c->layer = layer;
        if (!layer->is_raw)
                return;
        c->kind = CONTENT_DATA;
        c->is_mapped = true;
        c->has_host_offset = true;
        c->host_offset = offset;
}

static void start(struct content *c, struct image *img, uint64_t offset, uint64_t max_bytes)
{
        g_assert(max_bytes > 0);
        *c = (struct content){ .length_bytes = max_bytes };
        enter_layer(c, img, offset);
}

/* Nothing in this layer.  True: the next one is to be asked. */
static bool descend(struct content *c, struct l1_table **l1, uint64_t offset)
{
        struct image *below = c->layer->backing;

        c->kind = CONTENT_ZERO;
        if (!chain_goes_on(c->layer, *l1))
                return false;
        if (!below && c->layer->backing_missing)
                c->kind = CONTENT_MISSING;
        if (!below || offset >= image_size(below))
                return false;
        c->length_bytes = u64_min(c->length_bytes, image_size(below) - offset);
        c->depth++;
        *l1 = &below->active;
        enter_layer(c, below, offset);
        return !below->is_raw;
}

/* Applies what the layer says.  True: the next one is to be asked. */
static bool judge(struct content *c, struct l1_table **l1, uint64_t offset,
                  const struct mapping *map)
{
        c->length_bytes = u64_min(c->length_bytes, map->length_bytes);
        if (map->kind == CLUSTER_UNALLOCATED)
                return descend(c, l1, offset);
        c->is_mapped = true;
        c->entry = map->entry;
        c->has_host_offset = map->kind == CLUSTER_NORMAL || map->kind == CLUSTER_ZERO_ALLOCATED;
        c->host_offset = c->has_host_offset ? map->host_offset : 0;
        c->kind = map->kind == CLUSTER_NORMAL ? CONTENT_DATA
                : map->kind == CLUSTER_COMPRESSED ? CONTENT_COMPRESSED : CONTENT_ZERO;
        return false;
}

int chain_find(struct chain_find *s, struct image *img, struct l1_table *l1, uint64_t offset,
               uint64_t max_bytes, struct content *ret)
{
        CO_BEGIN(s);
        s->l1 = l1;
        start(ret, img, offset, max_bytes);
        if (img->is_raw)
                goto out;
        do {
                CO_TRY(s, out, map_lookup(&s->lookup, ret->layer, s->l1, offset,
                                          ret->length_bytes, &s->map));
        } while (judge(ret, &s->l1, offset, &s->map));
out:
        CO_END(s);
}

int chain_find_cached(struct image *img, struct l1_table *l1, uint64_t offset,
                      uint64_t max_bytes, struct content *ret)
{
        struct mapping map;
        int code;

        start(ret, img, offset, max_bytes);
        if (img->is_raw)
                return 0;
        do {
                code = map_lookup_cached(ret->layer, l1, offset, ret->length_bytes, &map);
                if (code < 0)
                        return code;
        } while (judge(ret, &l1, offset, &map));
        return 0;
}
