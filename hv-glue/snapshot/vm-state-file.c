/*
 * vm-state-file.c - a whole VM state, read from a disk's VM-state area.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/vm-state-file.h"

#include <errno.h>
#include <inttypes.h>

#include "snapshot/ram-load.h"
#include "snapshot/vm-state-pages.h"
#include "snapshot/vmstate-io.h"

/* Reads [offset, offset + count) into new memory.  *ret_pages (free) is what to free,
 * *ret_bytes where the bytes are. */
static int load_bytes(struct vmstate_io *io, uint64_t offset, size_t count, uint8_t **ret_pages,
                      uint8_t **ret_bytes, struct hvb_error *err)
{
        uint64_t begin = offset / VM_STATE_PAGE_BYTES * VM_STATE_PAGE_BYTES;
        size_t span = round_up(offset + count, VM_STATE_PAGE_BYTES) - begin;
        uint8_t *pages = pages_new(span);
        int ret;

        if (pages == NULL)
                return error_set(err, -ENOMEM, "no memory for %zu bytes of VM state", count);
        ret = vmstate_io_load_all(io, begin, pages, span);
        if (ret < 0) {
                free(pages);
                return vm_state_io_failed(err, ret, "Error while reading VM state");
        }
        *ret_pages = pages;
        *ret_bytes = pages + (offset - begin);
        return 0;
}

static int load_header(struct vmstate_io *io, uint64_t limit_bytes, struct machine *m,
                       struct vm_state_header *h, struct hvb_error *err)
{
        const struct guest_memory *memory = machine_memory(m);
        uint8_t *page;
        uint8_t *pages;
        int ret = load_bytes(io, 0, VM_STATE_PAGE_BYTES, &pages, &page, err);

        if (ret < 0)
                return ret;
        ret = vm_state_header_decode(page, limit_bytes, h, err);
        free(pages);
        if (ret < 0)
                return ret;
        if (h->ram_bytes != memory->ram_bytes)
                return error_set(err, -ENOTSUP, "the VM state is of a machine with %" PRIu64
                                 " MiB of RAM, this one has %" PRIu64 " MiB",
                                 h->ram_bytes >> 20, memory->ram_bytes >> 20);
        if (h->cpu_count != machine_cpu_count(m))
                return error_set(err, -ENOTSUP, "the VM state is of a machine with %" PRIu32
                                 " vcpus, this one has %u", h->cpu_count, machine_cpu_count(m));
        return 0;
}

static int load_section(struct vmstate_io *io, const struct vm_state_section *s,
                        struct device_states *states, struct hvb_error *err)
{
        uint8_t *pages;
        uint8_t *bytes;
        int ret = load_bytes(io, s->offset, s->bytes, &pages, &bytes, err);

        if (ret < 0)
                return ret;
        ret = vm_state_section_check(s, bytes, err);
        if (ret == 0) {
                g_array_append_val(states->sections, *s);
                g_ptr_array_add(states->bytes, g_memdup2(bytes, s->bytes));
        }
        free(pages);
        return ret;
}

static int load_sections(struct vmstate_io *io, const struct vm_state_header *h,
                         struct device_states *states, struct hvb_error *err)
{
        g_autofree struct vm_state_section *sections = NULL;
        uint8_t *pages;
        uint8_t *table;
        int ret = load_bytes(io, h->table_offset, vm_state_table_bytes(h), &pages, &table, err);

        if (ret < 0)
                return ret;
        ret = vm_state_sections_decode(h, table, &sections, err);
        free(pages);
        for (uint32_t i = 0; i < h->section_count && ret == 0; i++)
                ret = load_section(io, &sections[i], states, err);
        return ret;
}

static int load_map(struct vmstate_io *io, const struct vm_state_header *h,
                    struct page_map *map, struct hvb_error *err)
{
        int ret = page_map_init(map, h->ram_bytes / VM_STATE_PAGE_BYTES, err);
        uint8_t *pages;
        uint8_t *bytes;

        if (ret < 0)
                return ret;
        ret = load_bytes(io, h->map_offset, h->map_bytes, &pages, &bytes, err);
        if (ret < 0)
                return ret;
        memcpy(map->bytes, bytes, h->map_bytes);
        free(pages);
        return page_map_check(map, h->map_sum, h->stored_pages, err);
}

int vm_state_open(struct machine *m, struct machine_disk *disk, uint64_t limit_bytes,
                  struct vm_state_file *ret_file, struct hvb_error *err)
{
        struct vmstate_io *io = vmstate_io_new(disk->thread, NULL);
        struct vm_state_file file = { .disk = disk };
        int ret;

        device_states_init(&file.devices);
        ret = load_header(io, limit_bytes, m, &file.header, err);
        if (ret == 0)
                ret = load_sections(io, &file.header, &file.devices, err);
        if (ret == 0)
                ret = device_states_judge(m, &file.devices, err);
        if (ret == 0)
                ret = load_map(io, &file.header, &file.map, err);
        vmstate_io_free(io);
        if (ret < 0)
                vm_state_close(&file);
        else
                *ret_file = file;
        return ret;
}

void vm_state_close(struct vm_state_file *file)
{
        device_states_clear(&file->devices);
        page_map_clear(&file->map);
}

int vm_state_load_ram(struct vm_state_file *file, struct machine *m, struct vm_job *job,
                      struct hvb_error *err)
{
        struct ram_load ram = {
                .memory = machine_memory(m),
                .map = &file->map,
                .job = job,
                .ram_offset = file->header.ram_offset,
                .err = err,
        };
        struct vmstate_landing landing = { &ram, ram_load_landed };
        int landed;
        int ret;

        ram.io = vmstate_io_new(file->disk->thread, &landing);
        ret = ram_load_range(&ram, 0, file->map.page_count);
        landed = vmstate_io_wait(ram.io);
        vmstate_io_free(ram.io);
        if (ret == 0)
                ret = landed;
        return ret < 0 ? vm_state_io_failed(err, ret, "Error while reading VM state") : 0;
}
