/*
 * raw.c - raw files behind the same ABI as the plugins: the driver's table.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/raw.h"

#include <errno.h>
#include <stdbool.h>

#include "host/error.h"
#include "host/lock.h"
#include "host/raw-io.h"
#include "host/raw-queue.h"

static int raw_probe(const void *head, size_t head_bytes)
{
        (void) head;
        (void) head_bytes;
        return 1;
}

static struct hvb_queue *raw_queue(struct hvb_image *image, unsigned index)
{
        return index == 0 ? &image->queue : NULL;
}

static int raw_queue_fd(struct hvb_queue *queue)
{
        return queue->event_fd;
}

/* ---- Life ----------------------------------------------------------------------------- */

static void raw_release(struct hvb_image *image)
{
        raw_queue_clear(image);
        g_free(image->name);
        g_free(image);
}

static int image_new(int fd, const char *name, const struct hvb_host *host, uint32_t flags,
                     struct hvb_image **ret_image)
{
        struct hvb_image *image = g_new0(struct hvb_image, 1);
        int ret = raw_file_open(&image->file, fd);

        if (ret == 0)
                ret = raw_queue_init(&image->queue);
        if (ret < 0) {
                g_free(image);
                return ret;
        }
        image->host = host;
        image->open_flags = flags;
        image->name = g_strdup(name);
        *ret_image = image;
        return 0;
}

static int image_lock(struct hvb_image *image, struct hvb_error *err)
{
        unsigned held = PERM_CONSISTENT_READ;
        unsigned unshared = PERM_WRITE | PERM_RESIZE;

        if (image->open_flags & HVB_OPEN_NO_LOCK)
                return 0;
        if (image->open_flags & HVB_OPEN_RDWR)
                held |= PERM_WRITE | PERM_RESIZE;
        if (image->open_flags & HVB_OPEN_FORCE_SHARE)
                unshared = 0;
        return lock_acquire(image->file.fd, held, unshared, image->name, err);
}

static int raw_open(const struct hvb_open_args *args, struct hvb_request *request,
                    struct hvb_image **ret_image, struct hvb_error *err)
{
        int ret = image_new(args->fd, args->name, args->host, args->flags, ret_image);

        if (ret < 0)
                return error_set(err, ret, "'%s': %s", args->name, g_strerror(-ret));
        raw_request_start_finished(raw_request_begin(*ret_image, request, RAW_NOTHING),
                                   image_lock(*ret_image, err));
        return 0;
}

static int raw_create(const struct hvb_create_args *args, struct hvb_request *request,
                      struct hvb_image **ret_image, struct hvb_error *err)
{
        int ret = image_new(args->fd, args->name, args->host, HVB_OPEN_RDWR, ret_image);
        struct raw_file *file;

        if (ret < 0)
                return error_set(err, ret, "'%s': %s", args->name, g_strerror(-ret));
        file = &(*ret_image)->file;
        ret = image_lock(*ret_image, err);
        if (ret == 0 && !file->is_block_device)
                ret = raw_file_truncate(file, 0, HVB_PREALLOC_OFF, err);
        if (ret == 0 && file->is_block_device && args->size_bytes > file->virtual_bytes)
                ret = error_set(err, -ENOSPC, "Device is too small: %" G_GUINT64_FORMAT
                                " bytes are needed, it has %" G_GUINT64_FORMAT,
                                args->size_bytes, file->virtual_bytes);
        if (ret == 0)
                ret = raw_file_truncate(file, args->size_bytes, args->preallocation, err);
        raw_request_start_finished(raw_request_begin(*ret_image, request, RAW_NOTHING), ret);
        return 0;
}

/* Nothing is cached here: what runs must end, what is parked gets its last try. */
static void raw_close(struct hvb_image *image, struct hvb_request *request, struct hvb_error *err)
{
        (void) err;
        raw_queue_retry(image);
        lock_release(image->file.fd);
        raw_request_begin(image, request, RAW_DRAIN);
}

/* ---- Operations -------------------------------------------------------------------------- */

static uint64_t iov_bytes(const struct iovec *iov, unsigned iov_count)
{
        uint64_t sum = 0;

        for (unsigned i = 0; i < iov_count; i++)
                sum += iov[i].iov_len;
        return sum;
}

static void raw_preadv(struct hvb_queue *queue, struct hvb_request *base, uint64_t offset,
                       const struct iovec *iov, unsigned iov_count, uint32_t flags)
{
        struct raw_request *request = raw_request_begin(raw_queue_image(queue), base, RAW_READ);

        request->iov = iov;
        request->iov_count = iov_count;
        request->flags = flags & ~(uint32_t) HVB_REQ_FUA;
        raw_request_start_range(request, offset, iov_bytes(iov, iov_count));
}

static void raw_pwritev(struct hvb_queue *queue, struct hvb_request *base, uint64_t offset,
                        const struct iovec *iov, unsigned iov_count, uint32_t flags)
{
        struct raw_request *request = raw_request_begin(raw_queue_image(queue), base, RAW_WRITE);

        request->iov = iov;
        request->iov_count = iov_count;
        request->flags = flags;
        if (flags & HVB_REQ_COMPRESS)
                raw_request_start_finished(request, -ENOTSUP);
        else
                raw_request_start_range(request, offset, iov_bytes(iov, iov_count));
}

static void raw_pwrite_zeroes(struct hvb_queue *queue, struct hvb_request *base, uint64_t offset,
                              uint64_t length_bytes, uint32_t flags)
{
        struct raw_request *request = raw_request_begin(raw_queue_image(queue), base, RAW_ZERO);

        request->flags = flags;
        raw_request_start_range(request, offset, length_bytes);
}

static void raw_pdiscard(struct hvb_queue *queue, struct hvb_request *base, uint64_t offset,
                         uint64_t length_bytes)
{
        struct hvb_image *image = raw_queue_image(queue);

        raw_request_start_range(raw_request_begin(image, base, RAW_DISCARD), offset, length_bytes);
}

static void raw_flush(struct hvb_queue *queue, struct hvb_request *base)
{
        raw_request_start(raw_request_begin(raw_queue_image(queue), base, RAW_FLUSH));
}

static void raw_block_status(struct hvb_queue *queue, struct hvb_request *base, uint64_t offset,
                             uint64_t length_bytes, struct hvb_block_status *ret_status)
{
        struct raw_request *request = raw_request_begin(raw_queue_image(queue), base, RAW_STATUS);

        request->ret_status = ret_status;
        raw_request_start_range(request, offset, length_bytes);
}

static void raw_truncate(struct hvb_image *image, struct hvb_request *base, uint64_t new_bytes,
                         enum hvb_preallocation preallocation, struct hvb_error *err)
{
        struct raw_request *request = raw_request_begin(image, base, RAW_TRUNCATE);

        request->length = new_bytes;
        request->flags = preallocation;
        request->err = err;
        if (image->open_flags & HVB_OPEN_RDWR)
                raw_request_start(request);
        else
                raw_request_start_finished(request, error_set(err, -EACCES,
                                                              "the image is read-only"));
}

/* Workers use plain system calls: there is nothing to register. */
static int raw_mem_region(struct hvb_image *image, void *address, size_t length_bytes)
{
        (void) image;
        (void) address;
        (void) length_bytes;
        return 0;
}

/* Nothing is bound to the thread. */
static int raw_detach(struct hvb_image *image)
{
        return g_queue_is_empty(&image->queue.started) ? 0 : -EBUSY;
}

static int raw_attach(struct hvb_image *image, struct hvb_error *err)
{
        (void) image;
        (void) err;
        return 0;
}

static void raw_get_info(struct hvb_image *image, struct hvb_image_info *ret_info)
{
        int64_t length = raw_file_length(image->file.fd);

        ret_info->virtual_bytes = image->file.virtual_bytes;
        ret_info->file_bytes = length < 0 ? 0 : length;
        ret_info->read_only = !(image->open_flags & HVB_OPEN_RDWR);
        ret_info->request_alignment = image->file.alignment;
        g_strlcpy(ret_info->engine, "threads", sizeof(ret_info->engine));
}

/* ---- What raw files cannot do ------------------------------------------------------------ */

static void refuse(struct hvb_image *image, struct hvb_request *base, const char *what,
                   struct hvb_error *err)
{
        raw_request_start_finished(raw_request_begin(image, base, RAW_NOTHING),
                       error_set(err, -ENOTSUP, "raw files have no %s", what));
}

static void raw_check(struct hvb_image *image, struct hvb_request *request, uint32_t flags,
                      struct hvb_check_result *ret_result, struct hvb_error *err)
{
        (void) flags;
        (void) ret_result;
        refuse(image, request, "consistency checks", err);
}

static void raw_snapshot_create(struct hvb_image *image, struct hvb_request *request,
                                struct hvb_snapshot_info *info, uint32_t flags,
                                struct hvb_error *err)
{
        (void) info;
        (void) flags;
        refuse(image, request, "snapshots", err);
}

/* goto, delete and load_tmp. */
static void raw_snapshot_use(struct hvb_image *image, struct hvb_request *request, const char *id,
                             const char *name, struct hvb_error *err)
{
        (void) id;
        (void) name;
        refuse(image, request, "snapshots", err);
}

static unsigned raw_snapshot_list(struct hvb_image *image, unsigned first,
                                  struct hvb_snapshot_info *infos, unsigned capacity)
{
        (void) image;
        (void) first;
        (void) infos;
        (void) capacity;
        return 0;
}

static void raw_vmstate(struct hvb_image *image, struct hvb_request *request, uint64_t offset,
                        const struct iovec *iov, unsigned iov_count)
{
        (void) offset;
        (void) iov;
        (void) iov_count;
        refuse(image, request, "VM state", NULL);
}

const struct hvb_driver *raw_driver(void)
{
        static const char *const no_options[] = { NULL };
        static const struct hvb_driver driver = {
                .struct_bytes = sizeof(driver),
                .abi_version = HVB_ABI_VERSION,
                .format_name = "raw",
                .version_text = "built in",
                .request_bytes = sizeof(struct raw_request),
                .open_options = no_options,
                .probe = raw_probe,
                .open = raw_open,
                .create = raw_create,
                .close = raw_close,
                .release = raw_release,
                .queue = raw_queue,
                .queue_fd = raw_queue_fd,
                .poll = raw_queue_poll,
                .preadv = raw_preadv,
                .pwritev = raw_pwritev,
                .pwrite_zeroes = raw_pwrite_zeroes,
                .pdiscard = raw_pdiscard,
                .flush = raw_flush,
                .block_status = raw_block_status,
                .drain = raw_queue_drain,
                .cancel = raw_queue_cancel,
                .retry = raw_queue_retry,
                .map_mem_region = raw_mem_region,
                .unmap_mem_region = raw_mem_region,
                .get_info = raw_get_info,
                .truncate = raw_truncate,
                .check = raw_check,
                .snapshot_create = raw_snapshot_create,
                .snapshot_goto = raw_snapshot_use,
                .snapshot_delete = raw_snapshot_use,
                .snapshot_list = raw_snapshot_list,
                .snapshot_load_tmp = raw_snapshot_use,
                .save_vmstate = raw_vmstate,
                .load_vmstate = raw_vmstate,
                .detach = raw_detach,
                .attach = raw_attach,
        };

        return &driver;
}
