/*
 * server.c - a unix socket that serves one client at a time.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/server.h"

#include <errno.h>
#include <glib-unix.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/error.h"

struct server {
        char *path;
        int fd;
        guint accepting;                /* source id; 0: a client is being served */
        void (*accepted)(struct server *server, int fd, void *opaque);
        void *opaque;
};

static gboolean accept_client(gint listening_fd, GIOCondition condition, gpointer data)
{
        struct server *server = data;
        int fd = accept4(listening_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        (void) condition;
        if (fd < 0)
                return G_SOURCE_CONTINUE;       /* it has left again, or no descriptor is free */
        server->accepting = 0;
        server->accepted(server, fd, server->opaque);
        return G_SOURCE_REMOVE;
}

void server_next(struct server *server)
{
        g_assert(server->accepting == 0);
        server->accepting = g_unix_fd_add(server->fd, G_IO_IN, accept_client, server);
}

/* A socket where nobody listens any more.  A file of another kind is none: it stays. */
static bool is_dead_socket(const struct sockaddr_un *address)
{
        struct stat st;
        bool dead;
        int fd;

        if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
                return false;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return false;
        dead = connect(fd, (const struct sockaddr *) address, sizeof(*address)) < 0
                && errno == ECONNREFUSED;
        close(fd);
        return dead;
}

static int bind_and_listen(int fd, const char *path)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        const struct sockaddr *any = (const struct sockaddr *) &address;
        int ret;

        if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path))
            >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        /* The file gets the descriptor's mode, from the first moment on. */
        if (fchmod(fd, 0600) < 0)
                return -errno;
        ret = bind(fd, any, sizeof(address)) < 0 ? -errno : 0;
        if (ret == -EADDRINUSE && is_dead_socket(&address) && unlink(path) == 0)
                ret = bind(fd, any, sizeof(address)) < 0 ? -errno : 0;
        if (ret < 0)
                return ret;
        return listen(fd, 1) < 0 ? -errno : 0;
}

int server_listen(const char *path)
{
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int ret = fd < 0 ? -errno : bind_and_listen(fd, path);

        if (ret == 0)
                return fd;
        if (fd >= 0)
                close(fd);
        return ret;
}

int server_new(const char *path, void (*accepted)(struct server *server, int fd, void *opaque),
               void *opaque, struct server **ret_server, struct hvb_error *err)
{
        int fd = server_listen(path);
        struct server *server;

        if (fd < 0)
                return error_set(err, fd, "Failed to listen on '%s': %s", path, g_strerror(-fd));
        g_unix_set_fd_nonblocking(fd, TRUE, NULL);
        server = g_new0(struct server, 1);
        *server = (struct server) {
                .path = g_strdup(path), .fd = fd, .accepted = accepted, .opaque = opaque,
        };
        server_next(server);
        *ret_server = server;
        return 0;
}

void server_free(struct server *server)
{
        if (server->accepting != 0)
                g_source_remove(server->accepting);
        unlink(server->path);
        close(server->fd);
        g_free(server->path);
        g_free(server);
}
