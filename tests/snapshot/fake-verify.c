/*
 * fake-verify.c - what a fake machine's RAM and disks must hold at step n.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/fake-machine-parts.h"

#include <string.h>
#include <zlib.h>

struct reading {
        unsigned busy;
        pthread_mutex_t lock;
        pthread_cond_t done;
        struct drive_op *op;
        struct iovec iov;
};

static void reading_done(struct drive_op *op)
{
        struct reading *r = op->opaque;

        pthread_mutex_lock(&r->lock);
        r->busy = 0;
        pthread_cond_signal(&r->done);
        pthread_mutex_unlock(&r->lock);
}

static int call_read(struct drive *drive, void *opaque)
{
        struct reading *r = opaque;

        r->op = drive_op_new(drive);
        r->op->done = reading_done;
        r->op->opaque = r;
        drive_op_preadv(r->op, 0, &r->iov, 1, 0);
        return 0;
}

static uint64_t *read_disk(struct machine *m, unsigned i)
{
        uint64_t *bytes = g_malloc(DISK_BYTES);
        struct reading r = {
                .busy = 1,
                .lock = PTHREAD_MUTEX_INITIALIZER,
                .done = PTHREAD_COND_INITIALIZER,
                .iov = { bytes, DISK_BYTES },
        };

        drive_thread_call(m->disks[i].thread, call_read, &r);
        pthread_mutex_lock(&r.lock);
        while (r.busy)
                pthread_cond_wait(&r.done, &r.lock);
        pthread_mutex_unlock(&r.lock);
        g_assert_cmpint(r.op->result, ==, 0);
        drive_op_free(r.op);
        return bytes;
}

bool fake_disk_is_at(struct machine *m, unsigned i, uint64_t step)
{
        g_autofree uint64_t *expected = g_new0(uint64_t, BLOCK_COUNT);
        g_autofree uint64_t *bytes = read_disk(m, i);

        for (uint64_t n = 1; n <= step; n++)
                if (disk_of(m, n) == i)
                        expected[block_of(n)] = n;
        for (uint64_t block = 0; block < BLOCK_COUNT; block++) {
                const uint64_t *words = bytes + block * FAKE_BLOCK_BYTES / 8;

                if (!is_filled(words, FAKE_BLOCK_BYTES, expected[block])) {
                        g_test_message("virtio%u, block %" G_GUINT64_FORMAT ": %" G_GUINT64_FORMAT
                                       ", expected %" G_GUINT64_FORMAT " at step %"
                                       G_GUINT64_FORMAT, i, block, words[0], expected[block],
                                       step);
                        return false;
                }
        }
        return true;
}

static bool ram_is_at(struct machine *m, uint64_t step)
{
        uint64_t pages = m->memory.ram_bytes / GUEST_PAGE_BYTES;
        g_autofree uint64_t *expected = g_new0(uint64_t, pages);

        for (uint64_t n = 1; n <= step; n++)
                expected[page_of(m, n)] = page_fill(n);
        for (uint64_t page = 0; page < pages; page++) {
                const uint64_t *words =
                        (const uint64_t *) (const void *) (m->memory.ram + page *
                                                           GUEST_PAGE_BYTES);

                if (!is_filled(words, GUEST_PAGE_BYTES, expected[page])) {
                        g_test_message("page %" G_GUINT64_FORMAT ": %" G_GUINT64_FORMAT
                                       ", expected %" G_GUINT64_FORMAT " at step %"
                                       G_GUINT64_FORMAT, page, words[0], expected[page], step);
                        return false;
                }
        }
        return true;
}

bool fake_verify(struct machine *m)
{
        uint64_t step = m->vcpus[0].step;

        for (unsigned i = 0; i < m->disk_count; i++)
                if (!m->disks[i].read_only && !fake_disk_is_at(m, i, step))
                        return false;
        return m->vcpus[1].step == 1000 && ram_is_at(m, step);
}

uint32_t fake_sum(struct machine *m)
{
        uint32_t sum = (uint32_t) crc32_z(0, m->memory.ram, m->memory.ram_bytes);

        sum = (uint32_t) crc32_z(sum, (const uint8_t *) &m->vcpus[0].step, 8);
        sum = (uint32_t) crc32_z(sum, (const uint8_t *) &m->vcpus[1].step, 8);
        return (uint32_t) crc32_z(sum, (const uint8_t *) &m->clock_nsec, 8);
}
