/*
 * io-file.c - what a file is: its type, its length, what O_DIRECT asks of us.
 *
 * Only regular files and block devices can hold an image.  The host opened the
 * fd and vouches for it; we look, and refuse what would fail obscurely later.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "async/io.h"

enum {
        ALIGNMENT_GUESS = 4096,         /* good for all devices we know of */
        ALIGNMENT_MAX = 4096,           /* what io_buffer_try_new promises */
};

static uint32_t device_alignment(int fd)
{
        int block_bytes;

        return ioctl(fd, BLKSSZGET, &block_bytes) == 0 ? (uint32_t)block_bytes : ALIGNMENT_GUESS;
}

/* The file system knows, from Linux 6.1 on. */
static uint32_t regular_alignment(int fd)
{
#ifdef STATX_DIOALIGN
        struct statx stx;

        if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
            (stx.stx_mask & STATX_DIOALIGN) != 0 && stx.stx_dio_offset_align > 0)
                return MAX(stx.stx_dio_offset_align, stx.stx_dio_mem_align);
#else
        (void)fd;
#endif
        return ALIGNMENT_GUESS;
}

static int type_error(mode_t mode)
{
        if (S_ISDIR(mode))
                return -EISDIR;
        if (S_ISCHR(mode))
                return -ENOTBLK;
        return -ESPIPE;
}

int io_file_probe(struct io_file *file)
{
        struct stat st;
        int flags;

        if (fstat(file->fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
                return type_error(st.st_mode);
        flags = fcntl(file->fd, F_GETFL);
        if (flags < 0)
                return -errno;

        file->is_block_device = S_ISBLK(st.st_mode);
        file->alignment = 1;
        if ((flags & O_DIRECT) != 0)
                file->alignment = file->is_block_device ? device_alignment(file->fd)
                                                        : regular_alignment(file->fd);
        if (file->alignment > ALIGNMENT_MAX || (file->alignment & (file->alignment - 1)) != 0)
                return -ENOTSUP;
        return 0;
}

int64_t io_file_probe_length(const struct io_file *file)
{
        struct stat st;
        uint64_t length_bytes;

        if (file->is_block_device) {
                if (ioctl(file->fd, BLKGETSIZE64, &length_bytes) < 0)
                        return -errno;
                return (int64_t)length_bytes;
        }
        if (fstat(file->fd, &st) < 0)
                return -errno;
        return st.st_size;
}

int io_file_open(struct io_file *file, struct engine *engine, int fd)
{
        *file = (struct io_file) { .engine = engine, .fd = fd, .slot = -1, .alignment = 1 };
        return engine->ops->file_add(engine, file);
}

void io_file_close(struct io_file *file)
{
        file->engine->ops->file_remove(file->engine, file);
        file->engine = NULL;
}

int64_t io_file_length(struct io_file *file)
{
        return file->engine->ops->file_length(file->engine, file);
}
