/*
 * test-vm-faults.c - each call of the driver fails once, and each may be the last one that
 * the process made.
 *
 *   test-vm-faults --child OPERATION DIRECTORY DISKS NTH
 *
 * is the process that dies: it loads "base", runs on, says at which step it is, and is killed
 * in the NTH call of the operation.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "host/error.h"
#include "snapshot/faulty-driver.h"
#include "snapshot/machine-bed.h"

static const char *own_path;

/* Most calls move RAM and are alike: some of those, and all at the begin and the end. */
enum { FIRST_CALLS = 3, LAST_CALLS = 8, CALLS_APART = 83 };

/* The call after nth to try, of so many. */
static unsigned next_call(unsigned nth, unsigned calls)
{
        do
                nth++;
        while (nth > FIRST_CALLS && nth + LAST_CALLS <= calls && nth % CALLS_APART != 0);
        return nth;
}

/* ---- One call fails ----------------------------------------------------------------- */

static int save(struct bed *b)
{
        return bed_save(b, "a", true);
}

static int load(struct bed *b)
{
        return bed_load(b, "a");
}

/* How many calls a run without a fault makes. */
static unsigned count_calls(struct bed *b, int (*run)(struct bed *b))
{
        faulty_set(FAULT_NONE, 0);
        g_assert_cmpint(run(b), ==, 0);
        return faulty_calls();
}

/* A snapshot that is not made leaves nothing.  One call may fail without harm: it makes room for a
 * touch record. */
static void test_savevm(gconstpointer disk_count)
{
        unsigned nth = 0;
        unsigned forgiven = 0;
        unsigned calls;
        uint32_t sum;
        struct bed b;
        bool met_fault;
        int ret;

        bed_open(&b, GPOINTER_TO_UINT(disk_count), BED_RAM_BYTES);
        sum = fake_sum(b.m);
        calls = count_calls(&b, save);
        g_assert_cmpint(bed_del(&b, "a"), ==, 0);
        do {
                nth = next_call(nth, calls);
                faulty_set(FAULT_ERROR, nth);
                ret = bed_save(&b, "a", false);
                met_fault = faulty_calls() >= nth;
                faulty_set(FAULT_NONE, 0);
                g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_PAUSED);
                g_assert_cmpuint(fake_sum(b.m), ==, sum);
                bed_expect_clean(&b);
                if (ret < 0) {
                        g_assert_cmpint(ret, ==, -EIO);
                        g_assert_cmpint(b.err.code, ==, -EIO);
                        bed_expect_list(&b, "");
                        continue;
                }
                forgiven += met_fault;
                bed_expect_list(&b, "a");
                g_assert_cmpint(bed_load(&b, "a"), ==, 0);
                g_assert_true(fake_verify(b.m));
                g_assert_cmpint(bed_del(&b, "a"), ==, 0);
        } while (met_fault);
        g_assert_cmpuint(nth, ==, calls + 1);
        g_assert_cmpuint(forgiven, ==, 1);
        bed_close(&b);
}

/* Is the tag complete, whatever remains of another one are listed besides? */
static bool list_has(const char *list, const char *tag)
{
        g_auto(GStrv) words = g_strsplit(list, " ", -1);

        return g_strv_contains((const char *const *) words, tag);
}

/* An error leaves the old one, success the new one, complete and loadable; remains of another
 * one, where there are any, go with the next. */
static void test_replace(gconstpointer disk_count)
{
        unsigned remains_count = 0;
        unsigned again = 20;
        unsigned nth = 0;
        bool met_fault;
        struct bed b;

        bed_open(&b, GPOINTER_TO_UINT(disk_count), BED_RAM_BYTES);
        do {
                g_autofree char *list = NULL;
                uint64_t expected;
                unsigned calls = count_calls(&b, save);
                unsigned made;
                int ret;

                bed_expect_list(&b, "a");
                expected = fake_step(b.m);
                fake_advance(b.m, 20);
                nth = next_call(nth, calls);
                faulty_set(FAULT_ERROR, nth);
                ret = bed_save(&b, "a", true);
                made = faulty_calls();
                met_fault = made >= nth;
                faulty_set(FAULT_NONE, 0);
                if (ret == 0)
                        expected += 20;
                else
                        g_assert_cmpint(ret, ==, -EIO);
                list = bed_list(&b);
                g_assert_true(list_has(list, "a"));
                if (strcmp(list, "a") != 0) {
                        g_assert_true(ret == 0 && met_fault);
                        remains_count++;
                }
                g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_PAUSED);
                g_assert_cmpint(bed_load(&b, "a"), ==, 0);
                g_assert_cmpuint(fake_step(b.m), ==, expected);
                g_assert_true(fake_verify(b.m));
                bed_expect_clean(&b);
                /* How many calls it takes depends on RAM: the last ones once more. */
                if (!met_fault && again > 0 && remains_count == 0 && b.disk_count > 1) {
                        again--;
                        nth = made - b.disk_count - 1;
                        met_fault = true;
                }
        } while (met_fault);
        g_assert_cmpint(remains_count > 0, ==, b.disk_count > 1);
        bed_close(&b);
}

/* Nothing changed, or the machine says that it failed and a second load leads out.  All of RAM is
 * read before the guest goes on: test-vm-live has the other way. */
static void test_loadvm(gconstpointer disk_count)
{
        unsigned nth = 0;
        unsigned failed = 0;
        unsigned calls;
        uint64_t saved;
        struct bed b;
        int ret;

        bed_open(&b, GPOINTER_TO_UINT(disk_count), BED_RAM_BYTES);
        b.eager = true;
        g_assert_cmpint(bed_save(&b, "a", false), ==, 0);
        saved = fake_step(b.m);
        calls = count_calls(&b, load);
        do {
                g_autofree char *tag = NULL;
                uint32_t sum;

                fake_advance(b.m, 50);
                sum = fake_sum(b.m);
                nth = next_call(nth, calls);
                faulty_set(FAULT_ERROR, nth);
                ret = bed_load(&b, "a");
                faulty_set(FAULT_NONE, 0);
                if (ret == 0)
                        break;
                g_assert_cmpint(ret, ==, -EIO);
                if (machine_run_state(b.m) == RUN_STATE_PAUSED) {
                        g_assert_cmpuint(fake_sum(b.m), ==, sum);
                        g_assert_true(fake_verify(b.m));
                        g_assert_cmpint(vm_loadvm_unfinished(b.m, &tag, &b.err), ==, 0);
                        g_assert_cmpuint(failed, ==, 0);
                } else {
                        g_assert_cmpint(machine_run_state(b.m), ==, RUN_STATE_INTERNAL_ERROR);
                        failed++;
                }
                g_assert_cmpint(bed_load(&b, "a"), ==, 0);
                g_assert_cmpint(vm_loadvm_unfinished(b.m, &tag, &b.err), ==, 0);
                g_assert_cmpuint(fake_step(b.m), ==, saved);
                g_assert_true(fake_verify(b.m));
                bed_expect_list(&b, "a");
                bed_expect_clean(&b);
        } while (true);
        g_assert_cmpuint(failed, >, b.disk_count);
        g_assert_true(fake_verify(b.m));
        bed_close(&b);
}

static void test_delvm(gconstpointer disk_count)
{
        unsigned nth = 0;
        struct bed b;
        int ret;

        bed_open(&b, GPOINTER_TO_UINT(disk_count), BED_RAM_BYTES);
        do {
                g_autofree char *list = NULL;

                g_assert_cmpint(bed_save(&b, "a", true), ==, 0);
                faulty_set(FAULT_ERROR, ++nth);
                ret = bed_del(&b, "a");
                faulty_set(FAULT_NONE, 0);
                list = bed_list(&b);
                if (ret == 0) {
                        g_assert_cmpstr(list, ==, "");
                        break;
                }
                g_assert_cmpint(ret, ==, -EIO);
                g_assert_true(nth == 1 ? strcmp(list, "a") == 0 : g_str_has_prefix(list, "a@"));
                g_assert_cmpint(bed_del(&b, "a"), ==, 0);
                bed_expect_list(&b, "");
                bed_expect_clean(&b);
        } while (true);
        g_assert_cmpuint(nth, ==, b.disk_count + 1);
        bed_close(&b);
}

/* ---- The process that dies ---------------------------------------------------------- */

/* Of "replace", between the old snapshot and the new one. */
enum { REPLACE_STEPS = 50 };

static void child_open(struct bed *b, const char *directory, unsigned disk_count)
{
        *b = (struct bed) {
                .disk_count = disk_count, .ram_bytes = BED_RAM_BYTES, .eager = true,
        };
        for (unsigned i = 0; i < disk_count; i++)
                b->paths[i] = g_strdup_printf("%s/disk%u.qcow2", directory, i);
        bed_machine_open(b);
}

/* Exits 0 when the operation was done before its NTH call; prints the calls it made. */
static int child_main(const char *operation, const char *directory, unsigned disk_count,
                      unsigned nth)
{
        g_autofree char *path = g_build_filename(directory, "step", NULL);
        g_autofree char *step = NULL;
        struct bed b;
        int ret;

        child_open(&b, directory, disk_count);
        g_assert_cmpint(bed_load(&b, "base"), ==, 0);
        fake_advance(b.m, 100);
        if (strcmp(operation, "delvm") == 0 || strcmp(operation, "replace") == 0)
                g_assert_cmpint(bed_save(&b, "a", true), ==, 0);
        if (strcmp(operation, "replace") == 0)
                fake_advance(b.m, REPLACE_STEPS);
        step = g_strdup_printf("%" G_GUINT64_FORMAT, fake_step(b.m));
        g_assert_true(g_file_set_contents(path, step, -1, NULL));
        faulty_set(FAULT_KILL, nth);
        if (strcmp(operation, "savevm") == 0 || strcmp(operation, "replace") == 0)
                ret = bed_save(&b, "a", true);
        else if (strcmp(operation, "loadvm") == 0)
                ret = bed_load(&b, "base");
        else
                ret = bed_del(&b, "a");
        g_assert_cmpint(ret, ==, 0);
        g_free(step);
        step = g_strdup_printf("%u", faulty_calls());
        g_assert_true(g_file_set_contents(path, step, -1, NULL));
        bed_machine_close(&b);
        return 0;
}

static uint64_t read_number(const struct bed *b)
{
        g_autofree char *path = g_build_filename(b->directory, "step", NULL);
        g_autofree char *text = NULL;

        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        return g_ascii_strtoull(text, NULL, 10);
}

/* Whether it died. */
static bool run_child(const struct bed *b, const char *operation, unsigned nth)
{
        g_autofree char *disks = g_strdup_printf("%u", b->disk_count);
        g_autofree char *number = g_strdup_printf("%u", nth);
        const char *argv[] = { own_path, "--child", operation, b->directory, disks, number,
                               NULL };
        int status;

        g_assert_true(g_spawn_sync(NULL, (char **) argv, NULL, 0, NULL, NULL, NULL, NULL,
                                   &status, NULL));
        if (WIFSIGNALED(status)) {
                g_assert_cmpint(WTERMSIG(status), ==, SIGKILL);
                return true;
        }
        g_assert_cmpint(WEXITSTATUS(status), ==, 0);
        return false;
}

static int qemu_img(const char *command, const char *path, char **ret_output)
{
        g_autofree char *line = g_strdup_printf("qemu-img %s %s", command, path);
        g_autofree char *complaints = NULL;
        int status;

        g_assert_true(g_spawn_command_line_sync(line, ret_output, &complaints, &status, NULL));
        return WEXITSTATUS(status);
}

/* Opening repairs what an operation left.  Guests' own writes may leave leaks besides: clusters
 * that they no longer use, counted as before. */
static void repair(struct bed *b)
{
        bed_machine_open(b);
        bed_machine_close(b);
        for (unsigned i = 0; i < b->disk_count; i++) {
                g_autofree char *output = NULL;

                g_assert_cmpint(qemu_img("check -q -r leaks", b->paths[i], &output), ==, 0);
        }
        bed_machine_open(b);
}

/* What qemu-img sees of the tag on each disk is what the list says; and the images are sound. */
static void expect_qemu_agrees(struct bed *b, const char *list)
{
        bed_machine_close(b);
        for (unsigned i = 0; i < b->disk_count; i++) {
                g_autofree char *partial = g_strdup_printf("a@virtio%u", i);
                g_autofree char *output = NULL;
                bool has = g_regex_match_simple("\\ba( |$)", list, 0, 0) ||
                           strstr(list, partial) != NULL;

                g_assert_cmpint(qemu_img("check -q", b->paths[i], &output), ==, 0);
                g_clear_pointer(&output, g_free);
                g_assert_cmpint(qemu_img("snapshot -l", b->paths[i], &output), ==, 0);
                g_assert_true(g_regex_match_simple("^[0-9]+ +a ", output, G_REGEX_MULTILINE, 0)
                              == has);
        }
        bed_machine_open(b);
}

static void after_savevm(struct bed *b, uint64_t base, uint64_t died_at)
{
        g_autofree char *list = bed_list(b);

        expect_qemu_agrees(b, list);
        if (strcmp(list, "a base") == 0) {
                g_assert_cmpint(bed_load(b, "a"), ==, 0);
                g_assert_cmpuint(fake_step(b->m), ==, died_at);
                g_assert_true(fake_verify(b->m));
        } else {
                g_assert_cmpint(bed_load(b, "a"), <, 0);
        }
        g_assert_cmpint(bed_load(b, "base"), ==, 0);
        g_assert_cmpuint(fake_step(b->m), ==, base);
        if (strcmp(list, "base") != 0)
                g_assert_cmpint(bed_del(b, "a"), ==, 0);
}

static unsigned remains_count;

/* The old one or the new one, whole.  QEMU's tools see all there is. */
static void after_replace(struct bed *b, uint64_t base, uint64_t died_at)
{
        g_autofree char *list = bed_list(b);

        expect_qemu_agrees(b, list);
        g_assert_true(list_has(list, "a"));
        remains_count += strstr(list, "a@") != NULL;
        g_assert_cmpint(bed_load(b, "a"), ==, 0);
        if (fake_step(b->m) != died_at)
                g_assert_cmpuint(fake_step(b->m), ==, died_at - REPLACE_STEPS);
        g_assert_true(fake_verify(b->m));
        g_assert_cmpint(bed_load(b, "base"), ==, 0);
        g_assert_cmpuint(fake_step(b->m), ==, base);
        g_assert_cmpint(bed_save(b, "a", true), ==, 0);
        bed_expect_list(b, "a base");
        g_assert_cmpint(bed_del(b, "a"), ==, 0);
}

static unsigned torn_count;

/* Until a disk has gone back; what was torn is known all the time. */
static void repeat_and_fail(struct bed *b)
{
        b->eager = true;
        for (unsigned nth = 1; machine_run_state(b->m) != RUN_STATE_INTERNAL_ERROR; nth++) {
                g_autofree char *tag = NULL;

                faulty_set(FAULT_ERROR, nth);
                g_assert_cmpint(bed_load(b, "base"), ==, -EIO);
                faulty_set(FAULT_NONE, 0);
                g_assert_cmpint(vm_loadvm_unfinished(b->m, &tag, &b->err), ==, 1);
        }
        b->eager = false;
}

static void after_loadvm(struct bed *b, uint64_t base, uint64_t died_at)
{
        g_autofree char *tag = NULL;
        int unfinished = vm_loadvm_unfinished(b->m, &tag, &b->err);
        unsigned gone_back = 0;
        unsigned stayed = 0;

        for (unsigned i = 0; i < b->disk_count; i++) {
                bool is_base = fake_disk_is_at(b->m, i, base);

                g_assert_true(is_base || fake_disk_is_at(b->m, i, died_at));
                gone_back += is_base;
                stayed += !is_base;
        }
        if (gone_back > 0 && stayed > 0) {
                g_assert_cmpint(unfinished, ==, 1);
                torn_count++;
        }
        if (unfinished) {
                g_assert_cmpstr(tag, ==, "base");
                repeat_and_fail(b);
        }
        g_assert_cmpint(bed_load(b, "base"), ==, 0);
        g_assert_cmpuint(fake_step(b->m), ==, base);
        g_clear_pointer(&tag, g_free);
        g_assert_cmpint(vm_loadvm_unfinished(b->m, &tag, &b->err), ==, 0);
}

static void after_delvm(struct bed *b, uint64_t base, uint64_t died_at)
{
        g_autofree char *list = bed_list(b);

        (void) base;
        (void) died_at;
        expect_qemu_agrees(b, list);
        if (strcmp(list, "a base") != 0)
                g_assert_cmpint(bed_load(b, "a"), <, 0);
        if (strcmp(list, "base") != 0)
                g_assert_cmpint(bed_del(b, "a"), ==, 0);
        g_assert_cmpint(bed_load(b, "base"), ==, 0);
}

struct death {
        const char *operation;
        unsigned disk_count;
        void (*after)(struct bed *b, uint64_t base, uint64_t died_at);
};

static const struct death deaths[] = {
        { "savevm", 1, after_savevm }, { "savevm", 3, after_savevm },
        { "replace", 1, after_replace }, { "replace", 3, after_replace },
        { "loadvm", 1, after_loadvm }, { "loadvm", 3, after_loadvm },
        { "delvm", 1, after_delvm }, { "delvm", 3, after_delvm },
};

static void test_death(gconstpointer data)
{
        const struct death *d = data;
        g_autofree char *qemu_img_path = g_find_program_in_path("qemu-img");
        g_autofree char *path = NULL;
        uint64_t base;
        unsigned calls;
        struct bed b;

        if (qemu_img_path == NULL) {
                g_test_skip("no qemu-img");
                return;
        }
        torn_count = 0;
        remains_count = 0;
        bed_open(&b, d->disk_count, BED_RAM_BYTES);
        g_assert_cmpint(bed_save(&b, "base", false), ==, 0);
        base = fake_step(b.m);
        bed_machine_close(&b);
        g_assert_false(run_child(&b, d->operation, G_MAXINT));
        calls = (unsigned) read_number(&b);
        for (unsigned nth = 1; nth <= calls; nth = next_call(nth, calls)) {
                bed_machine_open(&b);
                bed_del(&b, "a");
                bed_machine_close(&b);
                g_assert_true(run_child(&b, d->operation, nth));
                repair(&b);
                d->after(&b, base, read_number(&b));
                g_assert_true(fake_verify(b.m));
                bed_expect_list(&b, "base");
                bed_expect_clean(&b);
                bed_machine_close(&b);
        }
        path = g_build_filename(b.directory, "step", NULL);
        g_unlink(path);
        bed_close(&b);
        if (d->after == after_replace)
                g_assert_cmpint(remains_count > 0, ==, d->disk_count > 1);
        if (d->after == after_loadvm)
                g_assert_cmpuint(torn_count, ==, d->disk_count - 1);
}

int main(int argc, char **argv)
{
        own_path = argv[0];
        if (argc == 6 && strcmp(argv[1], "--child") == 0)
                return child_main(argv[2], argv[3], (unsigned) atoi(argv[4]),
                                  (unsigned) atoi(argv[5]));
        g_test_init(&argc, &argv, NULL);
        for (guint disks = 1; disks <= 3; disks += 2) {
                const struct {
                        const char *name;
                        GTestDataFunc run;
                } tests[] = {
                        { "savevm", test_savevm }, { "replace", test_replace },
                        { "loadvm", test_loadvm }, { "delvm", test_delvm },
                };

                for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
                        g_autofree char *path = g_strdup_printf("/vm/fails/%s/%u", tests[i].name,
                                                                disks);

                        g_test_add_data_func(path, GUINT_TO_POINTER(disks), tests[i].run);
                }
        }
        for (size_t i = 0; i < G_N_ELEMENTS(deaths); i++) {
                g_autofree char *path = g_strdup_printf("/vm/dies/%s/%u", deaths[i].operation,
                                                        deaths[i].disk_count);

                g_test_add_data_func(path, &deaths[i], test_death);
        }
        return g_test_run();
}
