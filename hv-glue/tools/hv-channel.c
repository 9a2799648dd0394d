/*
 * hv-channel.c - opening where a serial line leads.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tools/hv-channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/error.h"
#include "monitor/server.h"
#include "tools/hv-terminal.h"

/* The client's socket, once there is one. */
static int await_client(const char *path)
{
        int fd = server_listen(path);
        int client;

        if (fd < 0)
                return fd;
        fprintf(stderr, "hv: waiting for a client at '%s'\n", path);
        client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client < 0)
                client = -errno;
        unlink(path);
        close(fd);
        return client;
}

static int connect_client(const char *path)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;
        int ret;

        if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path))
            >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        ret = connect(fd, (const struct sockaddr *) &address, sizeof(address)) < 0 ? -errno : 0;
        if (ret < 0)
                close(fd);
        else
                fcntl(fd, F_SETFL, O_NONBLOCK);
        return ret < 0 ? ret : fd;
}

static int open_socket(const struct hv_channel *channel, int *ret_fd, struct hvb_error *err)
{
        int fd = channel->kind == CHANNEL_UNIX_SERVER ? await_client(channel->path)
                : connect_client(channel->path);

        if (fd < 0)
                return error_set(err, fd, "'%s': %s", channel->path, g_strerror(-fd));
        *ret_fd = fd;
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
