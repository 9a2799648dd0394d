/*
 * ram-load.c - pages of RAM on their way out of a VM state.
 *
 * Holes are filled with zeros by writing, not by giving the memory back to the kernel:
 * RAM may be registered with an I/O ring, which would go on using the old pages.
 * Pages that are zero already are only read.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/ram-load.h"

#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/job.h"
#include "snapshot/ram-save.h"
#include "snapshot/vm-state.h"

enum { RUN_PAGES = VMSTATE_IO_MAX_BYTES / GUEST_PAGE_BYTES };

static void *page_at(const struct ram_load *s, uint64_t page)
{
        return s->memory->ram + page * GUEST_PAGE_BYTES;
}

int ram_load_landed(void *opaque, const struct vmstate_span *span)
{
        struct ram_load *s = opaque;
        uint64_t page = (span->offset - s->ram_offset) / GUEST_PAGE_BYTES;
        int ret = page_map_check_pages(s->map, page, span->count / GUEST_PAGE_BYTES, span->bytes,
                                       s->err);

        if (ret == 0)
                job_count(&s->job->done_bytes, span->count);
        return ret;
}

static int read_run(struct ram_load *s, uint64_t first_page, uint64_t page_count)
{
        struct vmstate_span span = {
                .offset = s->ram_offset + first_page * GUEST_PAGE_BYTES,
                .bytes = page_at(s, first_page),
                .count = page_count * GUEST_PAGE_BYTES,
        };

        job_count(&s->job->written_bytes, span.count);
        return vmstate_io_load(s->io, &span);
}

static void zero_run(struct ram_load *s, uint64_t first_page, uint64_t page_count)
{
        for (uint64_t page = first_page; page < first_page + page_count; page++)
                if (!memory_is_zero(page_at(s, page), GUEST_PAGE_BYTES))
                        memset(page_at(s, page), 0, GUEST_PAGE_BYTES);
        job_count(&s->job->done_bytes, page_count * GUEST_PAGE_BYTES);
}

int ram_load_range(struct ram_load *s, uint64_t first_page, uint64_t page_count)
{
        uint64_t end = first_page + page_count;
        uint64_t page = first_page;

        g_assert(end <= s->map->page_count);
        while (page < end) {
                uint64_t max = MIN(RUN_PAGES - page % RUN_PAGES, end - page);
                uint64_t run = page_map_run(s->map, page, max);
                int ret = 0;

                if (page_map_has(s->map, page))
                        ret = read_run(s, page, run);
                else
                        zero_run(s, page, run);
                if (ret < 0)
                        return ret;
                page += run;
        }
        return 0;
}
