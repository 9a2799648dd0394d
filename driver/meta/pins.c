/*
 * pins.c - see pins.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "meta/pins.h"

static void pin_free(struct pin *pin)
{
        g_assert(pin->holders == 0);
        l1_clear(&pin->l1);
        g_free(pin->id);
        g_free(pin);
}

static bool is_of(const struct pin *pin, const struct snapshot *snapshot)
{
        return pin->state == PIN_LISTED && pin->l1.offset == snapshot->l1_offset &&
               pin->l1.count == snapshot->l1_entries && pin->disk_bytes == snapshot->disk_bytes &&
               pin->vm_state_bytes == snapshot->vm_state_bytes &&
               strcmp(pin->id, snapshot->id) == 0;
}

struct pin *pin_take_listed(struct image *img, const struct snapshot *snapshot)
{
        GList *link;

        for (link = img->pins.head; link; link = link->next) {
                if (!is_of(link->data, snapshot))
                        continue;
                pin_hold(link->data);
                return link->data;
        }
        return NULL;
}

/* The tables that share pin->l1's entries. */
static void split(struct pin *pin, const struct geometry *g)
{
        uint32_t disk_entries = (uint32_t)u64_min(geometry_l1_entries(g, pin->disk_bytes),
                                                  pin->l1.count);

        pin->disk = (struct l1_table){
                .entries = pin->l1.entries,
                .count = disk_entries,
                .is_snapshot_disk = true,
        };
        if (disk_entries < pin->l1.count)
                pin->vm_state = (struct l1_table){
                        .entries = pin->l1.entries + disk_entries,
                        .count = pin->l1.count - disk_entries,
                };
}

/* Nothing mapped yet. */
static struct pin *pin_new(const struct snapshot *snapshot)
{
        size_t id_bytes = strlen(snapshot->id) + 1;
        struct pin *pin = g_try_new0(struct pin, 1);

        if (!pin)
                return NULL;
        pin->id = g_try_malloc(id_bytes);
        if (!pin->id || l1_init(&pin->l1, snapshot->l1_entries, snapshot->l1_offset) < 0) {
                pin_free(pin);
                return NULL;
        }
        memcpy(pin->id, snapshot->id, id_bytes);
        return pin;
}

struct pin *pin_take(struct image *img, const struct snapshot *snapshot,
                     const struct l1_table *l1)
{
        struct pin *pin = pin_take_listed(img, snapshot);

        if (pin)
                return pin;
        g_assert(l1->count == snapshot->l1_entries);
        pin = pin_new(snapshot);
        if (!pin)
                return NULL;
        if (l1->count > 0)
                memcpy(pin->l1.entries, l1->entries, l1->count * sizeof(*l1->entries));
        pin->disk_bytes = snapshot->disk_bytes;
        pin->vm_state_bytes = snapshot->vm_state_bytes;
        split(pin, image_geometry(img));
        pin->holders = 1;
        pin->link.data = pin;
        g_queue_push_tail_link(&img->pins, &pin->link);
        return pin;
}

void pin_hold(struct pin *pin)
{
        pin->holders++;
}

void pin_put(struct image *img, struct pin *pin)
{
        g_assert(pin->holders > 0);
        if (--pin->holders > 0 || pin->state == PIN_UNLINKED)
                return;
        if (pin->state == PIN_LISTED)
                g_queue_unlink(&img->pins, &pin->link);
        pin_free(pin);
}

void pin_unlink(struct image *img, struct pin *pin)
{
        g_assert(pin->state == PIN_LISTED && img->dirty_holders > 0);
        pin->state = PIN_UNLINKED;
        img->dirty_holders++;
}

struct pin *pins_orphan(struct image *img, bool held_too)
{
        GList *link;

        for (link = img->pins.head; link; link = link->next) {
                struct pin *pin = link->data;

                if (pin->state == PIN_UNLINKED && (held_too || pin->holders == 0))
                        return pin;
        }
        return NULL;
}

void pin_forget(struct image *img, struct pin *pin)
{
        g_assert(pin->state != PIN_STALE);
        g_queue_unlink(&img->pins, &pin->link);
        pin->state = PIN_STALE;
        l1_clear(&pin->l1);
        pin->disk = pin->vm_state = (struct l1_table){ .count = 0 };
        if (pin->holders == 0)
                pin_free(pin);
}

void pins_forget(struct image *img)
{
        while (img->pins.head)
                pin_forget(img, img->pins.head->data);
}
