/*
 * vm-state-file.c - a whole VM state, written to and read from a disk's VM-state area.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/vm-state-file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/job.h"
#include "snapshot/ram-load.h"
#include "snapshot/ram-save.h"
#include "snapshot/vmstate-io.h"

static uint64_t round_up(uint64_t value, uint64_t unit)
{
        return (value + unit - 1) / unit * unit;
}

/* Zeroed, in whole pages, aligned for O_DIRECT; free() frees.  NULL: no memory. */
static uint8_t *pages_new(size_t count)
{
        void *pages;

        count = round_up(MAX(count, 1), VM_STATE_PAGE_BYTES);
        if (posix_memalign(&pages, VM_STATE_PAGE_BYTES, count) != 0)
                return NULL;
        return memset(pages, 0, count);
}

static int io_failed(struct hvb_error *err, int ret, const char *what)
{
        if (ret == -ECANCELED)
                return error_set(err, ret, "cancelled");
        if (err->code < 0)
                return err->code;
        return error_set(err, ret, "%s: %s", what, g_strerror(-ret));
}

/* ---- Saving ------------------------------------------------------------------------- */

/* What lies behind RAM, as one piece: map, table, sections. */
struct tail {
        uint8_t *bytes;
        size_t count;                   /* of the state; the memory has whole pages */
};

/* Gives each section and the map their places and lays the tail out. */
static int make_tail(struct vm_state_header *h, const struct page_map *map,
                     struct device_states *states, struct tail *tail, struct hvb_error *err)
{
        uint64_t at;

        h->map_offset = h->ram_offset + round_up(h->ram_bytes, VM_STATE_ALIGNMENT);
        h->map_bytes = page_map_bytes(map->page_count);
        h->map_sum = vm_state_sum(map->bytes, h->map_bytes);
        h->stored_pages = page_map_count(map);
        h->section_count = states->sections->len;
        h->entry_bytes = VM_STATE_ENTRY_BYTES;
        h->table_offset = round_up(h->map_offset + h->map_bytes, 8);
        at = h->table_offset + vm_state_table_bytes(h);
        for (guint i = 0; i < states->sections->len; i++) {
                struct vm_state_section *s =
                        &g_array_index(states->sections, struct vm_state_section, i);

                s->offset = at;
                at = round_up(at + s->bytes, 8);
        }
        h->state_bytes = at;
        tail->count = at - h->map_offset;
        tail->bytes = pages_new(tail->count);
        if (tail->bytes == NULL)
                return error_set(err, -ENOMEM, "no memory for %zu bytes of VM state",
                                 tail->count);
        memcpy(tail->bytes, map->bytes, h->map_bytes);
        return 0;
}

static void fill_tail(struct vm_state_header *h, const struct device_states *states,
                      struct tail *tail)
{
        uint8_t *table = tail->bytes + (h->table_offset - h->map_offset);

        for (guint i = 0; i < states->sections->len; i++) {
                const struct vm_state_section *s =
                        &g_array_index(states->sections, struct vm_state_section, i);

                vm_state_section_encode(s, table + (size_t) i * VM_STATE_ENTRY_BYTES);
                if (s->bytes > 0)
                        memcpy(tail->bytes + (s->offset - h->map_offset),
                               g_ptr_array_index(states->bytes, i), s->bytes);
        }
        h->table_sum = vm_state_sum(table, vm_state_table_bytes(h));
}

static int save_ram(const struct guest_memory *memory, struct vmstate_io *io,
                    const struct vm_state_header *h, struct page_map *map, struct vm_job *job,
                    struct hvb_error *err)
{
        struct ram_save ram = {
                .memory = memory,
                .io = io,
                .map = map,
                .job = job,
                .ram_offset = h->ram_offset,
        };
        int ret = ram_save_range(&ram, 0, map->page_count);
        int landed = vmstate_io_wait(io);

        if (ret == 0)
                ret = landed;
        return ret < 0 ? io_failed(err, ret, "Error while writing VM state") : 0;
}

static int save_rest(struct vmstate_io *io, struct vm_state_header *h,
                     const struct page_map *map, struct device_states *states,
                     struct vm_job *job, struct hvb_error *err)
{
        uint8_t *page = pages_new(VM_STATE_PAGE_BYTES);
        struct tail tail = { NULL, 0 };
        size_t count;
        int ret = -ENOMEM;

        if (page != NULL)
                ret = make_tail(h, map, states, &tail, err);
        if (ret < 0)
                goto free_pages;
        fill_tail(h, states, &tail);
        count = round_up(tail.count, VM_STATE_PAGE_BYTES);
        ret = vmstate_io_save_all(io, h->map_offset, tail.bytes, count);
        if (ret < 0)
                goto free_pages;
        vm_state_header_encode(h, page);
        ret = vmstate_io_save_all(io, 0, page, VM_STATE_PAGE_BYTES);
        job_count(&job->written_bytes, count + VM_STATE_PAGE_BYTES);
free_pages:
        free(tail.bytes);
        free(page);
        return ret < 0 ? io_failed(err, ret, "Error while writing VM state") : 0;
}

int vm_state_save(struct machine *m, struct machine_disk *disk, uint64_t clock_nsec,
                  struct vm_job *job, uint64_t *ret_bytes, struct hvb_error *err)
{
        const struct guest_memory *memory = machine_memory(m);
        struct device_states states;
        struct page_map map = { 0, NULL };
        struct vmstate_io *io = NULL;
        struct vm_state_header h = {
                .format = VM_STATE_FORMAT,
                .oldest_reader = VM_STATE_OLDEST_READER,
                .ram_bytes = memory->ram_bytes,
                .ram_offset = VM_STATE_RAM_OFFSET,
                .cpu_count = machine_cpu_count(m),
                .clock_nsec = clock_nsec,
        };
        int ret;

        device_states_init(&states);
        ret = device_states_save(m, &states, err);
        if (ret == 0)
                ret = page_map_init(&map, memory->ram_bytes / GUEST_PAGE_BYTES, err);
        if (ret < 0)
                goto clear;
        io = vmstate_io_new(disk->thread, NULL);
        ret = save_ram(memory, io, &h, &map, job, err);
        if (ret == 0)
                ret = save_rest(io, &h, &map, &states, job, err);
        if (ret == 0)
                *ret_bytes = h.state_bytes;
clear:
        vmstate_io_free(io);
        page_map_clear(&map);
        device_states_clear(&states);
        return ret;
}

/* ---- Loading ------------------------------------------------------------------------ */

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
                return io_failed(err, ret, "Error while reading VM state");
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
        return ret < 0 ? io_failed(err, ret, "Error while reading VM state") : 0;
}
