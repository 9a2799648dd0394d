/*
 * hv-channel.h - opening where a serial line leads.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TOOLS_HV_CHANNEL_H
#define TOOLS_HV_CHANNEL_H

#include "tools/hv-options.h"

/* Descriptors for both directions, -1 where there is none; may be the same one.  A server
 * waits for its client, which only a signal's default action ends.  0 or -errno with err
 * filled. */
int channel_open(const struct hv_channel *channel, int *ret_in_fd, int *ret_out_fd,
                 struct hvb_error *err);

#endif
