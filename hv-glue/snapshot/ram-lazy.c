/*
 * ram-lazy.c - RAM that is loaded while the guest runs.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/ram-lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "host/error.h"
#include "snapshot/disk-snapshot.h"
#include "snapshot/job.h"
#include "snapshot/ram-guard-parts.h"
#include "snapshot/touch-record.h"
#include "snapshot/vm-state.h"
#include "snapshot/vmstate-io.h"

enum { BUFFERS = VMSTATE_IO_DEPTH + 1, CANCEL_POLL_MS = 50 };

G_STATIC_ASSERT((int) TOUCH_RECORD_BYTES <= (int) RAM_UNIT_BYTES);     /* goes into a buffer */

struct ram_lazy {
        struct ram_guard *guard;
        struct drive_thread *owner;     /* of the disk */
        struct hvb_snapshot *pin;       /* there */
        struct drive_thread *reader;
        struct vmstate_io *io;
        pthread_t thread;
        bool has_thread;
        uint8_t *buffers;               /* BUFFERS of a unit each */
        uint8_t *idle[BUFFERS];         /* the thread's */
        unsigned idle_count;
        struct hvb_error err;           /* of what is read */

        uint64_t touch_offset;          /* of the record */
        GArray *recorded;               /* uint32_t: units that it had; the thread's.  NULL: there
                                         * is none that could be written over */
        guint recorded_asked;           /* so many of them were asked for */

        /* Under the guard's lock. */
        GArray *wanted;                 /* uint32_t: units that somebody waited for, in order */
        GQueue urgent;                  /* units that somebody waits for */
        uint64_t next;                  /* units below were asked for */
        bool stop;
        bool losing;                    /* between a failure that counts and `ended` */
        bool ended;
};

/* ---- Which ---------------------------------------------------------------------------- */

bool ram_lazy_has(const struct ram_guard *g, uint64_t unit)
{
        const struct page_map *map = &g->base.map;
        uint64_t page = unit * RAM_UNIT_PAGES;

        if (g->lazy == NULL || g->base.disk == NULL || g->units[unit] & UNIT_CHANGED)
                return false;
        return page_map_has(map, page) || page_map_run(map, page, RAM_UNIT_PAGES) < RAM_UNIT_PAGES;
}

bool ram_lazy_urge(struct ram_guard *g, uint64_t unit)
{
        struct ram_lazy *l = g->lazy;

        if (l == NULL || l->ended || l->stop)
                return false;
        if (!(g->units[unit] & UNIT_WANTED) && l->wanted->len < TOUCH_RECORD_UNITS) {
                uint32_t number = (uint32_t) unit;

                unit_change(g, unit, 0, UNIT_WANTED);
                g_array_append_val(l->wanted, number);
        }
        if (!(g->units[unit] & UNIT_ASKED))
                g_queue_push_tail(&l->urgent, GSIZE_TO_POINTER(unit));
        return true;
}

static bool is_to_ask(const struct ram_guard *g, uint64_t unit)
{
        return (g->units[unit] & (UNIT_ABSENT | UNIT_ASKED)) == UNIT_ABSENT &&
               ram_lazy_has(g, unit);
}

/* The record is only believed to be numbers. */
static bool next_recorded(struct ram_lazy *l, uint64_t *ret_unit)
{
        const struct ram_guard *g = l->guard;

        while (l->recorded != NULL && l->recorded_asked < l->recorded->len) {
                *ret_unit = g_array_index(l->recorded, uint32_t, l->recorded_asked++);
                if (*ret_unit < g->unit_count && is_to_ask(g, *ret_unit))
                        return true;
        }
        return false;
}

/* The next unit to read.  False: there is none. */
static bool next_unit(struct ram_lazy *l, uint64_t *ret_unit)
{
        struct ram_guard *g = l->guard;
        bool found = false;

        ram_guard_lock_patiently(g);
        while (!found && !l->stop && !g_queue_is_empty(&l->urgent)) {
                *ret_unit = GPOINTER_TO_SIZE(g_queue_pop_head(&l->urgent));
                found = is_to_ask(g, *ret_unit);
        }
        if (!found && !l->stop)
                found = next_recorded(l, ret_unit);
        for (; !found && !l->stop && l->next < g->unit_count; l->next++) {
                *ret_unit = l->next;
                found = is_to_ask(g, l->next);
        }
        if (found)
                unit_change(g, *ret_unit, 0, UNIT_ASKED);
        ram_guard_unlock(g);
        return found;
}

/* ---- Reading; on the loading thread ---------------------------------------------------- */

static uint64_t unit_of(const struct ram_lazy *l, const struct vmstate_span *span)
{
        return (span->offset - l->guard->base.ram_offset) / RAM_UNIT_BYTES;
}

static int landed(void *opaque, const struct vmstate_span *span)
{
        struct ram_lazy *l = opaque;
        struct ram_guard *g = l->guard;
        uint64_t unit = unit_of(l, span);
        int ret = page_map_check_pages(&g->base.map, unit * RAM_UNIT_PAGES, RAM_UNIT_PAGES,
                                       span->bytes, &l->err);

        if (ret < 0)
                return ret;
        ram_guard_lock(g);
        /* Whoever left the load may have filled it with zeros. */
        if (g->units[unit] & UNIT_ABSENT)
                ret = uffd_fill(g->fd, unit_at(g, unit), span->bytes, RAM_UNIT_BYTES);
        if (ret == 0 && g->units[unit] & UNIT_ABSENT)
                unit_change(g, unit, UNIT_ABSENT | UNIT_ASKED | UNIT_WANTED, UNIT_SHUT);
        pthread_cond_broadcast(&g->filled);
        ram_guard_unlock(g);
        if (ret < 0)
                return error_set(&l->err, ret, "no memory for RAM page %" PRIu64 ": %s",
                                 unit * RAM_UNIT_PAGES, g_strerror(-ret));
        l->idle[l->idle_count++] = span->bytes;
        return 0;
}

static int read_all(struct ram_lazy *l)
{
        uint64_t unit;
        int ret = 0;
        int last;

        while (ret == 0 && next_unit(l, &unit)) {
                struct vmstate_span span = {
                        .offset = l->guard->base.ram_offset + unit * RAM_UNIT_BYTES,
                        .bytes = l->idle[--l->idle_count],
                        .count = RAM_UNIT_BYTES,
                };

                ret = vmstate_io_load(l->io, &span);
        }
        last = vmstate_io_wait(l->io);
        return ret < 0 ? ret : last;
}

/* ---- The record ------------------------------------------------------------------------ */

/* Best effort, as all of it: a load without a record is as right, and may be slower. */
static void read_record(struct ram_lazy *l)
{
        if (disk_snapshot_read(l->owner, l->pin, l->touch_offset, l->idle[0], TOUCH_RECORD_BYTES,
                               HVB_REQ_VMSTATE) == 0)
                l->recorded = touch_record_decode(l->idle[0]);
}

/* All is loaded: nobody waits for more. */
static void write_record(struct ram_lazy *l)
{
        struct ram_guard *g = l->guard;
        g_autoptr(GArray) wanted = NULL;
        g_autoptr(GArray) units = NULL;
        bool stop;

        ram_guard_lock(g);
        stop = l->stop;
        wanted = g_array_copy(l->wanted);
        ram_guard_unlock(g);
        if (stop || wanted->len == 0 || l->recorded == NULL)
                return;
        units = touch_record_merge(l->recorded, wanted);
        touch_record_encode(units, l->idle[0]);
        disk_snapshot_note(l->owner, l->pin, l->touch_offset, l->idle[0], TOUCH_RECORD_BYTES);
}

/* ---- The end -------------------------------------------------------------------------- */

static void close_images(struct ram_lazy *l)
{
        vmstate_io_free(l->io);
        drive_thread_close(l->reader, NULL);
        disk_snapshot_close(l->owner, l->pin);
        free(l->buffers);
        l->io = NULL;
        l->reader = NULL;
        l->pin = NULL;
        l->buffers = NULL;
}

static void lazy_free(struct ram_lazy *l)
{
        close_images(l);
        g_queue_clear(&l->urgent);
        g_clear_pointer(&l->recorded, g_array_unref);
        g_array_unref(l->wanted);
        g_free(l);
}

/* The vcpus are on their way out of the guest when the first of them goes on, and disks take no
 * more of its requests. */
static void lose(struct ram_lazy *l, int error)
{
        struct ram_guard *g = l->guard;
        g_autofree char *text = g_strdup_printf("the VM state cannot be read any more: %s; only "
                                                "loadvm and system_reset lead out of that",
                                                error_text(&l->err, error));

        g_atomic_int_set(&g->is_lost, 1);
        machine_memory_lost(g->machine, text);
        ram_guard_lock(g);
        for (uint64_t unit = 0; unit < g->unit_count; unit++)
                if (g->units[unit] & UNIT_ABSENT)
                        ram_unit_fill_zeros(g, unit);
        ram_base_clear(&g->base);
        ram_guard_unlock(g);
}

/* Before the images are closed: that takes the disk's thread, which may wait for a unit. */
static void end_load(struct ram_lazy *l, int error)
{
        struct ram_guard *g = l->guard;

        ram_guard_lock(g);
        l->losing = error < 0 && !l->stop;
        ram_guard_unlock(g);
        if (l->losing)
                lose(l, error);
        ram_guard_lock(g);
        l->ended = true;
        pthread_cond_broadcast(&g->filled);
        ram_guard_unlock(g);
}

static void *thread_main(void *opaque)
{
        struct ram_lazy *l = opaque;
        int ret = read_all(l);

        if (ret == 0)
                write_record(l);
        end_load(l, ret);
        close_images(l);
        return NULL;
}

/* Whoever waited for the load may have freed it when the lock is back. */
void ram_lazy_leave(struct ram_guard *g)
{
        struct ram_lazy *l;

        ram_guard_lock(g);
        l = g->lazy;
        if (l != NULL)
                l->stop = true;
        pthread_cond_broadcast(&g->filled);
        while (l != NULL && g->lazy == l && l->losing && !l->ended)
                pthread_cond_wait(&g->filled, &g->lock);
        ram_guard_unlock(g);
}

void ram_lazy_stop(struct ram_guard *g)
{
        struct ram_lazy *l = g->lazy;

        if (l == NULL)
                return;
        ram_lazy_leave(g);
        if (l->has_thread)
                pthread_join(l->thread, NULL);
        ram_guard_lock(g);
        g->lazy = NULL;
        ram_guard_unlock(g);
        lazy_free(l);
}

int ram_lazy_wait(struct ram_guard *g, struct vm_job *job, struct hvb_error *err)
{
        bool lost;

        ram_guard_lock_patiently(g);
        while (g->lazy != NULL && !g->lazy->ended && !job_is_cancelled(job)) {
                struct timespec until;

                clock_gettime(CLOCK_REALTIME, &until);
                until.tv_nsec += CANCEL_POLL_MS * 1000000;
                until.tv_sec += until.tv_nsec / 1000000000;
                until.tv_nsec %= 1000000000;
                pthread_cond_timedwait(&g->filled, &g->lock, &until);
        }
        ram_guard_unlock(g);
        lost = g_atomic_int_get(&g->is_lost) != 0;
        if (job_is_cancelled(job))
                return error_set(err, -ECANCELED, "cancelled");
        if (lost)
                return error_set(err, -EIO, "RAM could not be loaded as a whole");
        ram_lazy_stop(g);
        return 0;
}

/* ---- The begin ------------------------------------------------------------------------ */

struct opening {
        const struct ram_base *base;
        struct hvb_error *err;
};

static void start_choose(struct drive *drive, struct hvb_request *request, void *opaque)
{
        struct opening *o = opaque;

        drive_driver(drive)->snapshot_load_vmstate(drive_image(drive), request,
                                                   o->base->info.id_str, o->base->info.name,
                                                   o->err);
}

static int call_fd(struct drive *drive, void *opaque)
{
        (void) opaque;
        return drive_fd(drive);
}

/* The image itself, whatever its path names by now; its VM state lies in no other file. */
static int open_reader(struct ram_lazy *l, const struct ram_base *base, struct hvb_error *err)
{
        struct opening o = { .base = base, .err = err };
        struct drive_control control = { .start = start_choose, .opaque = &o };
        struct drive_options options = {
                .format = base->disk->format,
                .flags = HVB_OPEN_FORCE_SHARE | HVB_OPEN_NO_BACKING,
        };
        int fd = drive_thread_call(l->owner, call_fd, NULL);
        g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
        int flags;
        int ret;

        flags = fcntl(fd, F_GETFL);
        options.cache.direct = flags >= 0 && flags & O_DIRECT;
        ret = drive_thread_open(path, &options, &l->reader, err);
        return ret < 0 ? ret : drive_thread_run(l->reader, &control);
}

static int open_images(struct ram_lazy *l, const struct ram_base *base, struct hvb_error *err)
{
        const struct vmstate_landing landing = { l, landed };
        int ret = disk_snapshot_open(l->owner, base->info.id_str, base->info.name, NULL, &l->pin,
                                     err);

        if (ret == 0)
                ret = open_reader(l, base, err);
        if (ret < 0)
                return ret;
        l->io = vmstate_io_new(l->reader, &landing);
        return 0;
}

int ram_lazy_new(struct machine *m, struct guest_memory *memory, struct ram_base *base,
                 uint64_t touch_offset, struct hvb_error *err)
{
        struct ram_lazy *l = g_new0(struct ram_lazy, 1);
        void *buffers;
        int ret;

        l->err = (struct hvb_error) ERROR_INIT;
        l->owner = base->disk->thread;
        l->touch_offset = touch_offset;
        l->wanted = g_array_new(FALSE, FALSE, sizeof(uint32_t));
        if (posix_memalign(&buffers, GUEST_PAGE_BYTES, BUFFERS * RAM_UNIT_BYTES) != 0) {
                lazy_free(l);
                return error_set(err, -ENOMEM, "no memory to load RAM with");
        }
        l->buffers = buffers;
        while (l->idle_count < BUFFERS) {
                l->idle[l->idle_count] = l->buffers + l->idle_count * RAM_UNIT_BYTES;
                l->idle_count++;
        }
        ret = open_images(l, base, err);
        if (ret == 0)
                read_record(l);
        if (ret == 0)
                ret = ram_guard_make(m, memory, true, &l->guard, err);
        if (ret < 0) {
                lazy_free(l);
                return ret;
        }
        l->guard->base = *base;
        *base = (struct ram_base) { .disk = NULL };
        l->guard->lazy = l;
        return 0;
}

int ram_lazy_start(struct ram_guard *g, struct hvb_error *err)
{
        struct ram_lazy *l = g->lazy;
        int ret = -pthread_create(&l->thread, NULL, thread_main, l);

        l->has_thread = ret == 0;
        if (ret == 0)
                return 0;
        end_load(l, 0);
        return error_set(err, ret, "no thread to load RAM: %s", g_strerror(-ret));
}
