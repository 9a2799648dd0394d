/*
 * vm-state-writer.c - a whole VM state, written to a disk's VM-state area.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/vm-state-writer.h"

#include <errno.h>
#include <string.h>

#include "snapshot/job.h"
#include "snapshot/touch-record.h"
#include "snapshot/vm-state-pages.h"

/* ---- What lies behind RAM, as one piece: map, table, sections ------------------------- */

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

static int save_tail(struct vm_state_writer *w, struct tail *tail, uint8_t *page,
                     struct hvb_error *err)
{
        size_t count;
        int ret = make_tail(&w->header, &w->map, &w->devices, tail, err);

        if (ret < 0)
                return ret;
        fill_tail(&w->header, &w->devices, tail);
        count = round_up(tail->count, VM_STATE_PAGE_BYTES);
        ret = vmstate_io_save_all(w->io, w->header.map_offset, tail->bytes, count);
        if (ret < 0)
                return ret;
        vm_state_header_encode(&w->header, page);
        job_count(&w->job->written_bytes, count + VM_STATE_PAGE_BYTES);
        return vmstate_io_save_all(w->io, 0, page, VM_STATE_PAGE_BYTES);
}

/* One that says nothing, so that there is room for one that does.  Best effort: the state is whole
 * without it. */
static void save_touch_record(struct vm_state_writer *w)
{
        g_autoptr(GArray) none = g_array_new(FALSE, FALSE, sizeof(uint32_t));
        uint8_t *bytes = pages_new(TOUCH_RECORD_BYTES);

        if (bytes == NULL)
                return;
        touch_record_encode(none, bytes);
        if (vmstate_io_save_all(w->io, vm_state_touch_offset(&w->header), bytes,
                                TOUCH_RECORD_BYTES) == 0)
                job_count(&w->job->written_bytes, TOUCH_RECORD_BYTES);
        free(bytes);
}

static int save_rest(struct vm_state_writer *w, struct hvb_error *err)
{
        uint8_t *page = pages_new(VM_STATE_PAGE_BYTES);
        struct tail tail = { NULL, 0 };
        int ret = page == NULL ? -ENOMEM : save_tail(w, &tail, page, err);

        if (ret == 0)
                save_touch_record(w);
        free(tail.bytes);
        free(page);
        return ret;
}

/* ---- The whole ------------------------------------------------------------------------ */

int vm_state_writer_init(struct vm_state_writer *w, struct machine *m, struct machine_disk *disk,
                         struct ram_guard *guard, struct vm_job *job, struct hvb_error *err)
{
        const struct guest_memory *memory = machine_memory(m);
        const struct vmstate_landing landing = { &w->live, ram_live_landed };
        int ret;

        *w = (struct vm_state_writer) {
                .machine = m,
                .disk = disk,
                .job = job,
                .header = {
                        .format = VM_STATE_FORMAT,
                        .oldest_reader = VM_STATE_OLDEST_READER,
                        .ram_bytes = memory->ram_bytes,
                        .ram_offset = VM_STATE_RAM_OFFSET,
                        .cpu_count = machine_cpu_count(m),
                },
        };
        device_states_init(&w->devices);
        ret = page_map_init(&w->map, memory->ram_bytes / GUEST_PAGE_BYTES, err);
        if (ret < 0)
                return ret;
        w->io = vmstate_io_new(disk->thread, guard != NULL ? &landing : NULL);
        w->live = (struct ram_live) {
                .guard = guard,
                .save = {
                        .memory = memory,
                        .io = w->io,
                        .map = &w->map,
                        .job = job,
                        .ram_offset = w->header.ram_offset,
                },
        };
        if (guard != NULL)
                ram_share_open(&w->share, disk, guard);
        return 0;
}

void vm_state_writer_clear(struct vm_state_writer *w)
{
        ram_share_close(&w->share);
        vmstate_io_free(w->io);
        page_map_clear(&w->map);
        device_states_clear(&w->devices);
}

void vm_state_writer_give_up_guard(struct vm_state_writer *w)
{
        w->live.guard = NULL;
}

int vm_state_writer_cut(struct vm_state_writer *w, uint64_t clock_nsec, bool *ret_is_cut,
                        struct hvb_error *err)
{
        int ret;

        w->header.clock_nsec = clock_nsec;
        ret = device_states_save(w->machine, &w->devices, err);
        if (ret < 0 || w->live.guard == NULL)
                return ret;
        ret = ram_guard_cut(w->live.guard, w->share.cluster_bytes, w->share.source == NULL, w->job,
                            err);
        *ret_is_cut = ret == 0;
        return ret;
}

static int save_ram(struct vm_state_writer *w, struct hvb_error *err)
{
        int ret, landed;

        if (w->live.guard != NULL) {
                ret = ram_live_save(&w->live);
                return ret < 0 ? ret : ram_share_save(&w->share, w->live.guard, &w->live.save,
                                                      err);
        }
        ret = ram_save_range(&w->live.save, 0, w->map.page_count);
        landed = vmstate_io_wait(w->io);
        return ret < 0 ? ret : landed;
}

int vm_state_writer_run(struct vm_state_writer *w, uint64_t *ret_bytes, struct hvb_error *err)
{
        int ret = save_ram(w, err);

        if (ret == 0)
                ret = save_rest(w, err);
        if (ret < 0)
                return vm_state_io_failed(err, ret, "Error while writing VM state");
        *ret_bytes = w->header.state_bytes;
        return 0;
}
