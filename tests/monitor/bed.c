/*
 * bed.c - monitors of a fake machine, and clients on real sockets.
 *
 * SPDX-License-Identifier: MIT
 */
#include "monitor/bed.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATIENCE_SEC = 20 };

static void count_quit(void *opaque)
{
        struct bed *bed = opaque;

        bed->quit_count++;
}

void bed_set_up(struct bed *bed, gconstpointer paths)
{
        const struct monitor_host host = { .opaque = bed, .version = "1.2.3", .quit = count_quit };
        struct hvb_error err = ERROR_INIT;

        signal(SIGPIPE, SIG_IGN);
        bed->machine = fake_machine_new(FAKE_DISKS, paths);
        bed->monitors = monitors_new(bed->machine, &host);
        bed->machine->monitors = bed->monitors;
        bed->hmp_path = g_build_filename(bed->machine->directory, "hmp", NULL);
        bed->qmp_path = g_build_filename(bed->machine->directory, "qmp", NULL);
        g_assert_cmpint(monitors_add_hmp_socket(bed->monitors, bed->hmp_path, &err), ==, 0);
        g_assert_cmpint(monitors_add_qmp_socket(bed->monitors, bed->qmp_path, &err), ==, 0);
}

void bed_end_monitors(struct bed *bed)
{
        bed->machine->monitors = NULL;
        monitors_free(bed->monitors);
        bed->monitors = NULL;
}

void bed_tear_down(struct bed *bed, gconstpointer unused)
{
        (void) unused;
        bed_end_monitors(bed);
        while (g_main_context_iteration(NULL, FALSE))
                ;
        fake_machine_free(bed->machine);
        g_free(bed->hmp_path);
        g_free(bed->qmp_path);
}

/* ---- Waiting ------------------------------------------------------------------------ */

/* Wakes the loop, so that conditions that nothing announces are looked at again. */
static gboolean tick(gpointer unused)
{
        (void) unused;
        return G_SOURCE_CONTINUE;
}

void bed_wait(bool (*is_true)(void *opaque), void *opaque)
{
        gint64 end_usec = g_get_monotonic_time() + PATIENCE_SEC * G_USEC_PER_SEC;
        guint ticks = g_timeout_add(1, tick, NULL);

        while (!is_true(opaque)) {
                g_assert_cmpint(g_get_monotonic_time(), <, end_usec);
                g_main_context_iteration(NULL, TRUE);
        }
        g_source_remove(ticks);
}

struct held {
        struct machine *machine;
        unsigned count;
};

static bool is_held(void *opaque)
{
        const struct held *held = opaque;

        return fake_held(held->machine) == held->count;
}

void bed_wait_held(struct bed *bed, unsigned count)
{
        struct held held = { bed->machine, count };

        bed_wait(is_held, &held);
}

/* ---- Clients ------------------------------------------------------------------------ */

struct client *client_new_fd(int fd)
{
        struct client *client = g_new0(struct client, 1);

        g_assert_cmpint(fcntl(fd, F_SETFL, O_NONBLOCK), ==, 0);
        client->fd = fd;
        client->input = g_string_new(NULL);
        return client;
}

struct connect {
        const char *path;
        int fd;
};

static bool has_connected(void *opaque)
{
        struct connect *c = opaque;
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        g_assert_cmpuint(g_strlcpy(address.sun_path, c->path, sizeof(address.sun_path)), <,
                         sizeof(address.sun_path));
        return connect(c->fd, (struct sockaddr *) &address, sizeof(address)) == 0;
}

struct client *client_new(const char *path)
{
        struct connect c = { path, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };

        g_assert_cmpint(c.fd, >=, 0);
        bed_wait(has_connected, &c);
        return client_new_fd(c.fd);
}

void client_free(struct client *client)
{
        close(client->fd);
        g_string_free(client->input, TRUE);
        g_free(client);
}

static void read_some(struct client *client)
{
        char bytes[65536];
        ssize_t count = read(client->fd, bytes, sizeof(bytes));

        if (count > 0)
                g_string_append_len(client->input, bytes, count);
        else if (count == 0 || (errno != EAGAIN && errno != EINTR))
                client->ended = true;
}

void client_send(struct client *client, const void *bytes, size_t count)
{
        const char *next = bytes;
        gint64 end_usec = g_get_monotonic_time() + PATIENCE_SEC * G_USEC_PER_SEC;

        while (count > 0) {
                ssize_t sent = write(client->fd, next, count);

                if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
                        return;
                g_assert_true(sent > 0 || errno == EAGAIN);
                if (sent > 0) {
                        next += sent;
                        count -= (size_t) sent;
                }
                g_main_context_iteration(NULL, FALSE);
                g_assert_cmpint(g_get_monotonic_time(), <, end_usec);
        }
}

struct marker {
        struct client *client;
        const char *text;
};

static bool has_marker(void *opaque)
{
        struct marker *marker = opaque;

        read_some(marker->client);
        return marker->client->ended || strstr(marker->client->input->str, marker->text) != NULL;
}

char *client_until(struct client *client, const char *text)
{
        struct marker marker = { client, text };
        const char *found;
        char *before;

        bed_wait(has_marker, &marker);
        found = strstr(client->input->str, text);
        if (found == NULL)
                g_error("the connection ended; read so far: %s", client->input->str);
        before = g_strndup(client->input->str, (gsize) (found - client->input->str));
        g_string_erase(client->input, 0, (gssize) (strlen(before) + strlen(text)));
        return before;
}

static bool has_ended(void *opaque)
{
        struct client *client = opaque;

        read_some(client);
        return client->ended;
}

void client_wait_end(struct client *client)
{
        bed_wait(has_ended, client);
}

/* ---- HMP ---------------------------------------------------------------------------- */

struct client *hmp_client_new(const struct bed *bed)
{
        struct client *client = client_new(bed->hmp_path);

        g_free(client_until(client, "(qemu) "));
        return client;
}

char *hmp_ask(struct client *client, const char *line)
{
        g_autofree char *sent = g_strconcat(line, "\n", NULL);
        g_autofree char *echo = g_strconcat(line, "\r\n", NULL);
        g_autofree char *answer = NULL;

        client_send(client, sent, strlen(sent));
        answer = client_until(client, "(qemu) ");
        g_assert_true(g_str_has_prefix(answer, echo));
        return g_strdup(answer + strlen(echo));
}

/* ---- QMP ---------------------------------------------------------------------------- */

struct client *qmp_client_new(const char *path)
{
        struct client *client = client_new(path);

        g_free(client_until(client, "\r\n"));
        json_object_unref(qmp_ask(client, "{\"execute\": \"qmp_capabilities\"}"));
        return client;
}

static JsonObject *parse(const char *line)
{
        g_autoptr(JsonParser) parser = json_parser_new();
        g_autoptr(GError) error = NULL;

        json_parser_load_from_data(parser, line, -1, &error);
        g_assert_no_error(error);
        return json_object_ref(json_node_get_object(json_parser_get_root(parser)));
}

JsonObject *qmp_read(struct client *client)
{
        g_autofree char *line = client_until(client, "\r\n");

        return parse(line);
}

char *qmp_ask_text(struct client *client, const char *line)
{
        g_autofree char *sent = g_strconcat(line, "\n", NULL);

        client_send(client, sent, strlen(sent));
        for (;;) {
                g_autofree char *reply = client_until(client, "\r\n");

                if (strstr(reply, "\"event\": ") == NULL)
                        return g_steal_pointer(&reply);
        }
}

JsonObject *qmp_ask(struct client *client, const char *line)
{
        g_autofree char *reply = qmp_ask_text(client, line);

        return parse(reply);
}

JsonObject *qmp_event(struct client *client, const char *name)
{
        for (;;) {
                g_autoptr(JsonObject) object = qmp_read(client);

                if (!json_object_has_member(object, "event"))
                        continue;
                if (strcmp(json_object_get_string_member(object, "event"), name) != 0)
                        continue;
                if (!json_object_has_member(object, "data"))
                        return NULL;
                return json_object_ref(json_object_get_object_member(object, "data"));
        }
}
