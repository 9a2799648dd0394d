/*
 * judge.c - the oracles.
 *
 * Accepted, and checked to be just that: in a dirty image with lazy refcounts, counts may
 * be below references; in a dirty or version 2 image COPIED may lag behind, but is never
 * set on a cluster with a second reference.  Leaks are always accepted before the recovery, and
 * after it where no dirty bit announced them.
 *
 * SPDX-License-Identifier: MIT
 */
#include "proof/judge.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/simdisk-cut.h"
#include "proof/peek.h"
#include "unit/sim-bed.h"

/* ---- as it lies there ---- */

static char *judge_snapshot(const struct peek *p, const struct peek_snapshot *s,
                            const struct model_snapshot *m)
{
        g_autoptr(GBytes) disk = peek_disk(p, s->l1_offset, s->l1_entries, s->disk_bytes);
        g_autoptr(GBytes) state = peek_vm_state(p, s);

        if (!g_bytes_equal(disk, m->disk))
                return g_strdup_printf("snapshot %s changed", m->name);
        if (!g_bytes_equal(state, m->vm_state))
                return g_strdup_printf("the VM state of snapshot %s changed", m->name);
        return NULL;
}

static bool has_list(const struct peek *p, const struct model *m)
{
        unsigned i;

        if (p->snapshot_count != m->snapshots->len)
                return false;
        for (i = 0; i < p->snapshot_count; i++) {
                const struct model_snapshot *s = g_ptr_array_index(m->snapshots, i);

                if (strcmp(p->snapshots[i].id, s->id) != 0 ||
                    strcmp(p->snapshots[i].name, s->name) != 0)
                        return false;
        }
        return true;
}

/* The snapshots are those of the model, with their content. */
static char *judge_snapshots(const struct peek *p, const struct model *m)
{
        char *why = NULL;
        unsigned i;

        for (i = 0; i < p->snapshot_count && !why; i++)
                why = judge_snapshot(p, &p->snapshots[i], g_ptr_array_index(m->snapshots, i));
        return why;
}

/* Whose snapshot list the image has; NULL: nobody's. */
static const struct model *whose_list(const struct judge *j, const struct peek *p)
{
        const struct allowed *a = &j->allowed;
        unsigned i;

        for (i = MAX(a->newest, a->newest_list) + 1; i > MAX(a->oldest, a->oldest_list); i--)
                if (has_list(p, j->run->models[i - 1]))
                        return j->run->models[i - 1];
        return NULL;
}

/* is_clean: nothing was cut off since the recovery. */
static char *judge_counts(const struct peek *p, const struct world *w, bool is_clean)
{
        struct peek_counts c = peek_counts(p);
        bool dirty = !is_clean && (p->incompatible & PEEK_DIRTY) != 0;

        if (c.below > 0 && !(dirty && w->lazy))
                return g_strdup_printf("%u clusters have fewer counts than references, first "
                                       "at %#" G_GINT64_MODIFIER "x", c.below, c.first_below);
        if (c.copied_shared > 0)
                return g_strdup_printf("COPIED is set on %u shared clusters, first at %#"
                                       G_GINT64_MODIFIER "x", c.copied_shared, c.first_shared);
        if (c.copied_high > 0 && !dirty && w->version > 2)
                return g_strdup_printf("COPIED is set at %u counts above 1", c.copied_high);
        if (c.copied_clear > 0 && !dirty && w->version > 2)
                return g_strdup_printf("COPIED is clear at %u counts of 1, first for %#"
                                       G_GINT64_MODIFIER "x", c.copied_clear, c.first_clear);
        return NULL;
}

/* Operations that move counts mark the image first: whatever leaks then is repaired. */
static char *judge_leaks(const struct judge *j, const struct peek *p)
{
        unsigned leaked;

        if (!j->run->is_marked || (p->incompatible & PEEK_DIRTY))
                return NULL;
        leaked = peek_counts(p).leaked;
        return leaked == 0 ? NULL
                : g_strdup_printf("%u clusters leak, and the image is not marked dirty", leaked);
}

static char *judge_as_found(const struct judge *j, const struct peek *p,
                            const struct model **ret_list, GBytes **ret_disk)
{
        char *why = judge_counts(p, j->run->world, false);

        if (!why)
                why = judge_leaks(j, p);

        *ret_list = whose_list(j, p);
        *ret_disk = peek_disk(p, p->l1_offset, p->l1_entries, p->disk_bytes);
        if (!why && !*ret_list)
                why = g_strdup_printf("the list of %u snapshots is neither old nor new",
                                      p->snapshot_count);
        if (!why)
                why = judge_snapshots(p, *ret_list);
        if (!why)
                why = run_judge_disk(j->run, j->allowed, *ret_disk);
        return why;
}

/* ---- recovery ---- */

static GBytes *read_all(struct bed *b)
{
        uint64_t bytes = image_size(b->img);
        uint8_t *data = g_malloc0(bytes + 1);

        if (bed_read(b, 0, data, bytes) < 0)
                memset(data, 0xee, bytes);
        return g_bytes_new_take(data, bytes);
}

static int write_all(struct bed *b, GBytes **ret_disk)
{
        uint64_t bytes = image_size(b->img);
        uint8_t *data = g_malloc(bytes + 1);

        memset(data, 0xd1, bytes);
        *ret_disk = g_bytes_new_take(data, bytes);
        return bed_write(b, 0, data, bytes);
}

/* What the file shows now must be the disk and list, in order. */
static char *judge_now(const struct world *w, const struct simdisk *disk, GBytes *expected,
                       const struct model *list, bool leaks_allowed, const char *when)
{
        g_autoptr(GBytes) content = NULL;
        char *why;
        struct peek p;

        why = peek_open(&p, &disk->files[0].image, w->backing);
        if (!why) {
                content = peek_disk(&p, p.l1_offset, p.l1_entries, p.disk_bytes);
                why = judge_counts(&p, w, true);
        }
        if (!why && !g_bytes_equal(content, expected))
                why = g_strdup("the disk changed");
        if (!why && !has_list(&p, list))
                why = g_strdup("the list of snapshots changed");
        if (!why)
                why = judge_snapshots(&p, list);
        if (!why && !leaks_allowed && peek_counts(&p).leaked > 0)
                why = g_strdup_printf("%u clusters leak", peek_counts(&p).leaked);
        if (why) {
                char *text = g_strdup_printf("%s: %s", when, why);

                g_free(why);
                why = text;
        }
        peek_clear(&p);
        return why;
}

/* Opens for writing, which repairs, and lets go.  What is found is to be what was found before. */
static char *recover(const struct world *w, struct simdisk *disk, GBytes *expected,
                     const struct model *list, bool leaks_allowed)
{
        g_autoptr(GBytes) content = NULL;
        struct bed b;
        char *why = NULL;
        int ret = sim_open_begin(&b, disk, HVB_OPEN_RDWR);

        if (ret < 0) {
                sim_abandon(&b);
                return g_strdup_printf("does not open: %s", b.err.text);
        }
        content = read_all(&b);
        if (!g_bytes_equal(content, expected))
                why = g_strdup("after recovery the disk reads otherwise");
        ret = sim_close(&b);
        if (!why && ret < 0)
                why = g_strdup_printf("does not close: %s", g_strerror(-ret));
        if (!why)
                why = judge_now(w, disk, expected, list, leaks_allowed, "after recovery");
        return why;
}

/* Then all of the disk is written anew. */
static char *use(const struct world *w, struct simdisk *disk, const struct model *list,
                 bool leaks_allowed)
{
        g_autoptr(GBytes) content = NULL;
        struct bed b;
        int ret;

        sim_open(&b, disk, HVB_OPEN_RDWR);
        ret = write_all(&b, &content);
        if (ret == 0)
                ret = sim_close(&b);
        else
                sim_close(&b);
        if (ret < 0)
                return g_strdup_printf("cannot be written: %s", g_strerror(-ret));
        return judge_now(w, disk, content, list, leaks_allowed, "after use");
}

/* ---- the power fails again ---- */

static char *judge_second(const struct judge *j, struct sim_cut *cut, bool newest,
                          GBytes *expected, const struct model *list)
{
        struct sim_image images[SIM_FILES_MAX] = { { .root = NULL } };
        struct sim_random random = { sim_cut_point(cut) };
        const struct world *w = j->run->world;
        const struct sim_choice *choices;
        g_autofree unsigned *picks = NULL;
        struct simdisk *disk;
        unsigned count, i;
        char *why;

        choices = sim_cut_choices(cut, &count);
        picks = g_new(unsigned, count + 1);
        for (i = 0; i < count; i++)
                picks[i] = newest ? choices[i].option_count - 1
                                  : (unsigned)sim_random_below(&random, choices[i].option_count);
        sim_cut_build(cut, picks, images);
        disk = world_disk(w, &images[0], NULL);
        why = recover(w, disk, expected, list, !j->was_dirty);
        simdisk_free(disk);
        for (i = 0; i < SIM_FILES_MAX; i++)
                sim_image_clear(&images[i]);
        return why;
}

static char *cut_again(struct judge *j, const struct simdisk *disk, GBytes *expected,
                       const struct model *list)
{
        struct sim_cut *cut = sim_cut_new(disk);
        char *why = NULL;

        while (!why && sim_cut_point(cut) < simdisk_moments(disk)) {
                sim_cut_advance(cut, sim_cut_point(cut) + 1);
                why = judge_second(j, cut, true, expected, list);
                if (!why)
                        why = judge_second(j, cut, false, expected, list);
                j->second_states += 2;
        }
        sim_cut_free(cut);
        if (why) {
                char *text = g_strdup_printf("second cut: %s", why);

                g_free(why);
                why = text;
        }
        return why;
}

/* ---- all of it ---- */

char *judge_state(struct judge *j, const struct sim_image *image)
{
        const struct world *w = j->run->world;
        const struct sim_options options = {
                .seed = 5, .delay_max = 3, .reorder = true, .record = j->cut_again,
        };
        g_autoptr(GBytes) content = NULL;
        const struct model *list = NULL;
        struct simdisk *disk;
        struct peek p;
        char *why;

        why = peek_open(&p, image, w->backing);
        if (!why)
                why = judge_as_found(j, &p, &list, &content);
        j->was_dirty = (p.incompatible & PEEK_DIRTY) != 0;
        peek_clear(&p);
        if (why)
                return why;
        disk = world_disk(w, image, &options);
        why = recover(w, disk, content, list, !j->was_dirty);
        if (!why && j->cut_again)
                why = cut_again(j, disk, content, list);
        if (!why)
                why = use(w, disk, list, !j->was_dirty);
        simdisk_free(disk);
        return why;
}

/* ---- QEMU ---- */

static bool is_dirty(const struct sim_image *image)
{
        uint8_t byte;

        sim_image_read(image, 79, &byte, 1);
        return byte & PEEK_DIRTY;
}

/* Exit status of qemu-img check: 0 clean, 3 leaks, 2 damage. */
static bool qemu_accepts(const struct world *w, bool dirty, int status, const char *output)
{
        bool counts_low = strstr(output, "ERROR cluster") != NULL;

        if (status == 0 || status == 3)
                return true;
        return status == 2 && (counts_low ? dirty && w->lazy : dirty || w->version == 2);
}

char *judge_by_qemu(const struct judge *j, const struct sim_image *image)
{
        const struct world *w = j->run->world;
        g_autofree char *path = NULL;
        g_autofree char *output = NULL;
        g_autofree char *errors = NULL;
        g_autofree char *name = NULL;
        char *argv[] = { (char *)"qemu-img", (char *)"check", NULL, NULL };
        int fd = g_file_open_tmp("state-XXXXXX", &path, NULL);
        int status = -1;

        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(sim_image_export(image, fd), ==, 0);
        close(fd);
        name = g_strdup_printf("json:{\"driver\":\"qcow2\",\"backing\":null,\"file\":{"
                               "\"driver\":\"file\",\"filename\":\"%s\"}}", path);
        argv[2] = name;
        g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &output, &errors, &status,
                     NULL);
        unlink(path);
        status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        if (qemu_accepts(w, w->version > 2 && is_dirty(image), status, output))
                return NULL;
        return g_strdup_printf("qemu-img check: exit status %d: %s%s", status, output, errors);
}
