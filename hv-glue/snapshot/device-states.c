/*
 * device-states.c - the sections of a VM state: what the machine is and its devices.
 *
 * Section "machine", version 1: number of disks (4), for each its size in bytes (8),
 * whether it is read-only (1), the length of its id (1), its id.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/device-states.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "host/error.h"

#define MACHINE_SECTION "machine"

enum { MACHINE_VERSION = 1, MAX_ID_BYTES = 255 };

void device_states_init(struct device_states *states)
{
        states->sections = g_array_new(FALSE, TRUE, sizeof(struct vm_state_section));
        states->bytes = g_ptr_array_new_with_free_func(g_free);
}

void device_states_clear(struct device_states *states)
{
        g_clear_pointer(&states->sections, g_array_unref);
        g_clear_pointer(&states->bytes, g_ptr_array_unref);
}

/* ---- Saving ------------------------------------------------------------------------- */

static int call_drive_bytes(struct drive *drive, void *opaque)
{
        uint64_t *ret_bytes = opaque;

        *ret_bytes = drive_bytes(drive);
        return 0;
}

static void save_machine(struct machine *m, struct state_writer *w)
{
        unsigned count;
        struct machine_disk *disks = machine_disks(m, &count);

        state_put_u32(w, count);
        for (unsigned i = 0; i < count; i++) {
                size_t id_bytes = MIN(strlen(disks[i].id), MAX_ID_BYTES);
                uint64_t bytes = 0;

                drive_thread_call(disks[i].thread, call_drive_bytes, &bytes);
                state_put_u64(w, bytes);
                state_put_u8(w, disks[i].read_only);
                state_put_u8(w, (uint8_t) id_bytes);
                state_put_bytes(w, disks[i].id, id_bytes);
        }
}

/* Adds what w has as a section. */
static int add_section(struct device_states *states, const char *name, uint32_t instance,
                       uint32_t version, const struct state_writer *w, struct hvb_error *err)
{
        struct vm_state_section section = { .instance = instance, .version = version };
        int ret = state_writer_error(w);
        const uint8_t *bytes;
        size_t count;

        if (ret < 0)
                return error_set(err, ret, "state of '%s' %" PRIu32 ": %s", name, instance,
                                 g_strerror(-ret));
        bytes = state_writer_bytes(w, &count);
        g_assert(strlen(name) < VM_STATE_NAME_BYTES);
        g_strlcpy(section.name, name, sizeof(section.name));
        section.bytes = count;
        section.sum = vm_state_sum(bytes, count);
        g_array_append_val(states->sections, section);
        g_ptr_array_add(states->bytes, g_memdup2(bytes, count));
        return 0;
}

static int save_device(struct device *device, struct device_states *states,
                       struct hvb_error *err)
{
        struct state_writer *w = state_writer_new();
        int ret;

        if (w == NULL)
                return error_set(err, -ENOMEM, "no memory for the state of '%s'",
                                 device->ops->name);
        ret = device->ops->save(device, w, err);
        if (ret == 0)
                ret = add_section(states, device->ops->name, device->instance,
                                  device->ops->state_version, w, err);
        else if (err->text[0] == '\0')
                error_set(err, ret, "state of '%s' %u: %s", device->ops->name, device->instance,
                          g_strerror(-ret));
        state_writer_free(w);
        return ret;
}

int device_states_save(struct machine *m, struct device_states *states, struct hvb_error *err)
{
        struct state_writer *w = state_writer_new();
        struct device *const *devices;
        unsigned count;
        int ret;

        if (w == NULL)
                return error_set(err, -ENOMEM, "no memory for the state of the machine");
        save_machine(m, w);
        ret = add_section(states, MACHINE_SECTION, 0, MACHINE_VERSION, w, err);
        state_writer_free(w);
        devices = machine_devices(m, &count);
        for (unsigned i = 0; i < count && ret == 0; i++)
                if (devices[i]->ops->save != NULL)
                        ret = save_device(devices[i], states, err);
        return ret;
}

/* ---- Judging ------------------------------------------------------------------------ */

static const struct vm_state_section *section_at(const struct device_states *states, guint i)
{
        return &g_array_index(states->sections, struct vm_state_section, i);
}

/* Index of a section, or -1. */
static int find_section(const struct device_states *states, const char *name, uint32_t instance)
{
        for (guint i = 0; i < states->sections->len; i++)
                if (strcmp(section_at(states, i)->name, name) == 0 &&
                    section_at(states, i)->instance == instance)
                        return (int) i;
        return -1;
}

static struct state_reader reader_of(const struct device_states *states, int i)
{
        return (struct state_reader) {
                .bytes = g_ptr_array_index(states->bytes, i),
                .left_bytes = section_at(states, i)->bytes,
        };
}

static const struct machine_disk *find_disk(struct machine *m, const char *id)
{
        unsigned count;
        const struct machine_disk *disks = machine_disks(m, &count);

        for (unsigned i = 0; i < count; i++)
                if (strcmp(disks[i].id, id) == 0)
                        return &disks[i];
        return NULL;
}

static int judge_disk(struct machine *m, struct state_reader *r, struct hvb_error *err)
{
        const struct machine_disk *disk;
        g_autofree char *printable = NULL;
        char id[MAX_ID_BYTES + 1] = "";
        bool read_only;

        state_get_u64(r);               /* the snapshot's disk may have another size */
        read_only = state_get_u8(r) != 0;
        state_get_bytes(r, id, state_get_u8(r));
        printable = g_strescape(id, NULL);
        disk = find_disk(m, id);
        if (disk == NULL)
                return error_set(err, -ENOTSUP, "the VM state is of a machine with disk '%s', "
                                 "which this one has not", printable);
        if (disk->read_only != read_only)
                return error_set(err, -ENOTSUP, "disk '%s' was %s in the machine of the VM state",
                                 printable, read_only ? "read-only" : "writable");
        return 0;
}

static int judge_machine(struct machine *m, const struct device_states *states,
                         struct hvb_error *err)
{
        int index = find_section(states, MACHINE_SECTION, 0);
        struct state_reader r;
        unsigned count;
        uint32_t saved;

        if (index < 0)
                return error_set(err, -EINVAL, "VM state: section '" MACHINE_SECTION
                                 "' is missing");
        if (section_at(states, index)->version != MACHINE_VERSION)
                return error_set(err, -ENOTSUP, "VM state: section '" MACHINE_SECTION
                                 "' has version %" PRIu32 ", this hypervisor reads %d",
                                 section_at(states, index)->version, MACHINE_VERSION);
        r = reader_of(states, index);
        machine_disks(m, &count);
        saved = state_get_u32(&r);
        if (saved != count)
                return error_set(err, -ENOTSUP, "the VM state is of a machine with %" PRIu32
                                 " disks, this one has %u", saved, count);
        for (uint32_t i = 0; i < saved; i++) {
                int ret = judge_disk(m, &r, err);

                if (ret < 0)
                        return ret;
        }
        if (state_reader_end(&r) < 0)
                return error_set(err, -EINVAL, "VM state: section '" MACHINE_SECTION
                                 "' is too short or too long");
        return 0;
}

/* Each section must be one that somebody here knows. */
static int judge_known(struct machine *m, const struct device_states *states,
                       struct hvb_error *err)
{
        unsigned count;
        struct device *const *devices = machine_devices(m, &count);

        for (guint i = 0; i < states->sections->len; i++) {
                const struct vm_state_section *s = section_at(states, i);
                bool known = strcmp(s->name, MACHINE_SECTION) == 0 && s->instance == 0;

                for (unsigned d = 0; d < count && !known; d++)
                        known = devices[d]->ops->save != NULL &&
                                devices[d]->instance == s->instance &&
                                strcmp(devices[d]->ops->name, s->name) == 0;
                if (!known && !(s->flags & VM_STATE_OPTIONAL))
                        return error_set(err, -ENOTSUP, "the VM state has a device '%s' %" PRIu32
                                         ", which this machine has not", s->name, s->instance);
        }
        return 0;
}

static int load_device(struct device *device, const struct device_states *states, bool apply,
                       struct hvb_error *err)
{
        const struct device_ops *ops = device->ops;
        int index = find_section(states, ops->name, device->instance);
        struct state_reader r;
        uint32_t version;
        int ret;

        if (index < 0)
                return error_set(err, -ENOTSUP, "the VM state has no device '%s' %u, which this "
                                 "machine has", ops->name, device->instance);
        version = section_at(states, index)->version;
        if (version < ops->state_oldest || version > ops->state_version)
                return error_set(err, -ENOTSUP, "VM state: section '%s' %u has version %" PRIu32
                                 ", this hypervisor reads %" PRIu32 " to %" PRIu32, ops->name,
                                 device->instance, version, ops->state_oldest,
                                 ops->state_version);
        r = reader_of(states, index);
        ret = ops->load(device, &r, version, apply, err);
        if (ret < 0 && err->text[0] == '\0')
                error_set(err, ret, "%s", g_strerror(-ret));
        if (ret == 0 && state_reader_end(&r) < 0)
                ret = error_set(err, -EINVAL, "its state is too %s",
                                r.short_read ? "short" : "long");
        if (ret < 0)
                error_prepend(err, "VM state: '%s' %u: ", ops->name, device->instance);
        return ret;
}

static int load_devices(struct machine *m, const struct device_states *states, bool apply,
                        struct hvb_error *err)
{
        unsigned count;
        struct device *const *devices = machine_devices(m, &count);
        int ret = 0;

        for (unsigned i = 0; i < count && ret == 0; i++)
                if (devices[i]->ops->save != NULL)
                        ret = load_device(devices[i], states, apply, err);
        return ret;
}

int device_states_judge(struct machine *m, const struct device_states *states,
                        struct hvb_error *err)
{
        int ret = judge_machine(m, states, err);

        if (ret == 0)
                ret = judge_known(m, states, err);
        if (ret == 0)
                ret = load_devices(m, states, false, err);
        return ret;
}

int device_states_apply(struct machine *m, const struct device_states *states,
                        struct hvb_error *err)
{
        return load_devices(m, states, true, err);
}
