/*
 * model.c - disks and snapshots as immutable bytes.
 *
 * SPDX-License-Identifier: MIT
 */
#include "proof/model.h"

#include <string.h>

static void snapshot_free(gpointer data)
{
        struct model_snapshot *s = data;

        g_free(s->id);
        g_free(s->name);
        g_bytes_unref(s->disk);
        g_bytes_unref(s->vm_state);
        g_free(s);
}

static struct model_snapshot *snapshot_new(const char *id, const char *name, GBytes *disk,
                                           GBytes *vm_state)
{
        struct model_snapshot *s = g_new0(struct model_snapshot, 1);

        s->id = g_strdup(id);
        s->name = g_strdup(name);
        s->disk = g_bytes_ref(disk);
        s->vm_state = vm_state ? g_bytes_ref(vm_state) : g_bytes_new(NULL, 0);
        return s;
}

struct model *model_new(GBytes *disk)
{
        struct model *m = g_new0(struct model, 1);

        m->disk = g_bytes_ref(disk);
        m->snapshots = g_ptr_array_new_with_free_func(snapshot_free);
        return m;
}

struct model *model_copy(const struct model *m)
{
        struct model *copy = model_new(m->disk);
        unsigned i;

        for (i = 0; i < m->snapshots->len; i++) {
                const struct model_snapshot *s = g_ptr_array_index(m->snapshots, i);

                g_ptr_array_add(copy->snapshots,
                                snapshot_new(s->id, s->name, s->disk, s->vm_state));
        }
        return copy;
}

void model_free(struct model *m)
{
        g_bytes_unref(m->disk);
        g_ptr_array_unref(m->snapshots);
        g_free(m);
}

static void set_disk(struct model *m, uint8_t *data, uint64_t bytes)
{
        g_bytes_unref(m->disk);
        m->disk = g_bytes_new_take(data, bytes);
}

void model_fill(struct model *m, uint64_t offset, uint64_t length, uint8_t value)
{
        uint64_t bytes = g_bytes_get_size(m->disk);
        uint8_t *data = g_memdup2(g_bytes_get_data(m->disk, NULL), bytes);

        g_assert(offset <= bytes && length <= bytes - offset);
        memset(data + offset, value, length);
        set_disk(m, data, bytes);
}

void model_resize(struct model *m, uint64_t disk_bytes)
{
        uint8_t *data = g_malloc0(disk_bytes);

        memcpy(data, g_bytes_get_data(m->disk, NULL), MIN(disk_bytes, g_bytes_get_size(m->disk)));
        set_disk(m, data, disk_bytes);
}

void model_snapshot_add(struct model *m, const char *id, const char *name, GBytes *vm_state)
{
        g_ptr_array_add(m->snapshots, snapshot_new(id, name, m->disk, vm_state));
}

static unsigned find_index(const struct model *m, const char *name)
{
        unsigned i;

        for (i = 0; i < m->snapshots->len; i++) {
                const struct model_snapshot *s = g_ptr_array_index(m->snapshots, i);

                if (strcmp(s->name, name) == 0)
                        break;
        }
        return i;
}

struct model_snapshot *model_snapshot_find(const struct model *m, const char *name)
{
        unsigned i = find_index(m, name);

        return i < m->snapshots->len ? g_ptr_array_index(m->snapshots, i) : NULL;
}

void model_snapshot_remove(struct model *m, const char *name)
{
        unsigned i = find_index(m, name);

        g_assert(i < m->snapshots->len);
        g_ptr_array_remove_index(m->snapshots, i);
}

void model_snapshot_goto(struct model *m, const char *name)
{
        GBytes *disk = g_bytes_ref(model_snapshot_find(m, name)->disk);

        g_bytes_unref(m->disk);
        m->disk = disk;
}

void model_snapshot_set_disk(struct model *m, const char *name, GBytes *disk)
{
        struct model_snapshot *s = model_snapshot_find(m, name);

        g_bytes_unref(s->disk);
        s->disk = g_bytes_ref(disk);
}
