/*
 * faulty-driver.c - the driver's snapshot and VM-state members, one call of which fails.
 *
 * Calls come from several drives' threads.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/faulty-driver.h"

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <string.h>

#include "host/drive.h"

static struct {
        gint fault;
        gint nth;
        gint calls;
} plan;

static const struct hvb_driver *real;
static struct hvb_driver faulty;

const struct hvb_driver *__real_drive_driver(const struct drive *drive);
const struct hvb_driver *__wrap_drive_driver(const struct drive *drive);

void faulty_set(enum fault fault, unsigned nth)
{
        g_atomic_int_set(&plan.fault, (gint) fault);
        g_atomic_int_set(&plan.nth, (gint) nth);
        g_atomic_int_set(&plan.calls, 0);
}

unsigned faulty_calls(void)
{
        return (unsigned) g_atomic_int_get(&plan.calls);
}

/* The one request that fails, and whom it would have told. */
static void (*failed_complete)(struct hvb_request *request);

static void complete_failed(struct hvb_request *request)
{
        request->complete = failed_complete;
        request->result = -EIO;
        request->complete(request);
}

/* True: the call is not to be made, its request fails when what is done instead has ended. */
static bool meets_fault_then(struct hvb_image *image, struct hvb_request *request,
                             void (*instead)(struct hvb_image *image, struct hvb_request *request,
                                             struct hvb_error *err))
{
        gint call = g_atomic_int_add(&plan.calls, 1) + 1;

        if (call != g_atomic_int_get(&plan.nth))
                return false;
        if (g_atomic_int_get(&plan.fault) == FAULT_KILL)
                raise(SIGKILL);
        if (g_atomic_int_get(&plan.fault) != FAULT_ERROR)
                return false;
        failed_complete = request->complete;
        request->complete = complete_failed;
        instead(image, request, NULL);
        return true;
}

static void drain(struct hvb_image *image, struct hvb_request *request, struct hvb_error *err)
{
        (void) err;
        real->drain(real->queue(image, 0), request);
}

static bool meets_fault(struct hvb_image *image, struct hvb_request *request)
{
        return meets_fault_then(image, request, drain);
}

static void faulty_create(struct hvb_image *image, struct hvb_request *request,
                          struct hvb_snapshot_info *info, uint32_t flags, struct hvb_error *err)
{
        if (!meets_fault(image, request))
                real->snapshot_create(image, request, info, flags, err);
}

static void faulty_prepare(struct hvb_image *image, struct hvb_request *request,
                           const struct hvb_snapshot_info *info, uint32_t flags,
                           struct hvb_error *err)
{
        if (!meets_fault(image, request))
                real->snapshot_prepare(image, request, info, flags, err);
}

static void faulty_switch(struct hvb_image *image, struct hvb_request *request,
                          struct hvb_error *err)
{
        if (!meets_fault(image, request))
                real->snapshot_switch(image, request, err);
}

/* A publication that fails is taken back, and so is a goto that was prepared. */
static void faulty_publish(struct hvb_image *image, struct hvb_request *request,
                           struct hvb_snapshot_info *info, struct hvb_error *err)
{
        if (!meets_fault_then(image, request, real->snapshot_abort))
                real->snapshot_publish(image, request, info, err);
}

static void faulty_goto_prepare(struct hvb_image *image, struct hvb_request *request,
                                const char *id, const char *name, struct hvb_error *err)
{
        if (!meets_fault(image, request))
                real->snapshot_goto_prepare(image, request, id, name, err);
}

static void faulty_goto(struct hvb_image *image, struct hvb_request *request, const char *id,
                        const char *name, struct hvb_error *err)
{
        if (!meets_fault_then(image, request, real->snapshot_abort))
                real->snapshot_goto(image, request, id, name, err);
}

static void faulty_delete(struct hvb_image *image, struct hvb_request *request, const char *id,
                          const char *name, struct hvb_error *err)
{
        if (!meets_fault(image, request))
                real->snapshot_delete(image, request, id, name, err);
}

static void faulty_choose(struct hvb_image *image, struct hvb_request *request, const char *id,
                          const char *name, struct hvb_error *err)
{
        if (!meets_fault(image, request))
                real->snapshot_load_vmstate(image, request, id, name, err);
}

static void faulty_save(struct hvb_image *image, struct hvb_request *request, uint64_t offset,
                        const struct iovec *iov, unsigned iov_count)
{
        if (!meets_fault(image, request))
                real->save_vmstate(image, request, offset, iov, iov_count);
}

static gint refuses_sharing;

void faulty_refuse_sharing(bool refuse)
{
        g_atomic_int_set(&refuses_sharing, refuse);
}

static void faulty_share(struct hvb_image *image, struct hvb_request *request,
                         struct hvb_snapshot *source, uint64_t source_offset, uint64_t offset,
                         uint64_t length_bytes)
{
        /* What no driver can share: half a sector. */
        if (g_atomic_int_get(&refuses_sharing))
                source_offset++;
        if (!meets_fault(image, request))
                real->share_vmstate(image, request, source, source_offset, offset, length_bytes);
}

static const struct fed_piece *fed_pieces;
static unsigned fed_count;

void faulty_feed(const struct fed_piece *pieces, unsigned count)
{
        fed_pieces = pieces;
        fed_count = count;
}

static void feed(uint64_t offset, uint8_t *bytes, size_t count)
{
        memset(bytes, 0, count);
        for (unsigned i = 0; i < fed_count; i++) {
                const struct fed_piece *piece = &fed_pieces[i];
                uint64_t begin = MAX(offset, piece->offset);
                uint64_t end = MIN(offset + count, piece->offset + piece->count);

                if (begin < end)
                        memcpy(bytes + (begin - offset), piece->bytes + (begin - piece->offset),
                               end - begin);
        }
}

/* Completes the request with what was fed. */
static void feed_all(struct hvb_queue *queue, struct hvb_request *request, uint64_t offset,
                     const struct iovec *iov, unsigned iov_count)
{
        for (unsigned i = 0; i < iov_count; i++) {
                feed(offset, iov[i].iov_base, iov[i].iov_len);
                offset += iov[i].iov_len;
        }
        real->drain(queue, request);
}

static GMutex loads_lock;
static GCond loads_go;
static uint64_t hold_begin, hold_end;
static GArray *loads_trace;

void faulty_hold_loads(uint64_t begin, uint64_t end)
{
        g_mutex_lock(&loads_lock);
        hold_begin = begin;
        hold_end = end;
        g_cond_broadcast(&loads_go);
        g_mutex_unlock(&loads_lock);
}

void faulty_trace_loads(GArray *offsets)
{
        g_mutex_lock(&loads_lock);
        loads_trace = offsets;
        g_mutex_unlock(&loads_lock);
}

static void note_load(uint64_t offset)
{
        g_mutex_lock(&loads_lock);
        if (loads_trace != NULL)
                g_array_append_val(loads_trace, offset);
        while (offset >= hold_begin && offset < hold_end)
                g_cond_wait(&loads_go, &loads_lock);
        g_mutex_unlock(&loads_lock);
}

static void faulty_load(struct hvb_image *image, struct hvb_request *request, uint64_t offset,
                        const struct iovec *iov, unsigned iov_count)
{
        note_load(offset);
        if (meets_fault(image, request))
                return;
        if (fed_count == 0)
                real->load_vmstate(image, request, offset, iov, iov_count);
        else
                feed_all(real->queue(image, 0), request, offset, iov, iov_count);
}

static void faulty_snapshot_read(struct hvb_queue *queue, struct hvb_request *request,
                                 struct hvb_snapshot *snapshot, uint64_t offset,
                                 const struct iovec *iov, unsigned iov_count, uint32_t flags)
{
        if (fed_count > 0 && flags & HVB_REQ_VMSTATE)
                feed_all(queue, request, offset, iov, iov_count);
        else
                real->snapshot_preadv(queue, request, snapshot, offset, iov, iov_count, flags);
}

static gpointer make_faulty(gpointer driver)
{
        real = driver;
        memcpy(&faulty, real, MIN(sizeof(faulty), real->struct_bytes));
        faulty.snapshot_create = faulty_create;
        faulty.snapshot_prepare = faulty_prepare;
        faulty.snapshot_switch = faulty_switch;
        faulty.snapshot_publish = faulty_publish;
        faulty.snapshot_goto_prepare = faulty_goto_prepare;
        faulty.snapshot_goto = faulty_goto;
        faulty.snapshot_delete = faulty_delete;
        faulty.snapshot_load_vmstate = faulty_choose;
        faulty.share_vmstate = faulty_share;
        faulty.save_vmstate = faulty_save;
        faulty.load_vmstate = faulty_load;
        faulty.snapshot_preadv = faulty_snapshot_read;
        return NULL;
}

const struct hvb_driver *__wrap_drive_driver(const struct drive *drive)
{
        static GOnce once = G_ONCE_INIT;
        const struct hvb_driver *driver = __real_drive_driver(drive);

        if (strcmp(driver->format_name, "qcow2") != 0)
                return driver;
        g_once(&once, make_faulty, (gpointer) driver);
        return &faulty;
}
