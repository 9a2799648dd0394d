/*
 * test-sequences.c - random sequences on one image, by the driver and by QEMU in turns.
 *
 * Each sequence runs in a process of its own, in a directory of its own, which is
 * kept if something differs.  One TAP test point for each group (version x cluster
 * size).  The invariants are listed in sequence.h.
 *
 *   test-sequences [--count N] [--first SEED] [--seed SEED] [--only key=value]...
 *           [--jobs N] [--timeout SECONDS] [--keep]
 *
 * Environment: INTEROP_COUNT (default for --count), INTEROP_DIR (where the
 * directories go; default /dev/shm, else TMPDIR), TEST_SECONDS (go on for so long,
 * from a seed that the clock gives), HV_BLOCK_PATH (where the plugin is).
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib.h>
#include <glib/gstdio.h>

#include "host/loader.h"
#include "sequence.h"

enum { COUNT_DEFAULT = 52, JOBS_MAX = 64, FILTERS_MAX = 16 };

/* Under a sanitizer a part of the sequences takes as long: one of so many is run.  What
 * threads do to each other hardly depends on the group. */
#if defined(__SANITIZE_THREAD__)
enum { ONE_OF = 40 };
#elif defined(__SANITIZE_ADDRESS__)
enum { ONE_OF = 4 };
#else
enum { ONE_OF = 1 };
#endif

struct tally *tally;

struct job {
        pid_t pid;                      /* 0: free */
        struct plan plan;
        char *directory;
};

struct run {
        unsigned count;                 /* sequences wanted */
        uint64_t first;
        bool one, keep;                 /* --seed, --keep */
        unsigned job_count, timeout_sec;
        unsigned soak_sec;              /* go on for so long, whatever the count */
        gint64 begin_usec;
        const char *filters[FILTERS_MAX];
        unsigned filter_count;
        char *base;                     /* directory of the directories */
        struct job jobs[JOBS_MAX];
        unsigned started, finished, differences;
        unsigned group_runs[PLAN_GROUPS], group_failures[PLAN_GROUPS];
};

static const struct option long_options[] = {
        { "count", required_argument, NULL, 'c' },
        { "first", required_argument, NULL, 'f' },
        { "seed", required_argument, NULL, 's' },
        { "only", required_argument, NULL, 'o' },
        { "jobs", required_argument, NULL, 'j' },
        { "timeout", required_argument, NULL, 't' },
        { "keep", no_argument, NULL, 'k' },
        {}
};

static int parse_options(struct run *run, int argc, char **argv)
{
        int option;

        while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
                unsigned long long value = optarg ? strtoull(optarg, NULL, 10) : 0;

                switch (option) {
                case 'c': run->count = value; break;
                case 'f': run->first = value; break;
                case 's':
                        run->first = value;
                        run->count = 1;
                        run->one = run->keep = true;
                        break;
                case 'o':
                        if (run->filter_count == FILTERS_MAX)
                                return -E2BIG;
                        run->filters[run->filter_count++] = optarg;
                        break;
                case 'j': run->job_count = MIN(value, JOBS_MAX); break;
                case 't': run->timeout_sec = value; break;
                case 'k': run->keep = true; break;
                default: return -EINVAL;
                }
        }
        return optind == argc && run->job_count > 0 ? 0 : -EINVAL;
}

static bool wanted(const struct run *run, const struct plan *plan)
{
        for (unsigned i = 0; i < run->filter_count; i++)
                if (!plan_matches(plan, run->filters[i]))
                        return false;
        return true;
}

/* The next seed whose plan passes the filters; gives up after many. */
static bool next_plan(const struct run *run, uint64_t *seed, struct plan *ret_plan)
{
        for (unsigned i = 0; i < 100000; i++) {
                *ret_plan = plan_from_seed((*seed)++);
                if (run->one || wanted(run, ret_plan))
                        return true;
        }
        return false;
}

/* In the child: its own process group, so that the peer's processes end with it. */
static void child_main(const struct plan *plan, const char *directory, unsigned timeout_sec)
{
        g_autofree char *path = g_build_filename(directory, "difference", NULL);
        char *difference = NULL;
        int ret;

        setpgid(0, 0);
        alarm(timeout_sec);
        ret = sequence_run(plan, directory, &difference);
        if (ret < 0)
                g_file_set_contents(path, difference ? difference : "?", -1, NULL);
        g_free(difference);
        _exit(ret < 0);
}

static int start_job(struct run *run, struct job *job, const struct plan *plan)
{
        job->plan = *plan;
        job->directory = g_strdup_printf("%s/seed-%llu", run->base,
                                         (unsigned long long)plan->seed);
        if (g_mkdir_with_parents(job->directory, 0700) < 0)
                return -errno;
        fflush(stdout);
        job->pid = fork();
        if (job->pid < 0)
                return -errno;
        if (job->pid == 0) {
                child_main(plan, job->directory, run->timeout_sec);
                _exit(1);
        }
        setpgid(job->pid, job->pid);
        run->started++;
        return 0;
}

/* Files of a finished sequence; it made no directories. */
static void remove_directory(const char *path)
{
        g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
        const char *name;

        while (dir && (name = g_dir_read_name(dir))) {
                g_autofree char *file = g_build_filename(path, name, NULL);

                unlink(file);
        }
        rmdir(path);
}

/* The list of operations up to the difference, as TAP diagnostics. */
static void print_log(const char *directory, const char *name)
{
        g_autofree char *path = g_build_filename(directory, name, NULL);
        g_autofree char *text = NULL;
        g_auto(GStrv) lines = NULL;

        if (!g_file_get_contents(path, &text, NULL, NULL))
                return;
        lines = g_strsplit(g_strchomp(text), "\n", -1);
        for (unsigned i = 0; lines[i]; i++)
                printf("#   %s\n", lines[i]);
}

static void print_difference(const struct job *job, int wait_status)
{
        char text[512];

        plan_describe(&job->plan, text, sizeof(text));
        printf("# DIFFERENCE in %s\n", text);
        if (WIFSIGNALED(wait_status))
                printf("#   ended by signal %d (%s)\n", WTERMSIG(wait_status),
                       WTERMSIG(wait_status) == SIGALRM ? "too slow: hung?"
                                                        : strsignal(WTERMSIG(wait_status)));
        print_log(job->directory, "difference");
        printf("#   image and operations are in %s; replay with --seed %llu\n", job->directory,
               (unsigned long long)job->plan.seed);
        printf("#   operations:\n");
        print_log(job->directory, "operations");
        fflush(stdout);
}

static void finish_job(struct run *run, struct job *job, int wait_status)
{
        bool good = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
        unsigned group = plan_group(&job->plan);

        kill(-job->pid, SIGKILL);       /* what the peer left behind, if anything */
        run->finished++;
        run->group_runs[group]++;
        if (!good) {
                run->differences++;
                run->group_failures[group]++;
                print_difference(job, wait_status);
        } else if (!run->keep) {
                remove_directory(job->directory);
        }
        g_free(job->directory);
        *job = (struct job) {};
}

static void wait_for_one(struct run *run)
{
        int wait_status;
        pid_t pid = waitpid(-1, &wait_status, 0);

        for (unsigned i = 0; pid > 0 && i < run->job_count; i++)
                if (run->jobs[i].pid == pid)
                        finish_job(run, &run->jobs[i], wait_status);
}

/* Are there more sequences to start? */
static bool goes_on(const struct run *run)
{
        if (run->soak_sec)
                return g_get_monotonic_time() - run->begin_usec < run->soak_sec * G_USEC_PER_SEC;
        return run->started < run->count;
}

static int run_all(struct run *run)
{
        uint64_t seed = run->first;
        struct plan plan;

        run->begin_usec = g_get_monotonic_time();
        while (goes_on(run) || run->finished < run->started) {
                struct job *free_job = NULL;

                for (unsigned i = 0; i < run->job_count; i++)
                        if (run->jobs[i].pid == 0)
                                free_job = &run->jobs[i];
                if (free_job && goes_on(run)) {
                        if (!next_plan(run, &seed, &plan))
                                return -ENOENT;
                        int ret = start_job(run, free_job, &plan);

                        if (ret < 0)
                                return ret;
                } else {
                        wait_for_one(run);
                }
        }
        return 0;
}

static void print_result(const struct run *run)
{
        unsigned number = 0;

        for (unsigned group = 0; group < PLAN_GROUPS; group++) {
                char name[128];

                if (!run->group_runs[group])
                        continue;
                plan_group_name(group, name, sizeof(name));
                printf("%s %u - %s: %u of %u sequences without a difference\n",
                       run->group_failures[group] ? "not ok" : "ok", ++number, name,
                       run->group_runs[group] - run->group_failures[group],
                       run->group_runs[group]);
        }
        printf("# operations: %u, requests: %u, handoffs: %u, compressed writes refused: %u\n",
               tally->operations, tally->requests, tally->handoffs, tally->compressed_refused);
        printf("# snapshots made: %u, refused: %u, verified: %u, VM states verified: %u\n",
               tally->snapshots_created, tally->snapshots_refused, tally->snapshots_verified,
               tally->vm_states_verified);
        printf("# sequences: %u, differences: %u\n", run->finished, run->differences);
        printf("1..%u\n", number);
}

static char *make_base(void)
{
        const char *where = g_getenv("INTEROP_DIR");
        char *base;

        if (!where)
                where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : g_get_tmp_dir();
        base = g_build_filename(where, "interop-XXXXXX", NULL);
        return g_mkdtemp(base);
}

int main(int argc, char **argv)
{
        const char *count = g_getenv("INTEROP_COUNT");
        const char *soak = g_getenv("TEST_SECONDS");
        struct run run = {
                .count = count ? strtoul(count, NULL, 10) : COUNT_DEFAULT,
                .first = 1, .job_count = 2, .timeout_sec = 120,
        };
        const struct hvb_driver *driver;
        struct hvb_error err = ERROR_INIT;
        int ret = parse_options(&run, argc, argv);

        if (ret < 0) {
                fprintf(stderr, "usage: test-sequences [--count N] [--first SEED] [--seed SEED] "
                        "[--only key=value]... [--jobs N] [--timeout SECONDS] [--keep]\n");
                return 2;
        }
        if (!peer_exists()) {
                printf("1..0 # SKIP no qemu-img or qemu-io\n");
                return 0;
        }
        if (loader_load("qcow2", &driver, &err) < 0) {
                printf("Bail out! %s\n", error_text(&err, -ENOENT));
                return 1;
        }
        tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                     -1, 0);
        run.base = make_base();
        if (tally == MAP_FAILED || !run.base) {
                printf("Bail out! no memory or no directory\n");
                return 1;
        }
        setvbuf(stdout, NULL, _IOLBF, 0);
        if (!run.one)
                run.count = (run.count + ONE_OF - 1) / ONE_OF;
        if (soak && !run.one) {
                run.soak_sec = strtoul(soak, NULL, 10);
                run.first = time(NULL) * 1000ull;
        }
        ret = run_all(&run);
        if (ret < 0)
                printf("Bail out! %s\n", g_strerror(-ret));
        print_result(&run);
        rmdir(run.base);                /* unless something is kept there */
        g_free(run.base);
        return ret < 0 || run.differences ? 1 : 0;
}
