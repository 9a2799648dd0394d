/*
 * slices.c - the slice cache; slices.h has its invariants.
 *
 * Memory comes in slabs of SLAB_SLICES and is kept until slices_clear.  A slice is
 * in exactly one place: `clock` (resident, in a bucket), `spare` (no content), or
 * nowhere while it is an orphan: dropped but still pinned.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdlib.h>

#include "meta/slices.h"

enum {
        SLAB_SLICES = 64,
        MIN_SLICES = 16,
        MIN_BUCKETS = 1024,
        EVICTION_TRIES = 64,
};

struct slab {
        uint8_t *bytes;
        struct slice slices[SLAB_SLICES];
};

static void slab_free(gpointer p)
{
        struct slab *slab = p;

        free(slab->bytes);
        g_free(slab);
}

int slices_init(struct slice_cache *c, struct io_file *file, uint64_t slice_bytes,
                uint64_t limit_bytes)
{
        *c = (struct slice_cache) {
                .file = file,
                .slice_bytes = slice_bytes,
                .limit = u64_max(limit_bytes / slice_bytes, MIN_SLICES),
                .bucket_count = MIN_BUCKETS,
        };
        c->buckets = g_try_new0(struct slice *, c->bucket_count);
        if (!c->buckets)
                return -ENOMEM;
        c->slabs = g_ptr_array_new_with_free_func(slab_free);
        return 0;
}

void slices_clear(struct slice_cache *c)
{
        g_free(c->buckets);
        if (c->slabs)
                g_ptr_array_free(c->slabs, TRUE);
        *c = (struct slice_cache) { .file = NULL };
}

static struct slice **bucket_of(struct slice_cache *c, uint64_t host_offset)
{
        uint64_t hash = host_offset / c->slice_bytes * UINT64_C(0x9e3779b97f4a7c15);

        return &c->buckets[(hash >> 32) & (c->bucket_count - 1)];
}

static struct slice *find_any(struct slice_cache *c, uint64_t host_offset)
{
        struct slice *s;

        for (s = *bucket_of(c, host_offset); s; s = s->next_in_bucket)
                if (s->host_offset == host_offset)
                        return s;
        return NULL;
}

struct slice *slices_find(struct slice_cache *c, uint64_t host_offset)
{
        struct slice *s = find_any(c, host_offset);

        if (!s || !s->loaded)
                return NULL;
        s->recent = true;
        return s;
}

/* Best effort: with too few buckets finding is slower, not wrong. */
static void grow_buckets(struct slice_cache *c)
{
        uint64_t old_count = c->bucket_count;
        struct slice **old = c->buckets;
        struct slice **grown = g_try_new0(struct slice *, old_count * 4);
        uint64_t i;

        if (!grown)
                return;
        c->buckets = grown;
        c->bucket_count = old_count * 4;
        for (i = 0; i < old_count; i++) {
                while (old[i]) {
                        struct slice *s = old[i];
                        struct slice **bucket = bucket_of(c, s->host_offset);

                        old[i] = s->next_in_bucket;
                        s->next_in_bucket = *bucket;
                        *bucket = s;
                }
        }
        g_free(old);
}

/* Whoever reads there now may get what was there before the slice was written. */
static void tell_watches(struct slice_cache *c, uint64_t host_offset)
{
        GList *l;

        for (l = c->watches.head; l; l = l->next) {
                struct slices_watch *w = l->data;

                w->is_stale |= host_offset >= w->first && host_offset < w->end;
        }
}

static void unhash(struct slice_cache *c, struct slice *slice)
{
        struct slice **p = bucket_of(c, slice->host_offset);

        while (*p != slice) {
                g_assert(*p != NULL);
                p = &(*p)->next_in_bucket;
        }
        *p = slice->next_in_bucket;
        slice->next_in_bucket = NULL;
        tell_watches(c, slice->host_offset);
        g_queue_unlink(&c->clock, &slice->in_use);
        c->count--;
}

static void clean(struct slice_cache *c, struct slice *slice)
{
        if (slice->dirty) {
                slice->dirty = false;
                g_queue_unlink(&c->dirty, &slice->in_dirty);
        }
}

static bool evictable(const struct slice *slice)
{
        return slice->pins == 0 && !slice->dirty && slice->loaded;
}

/* Second chance: what was used since the hand last came by stays once more. */
static struct slice *evict(struct slice_cache *c)
{
        unsigned tries;

        for (tries = 0; tries < EVICTION_TRIES && c->clock.head; tries++) {
                struct slice *s = c->clock.head->data;

                if (evictable(s) && !s->recent) {
                        unhash(c, s);
                        return s;
                }
                s->recent = false;
                g_queue_unlink(&c->clock, &s->in_use);
                g_queue_push_tail_link(&c->clock, &s->in_use);
        }
        return NULL;
}

static bool add_slab(struct slice_cache *c)
{
        struct slab *slab = g_try_new0(struct slab, 1);
        unsigned i;

        if (!slab)
                return false;
        slab->bytes = io_buffer_try_new(SLAB_SLICES * c->slice_bytes);
        if (!slab->bytes) {
                g_free(slab);
                return false;
        }
        for (i = 0; i < SLAB_SLICES; i++) {
                struct slice *s = &slab->slices[i];

                s->bytes = slab->bytes + i * c->slice_bytes;
                s->in_use.data = s;
                s->in_dirty.data = s;
                g_queue_push_tail_link(&c->spare, &s->in_use);
        }
        g_ptr_array_add(c->slabs, slab);
        return true;
}

static struct slice *take_memory(struct slice_cache *c)
{
        struct slice *s = NULL;

        if (c->count >= c->limit)
                s = evict(c);
        if (!s && (c->spare.head || add_slab(c)))
                s = g_queue_pop_head_link(&c->spare)->data;
        return s ? s : evict(c);
}

/* A resident slice without content yet; NULL: no memory. */
static struct slice *add(struct slice_cache *c, uint64_t host_offset)
{
        struct slice *s = take_memory(c);
        struct slice **bucket;

        if (!s)
                return NULL;
        s->host_offset = host_offset;
        s->loaded = false;
        s->recent = true;
        s->load_error = 0;
        bucket = bucket_of(c, host_offset);
        s->next_in_bucket = *bucket;
        *bucket = s;
        s->dropped = false;
        g_queue_push_tail_link(&c->clock, &s->in_use);
        if (++c->count > 2 * c->bucket_count)
                grow_buckets(c);
        return s;
}

static void retire(struct slice_cache *c, struct slice *slice)
{
        clean(c, slice);
        unhash(c, slice);
        if (slice->pins > 0)
                slice->dropped = true;
        else
                g_queue_push_head_link(&c->spare, &slice->in_use);
}

void slice_unpin(struct slice_cache *c, struct slice *slice)
{
        g_assert(slice->pins > 0);
        if (--slice->pins == 0 && slice->dropped) {
                slice->dropped = false;
                g_queue_push_head_link(&c->spare, &slice->in_use);
        }
}

void slices_reset(struct slice_cache *c)
{
        while (c->clock.head) {
                struct slice *s = c->clock.head->data;

                g_assert(s->pins == 0);
                retire(c, s);
        }
}

void slice_mark_dirty(struct slice_cache *c, struct slice *slice)
{
        if (!slice->dirty && !slice->dropped) {
                slice->dirty = true;
                g_queue_push_tail_link(&c->dirty, &slice->in_dirty);
        }
}

void slices_take_dirty(struct slice_cache *c, struct slice *slice)
{
        g_assert(slice->dirty);
        clean(c, slice);
        slice_pin(slice);
}

/* Nobody else may see a slice between its addition and its load: `loaded` is false. */
static int load_begun(struct slice_load *s, struct slice_cache *c, uint64_t host_offset)
{
        struct slice *slice = find_any(c, host_offset);

        s->owner = slice == NULL;
        if (!slice)
                slice = add(c, host_offset);
        if (!slice)
                return -ENOMEM;
        slice_pin(slice);
        s->slice = slice;
        return 0;
}

int slices_load(struct slice_load *s, struct slice_cache *c, uint64_t host_offset,
                struct slice **ret_slice)
{
        CO_BEGIN(s);
again:
        CO_TRY(s, out, load_begun(s, c, host_offset));
        if (s->owner) {
                CO_AWAIT(s, io_read(&s->io, c->file, host_offset, s->slice->bytes,
                                    c->slice_bytes, false));
                s->slice->load_error = s->co.ret;
                if (s->co.ret == 0 && s->io.eof_bytes == c->slice_bytes)
                        s->slice->load_error = -EIO;
                s->slice->loaded = s->slice->load_error == 0;
                if (!s->slice->loaded && !s->slice->dropped)
                        retire(c, s->slice);
                waitq_wake_all(&s->slice->loading);
        } else if (!s->slice->loaded) {
                CO_TRY(s, unpin, waitq_wait(&s->slice->loading, &s->waiter));
        }
        if (!s->slice->loaded)
                CO_FAIL(s, unpin, s->slice->load_error);
        if (s->slice->dropped) {
                /* Its bytes were replaced in the file while we read. */
                slice_unpin(c, s->slice);
                goto again;
        }
        s->slice->recent = true;
        *ret_slice = s->slice;
        goto out;
unpin:
        slice_unpin(c, s->slice);
out:
        CO_END(s);
}

void slices_put(struct slice_cache *c, uint64_t host_offset, const uint8_t *bytes,
                uint64_t byte_count, bool add_absent)
{
        uint64_t at;

        for (at = 0; at + c->slice_bytes <= byte_count; at += c->slice_bytes) {
                struct slice *s = find_any(c, host_offset + at);

                if (!s && add_absent)
                        s = add(c, host_offset + at);
                if (!s)
                        continue;
                if (!s->loaded && s->pins > 0) {
                        retire(c, s);   /* a read under way may bring old bytes */
                        continue;
                }
                memcpy(s->bytes, bytes + at, c->slice_bytes);
                s->loaded = true;
        }
}

bool slices_are_settled(struct slice_cache *c, uint64_t host_offset, uint64_t byte_count)
{
        uint64_t at;

        for (at = 0; at < byte_count; at += c->slice_bytes) {
                const struct slice *s = find_any(c, host_offset + at);

                if (s && !evictable(s))
                        return false;
        }
        return true;
}

void slices_add(struct slice_cache *c, uint64_t host_offset, const uint8_t *bytes)
{
        struct slice *s = find_any(c, host_offset) ? NULL : add(c, host_offset);

        if (!s)
                return;
        memcpy(s->bytes, bytes, c->slice_bytes);
        s->loaded = true;
}

int slices_store(struct slice_cache *c, uint64_t host_offset, const uint8_t *bytes)
{
        struct slice *s = find_any(c, host_offset);

        if (s && !s->loaded) {
                retire(c, s);           /* a read under way would bring old bytes */
                s = NULL;
        }
        if (!s)
                s = add(c, host_offset);
        if (!s)
                return -ENOMEM;
        memcpy(s->bytes, bytes, c->slice_bytes);
        s->loaded = true;
        slice_mark_dirty(c, s);
        return 0;
}

void slices_forget(struct slice_cache *c, uint64_t host_offset)
{
        struct slice *s = find_any(c, host_offset);

        if (s && evictable(s))
                retire(c, s);
}

void slices_drop(struct slice_cache *c, uint64_t host_offset, uint64_t byte_count)
{
        uint64_t at;

        for (at = 0; at < byte_count; at += c->slice_bytes) {
                struct slice *s = find_any(c, host_offset + at);

                if (s)
                        retire(c, s);
        }
}
