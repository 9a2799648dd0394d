/*
 * ram-save.c - pages of RAM on their way into a VM state.
 *
 * Runs end at multiples of a request's size, so that with clusters up to that size no
 * two requests meet in one, and a whole cluster goes out at once wherever there is one.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/ram-save.h"

#include <errno.h>
#include <glib.h>

#include "snapshot/job.h"
#include "snapshot/vm-state.h"

enum { RUN_PAGES = VMSTATE_IO_MAX_BYTES / GUEST_PAGE_BYTES, LINE_WORDS = 8 };

bool memory_is_zero(const void *bytes, size_t count)
{
        const uint64_t *at = bytes;
        const uint64_t *end = at + count / sizeof(*at);

        for (; at < end; at += LINE_WORDS) {
                uint64_t any = 0;

                for (unsigned i = 0; i < LINE_WORDS; i++)
                        any |= at[i];
                if (any != 0)
                        return false;
        }
        return true;
}

static void *page_at(const struct ram_save *s, uint64_t page)
{
        return s->memory->ram + page * GUEST_PAGE_BYTES;
}

static int write_run(struct ram_save *s, uint64_t first_page, uint64_t page_count)
{
        struct vmstate_span span = {
                .offset = s->ram_offset + first_page * GUEST_PAGE_BYTES,
                .bytes = page_at(s, first_page),
                .count = page_count * GUEST_PAGE_BYTES,
        };

        if (page_count == 0)
                return 0;
        job_count(&s->job->written_bytes, span.count);
        return vmstate_io_save(s->io, &span);
}

/* At most one request's worth of pages, within one request's place. */
static int save_stretch(struct ram_save *s, uint64_t first_page, uint64_t page_count)
{
        uint64_t end = first_page + page_count;
        uint64_t run = first_page;      /* pages [run, page) wait to be written */
        uint64_t page;
        int ret;

        for (page = first_page; page < end; page++) {
                if (!memory_is_zero(page_at(s, page), GUEST_PAGE_BYTES)) {
                        page_map_set(s->map, page, vm_state_sum(page_at(s, page),
                                                                GUEST_PAGE_BYTES));
                        continue;
                }
                ret = write_run(s, run, page - run);
                if (ret < 0)
                        return ret;
                run = page + 1;
        }
        ret = write_run(s, run, page - run);
        job_count(&s->job->done_bytes, page_count * GUEST_PAGE_BYTES);
        return ret;
}

int ram_save_range(struct ram_save *s, uint64_t first_page, uint64_t page_count)
{
        uint64_t end = first_page + page_count;
        uint64_t page = first_page;

        g_assert(end <= s->memory->ram_bytes / GUEST_PAGE_BYTES);
        while (page < end) {
                uint64_t stretch = MIN(RUN_PAGES - page % RUN_PAGES, end - page);
                int ret = job_is_cancelled(s->job) ? -ECANCELED : save_stretch(s, page, stretch);

                if (ret < 0)
                        return ret;
                page += stretch;
        }
        return 0;
}
