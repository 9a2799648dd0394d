/*
 * preallocate.c - mapping a range to new clusters, a run of an L2 slice at a time.
 *
 * Order: a run of clusters is counted; its space is made ready (the file extended, space
 * reserved, or zeros written); then the entries are set in memory.  Commits bring that
 * to the disk in their order, so no crash shows old bytes: what an entry calls
 * data reads as zeros by then.  Clusters that were in use before cannot be
 * called data unread: they are zero clusters, or get zeros written in version 2.
 *
 * The file is extended ahead of the runs, and cut to what is used at the end.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <inttypes.h>

#include "disk/error.h"
#include "ops/iov.h"
#include "ops/preallocate.h"

/* ---- space for a run ---- */

static uint64_t run_bytes(const struct preallocate *s, const struct image *img)
{
        return s->run_count << image_geometry(img)->cluster_bits;
}

static bool must_fill(const struct preallocate *s, const struct image *img,
                      enum hvb_preallocation mode)
{
        return mode == HVB_PREALLOC_FULL || (!s->is_fresh && img->header.version < 3);
}

static void start_write(struct preallocate *s, struct image *img)
{
        struct io *io = &s->io[s->begun++ % PREALLOCATE_WRITES];
        uint64_t bytes = u64_min(run_bytes(s, img) - s->filled, ZEROS_BYTES);

        io_prepare(io, IO_WRITE, &img->file, s->host_offset + s->filled, iov_zeros(), bytes);
        io_start(io);
        s->filled += bytes;
}

static int fill_run(struct preallocate *s, struct image *img)
{
        CO_BEGIN(&s->fill);
        s->filled = 0;
        s->begun = 0;
        s->ended = 0;
        s->first_error = 0;
        img->data_written = true;
        for (;;) {
                while (s->filled < run_bytes(s, img) && s->first_error == 0 &&
                       s->begun - s->ended < PREALLOCATE_WRITES)
                        start_write(s, img);
                if (s->begun == s->ended)
                        break;
                CO_AWAIT(&s->fill, io_wait(&s->io[s->ended % PREALLOCATE_WRITES]));
                if (s->fill.co.ret < 0 && s->first_error == 0)
                        s->first_error = s->fill.co.ret;
                s->ended++;
        }
        s->fill.co.err = s->first_error;
        CO_END(&s->fill);
}

static int set_length(struct preallocate *s, struct image *img, uint64_t length)
{
        int ret;

        if (s->io[0].state == IO_IDLE)
                io_prepare(&s->io[0], IO_TRUNCATE, &img->file, length, NULL, 0);
        ret = io_await(&s->io[0]);
        if (ret == 0)
                s->file_end = length;
        return ret;
}

static int allocate_space(struct preallocate *s, struct image *img)
{
        if (s->io[0].state == IO_IDLE)
                io_prepare(&s->io[0], IO_ALLOCATE, &img->file, s->host_offset, NULL,
                           run_bytes(s, img));
        return io_await(&s->io[0]);
}

static uint64_t run_end(const struct preallocate *s, const struct image *img)
{
        return s->host_offset + run_bytes(s, img);
}

static int make_ready(struct preallocate *s, struct image *img, enum hvb_preallocation mode)
{
        CO_BEGIN(&s->ready);
        if (run_end(s, img) > s->file_end) {
                if (img->file.is_block_device)
                        CO_FAIL(&s->ready, out, -ENOSPC);
                CO_TRY(&s->ready, out, set_length(s, img, run_end(s, img) + s->end - s->position));
        }
        if (must_fill(s, img, mode))
                CO_TRY(&s->ready, out, fill_run(s, img));
        else if (mode == HVB_PREALLOC_FALLOC && !img->file.is_block_device)
                CO_TRY(&s->ready, out, allocate_space(s, img));
out:
        CO_END(&s->ready);
}

/* ---- entries ---- */

static bool lacks_cluster(const struct image *img, const struct preallocate *s, uint64_t n)
{
        enum cluster_kind kind;

        kind = entry_kind(image_geometry(img),
                          map_entry(s->slice, map_index(img, s->position) + n));
        return kind == CLUSTER_UNALLOCATED || kind == CLUSTER_ZERO_PLAIN;
}

/* Moves index to the next entry without a cluster; returns how many follow it, 0: none. */
static uint64_t next_gap(struct preallocate *s, const struct image *img)
{
        uint64_t n;

        while (s->index < s->slice_count && !lacks_cluster(img, s, s->index))
                s->index++;
        for (n = s->index; n < s->slice_count && lacks_cluster(img, s, n); n++)
                ;
        return n - s->index;
}

static void set_entries(struct preallocate *s, struct image *img, enum hvb_preallocation mode)
{
        const struct geometry *g = image_geometry(img);
        bool reads_zeros = s->is_fresh || must_fill(s, img, mode);
        uint64_t flags = ENTRY_COPIED | (reads_zeros ? 0 : ENTRY_ZERO);
        uint64_t index = map_index(img, s->position) + s->index;
        uint64_t i;

        for (i = 0; i < s->run_count; i++)
                map_set(img, s->slice, index + i,
                        (s->host_offset + i * g->cluster_bytes) | flags, 1, true);
        s->index += s->run_count;
        s->next_host_offset = run_end(s, img);
}

static int map_slice(struct preallocate *s, struct image *img, enum hvb_preallocation mode)
{
        CO_BEGIN(&s->map);
        CO_TRY(&s->map, out, map_prepare(&s->prepare, img, &img->active, s->position, &s->slice));
        s->index = 0;
        while (next_gap(s, img) > 0) {
                CO_TRY(&s->map, unpin, clusters_alloc_run(&s->alloc, img, next_gap(s, img), 1,
                                                          s->next_host_offset, &s->host_offset,
                                                          &s->run_count));
                s->is_fresh = clusters_take_fresh(img, s->host_offset, run_bytes(s, img));
                CO_TRY(&s->map, give_back, make_ready(s, img, mode));
                CO_TRY(&s->map, give_back, map_check_slice(img, s->slice));
                set_entries(s, img, mode);
        }
        goto unpin;
give_back:
        CO_UNDO(&s->map, clusters_free(&s->free, img, s->host_offset, run_bytes(s, img), 1));
unpin:
        slice_unpin(&img->l2, s->slice);
out:
        CO_END(&s->map);
}

/* ---- the range ---- */

static int begin(struct preallocate *s, struct image *img, uint64_t offset,
                 uint64_t length_bytes)
{
        uint64_t cluster_bytes = image_geometry(img)->cluster_bytes;
        int64_t length = io_file_length(&img->file);

        if (length < 0)
                return (int)length;
        s->file_end = (uint64_t)length;
        s->position = round_down(offset, cluster_bytes);
        s->end = round_up(offset + length_bytes, cluster_bytes);
        s->next_host_offset = 0;
        return 0;
}

/* What lies beyond everything ever allocated is not needed. */
static uint64_t used_length(const struct preallocate *s, const struct image *img)
{
        return img->file.is_block_device ? s->file_end
                                         : u64_min(s->file_end, img->refs.fresh_offset);
}

static int map_range(struct preallocate *s, struct image *img, uint64_t offset,
                     uint64_t length_bytes, enum hvb_preallocation mode)
{
        unsigned cluster_bits = image_geometry(img)->cluster_bits;

        CO_BEGIN(s);
        CO_TRY(s, out, begin(s, img, offset, length_bytes));
        for (; s->position < s->end; s->position += s->slice_count << cluster_bits) {
                s->slice_count = u64_min(map_entries_left(img, s->position),
                                         (s->end - s->position) >> cluster_bits);
                if (commit_needed(img))
                        CO_TRY(s, cut, meta_commit(&s->commit, img));
                if (task_is_cancelled(task_current()))
                        CO_FAIL(s, cut, -ECANCELED);
                CO_TRY(s, cut, map_slice(s, img, mode));
        }
cut:
        if (used_length(s, img) < s->file_end)
                CO_UNDO(s, set_length(s, img, used_length(s, img)));
        CO_UNDO(s, meta_commit(&s->commit, img));
        if (s->co.ret < 0)
                CO_FAIL(s, out, s->co.ret);
out:
        CO_END(s);
}

int preallocate(struct preallocate *s, struct image *img, uint64_t offset, uint64_t length_bytes,
                enum hvb_preallocation mode, struct hvb_error *err)
{
        int ret = map_range(s, img, offset, length_bytes, mode);

        if (ret < 0)
                error_set(err, ret, "Could not preallocate %" PRIu64 " bytes at "
                          "%" PRIu64 ": %s", length_bytes, offset, g_strerror(-ret));
        return ret;
}
