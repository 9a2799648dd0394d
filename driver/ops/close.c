/*
 * close.c - leaving an image, for good or to another process.
 *
 * A snapshot operation between its phases is aborted.  Order on disk: everything is committed
 * (counts included), a VM state that no snapshot took is counted down, and so is what deleted
 * snapshots still hold, then the dirty bit goes.  A crash before that leaves what a crash always
 * leaves.  A poisoned image is left as it is, and the
 * page cache is asked to forget it: it may show what never reached the disk.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "disk/error.h"
#include "meta/commit.h"
#include "meta/locks.h"
#include "ops/background.h"
#include "ops/open.h"
#include "ops/orphans.h"
#include "ops/vmstate.h"

struct image_store {
        struct waiter control;
        struct waiter list_lock;
        struct waiter gate;
        struct commit_settle settle;
        struct dirty_change dirty;
        struct vmstate_drop drop;
        struct orphans_drop orphans;
};

/* Coroutine: makes the file say what memory says. */
static int store(struct image_close *s, struct image *img)
{
        CO_BEGIN(s);
        CO_UNDO(s, prepared_end(&s->prepared, img));
        CO_UNDO(s, background_wait(&s->background, img));
        s->store = g_try_new0(struct image_store, 1);
        if (!s->store)
                CO_FAIL(s, out, -ENOMEM);
        CO_TRY(s, free_store, co_lock_acquire(&img->control, &s->store->control));
        CO_TRY(s, unlock, co_lock_acquire(&img->list_lock, &s->store->list_lock));
        CO_TRY(s, unlock_list, gate_close(&img->writes, &s->store->gate));
        if (!img->writable)
                goto open_gate;
        if (img->state == IMAGE_POISONED)
                CO_FAIL(s, open_gate, -EIO);
        CO_TRY(s, open_gate, vmstate_drop(&s->store->drop, img));
        CO_TRY(s, open_gate, meta_settle(&s->store->settle, img));
        CO_TRY(s, open_gate, co_shielded(orphans_drop(&s->store->orphans, img, true)));
        if (img->lazy) {
                CO_TRY(s, open_gate, dirty_release(&s->store->dirty, img));
                img->lazy = false;
        }
open_gate:
        gate_open(&img->writes);
unlock_list:
        co_lock_release(&img->list_lock);
unlock:
        co_lock_release(&img->control);
free_store:
        g_free(s->store);
        s->store = NULL;
out:
        CO_UNDO(s, commit_rest(&s->rest, img));
        CO_END(s);
}

static void forget_tables(struct image *img)
{
        prepared_forget(img);
        commit_free(img->commit);
        img->commit = NULL;
        l1_clear(&img->active);
        l1_clear(&img->vmstate);
        vmstate_unload(img);
        pins_forget(img);
        slices_clear(&img->l2);
        buffers_clear(&img->copies);
        refs_clear(&img->refs);
        snapshots_clear(img);
        header_clear(&img->header);
        free(img->root_sector);
        img->root_sector = NULL;
        img->compressed_next = 0;
        img->vmstate_pending = false;
        img->walked_slots = 0;
        img->dirty_holders = 0;         /* the header says what is dirty, when it is read again */
}

void image_leave(struct image *img, enum image_state state)
{
        struct image *layer;

        if (img->state == IMAGE_POISONED && img->file.fd >= 0)
                posix_fadvise(img->file.fd, 0, 0, POSIX_FADV_DONTNEED);
        for (layer = img; layer; layer = layer->backing) {
                if (layer->state != IMAGE_INACTIVE && layer->state != IMAGE_CLOSED)
                        locks_drop(layer->file.fd, layer->open_flags);
                layer->state = state;
                forget_tables(layer);
        }
}

int image_close(struct image_close *s, struct image *img, struct hvb_error *err)
{
        int ret = img->state == IMAGE_INACTIVE ? 0 : store(s, img);

        if (ret == CO_PENDING)
                return CO_PENDING;
        if (ret < 0)
                error_set(err, ret, "Could not write everything back to '%s': %s", img->name,
                          g_strerror(-ret));
        image_leave(img, IMAGE_CLOSED);
        return ret;
}

static void free_layer(struct image *img)
{
        if (img->state != IMAGE_CLOSED && img->state != IMAGE_INACTIVE)
                locks_drop(img->file.fd, img->open_flags);
        forget_tables(img);
        if (img->file.engine)
                io_file_close(&img->file);
        if (img->has_child_fd && img->host->close_child)
                img->host->close_child(img->host->opaque, &img->child);
        g_free(img->last_corruption);
        g_free(img->name);
        g_free(img);
}

void image_free(struct image *img)
{
        while (img) {
                struct image *below = img->backing;

                free_layer(img);
                img = below;
        }
}

int image_inactivate(struct image_close *s, struct image *img, struct hvb_error *err)
{
        int ret = img->state == IMAGE_INACTIVE ? 0 : store(s, img);

        if (ret == CO_PENDING)
                return CO_PENDING;
        if (ret < 0)
                return error_set(err, ret, "Could not write everything back to '%s': %s",
                                 img->name, g_strerror(-ret));
        image_leave(img, IMAGE_INACTIVE);
        return 0;
}
