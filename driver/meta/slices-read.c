/*
 * slices-read.c - whole tables, read in one I/O, as memory has them.
 *
 * What is resident is at least as new as the file.  What is not resident now, and was not
 * at any time since the read began, was in the file then.  What went meanwhile may have
 * been written after our read passed by: it is loaded again.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disk/planted.h"
#include "meta/slices.h"

int slices_overlay(struct slices_read *s, struct slice_cache *c, uint64_t host_offset,
                   uint8_t *bytes, uint64_t byte_count, uint64_t evictions)
{
        CO_BEGIN(&s->overlay);
        for (s->at = 0; s->at < byte_count && !PLANTED(TABLE_FROM_FILE); s->at += c->slice_bytes) {
                s->slice = slices_find(c, host_offset + s->at);
                if (!s->slice && c->evictions == evictions)
                        continue;
                if (!s->slice) {
                        CO_TRY(&s->overlay, out, slices_load(&s->load, c, host_offset + s->at,
                                                             &s->slice));
                        slice_unpin(c, s->slice);
                }
                memcpy(bytes + s->at, s->slice->bytes, c->slice_bytes);
        }
out:
        CO_END(&s->overlay);
}

int slices_read(struct slices_read *s, struct slice_cache *c, uint64_t host_offset,
                uint8_t *bytes, uint64_t byte_count)
{
        CO_BEGIN(s);
        s->evictions = c->evictions;
        CO_TRY(s, out, io_read(&s->io, c->file, host_offset, bytes, byte_count, false));
        CO_TRY(s, out, slices_overlay(s, c, host_offset, bytes, byte_count, s->evictions));
out:
        CO_END(s);
}
