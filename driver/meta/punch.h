/*
 * punch.h - giving the space of freed clusters back to the file system (discard=unmap).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef META_PUNCH_H
#define META_PUNCH_H

#include "meta/refs.h"

struct punch {
        struct co co;
        struct refs_bring bring;
        struct io io;
        uint64_t at;                    /* cluster index */
        uint64_t end;
        uint64_t run;                   /* clusters from at on that only the caller has */
        unsigned weight;                /* references that it has */
};

/*
 * Coroutine: makes holes of those clusters whose only references are those that the caller
 * is about to give up; nothing reads them any more.  A hint: errors are not reported, and a file
 * that cannot have holes is left alone from then on.
 */
int punch_clusters(struct punch *s, struct image *img, const struct pending_free *f);

#endif
