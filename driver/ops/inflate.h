/*
 * inflate.h - decoding and encoding of one compressed cluster.
 *
 * Pure functions of their buffers: any thread, and meant for workers.
 * Source: format section "Compressed Clusters Descriptor" and the header's
 * compression type.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_INFLATE_H
#define OPS_INFLATE_H

#include <stddef.h>
#include <stdint.h>

#include "hv-block.h"

/*
 * Fills out with exactly out_bytes.  What follows the stream in `in` is ignored: an entry
 * counts whole sectors.  -EIO: not a stream, or one of fewer bytes.  -ENOTSUP: built without the
 * method.  Uses little memory beyond the two buffers, whatever the stream says.
 */
int inflate_cluster(enum hvb_compression method, const uint8_t *in, size_t in_bytes,
                    uint8_t *out, size_t out_bytes);

/* -ENOSPC: does not fit into out.  -ENOTSUP as above. */
int deflate_cluster(enum hvb_compression method, const uint8_t *in, size_t in_bytes,
                    uint8_t *out, size_t out_bytes, size_t *ret_bytes);

#endif
