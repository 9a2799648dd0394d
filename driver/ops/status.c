/*
 * status.c - what kind of content a guest range has.
 *
 * Runs as the chain gives them, neighbours of one kind merged.  Compressed
 * clusters merge though they lie anywhere; data merges while it lies together.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/status.h"

#include <errno.h>

static struct hvb_block_status describe(const struct content *c)
{
        struct hvb_block_status status = {
                .depth = c->depth,
                .length_bytes = c->length_bytes,
                .host_offset = c->host_offset,
        };

        if (c->kind == CONTENT_DATA || c->kind == CONTENT_COMPRESSED)
                status.flags |= HVB_STATUS_DATA;
        if (c->kind == CONTENT_ZERO)
                status.flags |= HVB_STATUS_ZERO;
        if (c->kind == CONTENT_COMPRESSED)
                status.flags |= HVB_STATUS_COMPRESSED;
        if (c->is_mapped)
                status.flags |= HVB_STATUS_ALLOCATED;
        if (c->has_host_offset)
                status.flags |= HVB_STATUS_OFFSET_VALID;
        return status;
}

/* Takes next into status.  False: it is of another kind. */
static bool merge(struct hvb_block_status *status, const struct hvb_block_status *next)
{
        if (next->flags != status->flags || next->depth != status->depth)
                return false;
        if ((next->flags & HVB_STATUS_OFFSET_VALID) &&
            next->host_offset != status->host_offset + status->length_bytes)
                return false;
        status->length_bytes += next->length_bytes;
        return true;
}

static bool take(struct status *s)
{
        struct hvb_block_status next = describe(&s->content);

        if (s->position == 0) {
                s->status = next;
                return true;
        }
        return merge(&s->status, &next);
}

static void deliver(const struct status *s, struct hvb_block_status *ret)
{
        ret->flags = s->status.flags;
        ret->length_bytes = s->status.length_bytes;
        ret->host_offset = s->status.host_offset;
        ret->depth = s->status.depth;
}

int status_range(struct status *s, struct image *img, struct l1_table *l1, uint64_t offset,
                 uint64_t length_bytes, struct hvb_block_status *ret)
{
        CO_BEGIN(s);
        s->status = (struct hvb_block_status){ .flags = 0 };
        for (s->position = 0; s->position < length_bytes;
             s->position += s->content.length_bytes) {
                if (task_is_cancelled(task_current()))
                        CO_FAIL(s, out, -ECANCELED);
                CO_TRY(s, out, chain_find(&s->find, img, l1, offset + s->position,
                                          length_bytes - s->position, &s->content));
                if (!take(s))
                        break;
        }
        deliver(s, ret);
out:
        CO_END(s);
}
