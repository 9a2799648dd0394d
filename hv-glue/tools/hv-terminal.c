/*
 * hv-terminal.c - the terminal, shared between serial line and monitor.
 *
 * Each side is a socket pair: machine and monitor have one end, we the other.  What they
 * print is taken only when standard output has room, so that a terminal that stands still
 * (Ctrl-s) does not stop the main loop.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tools/hv-terminal.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "host/error.h"

enum { CTRL_A = 1, SIDE_SERIAL = 0, SIDE_MONITOR = 1, SIDES = 2, PIECE_BYTES = 512 };

struct side {
        struct terminal *terminal;
        int fd;                         /* ours */
        int their_fd;
        guint source;                   /* 0: ended, or waits for room */
};

struct terminal {
        struct side sides[SIDES];
        unsigned focus;
        bool escaped;                   /* the last key was Ctrl-a */
        guint in_source;
        guint room_source;
        void (*quit)(void *opaque);
        void *opaque;
};

/* ---- Raw mode ---------------------------------------------------------------------------- */

static struct termios before;

static void restore(void)
{
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

void terminal_set_raw(bool pass_signals)
{
        struct termios raw;

        if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before) < 0)
                return;
        raw = before;
        cfmakeraw(&raw);
        raw.c_oflag |= OPOST;
        if (!pass_signals)
                raw.c_lflag |= ISIG;
        atexit(restore);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

/* ---- Out --------------------------------------------------------------------------------- */

static bool has_room(void)
{
        struct pollfd out = { STDOUT_FILENO, POLLOUT, 0 };

        return poll(&out, 1, 0) > 0;
}

static void watch_sides(struct terminal *t);

static gboolean room_ready(gint fd, GIOCondition condition, gpointer opaque)
{
        struct terminal *t = opaque;

        (void) fd;
        (void) condition;
        t->room_source = 0;
        watch_sides(t);
        return G_SOURCE_REMOVE;
}

/* Copies a piece to standard output.  False: there is none. */
static bool print_piece(struct side *side)
{
        char bytes[PIECE_BYTES];
        ssize_t count = read(side->fd, bytes, sizeof(bytes));

        for (ssize_t done = 0, ret; done < count; done += ret) {
                ret = write(STDOUT_FILENO, bytes + done, count - done);
                if (ret < 0 && errno != EINTR && errno != EAGAIN)
                        break;                  /* nobody looks any more */
                ret = MAX(ret, 0);
        }
        return count > 0;
}

static gboolean side_ready(gint fd, GIOCondition condition, gpointer opaque)
{
        struct side *side = opaque;
        struct terminal *t = side->terminal;

        (void) fd;
        (void) condition;
        if (has_room() && print_piece(side))
                return G_SOURCE_CONTINUE;
        side->source = 0;
        if (!has_room() && t->room_source == 0)
                t->room_source = g_unix_fd_add(STDOUT_FILENO, G_IO_OUT | G_IO_ERR, room_ready, t);
        return G_SOURCE_REMOVE;
}

static void watch_sides(struct terminal *t)
{
        for (unsigned i = 0; i < SIDES; i++)
                if (t->sides[i].source == 0)
                        t->sides[i].source = g_unix_fd_add(t->sides[i].fd, G_IO_IN | G_IO_HUP,
                                                           side_ready, &t->sides[i]);
}

/* ---- In ---------------------------------------------------------------------------------- */

/* What a side does not take in time is lost, as on a real line. */
static void send_key(struct terminal *t, char key)
{
        ssize_t sent = send(t->sides[t->focus].fd, &key, 1, MSG_DONTWAIT | MSG_NOSIGNAL);

        (void) sent;
}

/* In raw mode, but for what the line discipline makes of a newline. */
static void print_help(void)
{
        static const char text[] =
                "\n"
                "Ctrl-a c       switches between the serial line and the monitor\n"
                "Ctrl-a x       ends hv\n"
                "Ctrl-a h       prints this\n"
                "Ctrl-a Ctrl-a  sends a Ctrl-a\n";
        ssize_t written = has_room() ? write(STDOUT_FILENO, text, sizeof(text) - 1) : 0;

        (void) written;
}

static void take_key(struct terminal *t, char key)
{
        if (!t->escaped) {
                t->escaped = key == CTRL_A;
                if (!t->escaped)
                        send_key(t, key);
                return;
        }
        t->escaped = false;
        switch (key) {
        case 'x':
                t->quit(t->opaque);
                break;
        case 'c':
                t->focus = !t->focus;
                break;
        case CTRL_A:
                send_key(t, key);
                break;
        case 'h':
        case '?':
                print_help();
                break;
        default:
                break;
        }
}

static gboolean in_ready(gint fd, GIOCondition condition, gpointer opaque)
{
        struct terminal *t = opaque;
        char keys[PIECE_BYTES];
        ssize_t count = read(fd, keys, sizeof(keys));

        (void) condition;
        if (count < 0 && (errno == EINTR || errno == EAGAIN))
                return G_SOURCE_CONTINUE;
        for (ssize_t i = 0; i < count; i++)
                take_key(t, keys[i]);
        if (count > 0)
                return G_SOURCE_CONTINUE;
        t->in_source = 0;
        return G_SOURCE_REMOVE;
}

/* ---- Life -------------------------------------------------------------------------------- */

int terminal_share(struct terminal_ends *ends, struct terminal **ret_terminal,
                   struct hvb_error *err)
{
        struct terminal *t = g_new0(struct terminal, 1);

        for (unsigned i = 0; i < SIDES; i++)
                t->sides[i] = (struct side) { .terminal = t, .fd = -1, .their_fd = -1 };
        for (unsigned i = 0; i < SIDES; i++) {
                int pair[2];

                if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
                        int ret = error_set(err, -errno, "socketpair: %s", g_strerror(errno));

                        terminal_free(t);
                        return ret;
                }
                t->sides[i].fd = pair[0];
                t->sides[i].their_fd = pair[1];
                g_unix_set_fd_nonblocking(pair[0], TRUE, NULL);
                g_unix_set_fd_nonblocking(pair[1], TRUE, NULL);
        }
        terminal_set_raw(true);
        t->quit = ends->quit;
        t->opaque = ends->opaque;
        ends->serial_fd = t->sides[SIDE_SERIAL].their_fd;
        ends->monitor_fd = t->sides[SIDE_MONITOR].their_fd;
        watch_sides(t);
        t->in_source = g_unix_fd_add(STDIN_FILENO, G_IO_IN | G_IO_HUP, in_ready, t);
        *ret_terminal = t;
        return 0;
}

void terminal_free(struct terminal *t)
{
        if (t == NULL)
                return;
        for (unsigned i = 0; i < SIDES; i++) {
                struct side *side = &t->sides[i];

                if (side->source != 0)
                        g_source_remove(side->source);
                if (side->fd < 0)
                        continue;
                while (print_piece(side))
                        ;
                close(side->fd);
                close(side->their_fd);
        }
        if (t->in_source != 0)
                g_source_remove(t->in_source);
        if (t->room_source != 0)
                g_source_remove(t->room_source);
        g_free(t);
}
