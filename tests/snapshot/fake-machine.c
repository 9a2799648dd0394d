/*
 * fake-machine.c - a machine without KVM.
 *
 * The guest thread and pauses: running is under the lock; the guest takes a step only while
 * it is set, and says so in stepping, so that a pause waits for the step in hand.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/fake-machine-parts.h"

#include <errno.h>
#include <string.h>

#include "host/error.h"

/* ---- The guest ---------------------------------------------------------------------- */

static void write_done(struct drive_op *op)
{
        struct write *w = op->opaque;
        struct machine *m = w->machine;

        g_assert_cmpint(op->result, ==, 0);
        pthread_mutex_lock(&m->lock);
        w->busy = false;
        pthread_cond_broadcast(&m->changed);
        pthread_mutex_unlock(&m->lock);
}

static int call_write(struct drive *drive, void *opaque)
{
        struct write *w = opaque;

        if (w->op == NULL) {
                w->op = drive_op_new(drive);
                w->op->done = write_done;
                w->op->opaque = w;
        }
        w->iov = (struct iovec) { w->bytes, sizeof(w->bytes) };
        drive_op_pwritev(w->op, w->block * FAKE_BLOCK_BYTES, &w->iov, 1, 0);
        return 0;
}

/* An idle write while no other is on its way to the same block; under the lock.  A write
 * stays with the disk that uses it first. */
static struct write *find_write(struct machine *m, unsigned disk, uint64_t block)
{
        struct write *idle = NULL;

        for (unsigned i = 0; i < WRITES_IN_FLIGHT; i++) {
                struct write *w = &m->writes[i];

                if (!w->busy && idle == NULL && (w->op == NULL || w->disk == disk))
                        idle = w;
                if (w->busy && w->disk == disk && w->block == block)
                        return NULL;
        }
        return idle;
}

static void disk_step(struct machine *m, uint64_t n)
{
        unsigned disk = disk_of(m, n);
        uint64_t block = block_of(n);
        struct write *w;

        if (m->disks[disk].read_only)
                return;
        pthread_mutex_lock(&m->lock);
        while ((w = find_write(m, disk, block)) == NULL)
                pthread_cond_wait(&m->changed, &m->lock);
        w->busy = true;
        w->disk = disk;
        w->block = block;
        pthread_mutex_unlock(&m->lock);
        fill(w->bytes, sizeof(w->bytes), n);
        drive_thread_call(m->disks[disk].thread, call_write, w);
}

/* Under the lock. */
static void note_step(struct machine *m)
{
        gint64 now = g_get_monotonic_time();

        if (m->stepped_at != 0)
                m->longest_usec = MAX(m->longest_usec, now - m->stepped_at);
        m->stepped_at = now;
}

static void *guest_main(void *opaque)
{
        struct machine *m = opaque;

        pthread_mutex_lock(&m->lock);
        while (!m->quitting) {
                uint64_t n;

                if (!m->running) {
                        pthread_cond_wait(&m->changed, &m->lock);
                        continue;
                }
                m->stepping = true;
                n = m->vcpus[0].step + 1;
                pthread_mutex_unlock(&m->lock);

                fill((uint64_t *) (void *) (m->memory.ram + page_of(m, n) * GUEST_PAGE_BYTES),
                     GUEST_PAGE_BYTES, page_fill(n));
                disk_step(m, n);

                pthread_mutex_lock(&m->lock);
                note_step(m);
                m->vcpus[0].step = n;
                m->clock_nsec += 1000;
                m->stepping = false;
                if (n == m->stop_at)
                        m->running = false;
                pthread_cond_broadcast(&m->changed);
        }
        pthread_mutex_unlock(&m->lock);
        return NULL;
}

/* ---- Devices ------------------------------------------------------------------------ */

static int vcpu_save(struct device *device, struct state_writer *w, struct hvb_error *err)
{
        struct fake_vcpu *vcpu = (struct fake_vcpu *) device;

        (void) err;
        state_put_u64(w, vcpu->step);
        state_put_bytes(w, "registers", 9);
        return 0;
}

static int vcpu_load(struct device *device, struct state_reader *r, uint32_t version, bool apply,
                     struct hvb_error *err)
{
        struct fake_vcpu *vcpu = (struct fake_vcpu *) device;
        uint64_t step = state_get_u64(r);
        char bytes[9];

        g_assert_cmpuint(version, ==, 3);
        state_get_bytes(r, bytes, sizeof(bytes));
        if (memcmp(bytes, "registers", 9) != 0)
                return error_set(err, -EINVAL, "no registers");
        if (!apply)
                return state_reader_end(r);
        if (vcpu->fail_apply < 0)
                return vcpu->fail_apply;
        vcpu->step = step;
        return 0;
}

static const struct device_ops vcpu_ops = {
        .name = "vcpu",
        .state_version = 3,
        .state_oldest = 3,
        .save = vcpu_save,
        .load = vcpu_load,
};

static void blk_quiesce(struct device *device)
{
        struct machine *m = ((struct fake_blk *) device)->machine;

        pthread_mutex_lock(&m->lock);
        for (unsigned i = 0; i < WRITES_IN_FLIGHT; i++)
                while (m->writes[i].busy)
                        pthread_cond_wait(&m->changed, &m->lock);
        pthread_mutex_unlock(&m->lock);
}

/* Nothing in flight, nothing to save: an empty section. */
static int blk_save(struct device *device, struct state_writer *w, struct hvb_error *err)
{
        struct fake_blk *blk = (struct fake_blk *) device;

        (void) w;
        (void) err;
        for (unsigned i = 0; i < WRITES_IN_FLIGHT; i++)
                g_assert_false(blk->machine->writes[i].busy);
        return 0;
}

static int blk_load(struct device *device, struct state_reader *r, uint32_t version, bool apply,
                    struct hvb_error *err)
{
        (void) device;
        (void) version;
        (void) apply;
        (void) err;
        return state_reader_end(r);
}

static const struct device_ops blk_ops = {
        .name = "virtio-blk",
        .state_version = 2,
        .state_oldest = 1,
        .quiesce = blk_quiesce,
        .save = blk_save,
        .load = blk_load,
};

/* ---- vm/machine.h ------------------------------------------------------------------- */

static void stop_guest(struct machine *m)
{
        m->running = false;
        while (m->stepping)
                pthread_cond_wait(&m->changed, &m->lock);
}

int machine_pause(struct machine *m, enum run_state during, struct hvb_error *err)
{
        pthread_mutex_lock(&m->lock);
        if (m->paused) {
                pthread_mutex_unlock(&m->lock);
                return error_set(err, -EBUSY, "the machine is paused by another");
        }
        m->paused = true;
        m->before = m->state;
        m->state = during;
        m->paused_at = g_get_monotonic_time();
        stop_guest(m);
        pthread_mutex_unlock(&m->lock);
        m->blk.device.ops->quiesce(&m->blk.device);
        return 0;
}

static void end_pause(struct machine *m, enum run_state state)
{
        g_assert_true(m->paused);
        m->paused = false;
        m->state = state;
        m->running = state == RUN_STATE_RUNNING;
        pthread_cond_broadcast(&m->changed);
}

void machine_resume(struct machine *m, uint64_t *ret_pause_nsec)
{
        pthread_mutex_lock(&m->lock);
        *ret_pause_nsec = (uint64_t) (g_get_monotonic_time() - m->paused_at) * 1000;
        if (m->lost) {
                end_pause(m, RUN_STATE_INTERNAL_ERROR);
        } else {
                end_pause(m, m->before == RUN_STATE_INTERNAL_ERROR ? RUN_STATE_PAUSED : m->before);
                g_clear_pointer(&m->failure, g_free);
        }
        m->lost = false;
        pthread_mutex_unlock(&m->lock);
}

void machine_fail(struct machine *m, const char *text)
{
        pthread_mutex_lock(&m->lock);
        end_pause(m, RUN_STATE_INTERNAL_ERROR);
        g_free(m->failure);
        m->failure = g_strdup(text);
        pthread_mutex_unlock(&m->lock);
}

enum run_state machine_run_state(struct machine *m)
{
        enum run_state state;

        pthread_mutex_lock(&m->lock);
        state = m->state;
        pthread_mutex_unlock(&m->lock);
        return state;
}

struct guest_memory *machine_memory(struct machine *m)
{
        return &m->memory;
}

int machine_swap_memory(struct machine *m, struct guest_memory *memory, struct hvb_error *err)
{
        struct guest_memory old = m->memory;

        (void) err;
        g_assert_true(m->paused);
        if (m->on_swap != NULL)
                m->on_swap(m);
        m->memory = *memory;
        *memory = old;
        return 0;
}

/* Its disk requests have buffers of their own. */
void machine_kick_disks(struct machine *m)
{
        (void) m;
}

/* The step in hand may wait for RAM: it is the last. */
void machine_memory_lost(struct machine *m, const char *text)
{
        pthread_mutex_lock(&m->lock);
        m->running = false;
        m->lost = m->paused;
        if (!m->paused)
                m->state = RUN_STATE_INTERNAL_ERROR;
        g_free(m->failure);
        m->failure = g_strdup(text);
        pthread_cond_broadcast(&m->changed);
        pthread_mutex_unlock(&m->lock);
}

void machine_forget_wanted(struct machine *m)
{
        pthread_mutex_lock(&m->lock);
        g_assert_true(m->paused);
        m->lost = false;
        pthread_mutex_unlock(&m->lock);
}

void machine_tell(struct machine *m, const char *text)
{
        pthread_mutex_lock(&m->lock);
        g_free(m->told);
        m->told = g_strdup(text);
        pthread_mutex_unlock(&m->lock);
}

unsigned machine_cpu_count(struct machine *m)
{
        (void) m;
        return FAKE_VCPUS;
}

struct device *const *machine_devices(struct machine *m, unsigned *ret_count)
{
        *ret_count = G_N_ELEMENTS(m->devices);
        return m->devices;
}

struct machine_disk *machine_disks(struct machine *m, unsigned *ret_count)
{
        *ret_count = m->disk_count;
        return m->disks;
}

uint64_t machine_clock_nsec(struct machine *m)
{
        return m->clock_nsec;
}

void machine_set_clock_nsec(struct machine *m, uint64_t nsec)
{
        m->clock_nsec = nsec;
}

/* ---- Life --------------------------------------------------------------------------- */

static void open_disk(struct machine *m, unsigned i, const struct fake_disk_options *how)
{
        struct drive_options options = {
                .format = how->format != NULL ? how->format : "qcow2",
                .flags = how->read_only ? 0 : HVB_OPEN_RDWR,
                .lock_timeout_ms = LOCK_PATIENCE_MS,
        };
        struct machine_disk *disk = &m->disks[i];
        struct hvb_error err = ERROR_INIT;

        g_snprintf(m->ids[i], sizeof(m->ids[i]), "virtio%u", i);
        *disk = (struct machine_disk) {
                .id = m->ids[i],
                .path = how->path,
                .format = options.format,
                .read_only = how->read_only,
        };
        if (drive_thread_open(how->path, &options, &disk->thread, &err) < 0)
                g_error("%s", err.text);
}

static bool huge_pages = true;

void fake_use_small_pages(void)
{
        huge_pages = false;
}

struct machine *fake_new(uint64_t ram_bytes, const struct fake_disk_options *disks,
                         unsigned disk_count)
{
        struct machine *m = g_new0(struct machine, 1);
        struct hvb_error err = ERROR_INIT;

        if (guest_memory_init(&m->memory, ram_bytes, huge_pages, &err) < 0)
                g_error("%s", err.text);
        /* Not all of RAM is in use. */
        m->page_count = ram_bytes / GUEST_PAGE_BYTES / 2;
        pthread_mutex_init(&m->lock, NULL);
        pthread_cond_init(&m->changed, NULL);
        m->disk_count = disk_count;
        for (unsigned i = 0; i < disk_count; i++)
                open_disk(m, i, &disks[i]);
        for (unsigned i = 0; i < FAKE_VCPUS; i++) {
                m->vcpus[i] = (struct fake_vcpu) {
                        .device = { &vcpu_ops, i }, .machine = m, .step = 1000 * i,
                };
                m->devices[i] = &m->vcpus[i].device;
        }
        m->blk = (struct fake_blk) { .device = { &blk_ops, 0 }, .machine = m };
        m->devices[FAKE_VCPUS] = &m->blk.device;
        for (unsigned i = 0; i < WRITES_IN_FLIGHT; i++)
                m->writes[i].machine = m;
        pthread_create(&m->guest, NULL, guest_main, m);
        return m;
}

void fake_on_swap(struct machine *m, void (*call)(struct machine *m))
{
        m->on_swap = call;
}

void fake_limit_pages(struct machine *m, uint64_t page_count)
{
        m->page_count = page_count;
}

void fake_free(struct machine *m)
{
        fake_stop(m);
        pthread_mutex_lock(&m->lock);
        m->quitting = true;
        pthread_cond_broadcast(&m->changed);
        pthread_mutex_unlock(&m->lock);
        pthread_join(m->guest, NULL);
        guest_memory_unwatch(&m->memory);
        for (unsigned i = 0; i < WRITES_IN_FLIGHT; i++)
                drive_op_free(m->writes[i].op);
        for (unsigned i = 0; i < m->disk_count; i++)
                g_assert_cmpint(drive_thread_close(m->disks[i].thread, NULL), ==, 0);
        guest_memory_clear(&m->memory);
        pthread_cond_destroy(&m->changed);
        pthread_mutex_destroy(&m->lock);
        g_free(m->failure);
        g_free(m->told);
        g_free(m);
}

void fake_cont(struct machine *m)
{
        pthread_mutex_lock(&m->lock);
        m->state = RUN_STATE_RUNNING;
        m->running = true;
        pthread_cond_broadcast(&m->changed);
        pthread_mutex_unlock(&m->lock);
}

static void start_flush(struct drive *drive, struct hvb_request *request, void *opaque)
{
        (void) opaque;
        drive_driver(drive)->flush(drive_queue(drive), request);
}

void fake_stop(struct machine *m)
{
        struct drive_control flush = { .start = start_flush };

        pthread_mutex_lock(&m->lock);
        if (m->state == RUN_STATE_RUNNING)
                m->state = RUN_STATE_PAUSED;
        stop_guest(m);
        pthread_mutex_unlock(&m->lock);
        blk_quiesce(&m->blk.device);
        for (unsigned i = 0; i < m->disk_count; i++)
                g_assert_cmpint(drive_thread_run(m->disks[i].thread, &flush), ==, 0);
}

uint64_t fake_step(struct machine *m)
{
        uint64_t step;

        pthread_mutex_lock(&m->lock);
        step = m->vcpus[0].step;
        pthread_mutex_unlock(&m->lock);
        return step;
}

void fake_run_steps(struct machine *m, uint64_t steps)
{
        uint64_t end = fake_step(m) + steps;

        fake_cont(m);
        pthread_mutex_lock(&m->lock);
        while (m->vcpus[0].step < end)
                pthread_cond_wait(&m->changed, &m->lock);
        pthread_mutex_unlock(&m->lock);
}

void fake_advance(struct machine *m, uint64_t steps)
{
        m->stop_at = fake_step(m) + steps;
        fake_run_steps(m, steps);
        fake_stop(m);
        m->stop_at = 0;
}

gint64 fake_take_longest_usec(struct machine *m)
{
        gint64 longest;

        pthread_mutex_lock(&m->lock);
        longest = m->longest_usec;
        m->longest_usec = 0;
        pthread_mutex_unlock(&m->lock);
        return longest;
}

const char *fake_failure(struct machine *m)
{
        return m->failure;
}

const char *fake_told(struct machine *m)
{
        return m->told;
}

void fake_fail_apply(struct machine *m, int error)
{
        m->vcpus[1].fail_apply = error;
}
