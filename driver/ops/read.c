/*
 * read.c - reading guest data through the backing chain.
 *
 * The range is cut where content changes its kind, layer or contiguity; zeros are
 * filled in at once, everything else becomes a piece of the window.
 *
 * Invariants:
 *  1. A piece begins in the step that found its content (image.h, invariant 5).
 *  2. Nothing is in flight when fetch_range returns.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/read.h"

#include <errno.h>

static int begin_compressed(struct fetch *s, struct pieces *w, uint64_t offset)
{
        struct image *layer = s->content.layer;
        const struct geometry *g = image_geometry(layer);
        struct compressed_place place = entry_compressed_place(g, s->content.entry);

        s->begun_bytes = s->content.length_bytes;
        return pieces_read_compressed(w, layer, &place, offset & (g->cluster_bytes - 1),
                                      s->begun_bytes, &s->at);
}

static int begin_data(struct fetch *s, struct pieces *w)
{
        const struct content *c = &s->content;
        uint64_t whole_bytes = round_down(c->length_bytes, c->layer->file.alignment);

        if (whole_bytes == 0 || !file_takes(c->layer, c->host_offset, whole_bytes))
                return pieces_read_unaligned(w, c->layer, c->host_offset, c->length_bytes,
                                             &s->at, &s->begun_bytes);
        return pieces_transfer(w, IO_READ, c->layer, c->host_offset, whole_bytes, &s->at,
                               &s->begun_bytes);
}

static int begin_content(struct fetch *s, struct pieces *w, uint64_t offset)
{
        switch (s->content.kind) {
        case CONTENT_ZERO:
                s->begun_bytes = s->content.length_bytes;
                iov_zero(&s->at, s->begun_bytes);
                return 0;
        case CONTENT_DATA:
                return begin_data(s, w);
        case CONTENT_COMPRESSED:
                return begin_compressed(s, w, offset);
        case CONTENT_MISSING:
                break;
        }
        return -ENOMEDIUM;
}

int fetch_range(struct fetch *s, struct pieces *w, struct image *img, struct l1_table *l1,
                uint64_t offset, uint64_t length_bytes, const struct iovec *iov,
                unsigned iov_count)
{
        CO_BEGIN(s);
        iov_start(&s->at, iov, iov_count);
        for (s->position = 0; s->position < length_bytes; s->position += s->begun_bytes) {
                if (task_is_cancelled(task_current()))
                        CO_FAIL(s, drain, -ECANCELED);
                CO_TRY(s, drain, pieces_room(w));
                CO_TRY(s, drain, chain_find(&s->find, img, l1, offset + s->position,
                                            length_bytes - s->position, &s->content));
                s->co.ret = begin_content(s, w, offset + s->position);
                if (s->co.ret < 0)
                        CO_FAIL(s, drain, s->co.ret);
        }
drain:
        CO_AWAIT(s, pieces_drain(w));
        if (s->co.err == 0)
                s->co.err = s->co.ret;
        CO_END(s);
}

int fetch_buffer(struct fetch *s, struct pieces *w, struct image *img, struct l1_table *l1,
                 uint64_t offset, void *buffer, uint64_t length_bytes)
{
        s->one = (struct iovec){ buffer, length_bytes };
        return fetch_range(s, w, img, l1, offset, length_bytes, &s->one, 1);
}

int read_range(struct read *s, struct image *img, struct l1_table *l1, uint64_t offset,
               uint64_t length_bytes, const struct iovec *iov, unsigned iov_count)
{
        if (!file_takes(img, offset, length_bytes))
                return -EINVAL;
        return fetch_range(&s->fetch, &s->pieces, img, l1, offset, length_bytes, iov, iov_count);
}

int read_simple(struct read *s, struct image *img, struct l1_table *l1, uint64_t offset,
                void *buffer, uint64_t length_bytes)
{
        return fetch_buffer(&s->fetch, &s->pieces, img, l1, offset, buffer, length_bytes);
}
