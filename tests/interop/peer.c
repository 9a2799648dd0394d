/*
 * peer.c - running QEMU's tools; see peer.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "peer.h"

#include <stdarg.h>
#include <sys/wait.h>

void peer_result_clear(struct peer_result *result)
{
        g_free(result->out);
        g_free(result->err);
        *result = (struct peer_result) {};
}

bool peer_exists(void)
{
        g_autofree char *img = g_find_program_in_path("qemu-img");
        g_autofree char *io = g_find_program_in_path("qemu-io");

        return img && io;
}

int peer_run(const char *directory, struct peer_result *result, const char *const *argv)
{
        struct peer_result local = {};
        struct peer_result *to = result ? result : &local;
        g_autoptr(GError) error = NULL;
        int wait_status = 0;

        peer_result_clear(to);
        if (!g_spawn_sync(directory, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL,
                          &to->out, &to->err, &wait_status, &error)) {
                to->status = 127;
                to->out = g_strdup("");
                to->err = g_strdup(error->message);
        } else if (WIFEXITED(wait_status)) {
                to->status = WEXITSTATUS(wait_status);
        } else {
                to->status = 128 + WTERMSIG(wait_status);
        }

        int status = to->status;

        peer_result_clear(&local);
        return status;
}

GPtrArray *peer_args_new(const char *program)
{
        GPtrArray *args = g_ptr_array_new_with_free_func(g_free);

        g_ptr_array_add(args, g_strdup(program));
        return args;
}

void peer_args_add(GPtrArray *args, const char *format, ...)
{
        va_list list;

        va_start(list, format);
        g_ptr_array_add(args, g_strdup_vprintf(format, list));
        va_end(list);
}

int peer_args_run(GPtrArray *args, const char *directory, struct peer_result *result)
{
        int status;

        g_ptr_array_add(args, NULL);
        status = peer_run(directory, result, (const char *const *)args->pdata);
        g_ptr_array_free(args, TRUE);
        return status;
}
