/*
 * linux-guest.c - what runs in a Linux guest: one counter, in memory and on its disk
 *
 * As the initramfs's /init it loads the modules named in /modules, makes the ext4 file system
 * on /dev/vda the root and runs that one's /sbin/init: this program again, as process 1.
 * It then goes from round to round.  In each it
 *
 *   1. verifies the memory it holds and what the disk holds, read past the page cache,
 *   2. writes a slice of the memory,
 *   3. writes a new file, fsync, renames it over the one that is KEPT rounds old,
 *   4. overwrites the count in place, fdatasync,
 *   5. prints "guest: round N at SECONDS s, memory ok, disk ok".
 *
 * What must hold: at a round's begin each file and the count on the disk say exactly what
 * this process remembers of them.  A machine whose memory and disk have gone back to
 * different moments, or one of them only, fails in its next round.  After a boot the
 * process remembers nothing, so it takes up the disk's count; every printed round is in it.
 *
 * Kernel command line: rounds=N to stop after round N (endless), hold=MIB of memory (4).
 * It ends with a restart, file system clean: run the machine so that this stops it.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
        KEPT = 8,                       /* files, each of another of the last rounds */
        FILE_BYTES = 64 << 10,
        COUNT_BYTES = 4096,
        PAGE_WORDS = 4096 / sizeof(uint64_t),
        SLICES = 4,                     /* rounds until all memory was written anew */
        PAUSE_NSEC = 20 * 1000 * 1000,  /* after a round: timers must go on working */
        DISK_WAIT_STEPS = 500,          /* of 10 ms, until /dev/vda is there */
};

struct guest {
        uint64_t round;                 /* the last one that is finished */
        uint64_t last_round;
        uint64_t file_round[KEPT];      /* that the file was written in; 0 no such file */
        uint64_t *memory;
        uint64_t *page_round;           /* that each page of it was written in */
        size_t page_count;
        uint64_t *buffer;               /* FILE_BYTES, aligned for O_DIRECT */
        struct timespec now;            /* CLOCK_MONOTONIC, at the last look */
};

__attribute__((noreturn)) static void restart(void)
{
        sync();
        reboot(RB_AUTOBOOT);
        for (;;)
                pause();
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
        va_list args;

        printf("guest: FAILED: ");
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
        restart();
}

static void fail_unless(bool done, const char *what)
{
        if (!done)
                fail("%s: %s", what, strerror(errno));
}

/* splitmix64's finaliser: another word for each round and place. */
static uint64_t pattern(uint64_t round, uint64_t place)
{
        uint64_t x = (round << 32) + place * 0x9e3779b97f4a7c15;

        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
        x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
        return x ^ (x >> 31);
}

static void fill(uint64_t *words, size_t count, uint64_t round, uint64_t place)
{
        words[0] = round;
        for (size_t i = 1; i < count; i++)
                words[i] = pattern(round, place + i);
}

static void verify(const uint64_t *words, size_t count, uint64_t round, uint64_t place,
                   const char *what)
{
        if (words[0] != round)
                fail("%s is of round %" PRIu64 ", not of %" PRIu64, what, words[0], round);
        for (size_t i = 1; i < count; i++) {
                if (words[i] != pattern(round, place + i))
                        fail("%s of round %" PRIu64 " is damaged at word %zu", what, round, i);
        }
}

static void memory_verify(const struct guest *g)
{
        for (size_t page = 0; page < g->page_count; page++)
                verify(g->memory + page * PAGE_WORDS, PAGE_WORDS, g->page_round[page],
                       page * PAGE_WORDS, "memory");
}

static void memory_write(struct guest *g, uint64_t round, size_t first, size_t step)
{
        for (size_t page = first; page < g->page_count; page += step) {
                fill(g->memory + page * PAGE_WORDS, PAGE_WORDS, round, page * PAGE_WORDS);
                g->page_round[page] = round;
        }
}

static void file_name(char *name, size_t name_bytes, size_t index)
{
        snprintf(name, name_bytes, "/data/file-%zu", index);
}

/* Reads a whole file from the disk rather than from the page cache; false: no such file. */
static bool read_direct(struct guest *g, const char *name, size_t bytes)
{
        int fd = open(name, O_RDONLY | O_DIRECT);
        ssize_t done;

        if (fd < 0 && errno == ENOENT)
                return false;
        fail_unless(fd >= 0, name);
        memset(g->buffer, 0xa5, bytes);
        done = read(fd, g->buffer, bytes);
        fail_unless(done >= 0, name);
        if ((size_t)done != bytes)
                fail("%s is %zd bytes long", name, done);
        close(fd);
        return true;
}

static void disk_verify(struct guest *g)
{
        char name[64];

        for (size_t i = 0; i < KEPT; i++) {
                if (g->file_round[i] == 0)
                        continue;
                file_name(name, sizeof(name), i);
                if (!read_direct(g, name, FILE_BYTES))
                        fail("%s is not there", name);
                verify(g->buffer, FILE_BYTES / sizeof(uint64_t), g->file_round[i], 0, name);
        }
        if (g->round == 0)
                return;
        if (!read_direct(g, "/data/count", COUNT_BYTES))
                fail("/data/count is not there");
        verify(g->buffer, COUNT_BYTES / sizeof(uint64_t), g->round, 0, "/data/count");
}

static void directory_sync(const char *name)
{
        int fd = open(name, O_RDONLY | O_DIRECTORY);

        fail_unless(fd >= 0 && fsync(fd) == 0, name);
        close(fd);
}

static void file_write(struct guest *g, uint64_t round)
{
        char name[64];
        int fd = open("/data/new", O_WRONLY | O_CREAT | O_TRUNC, 0600);

        fail_unless(fd >= 0, "/data/new");
        fill(g->buffer, FILE_BYTES / sizeof(uint64_t), round, 0);
        fail_unless(write(fd, g->buffer, FILE_BYTES) == FILE_BYTES, "writing /data/new");
        fail_unless(fsync(fd) == 0, "fsync");
        close(fd);
        file_name(name, sizeof(name), round % KEPT);
        fail_unless(rename("/data/new", name) == 0, "rename");
        directory_sync("/data");
        g->file_round[round % KEPT] = round;
}

static void count_write(struct guest *g, uint64_t round)
{
        int fd = open("/data/count", O_WRONLY | O_CREAT | O_DIRECT, 0600);

        fail_unless(fd >= 0, "/data/count");
        fill(g->buffer, COUNT_BYTES / sizeof(uint64_t), round, 0);
        fail_unless(pwrite(fd, g->buffer, COUNT_BYTES, 0) == COUNT_BYTES, "writing /data/count");
        fail_unless(fdatasync(fd) == 0, "fdatasync");
        close(fd);
        if (round == 1)
                directory_sync("/data");
}

static void clock_verify(struct guest *g)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec < g->now.tv_sec ||
            (now.tv_sec == g->now.tv_sec && now.tv_nsec < g->now.tv_nsec))
                fail("the clock went back from %jd.%09ld s to %jd.%09ld s",
                     (intmax_t)g->now.tv_sec, g->now.tv_nsec,
                     (intmax_t)now.tv_sec, now.tv_nsec);
        g->now = now;
}

static void round_run(struct guest *g)
{
        const struct timespec pause = {.tv_nsec = PAUSE_NSEC};
        uint64_t round = g->round + 1;

        memory_verify(g);
        disk_verify(g);
        memory_write(g, round, round % SLICES, SLICES);
        file_write(g, round);
        count_write(g, round);
        g->round = round;
        clock_verify(g);
        printf("guest: round %" PRIu64 " at %jd.%03ld s, memory ok, disk ok\n", round,
               (intmax_t)g->now.tv_sec, g->now.tv_nsec / 1000000);
        nanosleep(&pause, NULL);
}

/*
 * Takes up what the disk holds.  The count may be one behind the newest file: the machine
 * stopped in between.
 */
static void disk_take_up(struct guest *g)
{
        char name[64];

        if (mkdir("/data", 0700) == 0)
                directory_sync("/");
        if (read_direct(g, "/data/count", COUNT_BYTES)) {
                g->round = g->buffer[0];
                verify(g->buffer, COUNT_BYTES / sizeof(uint64_t), g->round, 0, "/data/count");
        }
        for (size_t i = 0; i < KEPT; i++) {
                file_name(name, sizeof(name), i);
                if (!read_direct(g, name, FILE_BYTES))
                        continue;
                g->file_round[i] = g->buffer[0];
                if (g->file_round[i] % KEPT != i || g->file_round[i] > g->round + 1 ||
                    g->file_round[i] + KEPT <= g->round)
                        fail("%s is of round %" PRIu64 ", the count %" PRIu64, name,
                             g->file_round[i], g->round);
        }
        disk_verify(g);
        printf("guest: the disk is of round %" PRIu64 "\n", g->round);
}

static uint64_t option(const char *name, uint64_t otherwise)
{
        const char *text = getenv(name);

        return text ? strtoull(text, NULL, 10) : otherwise;
}

static void load_module(const char *path)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        fail_unless(fd >= 0, path);
        fail_unless(syscall(SYS_finit_module, fd, "", 0) == 0 || errno == EEXIST, path);
        close(fd);
}

/* From the initramfs to the disk's own /sbin/init. */
static void root_switch(char **argv)
{
        const struct timespec step = {.tv_nsec = 10 * 1000 * 1000};
        FILE *list = fopen("/modules", "re");
        char path[256];

        fail_unless(list, "/modules");
        while (fgets(path, sizeof(path), list)) {
                path[strcspn(path, "\n")] = '\0';
                load_module(path);
        }
        fclose(list);

        fail_unless(mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) == 0, "devtmpfs");
        for (int i = 0; i < DISK_WAIT_STEPS && access("/dev/vda", F_OK) < 0; i++)
                nanosleep(&step, NULL);
        fail_unless(mount("/dev/vda", "/root", "ext4", MS_NOATIME, "discard") == 0, "/dev/vda");
        fail_unless(mount("/dev", "/root/dev", NULL, MS_MOVE, NULL) == 0, "/root/dev");
        fail_unless(chdir("/root") == 0 && mount(".", "/", NULL, MS_MOVE, NULL) == 0 &&
                    chroot(".") == 0 && chdir("/") == 0, "/root");
        execv("/sbin/init", argv);
        fail("/sbin/init: %s", strerror(errno));
}

int main(int argc, char **argv)
{
        static struct guest g;

        (void)argc;
        setvbuf(stdout, NULL, _IOLBF, 0);
        if (access("/modules", F_OK) == 0)
                root_switch(argv);

        g.last_round = option("rounds", UINT64_MAX);
        g.page_count = option("hold", 4) << 8;
        g.memory = mmap(NULL, g.page_count << 12, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        g.page_round = calloc(g.page_count, sizeof(*g.page_round));
        g.buffer = aligned_alloc(4096, FILE_BYTES);
        fail_unless(g.memory != MAP_FAILED && g.page_round && g.buffer, "memory");

        disk_take_up(&g);
        memory_write(&g, g.round, 0, 1);
        while (g.round < g.last_round)
                round_run(&g);
        fail_unless(mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0, "read-only");
        printf("guest: done after round %" PRIu64 "\n", g.round);
        restart();
}
