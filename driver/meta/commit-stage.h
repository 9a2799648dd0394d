/*
 * commit-stage.h - dirty pieces of tables that are written together, between two barriers.
 *
 *   added    which ones: slices of a cache, sectors of a table in memory
 *   copied   in the order of the file, into chunks of memory; nothing has changed yet
 *   taken    they are clean from now on, slices pinned
 *   written  neighbours as one I/O
 *   settled  the slices are let go; what could not be written is dirty again
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef META_COMMIT_STAGE_H
#define META_COMMIT_STAGE_H

#include "meta/image.h"

enum { STAGE_WRITES = 32 };             /* in flight */

/* The pieces of one stage and their bytes. */
struct stage {
        struct co co;
        GArray *pieces;                 /* of struct piece */
        struct io_file *file;
        uint64_t piece_bytes;
        GPtrArray *chunks;              /* of copies; some are kept for the next time */
        struct io io[STAGE_WRITES];
        uint64_t next;                  /* piece to be written next */
        unsigned begun;
        unsigned ended;
        int first_error;
};

void stage_init(struct stage *st, struct image *img);
void stage_clear(struct stage *st);
/* Forgets the pieces. */
void stage_reset(struct stage *st);

/* So many bytes are going to be copied: touches memory for them, a chunk at most.  Best effort: the
 * copying has the last word. */
void stage_expect(struct stage *st, uint64_t byte_count);

/* All that are dirty. */
void stage_add_slices(struct stage *st, struct slice_cache *c);
/* Sectors of entries, which lie at offset, that are marked in dirty; unit_sectors are written
 * together (O_DIRECT's block). */
void stage_add_table(struct stage *st, const uint64_t *entries, uint64_t entry_count,
                     uint64_t offset, uint64_t *dirty, unsigned unit_sectors);

/* Takes the copies; -ENOMEM leaves everything dirty. */
int stage_copy(struct stage *st, uint64_t piece_bytes);
void stage_take(struct stage *st);
/* Coroutine. */
int stage_write(struct stage *st);
/* The sectors of a table in memory are not to be marked any more, should they fail. */
void stage_forget_marks(struct stage *st);
/* After the writes: lets go of the slices; if they failed, all is dirty again. */
void stage_settle(struct stage *st, bool failed);

#endif
