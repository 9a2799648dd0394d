/*
 * driver.c - the door: the vtable and the one exported symbol.
 *
 * Members judge what the host passed, fill in a request, and start it; what
 * then happens is in request.c, and what it means in ops/.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <string.h>

#include "disk/error.h"
#include "door.h"

/* ---- data members ---- */

bool iov_length(const struct iovec *iov, unsigned iov_count, uint64_t *ret)
{
        uint64_t sum = 0;
        unsigned i;

        for (i = 0; i < iov_count; i++)
                if (!u64_add(sum, iov[i].iov_len, &sum))
                        return false;
        *ret = sum;
        return true;
}

/* 0, or why a request for this range of the disk cannot be served. */
static int judge_range(const struct image *img, const struct operation *op, uint64_t offset,
                       uint64_t length)
{
        uint64_t end;

        if (img->state == IMAGE_INACTIVE)
                return -EINPROGRESS;
        if (img->state != IMAGE_LIVE && img->state != IMAGE_POISONED)
                return -ENOMEDIUM;
        if (op->is_write && image_check_writable(img) < 0)
                return image_check_writable(img);
        if (!u64_add(offset, length, &end) || end > image_size(img))
                return -EIO;
        if (img->file.alignment > 1 && ((offset | length) & (img->file.alignment - 1)) &&
            (op == &op_read || op == &op_write))
                return -EINVAL;
        return 0;
}

/* Of nothing: saving no VM state gives up what was saved. */
static bool is_noop(const struct operation *op, uint64_t length, uint32_t flags)
{
        return length == 0 && !(flags & HVB_REQ_FUA) && op != &op_save_vmstate;
}

static void data_request(struct hvb_queue *queue, struct hvb_request *request,
                         const struct operation *op, uint64_t offset, uint64_t length,
                         uint32_t flags)
{
        struct request *r = request_of(request);
        struct image *img = queue->image->top;
        int ret = op == &op_save_vmstate || op == &op_load_vmstate
                ? 0 : judge_range(img, op, offset, length);

        r->offset = offset;
        r->length = length;
        r->flags = flags;
        if (ret < 0)
                request_finish_later(r, ret);
        else if (is_noop(op, length, flags))
                request_finish_later(r, 0);
        else
                request_start(r);
}

static void iov_request(struct hvb_queue *queue, struct hvb_request *request,
                        const struct operation *op, uint64_t offset, const struct iovec *iov,
                        unsigned iov_count, uint32_t flags)
{
        struct request *r = request_begin(queue->image, request, op);
        uint64_t length;

        r->iov = iov;
        r->iov_count = iov_count;
        if (iov_length(iov, iov_count, &length))
                data_request(queue, request, op, offset, length, flags);
        else
                request_finish_later(r, -EINVAL);
}

static void driver_preadv(struct hvb_queue *queue, struct hvb_request *request, uint64_t offset,
                          const struct iovec *iov, unsigned iov_count, uint32_t flags)
{
        iov_request(queue, request, &op_read, offset, iov, iov_count, flags);
}

static void driver_pwritev(struct hvb_queue *queue, struct hvb_request *request, uint64_t offset,
                           const struct iovec *iov, unsigned iov_count, uint32_t flags)
{
        iov_request(queue, request, &op_write, offset, iov, iov_count, flags);
}

static void range_request(struct hvb_queue *queue, struct hvb_request *request,
                          const struct operation *op, uint64_t offset, uint64_t length,
                          uint32_t flags)
{
        struct request *r = request_begin(queue->image, request, op);

        r->iov = NULL;
        data_request(queue, request, op, offset, length, flags);
}

static void driver_pwrite_zeroes(struct hvb_queue *queue, struct hvb_request *request,
                                 uint64_t offset, uint64_t length, uint32_t flags)
{
        range_request(queue, request, &op_zero, offset, length, flags);
}

static void driver_pdiscard(struct hvb_queue *queue, struct hvb_request *request,
                            uint64_t offset, uint64_t length)
{
        range_request(queue, request, &op_discard, offset, length, 0);
}

static void driver_flush(struct hvb_queue *queue, struct hvb_request *request)
{
        struct request *r = request_begin(queue->image, request, &op_flush);
        struct image *img = queue->image->top;

        r->iov = NULL;
        r->offset = 0;
        r->length = 0;
        if (img->state == IMAGE_INACTIVE)
                request_finish_later(r, -EINPROGRESS);
        else
                request_start_task(r);
}

static void driver_block_status(struct hvb_queue *queue, struct hvb_request *request,
                                uint64_t offset, uint64_t length,
                                struct hvb_block_status *ret_status)
{
        struct request *r = request_begin(queue->image, request, &op_status);
        const struct image *img = queue->image->top;

        r->iov = NULL;
        r->out = ret_status;
        ret_status->flags = 0;
        ret_status->length_bytes = 0;           /* at the end */
        data_request(queue, request, &op_status, offset,
                     u64_min(length, image_size(img) - u64_min(offset, image_size(img))), 0);
}

static void driver_drain(struct hvb_queue *queue, struct hvb_request *request)
{
        struct request *r = request_begin(queue->image, request, &op_drain);

        if (queue->image->requests.head == &r->link)
                request_finish_later(r, 0);
}

static void driver_cancel(struct hvb_queue *queue, struct hvb_request *request)
{
        struct request *r = request_of(request);

        (void)queue;
        if (!r->op)
                return;
        if (r->parked)
                request_unpark(r, true);
        else if (r->has_task)
                task_cancel(&r->task);
}

static void driver_retry(struct hvb_image *image)
{
        guint n = image->parked.length;

        while (n-- > 0)
                request_unpark(image->parked.head->data, false);
}

static void driver_save_vmstate(struct hvb_image *image, struct hvb_request *request,
                                uint64_t offset, const struct iovec *iov, unsigned iov_count)
{
        iov_request(&image->queue, request, &op_save_vmstate, offset, iov, iov_count, 0);
}

static void driver_load_vmstate(struct hvb_image *image, struct hvb_request *request,
                                uint64_t offset, const struct iovec *iov, unsigned iov_count)
{
        iov_request(&image->queue, request, &op_load_vmstate, offset, iov, iov_count, 0);
}

/* ---- opening and leaving ---- */

static void log_to_host(const struct hvb_host *host, const char *text)
{
        if (host && host->log)
                host->log(host->opaque, HVB_LOG_WARNING, text);
}

static void image_destroy(struct hvb_image *image)
{
        snapshots_release(image);
        image_free(image->top);
        loop_clear(&image->loop);
        g_free(image);
}

/* An image with its loop, engine and file, nothing read yet. */
static int image_make(const struct hvb_open_args *args, struct hvb_image **ret,
                      struct hvb_error *err)
{
        struct hvb_image *image = g_try_new0(struct hvb_image, 1);
        struct engine *engine;
        char why[256];
        int code;

        if (!image)
                return error_set(err, -ENOMEM, "Not enough memory to open '%s'", args->name);
        code = open_options_parse(&image->options, args->options, err);
        if (code == 0)
                code = engine_new(image->options.engine,
                                  args->queue_entries ? args->queue_entries : 256,
                                  image->options.restricted, &engine, why, sizeof(why));
        if (code < 0) {
                g_free(image);
                return error_set(err, code, "Could not start I/O: %s", g_strerror(-code));
        }
        if (why[0])
                log_to_host(args->host, why);
        image->queue.image = image;
        loop_init(&image->loop, engine, false);
        image->top = image_new(&image->loop, args->host, args->name, args->flags,
                               &image->options);
        code = image->top ? image_open_file(image->top, args->fd, err)
                          : error_set(err, -ENOMEM, "Not enough memory to open '%s'", args->name);
        if (code < 0) {
                image_destroy(image);
                return code;
        }
        *ret = image;
        return 0;
}

static int judge_call(uint32_t args_bytes, size_t least, const struct hvb_request *request,
                      struct hvb_error *err)
{
        if (args_bytes < least)
                return error_set(err, -EINVAL, "The arguments have %u bytes, at least %zu are "
                                 "needed", args_bytes, least);
        if (request->struct_bytes < sizeof(*request) || !request->complete)
                return error_set(err, -EINVAL, "The request has no struct_bytes or no complete()");
        return 0;
}

static int driver_open(const struct hvb_open_args *args, struct hvb_request *request,
                       struct hvb_image **ret_image, struct hvb_error *err)
{
        struct hvb_image *image;
        struct request *r;
        int ret;

        ret = judge_call(args->struct_bytes, sizeof(*args), request, err);
        if (ret == 0)
                ret = image_make(args, &image, err);
        if (ret < 0)
                return ret;
        r = request_begin(image, request, &op_open);
        r->err = err;
        request_start_task(r);
        *ret_image = image;
        return 0;
}

static int driver_create(const struct hvb_create_args *args, struct hvb_request *request,
                         struct hvb_image **ret_image, struct hvb_error *err)
{
        const struct hvb_open_args open_args = {
                .struct_bytes = sizeof(open_args),
                .flags = HVB_OPEN_RDWR | HVB_OPEN_NO_BACKING,
                .fd = args->fd,
                .queue_entries = args->queue_entries,
                .name = args->name,
                .host = args->host,
                .options = args->options,
        };
        struct hvb_image *image;
        struct request *r;
        int ret;

        ret = judge_call(args->struct_bytes, sizeof(*args), request, err);
        if (ret == 0)
                ret = image_make(&open_args, &image, err);
        if (ret < 0)
                return ret;
        r = request_begin(image, request, &op_create);
        r->err = err;
        r->create_args = args;
        request_start_task(r);
        *ret_image = image;
        return 0;
}

static struct request *control(struct hvb_image *image, struct hvb_request *request,
                               const struct operation *op, struct hvb_error *err)
{
        struct request *r = request_begin(image, request, op);

        r->err = err;
        return r;
}

static void driver_close(struct hvb_image *image, struct hvb_request *request,
                         struct hvb_error *err)
{
        request_start_leaving(control(image, request, &op_close, err));
}

static void driver_release(struct hvb_image *image)
{
        g_assert(image->requests.length == 0 && image->parked.length == 0);
        image_destroy(image);
}

static int driver_detach(struct hvb_image *image)
{
        struct engine *engine = image->loop.engine;

        if (image->requests.length > 0 || image->loop.tasks.length > 0 ||
            image->loop.io_count > 0)
                return -EBUSY;
        return engine->ops->detach(engine);
}

static int driver_attach(struct hvb_image *image, struct hvb_error *err)
{
        struct engine *engine = image->loop.engine;
        int ret = engine->ops->attach(engine);

        return ret < 0 ? error_set(err, ret, "Could not start I/O on this thread: %s",
                                   g_strerror(-ret)) : 0;
}

static void driver_inactivate(struct hvb_image *image, struct hvb_request *request,
                              struct hvb_error *err)
{
        request_start_leaving(control(image, request, &op_inactivate, err));
}

static void driver_activate(struct hvb_image *image, struct hvb_request *request,
                            struct hvb_error *err)
{
        request_start_activating(control(image, request, &op_activate, err));
}

/* ---- the queue ---- */

static struct hvb_queue *driver_queue(struct hvb_image *image, unsigned index)
{
        return index == 0 ? &image->queue : NULL;
}

static int driver_queue_fd(struct hvb_queue *queue)
{
        return loop_fd(&queue->image->loop);
}

static int driver_poll(struct hvb_queue *queue, int timeout_ms)
{
        struct hvb_image *image = queue->image;
        int ret;

        image->completed = 0;
        ret = loop_poll(&image->loop, timeout_ms);
        return ret < 0 ? ret : image->completed;
}

static int driver_map(struct hvb_image *image, void *address, size_t length_bytes)
{
        struct engine *engine = image->loop.engine;

        return engine->ops->map ? engine->ops->map(engine, address, length_bytes) : 0;
}

static int driver_unmap(struct hvb_image *image, void *address, size_t length_bytes)
{
        struct engine *engine = image->loop.engine;

        return engine->ops->unmap ? engine->ops->unmap(engine, address, length_bytes) : 0;
}

/* ---- control members ---- */

static void describe_features(const struct image *img, struct hvb_image_info *info)
{
        const struct header *h = &img->header;

        info->version = h->version;
        info->virtual_bytes = image_size(img);
        info->cluster_bytes = h->geometry.cluster_bytes;
        info->vm_state_offset = image_vmstate_offset(img);
        info->incompatible_features = h->incompatible;
        info->compatible_features = h->compatible;
        info->autoclear_features = h->autoclear;
        info->refcount_bits = 1u << h->geometry.refcount_order;
        info->compression = h->compression;
        info->lazy_refcounts = (h->compatible & COMPAT_LAZY_REFCOUNTS) != 0;
        info->dirty = (h->incompatible & INCOMPAT_DIRTY) != 0;
        info->corrupt = (h->incompatible & INCOMPAT_CORRUPT) != 0;
        info->snapshot_count = h->snapshot_count;
        if (h->backing_name)
                g_strlcpy(info->backing_name, h->backing_name, sizeof(info->backing_name));
        if (h->backing_format)
                g_strlcpy(info->backing_format, h->backing_format, sizeof(info->backing_format));
}

static void driver_get_info(struct hvb_image *image, struct hvb_image_info *ret_info)
{
        struct hvb_image_info info = { .struct_bytes = sizeof(info) };
        struct image *img = image->top;
        const struct image *below;
        int64_t length = img->state == IMAGE_CLOSED ? 0 : io_file_length(&img->file);
        size_t bytes = u64_min(ret_info->struct_bytes, sizeof(info));

        describe_features(img, &info);
        info.file_bytes = length < 0 ? 0 : (uint64_t)length;
        info.poisoned = img->state == IMAGE_POISONED;
        info.read_only = !img->writable;
        info.request_alignment = img->file.alignment;
        for (below = img->backing; below; below = below->backing)
                info.backing_depth++;
        info.cache_bytes = slices_memory(&img->l2) + slices_memory(&img->refs.cache);
        info.cache_limit_bytes = img->l2_cache_limit + img->refs_cache_limit;
        g_strlcpy(info.engine, image->loop.engine->ops->name, sizeof(info.engine));
        info.struct_bytes = ret_info->struct_bytes;
        memcpy(ret_info, &info, bytes);
}

static void driver_truncate(struct hvb_image *image, struct hvb_request *request,
                            uint64_t new_bytes, enum hvb_preallocation preallocation,
                            struct hvb_error *err)
{
        struct request *r = control(image, request, &op_truncate, err);

        r->length = new_bytes;
        r->flags = preallocation;
        request_start_task(r);
}

static void driver_check(struct hvb_image *image, struct hvb_request *request, uint32_t flags,
                         struct hvb_check_result *ret_result, struct hvb_error *err)
{
        struct request *r = control(image, request, &op_check, err);

        r->flags = flags;
        r->out = ret_result;
        request_start_task(r);
}

static void driver_snapshot_create(struct hvb_image *image, struct hvb_request *request,
                                   struct hvb_snapshot_info *info, uint32_t flags,
                                   struct hvb_error *err)
{
        struct request *r = control(image, request, &op_snapshot_create, err);

        r->flags = flags;
        r->out = info;
        request_start_task(r);
}

static void named(struct hvb_image *image, struct hvb_request *request,
                  const struct operation *op, const char *id, const char *name,
                  struct hvb_error *err)
{
        struct request *r = control(image, request, op, err);

        r->id = id;
        r->name = name;
        request_start_task(r);
}

static void driver_snapshot_goto(struct hvb_image *image, struct hvb_request *request,
                                 const char *id, const char *name, struct hvb_error *err)
{
        named(image, request, &op_snapshot_goto, id, name, err);
}

static void driver_snapshot_delete(struct hvb_image *image, struct hvb_request *request,
                                   const char *id, const char *name, struct hvb_error *err)
{
        named(image, request, &op_snapshot_delete, id, name, err);
}

static void driver_snapshot_load_tmp(struct hvb_image *image, struct hvb_request *request,
                                     const char *id, const char *name, struct hvb_error *err)
{
        named(image, request, &op_snapshot_load_tmp, id, name, err);
}

static void driver_snapshot_load_vmstate(struct hvb_image *image, struct hvb_request *request,
                                         const char *id, const char *name, struct hvb_error *err)
{
        named(image, request, &op_snapshot_load_vmstate, id, name, err);
}

static unsigned driver_snapshot_list(struct hvb_image *image, unsigned first,
                                     struct hvb_snapshot_info *infos, unsigned capacity)
{
        return snapshot_list(image->top, first, infos, capacity);
}

static void driver_dump_operations(struct hvb_image *image,
                                   void (*line)(void *opaque, const char *text), void *opaque)
{
        loop_dump(&image->loop, line, opaque);
}

/* ---- the symbol ---- */

static int driver_probe(const void *head, size_t head_bytes)
{
        const uint8_t *bytes = head;

        if (head_bytes < HEADER_V2_BYTES || be32_load(bytes) != QCOW_MAGIC)
                return 0;
        return be32_load(bytes + 4) >= 2 ? 100 : 0;
}

static const struct hvb_driver driver = {
        .struct_bytes = sizeof(driver),
        .abi_version = HVB_ABI_VERSION,
        .format_name = "qcow2",
        .version_text = PLUGIN_VERSION,
        .request_bytes = sizeof(struct request),
        .open_options = open_option_texts,
        .probe = driver_probe,
        .open = driver_open,
        .create = driver_create,
        .close = driver_close,
        .release = driver_release,
        .queue = driver_queue,
        .queue_fd = driver_queue_fd,
        .poll = driver_poll,
        .preadv = driver_preadv,
        .pwritev = driver_pwritev,
        .pwrite_zeroes = driver_pwrite_zeroes,
        .pdiscard = driver_pdiscard,
        .flush = driver_flush,
        .block_status = driver_block_status,
        .drain = driver_drain,
        .cancel = driver_cancel,
        .retry = driver_retry,
        .map_mem_region = driver_map,
        .unmap_mem_region = driver_unmap,
        .get_info = driver_get_info,
        .truncate = driver_truncate,
        .check = driver_check,
        .snapshot_create = driver_snapshot_create,
        .snapshot_goto = driver_snapshot_goto,
        .snapshot_delete = driver_snapshot_delete,
        .snapshot_list = driver_snapshot_list,
        .snapshot_load_tmp = driver_snapshot_load_tmp,
        .save_vmstate = driver_save_vmstate,
        .load_vmstate = driver_load_vmstate,
        .detach = driver_detach,
        .attach = driver_attach,
        .inactivate = driver_inactivate,
        .activate = driver_activate,
        .dump_operations = driver_dump_operations,
        .snapshot_load_vmstate = driver_snapshot_load_vmstate,
        .snapshot_open = driver_snapshot_open,
        .snapshot_close = driver_snapshot_close,
        .snapshot_preadv = driver_snapshot_preadv,
        .snapshot_block_status = driver_snapshot_block_status,
        .snapshot_prepare = driver_snapshot_prepare,
        .snapshot_switch = driver_snapshot_switch,
        .snapshot_publish = driver_snapshot_publish,
        .snapshot_abort = driver_snapshot_abort,
        .snapshot_goto_prepare = driver_snapshot_goto_prepare,
        .share_vmstate = driver_share_vmstate,
        .snapshot_note = driver_snapshot_note,
};

__attribute__((visibility("default")))
const struct hvb_driver *hvb_driver_entry(uint32_t abi_version);

const struct hvb_driver *hvb_driver_entry(uint32_t abi_version)
{
        return abi_version == HVB_ABI_VERSION ? &driver : NULL;
}
