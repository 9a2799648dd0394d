/*
 * bench-raw.c - the same requests to a plain file: what a ring can do without us.
 *
 * The ring is set up as the plugin's is and the file registered with it; nothing
 * else stands between the pattern and the kernel.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/workload.h"

enum { FLUSH_SLOT = WORKLOAD_DEPTH_MAX };

static struct {
        struct workload work;
        struct io_uring ring;
        unsigned idle[WORKLOAD_DEPTH_MAX];
        unsigned idle_count;
} bench;

static void die(const char *what, int code)
{
        fprintf(stderr, "bench-raw: %s: %s\n", what, strerror(-code));
        exit(1);
}

static void make_ring(void)
{
        static const unsigned flags[] = {
                IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                IORING_SETUP_COOP_TASKRUN,
                0,
        };
        int ret = -EINVAL;

        for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]) && ret == -EINVAL; i++)
                ret = io_uring_queue_init(WORKLOAD_DEPTH_MAX, &bench.ring, flags[i]);
        if (ret < 0)
                die("io_uring_queue_init", ret);
}

static void open_file(void)
{
        const struct workload *w = &bench.work;
        struct stat st;
        int fd = open(w->path, (w->write ? O_RDWR : O_RDONLY) | (w->direct ? O_DIRECT : 0));
        int ret;

        if (fd < 0 || fstat(fd, &st) < 0)
                die(w->path, -errno);
        bench.work.disk_bytes = st.st_size;
        ret = io_uring_register_files(&bench.ring, &fd, 1);
        if (ret < 0)
                die("io_uring_register_files", ret);
        close(fd);
}

static void start_all(void)
{
        struct workload *w = &bench.work;
        enum workload_step step;
        uint64_t offset;

        while ((step = workload_next(w, &offset)) != WORKLOAD_WAIT) {
                struct io_uring_sqe *sqe = io_uring_get_sqe(&bench.ring);
                unsigned slot = FLUSH_SLOT;

                if (sqe == NULL)
                        die("io_uring_get_sqe", -EBUSY);
                if (step == WORKLOAD_FLUSH) {
                        io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
                } else {
                        slot = bench.idle[--bench.idle_count];
                        io_uring_prep_rw(w->write ? IORING_OP_WRITE : IORING_OP_READ, sqe, 0,
                                         workload_buffer(w, slot), w->request_bytes, offset);
                }
                sqe->flags |= IOSQE_FIXED_FILE;
                sqe->user_data = slot;
        }
}

static void complete(unsigned slot, int result)
{
        if (result < 0)
                die("request", result);
        if (slot == FLUSH_SLOT) {
                workload_flushed(&bench.work);
                return;
        }
        if ((uint32_t)result != bench.work.request_bytes)
                die("request was cut short", -EIO);
        bench.idle[bench.idle_count++] = slot;
        workload_requested(&bench.work);
}

static double run(void)
{
        double begin = workload_now();
        struct io_uring_cqe *cqe;
        unsigned head;

        while (!workload_done(&bench.work)) {
                unsigned count = 0;
                int ret;

                start_all();
                ret = io_uring_submit_and_wait(&bench.ring, 1);
                if (ret < 0 && ret != -EINTR)
                        die("io_uring_submit_and_wait", ret);
                io_uring_for_each_cqe(&bench.ring, head, cqe) {
                        complete(cqe->user_data, cqe->res);
                        count++;
                }
                io_uring_cq_advance(&bench.ring, count);
        }
        return workload_now() - begin;
}

int main(int argc, char **argv)
{
        double seconds;

        workload_init(&bench.work, "bench-raw", argc, argv);
        make_ring();
        open_file();
        for (unsigned i = 0; i < bench.work.depth; i++)
                bench.idle[bench.idle_count++] = i;
        seconds = run();
        io_uring_queue_exit(&bench.ring);
        workload_clear(&bench.work);
        printf("%.6f io_uring\n", seconds);
        return 0;
}
