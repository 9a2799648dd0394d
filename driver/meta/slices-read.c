/*
 * slices-read.c - whole tables, read in one I/O, as memory has them.
 *
 * What is resident is at least as new as the file.  What is not resident now, and was not
 * at any time since the read began, was in the file then.  What went meanwhile may have
 * been written after our read passed by: the watch tells, and it is loaded again.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disk/planted.h"
#include "meta/slices.h"

void slices_watch(struct slices_watch *w, struct slice_cache *c, uint64_t host_offset,
                  uint64_t byte_count)
{
        *w = (struct slices_watch) {
                .link = { .data = w }, .first = host_offset, .end = host_offset + byte_count,
        };
        g_queue_push_tail_link(&c->watches, &w->link);
}

void slices_unwatch(struct slices_watch *w, struct slice_cache *c)
{
        if (!w->link.data)
                return;
        g_queue_unlink(&c->watches, &w->link);
        w->link.data = NULL;
}

int slices_overlay(struct slices_read *s, struct slice_cache *c, const struct slices_watch *watch,
                   uint8_t *bytes)
{
        CO_BEGIN(&s->overlay);
        for (s->at = watch->first; s->at < watch->end && !PLANTED(TABLE_FROM_FILE);
             s->at += c->slice_bytes) {
                s->slice = slices_find(c, s->at);
                if (!s->slice && !watch->is_stale)
                        continue;
                if (!s->slice) {
                        CO_TRY(&s->overlay, out, slices_load(&s->load, c, s->at, &s->slice));
                        slice_unpin(c, s->slice);
                }
                memcpy(bytes + (s->at - watch->first), s->slice->bytes, c->slice_bytes);
        }
out:
        CO_END(&s->overlay);
}

int slices_read(struct slices_read *s, struct slice_cache *c, uint64_t host_offset,
                uint8_t *bytes, uint64_t byte_count)
{
        CO_BEGIN(s);
        slices_watch(&s->watch, c, host_offset, byte_count);
        CO_TRY(s, out, io_read(&s->io, c->file, host_offset, bytes, byte_count, false));
        CO_TRY(s, out, slices_overlay(s, c, &s->watch, bytes));
out:
        slices_unwatch(&s->watch, c);
        CO_END(s);
}
