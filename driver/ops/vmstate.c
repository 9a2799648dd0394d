/*
 * vmstate.c - VM state lives in trees of its own.
 *
 *   being saved    img->vmstate, in memory only.  Its clusters are counted and written like
 *                  those of the disk; a crash leaks them, vmstate_drop gives them back
 *   taken          a snapshot being published has linked the L2 tables into its L1 behind
 *                  those of the disk; nothing more is saved until that has ended, and
 *                  img->vmstate is empty again
 *   loaded         img->loaded has that end of a snapshot's L1.  The active L1 never maps
 *                  VM state
 *   gone           the snapshot whose state was loaded is deleted: there is nothing to load
 *                  until another one is chosen or taken
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>

#include "ops/vmstate.h"

int vmstate_drop(struct vmstate_drop *s, struct image *img)
{
        CO_BEGIN(s);
        if (!img->vmstate_pending)
                goto out;
        CO_TRY(s, out, dirty_hold(&s->dirty, img));
        s->l1 = img->vmstate;
        img->vmstate = (struct l1_table) { .count = 0 };
        vmstate_forget_saved(img);
        /* Nothing else knows the tree any more: it goes, cancelled or not. */
        CO_TRY(s, clear, co_shielded(tree_drop(&s->drop, img, &s->l1)));
        CO_TRY(s, clear, co_shielded(meta_settle(&s->settle, img)));
        CO_TRY(s, clear, co_shielded(dirty_release(&s->dirty, img)));
clear:
        l1_clear(&s->l1);
out:
        CO_END(s);
}

/* What the active L1 maps behind the disk moves to a table of its own. */
static int split_active(struct vmstate_trim *s, struct image *img)
{
        uint32_t first = (uint32_t)geometry_l1_entries(image_geometry(img), image_size(img));
        uint32_t count = img->active.count > first ? img->active.count - first : 0;
        uint32_t i;

        if (l1_init(&s->tail, count, 0) < 0)
                return -ENOMEM;
        s->used = false;
        for (i = 0; i < count; i++) {
                if (img->active.entries[first + i] == 0)
                        continue;
                s->tail.entries[i] = img->active.entries[first + i];
                l1_set(&img->active, first + i, 0);
                s->used = true;
        }
        return 0;
}

int vmstate_trim(struct vmstate_trim *s, struct image *img)
{
        CO_BEGIN(s);
        CO_TRY(s, out, split_active(s, img));
        if (s->used)
                CO_TRY(s, clear, tree_drop(&s->drop, img, &s->tail));
clear:
        l1_clear(&s->tail);
out:
        CO_END(s);
}

void vmstate_forget_saved(struct image *img)
{
        img->vmstate_generation++;
        l1_clear(&img->vmstate);
        img->vmstate_pending = false;
        img->vmstate_taken = false;
}

static int forget_saved(struct save_vmstate *s, struct image *img)
{
        CO_BEGIN(&s->forget);
        if (img->prepared)
                CO_FAIL(&s->forget, out, -EBUSY);
        CO_TRY(&s->forget, out, co_lock_acquire(&img->control, &s->waiter));
        CO_TRY(&s->forget, unlock, exclusive_begin(&s->exclusive, img));
        CO_TRY(&s->forget, end, vmstate_drop(&s->drop, img));
end:
        CO_UNDO(&s->forget, exclusive_end(&s->exclusive, img));
unlock:
        co_lock_release(&img->control);
out:
        CO_END(&s->forget);
}

int save_vmstate(struct save_vmstate *s, struct image *img, uint64_t offset,
                 uint64_t length_bytes, const struct iovec *iov, unsigned iov_count)
{
        CO_BEGIN(s);
        CO_TRY(s, out, image_check_writable(img));
        if (offset == 0 && length_bytes == 0) {
                CO_TRY(s, out, forget_saved(s, img));
                goto out;
        }
        CO_TRY(s, out, gate_enter(&img->saves, &s->saves));
        CO_TRY(s, leave_saves, gate_enter(&img->writes, &s->waiter));
        if (img->vmstate_taken)
                CO_FAIL(s, leave, -EBUSY);
        CO_AWAIT(s, write_inside(&s->write, img, &img->vmstate, offset, length_bytes, iov,
                                 iov_count));
        s->co.err = s->co.ret;
        if (img->vmstate.count > 0)
                img->vmstate_pending = true;
leave:
        gate_leave(&img->writes);
leave_saves:
        gate_leave(&img->saves);
out:
        CO_END(s);
}

struct l1_table *vmstate_to_load(struct image *img)
{
        if (img->loaded_is_gone)
                return NULL;
        return img->loaded ? &img->loaded->vm_state : &img->vmstate;
}

/* Holds what is to be read, whatever is deleted or loaded meanwhile. */
static int choose(struct load_vmstate *s, struct image *img, uint64_t offset,
                  uint64_t length_bytes)
{
        uint64_t end;

        if (!u64_add(offset, length_bytes, &end))
                return -EIO;
        if (img->state == IMAGE_INACTIVE)
                return -EINPROGRESS;
        s->l1 = vmstate_to_load(img);
        if (!s->l1)
                return -ESTALE;
        s->pin = img->loaded;
        s->generation = img->vmstate_generation;
        if (s->pin)
                pin_hold(s->pin);
        return 0;
}

int load_vmstate(struct load_vmstate *s, struct image *img, uint64_t offset,
                 uint64_t length_bytes, const struct iovec *iov, unsigned iov_count)
{
        CO_BEGIN(s);
        CO_TRY(s, out, choose(s, img, offset, length_bytes));
        CO_TRY(s, put, read_range(&s->read, img, s->l1, offset, length_bytes, iov, iov_count));
        if (!s->pin && s->generation != img->vmstate_generation)
                CO_FAIL(s, put, -ESTALE);       /* it went meanwhile: those may be zeros */
put:
        if (s->pin)
                pin_put(img, s->pin);
out:
        CO_END(s);
}

void vmstate_unload(struct image *img)
{
        if (img->loaded)
                pin_put(img, img->loaded);
        img->loaded = NULL;
        img->loaded_is_gone = false;
}

void vmstate_load_pin(struct image *img, struct pin *pin)
{
        vmstate_unload(img);
        img->loaded = pin;
}

int vmstate_take_loaded(struct image *img, const struct snapshot *snapshot,
                        const struct l1_table *l1)
{
        struct pin *pin = pin_take(img, snapshot, l1);

        if (!pin)
                return -ENOMEM;
        vmstate_load_pin(img, pin);
        return 0;
}

void vmstate_lose_loaded(struct image *img, const struct pin *pin)
{
        if (pin && img->loaded != pin)
                return;
        vmstate_unload(img);
        img->loaded_is_gone = true;
}
