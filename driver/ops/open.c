/*
 * open.c - from a file descriptor to a live image, layer by layer.
 *
 * Opening writes nothing but: the repair that a dirty bit asks for, the clearing of
 * autoclear bits, and the dirty bit where lazy refcounts are in use; all that
 * only read-write and without HVB_OPEN_CHECK.  Cost is bounded by what the file holds.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "disk/error.h"
#include "meta/commit.h"
#include "meta/locks.h"
#include "ops/open.h"

enum {
        HEAD_BYTES = 4096,
        MAX_DEFAULT_L2_CACHE = 256 << 20,
        MAX_DEFAULT_REFS_CACHE = 64 << 20,
};

/* The frames of loading a layer; kept only while it runs. */
struct header_reader {
        struct co co;
        struct io io;
        uint8_t *buffer;
        uint64_t file_bytes;
        uint64_t wanted_bytes;
};

struct writer_start {
        struct co co;
        struct check check;
        struct root_switch root;
        struct root_change change;
        struct dirty_change dirty;
        struct commit_rest rest;
};

struct table_loader {
        struct co co;
        struct refs_io refs;
        struct snapshots_read snapshots;
};

struct image_load {
        struct co co;
        struct header_reader reader;
        struct l1_io l1;
        struct table_loader tables;
        struct writer_start writer;
};

struct image *image_new(struct loop *loop, const struct hvb_host *host, const char *name,
                        unsigned open_flags, const struct open_options *options)
{
        struct image *img = g_try_new0(struct image, 1);

        if (!img)
                return NULL;
        img->loop = loop;
        img->host = host;
        img->name = g_strdup(name ? name : "image");
        img->open_flags = open_flags;
        img->writable = (open_flags & HVB_OPEN_RDWR) != 0;
        img->file.fd = -1;
        img->max_depth = options->backing_depth;
        img->walk_share = options->walk_share;
        img->discard_to_file = options->discard_unmap;
        return img;
}

/* ---- one layer ---- */

static int read_header(struct header_reader *s, struct image *img, struct hvb_error *err)
{
        int64_t length = io_file_length(&img->file);
        uint64_t wanted;

        CO_BEGIN(s);
        if (length < 0)
                CO_FAIL(s, out, error_set(err, (int)length, "Could not get the length of '%s': %s",
                                          img->name, g_strerror((int)-length)));
        s->file_bytes = (uint64_t)length;
        s->buffer = io_buffer_try_new(HEAD_BYTES);
        if (!s->buffer)
                CO_FAIL(s, out, -ENOMEM);
        CO_TRY(s, read_failed, io_read(&s->io, &img->file, 0, s->buffer, HEAD_BYTES, false));
        s->co.ret = header_peek(s->buffer, u64_min(HEAD_BYTES, s->file_bytes), &wanted, err);
        free(s->buffer);
        s->buffer = NULL;
        if (s->co.ret < 0)
                CO_FAIL(s, out, s->co.ret);
        img->root_bytes = u64_max(ROOT_SECTOR_BYTES, img->file.alignment);
        s->wanted_bytes = u64_max(wanted, img->root_bytes);
        s->buffer = io_buffer_try_new(s->wanted_bytes);
        if (!s->buffer)
                CO_FAIL(s, out, -ENOMEM);
        CO_TRY(s, read_failed, io_read(&s->io, &img->file, 0, s->buffer, s->wanted_bytes, false));
        CO_TRY(s, out, header_decode(&img->header, s->buffer,
                                     u64_min(s->wanted_bytes, s->file_bytes), s->file_bytes, err));
        img->root_sector = io_buffer_try_new(img->root_bytes);
        if (!img->root_sector)
                CO_FAIL(s, out, -ENOMEM);
        memcpy(img->root_sector, s->buffer, img->root_bytes);
        goto out;
read_failed:
        error_set(err, s->co.err, "Could not read the header of '%s': %s", img->name,
                  g_strerror(-s->co.err));
out:
        free(s->buffer);
        s->buffer = NULL;
        CO_END(s);
}

static int judge_header(struct image *img, struct hvb_error *err)
{
        const struct header *h = &img->header;

        if (img->file.alignment > h->geometry.slice_bytes)
                return error_set(err, -EINVAL, "O_DIRECT needs I/O in blocks of %u bytes, but the "
                                 "clusters of '%s' have %" PRIu64 "; open it without O_DIRECT",
                                 img->file.alignment, img->name, h->geometry.cluster_bytes);
        if ((h->incompatible & INCOMPAT_CORRUPT) && img->writable &&
            !(img->open_flags & HVB_OPEN_CHECK))
                return error_set(err, -EACCES, "Image is corrupt; cannot be opened read/write");
        return 0;
}

static uint64_t default_cache(uint64_t wanted, uint64_t table_bytes, uint64_t most)
{
        return wanted ? wanted : u64_min(table_bytes, most);
}

static int prepare_caches(uint64_t file_bytes, struct image *img,
                          const struct open_options *options)
{
        const struct geometry *g = image_geometry(img);
        uint64_t file_clusters = div_up(file_bytes, g->cluster_bytes);

        img->l2_cache_limit = default_cache(options->l2_cache_bytes,
                                            div_up(image_size(img), g->cluster_bytes) * 8,
                                            MAX_DEFAULT_L2_CACHE);
        img->refs_cache_limit = default_cache(options->refcount_cache_bytes,
                                              (file_clusters << g->refcount_order) / 4 + (1 << 20),
                                              MAX_DEFAULT_REFS_CACHE);
        buffers_init(&img->copies, g->cluster_bytes);
        return slices_init(&img->l2, &img->file, g->slice_bytes,
                           u64_max(img->l2_cache_limit, 16 * g->slice_bytes));
}

static void note_fresh(uint64_t file_bytes, struct image *img)
{
        const struct geometry *g = image_geometry(img);

        img->refs.fresh_offset = img->file.is_block_device
                ? UINT64_MAX : round_up(file_bytes, g->cluster_bytes);
        img->refs.fresh_before = UINT64_MAX;
}

static bool repair_due(const struct image *img)
{
        return img->writable && (img->header.incompatible & INCOMPAT_DIRTY) &&
               !(img->open_flags & HVB_OPEN_CHECK);
}

static bool wants_lazy(const struct image *img, const struct open_options *options)
{
        if (img->header.version < 3 || (img->open_flags & HVB_OPEN_CHECK))
                return false;
        if (options->lazy_refcounts >= 0)
                return options->lazy_refcounts;
        return (img->header.compatible & COMPAT_LAZY_REFCOUNTS) != 0;
}

/* What a writer does first, when all of the chain is open: repair, forget what we do not maintain,
 * go lazy. */
static int become_writer(struct writer_start *s, struct image *img,
                         const struct open_options *options, struct hvb_error *err)
{
        CO_BEGIN(s);
        img->commit = commit_new(img);
        if (!img->commit)
                CO_FAIL(s, out, -ENOMEM);
        img->state = IMAGE_LIVE;
        if (repair_due(img))
                CO_TRY(s, out, repair_dirty(&s->check, img, err));
        if (img->header.autoclear != 0 && !(img->open_flags & HVB_OPEN_CHECK)) {
                s->change = (struct root_change) { .what = ROOT_AUTOCLEAR, .autoclear = 0 };
                CO_TRY(s, out, root_switch(&s->root, img, &s->change));
        }
        if (wants_lazy(img, options)) {
                CO_TRY(s, out, dirty_hold(&s->dirty, img));
                img->lazy = true;
        }
out:
        if (s->co.err)
                CO_UNDO(s, commit_rest(&s->rest, img));
        CO_END(s);
}

/* The tables that only the top image needs. */
static int load_own_tables(struct table_loader *s, struct image *img, uint64_t file_bytes,
                           struct hvb_error *err)
{
        CO_BEGIN(s);
        CO_TRY(s, out, refs_open(&s->refs, img, err));
        note_fresh(file_bytes, img);
        CO_TRY(s, out, snapshots_read(&s->snapshots, img, err));
        if (img->writable && !(img->open_flags & HVB_OPEN_CHECK))
                CO_TRY(s, out, image_judge_metadata(img, err));
out:
        CO_END(s);
}

static int load_layer(struct image_load *s, struct image *img,
                      const struct open_options *options, struct hvb_error *err)
{
        CO_BEGIN(s);
        if (img->is_raw) {
                int64_t length = io_file_length(&img->file);

                if (length < 0)
                        CO_FAIL(s, out, (int)length);
                img->header.size_bytes = (uint64_t)length;
                img->state = IMAGE_LIVE;
                goto out;
        }
        CO_TRY(s, out, read_header(&s->reader, img, err));
        CO_TRY(s, out, judge_header(img, err));
        CO_TRY(s, out, prepare_caches(s->reader.file_bytes, img, options));
        CO_TRY(s, l1_failed, l1_read(&s->l1, img, img->header.l1_offset, img->header.l1_entries,
                                     &img->active));
        if (img->depth == 0)
                CO_TRY(s, out, load_own_tables(&s->tables, img, s->reader.file_bytes, err));
        img->state = IMAGE_LIVE;
        goto out;
l1_failed:
        error_set(err, s->co.err, "Could not read L1 table at 0x%" PRIx64 " of '%s': %s",
                  img->header.l1_offset, img->name, g_strerror(-s->co.err));
out:
        CO_END(s);
}

int image_open_file(struct image *img, int fd, struct hvb_error *err)
{
        int ret = io_file_open(&img->file, img->loop->engine, fd);

        if (ret < 0)
                return error_set(err, ret, "Could not open '%s': %s", img->name,
                                 g_strerror(-ret));
        return locks_take(fd, img->open_flags, img->name, err);
}

/* ---- the chain ---- */

static bool same_file(int fd, int other)
{
        struct stat a;
        struct stat b;

        return fd >= 0 && other >= 0 && fstat(fd, &a) == 0 && fstat(other, &b) == 0 &&
               a.st_dev == b.st_dev && a.st_ino == b.st_ino &&
               (!S_ISBLK(a.st_mode) || a.st_rdev == b.st_rdev);
}

static int ask_host(struct image *top, struct image *img, struct hvb_child *child,
                    struct hvb_error *err)
{
        const struct hvb_child_query query = {
                .struct_bytes = sizeof(query),
                .role = HVB_CHILD_BACKING,
                .name = img->header.backing_name,
                .format = img->header.backing_format ? img->header.backing_format : "",
                .parent_name = img->name,
                .depth = img->depth + 1,
        };
        int ret;

        if (query.depth > top->max_depth)
                return error_set(err, -ELOOP, "Backing file '%s' of '%s' would be number %u below "
                                 "the image; the limit is %u (backing-depth)", query.name,
                                 img->name, query.depth, top->max_depth);
        if (!img->host || !img->host->open_child)
                return error_set(err, -EPERM, "Backing file '%s' of '%s' was refused: the host "
                                 "opens none", query.name, img->name);
        ret = img->host->open_child(img->host->opaque, &query, child, err);
        if (ret < 0)
                return error_set(err, ret, "Could not open backing file '%s' of '%s': %s",
                                 query.name, img->name, g_strerror(-ret));
        return 0;
}

static int judge_child(struct image *top, const struct image *img, const struct hvb_child *child,
                       struct hvb_error *err)
{
        const struct image *above;

        if (!child->format || (strcmp(child->format, "raw") != 0 &&
                               strcmp(child->format, "qcow2") != 0))
                return error_set(err, -ENOTSUP, "Backing file '%s' of '%s' has format '%s'; only "
                                 "raw and qcow2 can be opened", img->header.backing_name,
                                 img->name, child->format ? child->format : "");
        for (above = top; above; above = above->backing)
                if (same_file(child->fd, above->file.fd))
                        return error_set(err, -ELOOP, "Backing file '%s' of '%s' is '%s', which "
                                         "it backs: a cycle", img->header.backing_name, img->name,
                                         above->name);
        return 0;
}

/* The image below img, its file open and locked but nothing read; NULL in *ret: there is none. */
static int next_layer(struct image *top, struct image *img, const struct open_options *options,
                      struct image **ret, struct hvb_error *err)
{
        struct hvb_child child = { .struct_bytes = sizeof(child), .fd = -1 };
        struct image *below;
        int code;

        *ret = NULL;
        if (img->is_raw || !img->header.backing_name)
                return 0;
        if (img->open_flags & HVB_OPEN_NO_BACKING) {
                img->backing_missing = true;
                return 0;
        }
        code = ask_host(top, img, &child, err);
        if (code < 0)
                return code;
        code = judge_child(top, img, &child, err);
        below = code < 0 ? NULL : image_new(img->loop, img->host,
                                            child.name ? child.name : img->header.backing_name,
                                            img->open_flags & ~(HVB_OPEN_RDWR | HVB_OPEN_CHECK),
                                            options);
        if (!below) {
                if (img->host->close_child)
                        img->host->close_child(img->host->opaque, &child);
                return code < 0 ? code : -ENOMEM;
        }
        below->is_raw = strcmp(child.format, "raw") == 0;
        below->child = child;
        below->child.name = below->name;
        below->child.format = below->is_raw ? "raw" : "qcow2";
        below->has_child_fd = true;
        below->depth = img->depth + 1;
        img->backing = below;
        *ret = below;
        return image_open_file(below, child.fd, err);
}

static int load_begin(struct image_open *s, struct image *img, struct hvb_error *err)
{
        s->layer = img;
        s->load = g_try_new0(struct image_load, 1);
        return s->load ? 0 : error_set(err, -ENOMEM, "Not enough memory to open '%s'", img->name);
}

static void load_end(struct image_open *s, struct image *img, struct hvb_error *err)
{
        bool below = s->load && (!s->layer || s->layer->depth > 0);

        g_free(s->load);
        s->load = NULL;
        if (s->co.err)
                error_set(err, s->co.err, "Could not open '%s': %s", img->name,
                          g_strerror(-s->co.err));
        if (s->co.err && below)
                error_prefix(err, "Could not open backing file: ");
}

int image_open(struct image_open *s, struct image *img, const struct open_options *options,
               struct hvb_error *err)
{
        CO_BEGIN(s);
        CO_TRY(s, out, load_begin(s, img, err));
        while (s->layer) {
                CO_TRY(s, out, load_layer(s->load, s->layer, options, err));
                CO_TRY(s, out, next_layer(img, s->layer, options, &s->layer, err));
        }
        s->layer = img;
        if (img->writable)
                CO_TRY(s, out, become_writer(&s->load->writer, img, options, err));
out:
        load_end(s, img, err);
        CO_END(s);
}

/* All or none. */
static int lock_chain(struct image *img, struct hvb_error *err)
{
        struct image *layer;
        struct image *taken;
        int ret = 0;

        for (layer = img; layer && ret == 0; layer = layer->backing)
                ret = locks_take(layer->file.fd, layer->open_flags, layer->name, err);
        for (taken = img; ret == 0 && taken; taken = taken->backing)
                taken->state = IMAGE_OPENING;
        if (ret < 0)
                for (taken = img; taken->backing && taken->backing != layer;
                     taken = taken->backing)
                        locks_drop(taken->file.fd, taken->open_flags);
        return ret;
}

int image_activate(struct image_open *s, struct image *img, const struct open_options *options,
                   struct hvb_error *err)
{
        CO_BEGIN(s);
        if (img->state != IMAGE_INACTIVE)
                CO_FAIL(s, out, error_set(err, -EINVAL, "'%s' is not inactive", img->name));
        CO_TRY(s, out, lock_chain(img, err));
        CO_TRY(s, unlock, load_begin(s, img, err));
        for (; s->layer; s->layer = s->layer->backing)
                CO_TRY(s, unlock, load_layer(s->load, s->layer, options, err));
        s->layer = img;
        if (img->writable)
                CO_TRY(s, unlock, become_writer(&s->load->writer, img, options, err));
        goto out;
unlock:
        image_leave(img, IMAGE_INACTIVE);
out:
        load_end(s, img, err);
        CO_END(s);
}
