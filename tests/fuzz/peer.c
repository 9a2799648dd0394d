/*
 * peer.c - see peer.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "fuzz/peer.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/format.h"
#include "fuzz/trial.h"

/* Where we mean to differ; said: words of who refuses, or finds something. */
enum who { WE_REFUSE, PEER_REFUSES };

struct difference {
        enum who what;
        const char *said;
        const char *why;
};

static const struct difference differences[] = {
        { WE_REFUSE, "extended L2 entries", "not served yet" },
        { WE_REFUSE, "encryption (crypt_method", "not served" },
        { WE_REFUSE, "beyond the end of the file",
          "QEMU reads zeros behind the end; a table there is a truncated file" },
        { WE_REFUSE, "beyond the limit 0x", "QEMU reads zeros there too" },
        { WE_REFUSE, "lies in the header cluster",
          "writing to such a table would destroy the header" },
        { WE_REFUSE, "is not a multiple of 8", "the format demands it of the header's length" },
        { WE_REFUSE, "ends beyond the end of the file", "the header cluster must be whole" },
        { WE_REFUSE, "Backing file name", "empty ones, and NUL bytes, which hide the rest" },
        { WE_REFUSE, "Invalid backing file offset", "inside the fixed header" },
        { PEER_REFUSES, "Header extension too large",
          "only of what follows the last extension: END has no length, 7 bytes are no extension" },
        { PEER_REFUSES, "data-file-raw requires a data file",
          "an autoclear bit that means nothing then: the first writer clears it" },
        { PEER_REFUSES, "itmap", "bitmaps are not served: opening judges nothing of them" },
};

struct answer {
        int status;
        char *text;                     /* what it printed, both streams; owned */
};

static const char *image_file(void)
{
        static char *path;

        if (!path)
                path = g_strdup_printf("%s/peer-%d.qcow2", g_get_tmp_dir(), (int)getpid());
        return path;
}

/* Without a backing file, whatever name the image has. */
static struct answer ask(const char *command)
{
        g_autofree char *file = g_strdup_printf("json:{\"driver\": \"qcow2\", \"backing\": null, "
                                                "\"file\": {\"driver\": \"file\", \"filename\": "
                                                "\"%s\"}}", image_file());
        const char *argv[] = { "qemu-img", command, "-U", file, NULL };
        g_autoptr(GError) error = NULL;
        g_autofree char *out = NULL;
        g_autofree char *err = NULL;
        struct answer a = { 0 };
        int status;

        if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err,
                          &status, &error))
                g_error("qemu-img: %s", error->message);
        a.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
        a.text = g_strconcat(err, out, NULL);
        return a;
}

static bool is_known(enum who what, const char *said)
{
        unsigned i;

        for (i = 0; i < G_N_ELEMENTS(differences); i++)
                if (differences[i].what == what && strstr(said, differences[i].said))
                        return true;
        return false;
}

static void differ(const char *what, const char *ours, const char *theirs)
{
        fprintf(stderr, "differs: %s\n  we: %s\n  qemu-img: %s\n", what, ours, theirs);
        if (!getenv("PEER_GOES_ON"))
                abort();
}

static bool compare_opening(const struct input *in)
{
        struct verdict v = verdict_of(&in->image, 0);
        struct answer a = ask("info");
        bool agreed = (v.open_result == 0) == (a.status == 0);

        if (v.open_result < 0 && a.status == 0 && !is_known(WE_REFUSE, v.text))
                differ("only we refuse", v.text, "");
        if (v.open_result == 0 && a.status != 0 && !is_known(PEER_REFUSES, a.text))
                differ("only qemu-img refuses", "", a.text);
        g_free(a.text);
        return agreed && v.open_result == 0;
}

static void compare_checks(const struct input *in)
{
        struct verdict v = verdict_of(&in->image, HVB_OPEN_CHECK);
        struct answer a = ask("check");
        g_autofree char *ours = g_strdup_printf("%d %d corruptions %u, leaks %u, errors %u %s",
                                                v.open_result, v.check_result,
                                                (unsigned)v.found.corruptions,
                                                (unsigned)v.found.leaks,
                                                (unsigned)v.found.check_errors, v.text);
        bool is_sound = v.open_result == 0 && v.check_result == 0 && v.found.corruptions == 0 &&
                        v.found.check_errors == 0;
        bool peer_refuses = a.status != 0 && is_known(PEER_REFUSES, a.text);      /* info did not */

        if (is_sound && !peer_refuses && a.status != 0 && a.status != 3)
                differ("qemu-img finds corruptions, we do not", ours, a.text);
        else if (!is_sound && (a.status == 0 || a.status == 3))
                differ("we find corruptions, qemu-img does not", ours, a.text);
        else if (is_sound && !peer_refuses && (v.found.leaks == 0) != (a.status == 0))
                differ("leaks", ours, a.text);
        g_free(a.text);
}

static bool is_shown(const struct sim_image *image)
{
        return image_load(image, 4, 4) < 3 || !(image_load(image, 72, 8) & INCOMPAT_DATA_FILE);
}

void peer_compare(const struct input *in)
{
        int fd;

        if (!is_shown(&in->image))
                return;
        fd = open(image_file(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || sim_image_export(&in->image, fd) < 0)
                g_error("cannot write %s", image_file());
        close(fd);
        if (compare_opening(in))
                compare_checks(in);
        unlink(image_file());
}
