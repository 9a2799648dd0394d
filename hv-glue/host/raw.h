/*
 * raw.h - raw files behind the same ABI as the plugins.
 *
 * A driver table like any other, built in: convert, compare and hypervisors then
 * know one interface only.  Its requests run on a few threads; its queue_fd is an
 * eventfd.  Options: none.  Snapshots, VM state and check are -ENOTSUP.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_RAW_H
#define HOST_RAW_H

#include "hv-block.h"

const struct hvb_driver *raw_driver(void);

#endif
