/*
 * hv-channel.c - opening where a serial line leads.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tools/hv-channel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/error.h"
#include "tools/hv-terminal.h"

/* The client's socket.  What stands in the way at the path is not removed. */
static int accept_client(int fd, const struct sockaddr_un *address)
{
        int client;

        if (bind(fd, (const struct sockaddr *) address, sizeof(*address)) < 0 || listen(fd, 1) < 0)
                return -errno;
        client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client < 0)
                client = -errno;
        unlink(address->sun_path);
        return client;
}

static int open_socket(const struct hv_channel *channel, int *ret_fd, struct hvb_error *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;
        int ret;

        if (strlen(channel->path) >= sizeof(address.sun_path))
                return error_set(err, -ENAMETOOLONG, "'%s' is too long for a socket",
                                 channel->path);
        strcpy(address.sun_path, channel->path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return error_set(err, -errno, "socket: %s", g_strerror(errno));
        if (channel->kind == CHANNEL_UNIX_SERVER) {
                ret = accept_client(fd, &address);
                close(fd);
        } else if (connect(fd, (const struct sockaddr *) &address, sizeof(address)) < 0) {
                ret = -errno;
                close(fd);
        } else {
                fcntl(fd, F_SETFL, O_NONBLOCK);
                ret = fd;
        }
        if (ret < 0)
                return error_set(err, ret, "'%s': %s", channel->path, g_strerror(-ret));
        *ret_fd = ret;
        return 0;
}

int channel_open(const struct hv_channel *channel, int *ret_in_fd, int *ret_out_fd,
                 struct hvb_error *err)
{
        int fd = -1;
        int ret;

        switch (channel->kind) {
        case CHANNEL_NONE:
                *ret_in_fd = *ret_out_fd = -1;
                return 0;
        case CHANNEL_STDIO:
                terminal_set_raw(false);
                *ret_in_fd = STDIN_FILENO;
                *ret_out_fd = STDOUT_FILENO;
                return 0;
        case CHANNEL_FILE:
                fd = open(channel->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
                if (fd < 0)
                        return error_set(err, -errno, "'%s': %s", channel->path,
                                         g_strerror(errno));
                *ret_in_fd = -1;
                *ret_out_fd = fd;
                return 0;
        case CHANNEL_UNIX:
        case CHANNEL_UNIX_SERVER:
        default:
                ret = open_socket(channel, &fd, err);
                if (ret == 0)
                        *ret_in_fd = *ret_out_fd = fd;
                return ret;
        }
}
