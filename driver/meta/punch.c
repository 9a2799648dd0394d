/*
 * punch.c - holes in the place of freed clusters.
 *
 * A cluster is punched while its last reference still counts: until then nobody can
 * allocate it.  The one way to a second reference would be compressed bytes
 * that are appended to it, so the cluster that is being filled is left alone.
 *
 * SPDX-License-Identifier: MIT
 */
#include "meta/punch.h"

#include <errno.h>

enum { RUN_MAX = 1024 };

/* Clusters from s->at on with no other reference; -EAGAIN: the slice of the count is not here. */
static int sole_run(struct punch *s, struct image *img)
{
        uint64_t filling = img->compressed_next >> image_geometry(img)->cluster_bits;
        uint64_t count;
        int ret;

        for (s->run = 0; s->run < RUN_MAX && s->at + s->run < s->end; s->run++) {
                ret = refs_get_cached(img, s->at + s->run, &count);
                if (ret < 0)
                        return s->run > 0 ? 0 : ret;
                if (count != s->weight || (filling != 0 && filling == s->at + s->run))
                        break;
        }
        return 0;
}

static int punch_run(struct punch *s, struct image *img)
{
        unsigned cluster_bits = image_geometry(img)->cluster_bits;

        if (s->io.state == IO_IDLE)
                io_prepare(&s->io, IO_PUNCH, &img->file, s->at << cluster_bits, NULL,
                           s->run << cluster_bits);
        return io_await(&s->io);
}

/* As a hostile image may have it. */
static bool is_metadata(const struct punch *s, const struct image *img)
{
        unsigned cluster_bits = image_geometry(img)->cluster_bits;

        return image_is_metadata(img, s->at << cluster_bits, s->run << cluster_bits);
}

static void punched(struct image *img, int result)
{
        if (result != -EOPNOTSUPP && result != -ENOSYS && result != -EINVAL)
                return;
        img->discard_to_file = false;
        image_log(img, HVB_LOG_WARNING, "%s: discarded clusters stay in the file, which cannot "
                  "have holes: %s", img->name, g_strerror(-result));
}

int punch_clusters(struct punch *s, struct image *img, const struct pending_free *f)
{
        CO_BEGIN(s);
        s->at = f->cluster_index;
        s->end = f->cluster_index + f->cluster_count;
        s->weight = f->weight;
        while (s->at < s->end && img->discard_to_file) {
                while (sole_run(s, img) == -EAGAIN)
                        CO_TRY(s, out, refs_bring(&s->bring, img, s->at));
                if (s->run > 0 && !is_metadata(s, img)) {
                        CO_AWAIT(s, punch_run(s, img));
                        punched(img, s->co.ret);
                }
                s->at += s->run > 0 ? s->run : 1;
        }
out:
        CO_END(s);
}
