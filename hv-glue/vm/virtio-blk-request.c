/*
 * virtio-blk-request.c - one request of the guest: its parts, and what it asks for.
 *
 * The parts lie anywhere in the chain's buffers: nothing says that the header is a
 * buffer of its own.  Header and ranges are copied out before they are judged.
 *
 * SPDX-License-Identifier: MIT
 */
#include "vm/virtio-blk-request.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

/* ---- Taking apart -------------------------------------------------------------------- */

/* Moves the first `bytes` of iov, all of which must be there, to `to`.  Returns how many
 * elements are used up. */
static unsigned iov_take(struct iovec *iov, void *to, size_t bytes)
{
        unsigned used = 0;

        while (bytes > 0) {
                size_t part = MIN(bytes, iov[used].iov_len);

                memcpy(to, iov[used].iov_base, part);
                to = (uint8_t *) to + part;
                bytes -= part;
                iov[used].iov_base = (uint8_t *) iov[used].iov_base + part;
                iov[used].iov_len -= part;
                if (iov[used].iov_len == 0)
                        used++;
        }
        return used;
}

/* The last writable byte is the status; what lies before is data. */
static int take_status(struct blk_request *r, unsigned *ret_in_count)
{
        struct virtq_chain *chain = &r->chain;
        struct iovec *last;

        if (chain->in_count == 0)
                return -EINVAL;
        last = &chain->iov[chain->out_count + chain->in_count - 1];
        last->iov_len--;
        r->status = (uint8_t *) last->iov_base + last->iov_len;
        *ret_in_count = chain->in_count - (last->iov_len == 0);
        return 0;
}

/* Is [sector, sector + bytes) on the disk, and whole sectors? */
static bool is_on_disk(const struct blk_limits *limits, uint64_t sector, uint64_t bytes)
{
        uint64_t sectors = bytes / SECTOR_BYTES;

        return bytes > 0 && bytes % SECTOR_BYTES == 0 && sectors <= limits->capacity_sectors
               && sector <= limits->capacity_sectors - sectors;
}

static uint8_t judge_ranges(struct blk_request *r, const struct blk_limits *limits)
{
        const size_t range_bytes = sizeof(r->ranges[0]);
        uint32_t allowed_flags = r->type == VIRTIO_BLK_T_WRITE_ZEROES
                ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;

        if (limits->read_only)
                return VIRTIO_BLK_S_IOERR;
        if (r->type == VIRTIO_BLK_T_DISCARD && !limits->discard)
                return VIRTIO_BLK_S_UNSUPP;
        if (r->data_bytes == 0 || r->data_bytes % range_bytes != 0
            || r->data_bytes / range_bytes > BLK_RANGES_MAX)
                return VIRTIO_BLK_S_IOERR;
        r->range_count = r->data_bytes / range_bytes;
        iov_take(r->data, r->ranges, r->data_bytes);
        for (unsigned i = 0; i < r->range_count; i++) {
                struct virtio_blk_discard_write_zeroes *range = &r->ranges[i];

                range->sector = GUINT64_FROM_LE(range->sector);
                range->num_sectors = GUINT32_FROM_LE(range->num_sectors);
                range->flags = GUINT32_FROM_LE(range->flags);
                if (range->flags & ~allowed_flags)
                        return VIRTIO_BLK_S_UNSUPP;
                if (range->num_sectors > BLK_RANGE_SECTORS_MAX
                    || !is_on_disk(limits, range->sector,
                                   (uint64_t) range->num_sectors * SECTOR_BYTES))
                        return VIRTIO_BLK_S_IOERR;
        }
        return VIRTIO_BLK_S_OK;
}

/* At most 20 bytes, padded with NUL; without one at the end if it is 20 long. */
static uint8_t answer_id(struct blk_request *r, const char *serial)
{
        char id[VIRTIO_BLK_ID_BYTES] = { 0 };
        size_t from = 0;

        memcpy(id, serial, strnlen(serial, sizeof(id)));
        r->data_bytes = MIN(r->data_bytes, sizeof(id));
        for (unsigned i = 0; i < r->data_count && from < sizeof(id); i++) {
                size_t part = MIN(r->data[i].iov_len, sizeof(id) - from);

                memcpy(r->data[i].iov_base, id + from, part);
                from += part;
        }
        return VIRTIO_BLK_S_OK;
}

/* Buffers may overlap, so that a chain can name more bytes than there is RAM. */
static bool is_transfer(const struct blk_request *r, const struct blk_limits *limits)
{
        return r->data_bytes <= BLK_DATA_BYTES_MAX && is_on_disk(limits, r->sector, r->data_bytes);
}

static uint8_t judge(struct blk_request *r, const struct blk_limits *limits, const char *serial)
{
        switch (r->type) {
        case VIRTIO_BLK_T_IN:
                return is_transfer(r, limits) ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
        case VIRTIO_BLK_T_OUT:
                return !limits->read_only && is_transfer(r, limits) ? VIRTIO_BLK_S_OK
                        : VIRTIO_BLK_S_IOERR;
        case VIRTIO_BLK_T_FLUSH:
                return VIRTIO_BLK_S_OK;
        case VIRTIO_BLK_T_GET_ID:
                return answer_id(r, serial);
        case VIRTIO_BLK_T_DISCARD:
        case VIRTIO_BLK_T_WRITE_ZEROES:
                return judge_ranges(r, limits);
        default:
                return VIRTIO_BLK_S_UNSUPP;
        }
}

int blk_request_parse(struct blk_request *r, const struct blk_limits *limits,
                      const char *serial, uint8_t *ret_status)
{
        struct virtq_chain *chain = &r->chain;
        struct virtio_blk_outhdr header;
        unsigned in_count;
        unsigned used;
        int ret;

        ret = take_status(r, &in_count);
        if (ret < 0)
                return ret;
        r->range_count = r->range_done = 0;
        r->data_bytes = r->data_count = 0;
        r->type = UINT32_MAX;
        if (chain->out_bytes < sizeof(header)) {
                *ret_status = VIRTIO_BLK_S_IOERR;
                return 0;
        }
        used = iov_take(chain->iov, &header, sizeof(header));
        r->type = GUINT32_FROM_LE(header.type);
        r->sector = GUINT64_FROM_LE(header.sector);
        if (r->type == VIRTIO_BLK_T_IN || r->type == VIRTIO_BLK_T_GET_ID) {
                r->data = chain->iov + chain->out_count;
                r->data_count = in_count;
                r->data_bytes = chain->in_bytes - 1;
        } else {
                r->data = chain->iov + used;
                r->data_count = chain->out_count - used;
                r->data_bytes = chain->out_bytes - sizeof(header);
        }
        *ret_status = judge(r, limits, serial);
        return 0;
}

/* ---- Doing --------------------------------------------------------------------------- */

bool blk_request_is_done(const struct blk_request *r)
{
        return r->type == VIRTIO_BLK_T_GET_ID;
}

static void start_range(struct blk_request *r, uint32_t flags)
{
        const struct virtio_blk_discard_write_zeroes *range = &r->ranges[r->range_done++];
        uint64_t begin = range->sector * SECTOR_BYTES;
        uint64_t bytes = (uint64_t) range->num_sectors * SECTOR_BYTES;

        if (r->type == VIRTIO_BLK_T_DISCARD)
                drive_op_pdiscard(r->op, begin, bytes);
        else
                drive_op_pwrite_zeroes(r->op, begin, bytes,
                                       flags | (range->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
                                                ? HVB_REQ_MAY_UNMAP : 0));
}

void blk_request_start(struct blk_request *r, const struct blk_limits *limits)
{
        uint32_t flags = limits->writeback ? 0 : HVB_REQ_FUA;
        uint64_t begin = r->sector * SECTOR_BYTES;

        switch (r->type) {
        case VIRTIO_BLK_T_IN:
                drive_op_preadv(r->op, begin, r->data, r->data_count, 0);
                break;
        case VIRTIO_BLK_T_OUT:
                drive_op_pwritev(r->op, begin, r->data, r->data_count, flags);
                break;
        case VIRTIO_BLK_T_FLUSH:
                drive_op_flush(r->op);
                break;
        default:
                start_range(r, flags);
                break;
        }
}

uint32_t blk_request_written_bytes(const struct blk_request *r, uint8_t status)
{
        bool fills = r->type == VIRTIO_BLK_T_IN || r->type == VIRTIO_BLK_T_GET_ID;

        return 1 + (fills && status == VIRTIO_BLK_S_OK ? (uint32_t) r->data_bytes : 0);
}
