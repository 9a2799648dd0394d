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

/* Pages that lie at bytes, and where the writes they become are counted. */
struct stretch {
        uint64_t first_page;
        uint64_t page_count;
        uint8_t *bytes;
        unsigned *writes;
        void *opaque;
};

static uint8_t *page_in(const struct stretch *stretch, uint64_t page)
{
        return stretch->bytes + (page - stretch->first_page) * GUEST_PAGE_BYTES;
}

static int write_run(struct ram_save *s, const struct stretch *stretch, uint64_t first_page,
                     uint64_t page_count)
{
        struct vmstate_span span = {
                .offset = s->ram_offset + first_page * GUEST_PAGE_BYTES,
                .bytes = page_in(stretch, first_page),
                .count = page_count * GUEST_PAGE_BYTES,
                .opaque = stretch->opaque,
        };

        if (page_count == 0)
                return 0;
        job_count(&s->job->written_bytes, span.count);
        ++*stretch->writes;
        return vmstate_io_save(s->io, &span);
}

/* At most one request's worth of pages, within one request's place. */
static int save_stretch(struct ram_save *s, const struct stretch *stretch)
{
        uint64_t end = stretch->first_page + stretch->page_count;
        uint64_t run = stretch->first_page;     /* pages [run, page) wait to be written */
        uint64_t page;
        int ret;

        for (page = run; page < end; page++) {
                const void *bytes = page_in(stretch, page);

                if (!memory_is_zero(bytes, GUEST_PAGE_BYTES)) {
                        page_map_set(s->map, page, vm_state_sum(bytes, GUEST_PAGE_BYTES));
                        continue;
                }
                ret = write_run(s, stretch, run, page - run);
                if (ret < 0)
                        return ret;
                run = page + 1;
        }
        ret = write_run(s, stretch, run, page - run);
        job_count(&s->job->done_bytes, stretch->page_count * GUEST_PAGE_BYTES);
        return ret;
}

int ram_save_copy(struct ram_save *s, uint64_t first_page, uint64_t page_count, uint8_t *bytes,
                  unsigned *writes, void *opaque)
{
        const struct stretch stretch = { first_page, page_count, bytes, writes, opaque };

        g_assert(first_page % RUN_PAGES + page_count <= RUN_PAGES);
        return job_is_cancelled(s->job) ? -ECANCELED : save_stretch(s, &stretch);
}

int ram_save_range(struct ram_save *s, uint64_t first_page, uint64_t page_count)
{
        uint64_t end = first_page + page_count;
        uint64_t page = first_page;
        unsigned writes = 0;

        g_assert(end <= s->memory->ram_bytes / GUEST_PAGE_BYTES);
        while (page < end) {
                uint64_t count = MIN(RUN_PAGES - page % RUN_PAGES, end - page);
                int ret = ram_save_copy(s, page, count,
                                        s->memory->ram + page * GUEST_PAGE_BYTES, &writes, NULL);

                if (ret < 0)
                        return ret;
                page += count;
        }
        return 0;
}
