/*
 * inflate.c - one compressed cluster in, one cluster out, and back.
 *
 * Streams come from the image and are hostile.  Invariants:
 *  1. A decoder sees only [in, in + in_bytes) and writes only [out, out + out_bytes).
 *  2. Its own memory does not depend on what the stream declares: deflate has a
 *     window of at most 32 KiB; a zstd frame is decoded in one go straight into out,
 *     which needs no window at all.
 *
 * SPDX-License-Identifier: MIT
 */
#include "ops/inflate.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <zlib.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

enum {
        READ_WINDOW_BITS = -15,         /* raw; reads every smaller window as well */
        WRITE_WINDOW_BITS = -12,        /* raw; what QEMU's decoder allows */
        MEMORY_LEVEL = 9,
};

static int zlib_inflate(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
        z_stream stream = {
                .next_in = (Bytef *)in,
                .avail_in = in_bytes,
                .next_out = out,
                .avail_out = out_bytes,
        };
        int ret = inflateInit2(&stream, READ_WINDOW_BITS);

        if (ret != Z_OK)
                return ret == Z_MEM_ERROR ? -ENOMEM : -EIO;
        ret = inflate(&stream, Z_FINISH);
        inflateEnd(&stream);
        if (ret == Z_MEM_ERROR)
                return -ENOMEM;
        /* BUF_ERROR: out is full before the stream's end mark was reached.  Good enough. */
        if ((ret != Z_STREAM_END && ret != Z_BUF_ERROR) || stream.avail_out != 0)
                return -EIO;
        return 0;
}

static int zlib_deflate(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes,
                        size_t *ret_bytes)
{
        z_stream stream = {
                .next_in = (Bytef *)in,
                .avail_in = in_bytes,
                .next_out = out,
                .avail_out = out_bytes,
        };
        int ret = deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WRITE_WINDOW_BITS,
                               MEMORY_LEVEL, Z_DEFAULT_STRATEGY);

        if (ret != Z_OK)
                return ret == Z_MEM_ERROR ? -ENOMEM : -EIO;
        ret = deflate(&stream, Z_FINISH);
        deflateEnd(&stream);
        if (ret != Z_STREAM_END)
                return -ENOSPC;
        *ret_bytes = out_bytes - stream.avail_out;
        return 0;
}

#ifdef HAVE_ZSTD
static int zstd_inflate(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
        size_t frame_bytes = ZSTD_findFrameCompressedSize(in, in_bytes);
        size_t ret;

        if (ZSTD_isError(frame_bytes))
                return -EIO;
        assert(frame_bytes <= in_bytes);
        ret = ZSTD_decompress(out, out_bytes, in, frame_bytes);
        return ret == out_bytes ? 0 : -EIO;
}

static int zstd_deflate(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes,
                        size_t *ret_bytes)
{
        size_t ret = ZSTD_compress(out, out_bytes, in, in_bytes, ZSTD_CLEVEL_DEFAULT);

        if (ZSTD_isError(ret))
                return -ENOSPC;
        *ret_bytes = ret;
        return 0;
}
#endif

int inflate_cluster(enum hvb_compression method, const uint8_t *in, size_t in_bytes,
                    uint8_t *out, size_t out_bytes)
{
        if (method == HVB_COMPRESSION_ZLIB)
                return zlib_inflate(in, in_bytes, out, out_bytes);
#ifdef HAVE_ZSTD
        if (method == HVB_COMPRESSION_ZSTD)
                return zstd_inflate(in, in_bytes, out, out_bytes);
#endif
        return -ENOTSUP;
}

int deflate_cluster(enum hvb_compression method, const uint8_t *in, size_t in_bytes,
                    uint8_t *out, size_t out_bytes, size_t *ret_bytes)
{
        if (method == HVB_COMPRESSION_ZLIB)
                return zlib_deflate(in, in_bytes, out, out_bytes, ret_bytes);
#ifdef HAVE_ZSTD
        if (method == HVB_COMPRESSION_ZSTD)
                return zstd_deflate(in, in_bytes, out, out_bytes, ret_bytes);
#endif
        return -ENOTSUP;
}
