/*
 * raw-io.c - the blocking half of the raw driver: one request, done by a worker.
 *
 * SPDX-License-Identifier: MIT
 */
#include "host/raw-io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/error.h"

enum {
        SECTOR_BYTES = 512,
        DIRECT_ALIGNMENT = 4096,        /* when the kernel does not say */
        BOUNCE_BYTES = 1 << 20,
        ZERO_CHUNK_BYTES = 1 << 20,
        IOV_BATCH = 64,                 /* iovecs of one system call */
};

int64_t raw_file_length(int fd)
{
        off_t length = lseek(fd, 0, SEEK_END);

        return length < 0 ? -errno : length;
}

int raw_file_open(struct raw_file *file, int fd)
{
        int flags = fcntl(fd, F_GETFL);
        int64_t length = raw_file_length(fd);
        struct stat st;
        int block;

        if (length < 0)
                return length;
        if (fstat(fd, &st) < 0)
                return -errno;
        file->fd = fd;
        file->is_block_device = S_ISBLK(st.st_mode);
        file->virtual_bytes = (length + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
        file->alignment = 1;
        if (flags & O_DIRECT) {
                file->alignment = DIRECT_ALIGNMENT;
                if (file->is_block_device && ioctl(fd, BLKSSZGET, &block) == 0 && block > 0)
                        file->alignment = block;
        }
        return 0;
}

/* ---- Reading and writing --------------------------------------------------------- */

/* Steps over done bytes; returns the index of the iovec where the rest begins. */
static unsigned iov_advance(const struct iovec *iov, unsigned iov_count, size_t *done)
{
        unsigned i = 0;

        while (i < iov_count && *done >= iov[i].iov_len)
                *done -= iov[i++].iov_len;
        return i;
}

/* The next batch of what is left of iov after done bytes.  Returns its iovec count. */
static unsigned iov_rest(const struct iovec *iov, unsigned iov_count, size_t done,
                         struct iovec *rest)
{
        unsigned first = iov_advance(iov, iov_count, &done);
        unsigned count = MIN(iov_count - first, (unsigned) IOV_BATCH);

        memcpy(rest, iov + first, count * sizeof(*rest));
        if (count > 0) {
                rest[0].iov_base = (char *) rest[0].iov_base + done;
                rest[0].iov_len -= done;
        }
        return count;
}

static void iov_zero_rest(const struct iovec *iov, unsigned iov_count, size_t done)
{
        unsigned i = iov_advance(iov, iov_count, &done);

        for (; i < iov_count; i++, done = 0)
                memset((char *) iov[i].iov_base + done, 0, iov[i].iov_len - done);
}

/* Transfers all of the request; a read past the end of the file gives zeros. */
static int transfer(struct raw_file *file, const struct raw_request *request)
{
        bool is_write = request->kind == RAW_WRITE;
        uint64_t done = 0;

        while (done < request->length) {
                struct iovec rest[IOV_BATCH];
                unsigned count = iov_rest(request->iov, request->iov_count, done, rest);
                off_t offset = request->offset + done;
                ssize_t ret = is_write ? pwritev(file->fd, rest, count, offset)
                                       : preadv(file->fd, rest, count, offset);

                if (ret < 0 && errno == EINTR)
                        continue;
                if (ret < 0)
                        return -errno;
                if (ret == 0 && is_write)
                        return -EIO;
                done += ret;
                /* Part of a block under O_DIRECT: the file ends in it. */
                if (!is_write && (ret == 0 || ret % file->alignment != 0)) {
                        iov_zero_rest(request->iov, request->iov_count, done);
                        return 0;
                }
        }
        return 0;
}

static bool is_aligned(const struct raw_file *file, const struct raw_request *request)
{
        uint64_t mix = request->offset;

        for (unsigned i = 0; i < request->iov_count; i++)
                mix |= (uintptr_t) request->iov[i].iov_base | request->iov[i].iov_len;
        return mix % file->alignment == 0;
}

/* Between the memory of the request and the buffer, the way that it goes. */
static void iov_copy(const struct raw_request *request, uint64_t at, uint8_t *buffer,
                     uint64_t bytes)
{
        size_t done = at;
        unsigned i = iov_advance(request->iov, request->iov_count, &done);

        for (; i < request->iov_count && bytes > 0; i++, done = 0) {
                uint8_t *memory = (uint8_t *) request->iov[i].iov_base + done;
                size_t count = MIN(bytes, request->iov[i].iov_len - done);

                if (request->kind == RAW_WRITE)
                        memcpy(buffer, memory, count);
                else
                        memcpy(memory, buffer, count);
                buffer += count;
                bytes -= count;
        }
}

static int bounce(struct raw_file *file, const struct raw_request *request, uint64_t at,
                  uint8_t *buffer)
{
        uint64_t bytes = MIN(request->length - at, (uint64_t) BOUNCE_BYTES);
        uint64_t padded = (bytes + file->alignment - 1) / file->alignment * file->alignment;
        struct iovec whole = { buffer, padded };
        struct raw_request part = *request;
        int ret;

        part.offset += at;
        part.iov = &whole;
        part.iov_count = 1;
        part.length = padded;
        memset(buffer + bytes, 0, padded - bytes);
        if (request->kind == RAW_WRITE)
                iov_copy(request, at, buffer, bytes);
        ret = transfer(file, &part);
        if (ret == 0 && request->kind == RAW_READ)
                iov_copy(request, at, buffer, bytes);
        return ret;
}

/*
 * With O_DIRECT, memory that is not aligned goes through a buffer that is.  So do the file's last
 * sectors, which may be less than a block; a write that made the file longer is cut off again.
 */
static int transfer_bounced(struct raw_file *file, const struct raw_request *request)
{
        void *buffer;
        int ret = 0;

        if (posix_memalign(&buffer, DIRECT_ALIGNMENT, BOUNCE_BYTES) != 0)
                return -ENOMEM;
        for (uint64_t at = 0; at < request->length && ret == 0; at += BOUNCE_BYTES)
                ret = bounce(file, request, at, buffer);
        if (ret == 0 && request->kind == RAW_WRITE && request->length % file->alignment != 0)
                ret = ftruncate(file->fd, file->virtual_bytes) < 0 ? -errno : 0;
        free(buffer);
        return ret;
}

static int read_or_write(struct raw_file *file, const struct raw_request *request)
{
        bool is_tail = request->offset + request->length == file->virtual_bytes &&
                       !file->is_block_device;

        if (file->alignment == 1 || is_aligned(file, request))
                return transfer(file, request);
        if (request->offset % file->alignment == 0 &&
            (request->length % file->alignment == 0 || is_tail))
                return transfer_bounced(file, request);
        return -EINVAL;
}

/* ---- Zeros ------------------------------------------------------------------------- */

static int write_zeros(struct raw_file *file, uint64_t offset, uint64_t length)
{
        struct iovec iov = { NULL, 0 };
        void *zeros;
        int ret = 0;

        if (posix_memalign(&zeros, DIRECT_ALIGNMENT, ZERO_CHUNK_BYTES) != 0)
                return -ENOMEM;
        memset(zeros, 0, ZERO_CHUNK_BYTES);
        iov.iov_base = zeros;
        while (ret == 0 && length > 0) {
                struct raw_request part = {
                        .kind = RAW_WRITE, .offset = offset, .iov = &iov, .iov_count = 1,
                };

                iov.iov_len = part.length = MIN(length, (uint64_t) ZERO_CHUNK_BYTES);
                ret = read_or_write(file, &part);
                offset += part.length;
                length -= part.length;
        }
        free(zeros);
        return ret;
}

static int allocate_call(struct raw_file *file, int mode, uint64_t offset, uint64_t length)
{
        if (length == 0 || fallocate(file->fd, mode, offset, length) == 0)
                return 0;
        return errno == ENOSYS || errno == ENODEV ? -EOPNOTSUPP : -errno;
}

static int zero_range(struct raw_file *file, const struct raw_request *request)
{
        int ret = -EOPNOTSUPP;

        if (request->flags & HVB_REQ_MAY_UNMAP)
                ret = allocate_call(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    request->offset, request->length);
        if (ret == -EOPNOTSUPP)
                ret = allocate_call(file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                    request->offset, request->length);
        if (ret == -EOPNOTSUPP && request->flags & HVB_REQ_NO_FALLBACK)
                return -ENOTSUP;
        if (ret == -EOPNOTSUPP)
                ret = write_zeros(file, request->offset, request->length);
        return ret;
}

/* A hint: what cannot be discarded stays. */
static int discard_range(struct raw_file *file, const struct raw_request *request)
{
        int ret = allocate_call(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                request->offset, request->length);

        return ret == -EOPNOTSUPP ? 0 : ret;
}

/* ---- Status and length --------------------------------------------------------------- */

/* Data or hole at request->offset, from the file system; all data where it cannot say. */
static int find_status(struct raw_file *file, const struct raw_request *request)
{
        uint64_t end = MIN(request->offset + request->length, file->virtual_bytes);
        struct hvb_block_status *status = request->ret_status;
        bool is_hole = false;
        uint64_t next = end;

        if (!file->is_block_device && request->offset < end) {
                off_t data = lseek(file->fd, request->offset, SEEK_DATA);
                off_t hole;

                if (data < 0 && errno == ENXIO) {               /* no data up to the end */
                        is_hole = true;
                } else if (data > (off_t) request->offset) {
                        is_hole = true;
                        next = data;
                } else if (data >= 0) {
                        hole = lseek(file->fd, request->offset, SEEK_HOLE);
                        if (hole > (off_t) request->offset)
                                next = (uint64_t) hole;
                        /* A last sector that the file ends in counts as data. */
                        next = (next + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
                }
        }
        status->flags = HVB_STATUS_OFFSET_VALID | HVB_STATUS_ALLOCATED
                | (is_hole ? HVB_STATUS_ZERO : HVB_STATUS_DATA);
        status->host_offset = request->offset;
        status->length_bytes = MIN(next, end) - MIN(request->offset, end);
        status->depth = 0;
        return 0;
}

int raw_file_truncate(struct raw_file *file, uint64_t new_bytes, uint32_t preallocation,
                      struct hvb_error *err)
{
        uint64_t old_bytes = file->virtual_bytes;
        uint64_t added = new_bytes > old_bytes ? new_bytes - old_bytes : 0;
        int ret = 0;

        if (preallocation == HVB_PREALLOC_METADATA)
                return error_set(err, -ENOTSUP, "Unsupported preallocation mode 'metadata'");
        if (file->is_block_device) {
                if (added > 0)
                        return error_set(err, -EINVAL, "Cannot grow device files");
                return 0;
        }
        if (ftruncate(file->fd, new_bytes) < 0) {
                ret = -errno;
                return error_set(err, ret, "Could not resize file: %s", g_strerror(-ret));
        }
        file->virtual_bytes = (new_bytes + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
        if (preallocation == HVB_PREALLOC_FALLOC)
                ret = allocate_call(file, 0, old_bytes, added);
        else if (preallocation == HVB_PREALLOC_FULL)
                ret = write_zeros(file, old_bytes, added);
        if (ret < 0) {
                if (ftruncate(file->fd, old_bytes) == 0)
                        file->virtual_bytes = old_bytes;
                return error_set(err, ret, "Could not preallocate: %s", g_strerror(-ret));
        }
        return 0;
}

int raw_request_run(struct raw_file *file, struct raw_request *request)
{
        int ret = 0;

        switch (request->kind) {
        case RAW_READ:
        case RAW_WRITE:
                ret = read_or_write(file, request);
                break;
        case RAW_ZERO:
                ret = zero_range(file, request);
                break;
        case RAW_DISCARD:
                return discard_range(file, request);
        case RAW_STATUS:
                return find_status(file, request);
        case RAW_TRUNCATE:
                return raw_file_truncate(file, request->length, request->flags, request->err);
        case RAW_FLUSH:
                break;
        case RAW_DRAIN:
        case RAW_NOTHING:
                return 0;
        }
        if (ret == 0 && (request->kind == RAW_FLUSH || request->flags & HVB_REQ_FUA))
                ret = fdatasync(file->fd) < 0 ? -errno : 0;
        return ret;
}
