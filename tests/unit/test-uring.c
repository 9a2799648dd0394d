/*
 * test-uring.c - what a restricted ring cannot be made to do.
 *
 * Properties: whoever fills in an SQE of the engine's ring by hand gets -EACCES for each
 * operation, flag, unregistered file and registration that the engine has no use for; the
 * same in a ring that is not restricted goes through, so it is the restriction that
 * refused; a file without a slot is refused when it is added, not when it is read.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "async/engine-uring.h"

struct bed {
        struct loop loop;
        struct uring *u;
        struct io_file file;
        int fd;
};

/* False: there is no io_uring here. */
static bool bed_init(struct bed *b, bool restricted)
{
        struct engine *engine;
        int ret = engine_uring_new(8, restricted, &engine);

        if (ret < 0) {
                g_test_skip("no io_uring");
                return false;
        }
        loop_init(&b->loop, engine, true);
        b->u = (struct uring *)engine;
        b->fd = memfd_create("image", MFD_CLOEXEC);
        g_assert_cmpint(ftruncate(b->fd, 4096), ==, 0);
        g_assert_cmpint(io_file_open(&b->file, engine, b->fd), ==, 0);
        g_assert_cmpint(b->file.slot, >, URING_NOTIFY_SLOT);
        return true;
}

static void bed_clear(struct bed *b)
{
        io_file_close(&b->file);
        loop_clear(&b->loop);
        close(b->fd);
}

/* Sends one SQE past the engine; its result. */
static int send_one(struct bed *b, struct io_uring_sqe filled)
{
        struct io_uring_sqe *sqe = io_uring_get_sqe(&b->u->ring);
        struct io_uring_cqe *cqe;
        int result;

        *sqe = filled;
        g_assert_cmpint(io_uring_submit_and_wait(&b->u->ring, 1), ==, 1);
        g_assert_cmpint(io_uring_peek_cqe(&b->u->ring, &cqe), ==, 0);
        result = cqe->res;
        io_uring_cqe_seen(&b->u->ring, cqe);
        return result;
}

static int read_through(struct bed *b, int fd, unsigned flags)
{
        static char buffer[512];
        struct io_uring_sqe sqe;

        io_uring_prep_read(&sqe, fd, buffer, sizeof(buffer), 0);
        sqe.flags |= flags;
        return send_one(b, sqe);
}

/* Every other operation, with a registered file as demanded and nothing else filled in. */
static void test_operations(void)
{
        static const unsigned allowed[] = {
                IORING_OP_NOP, IORING_OP_POLL_ADD, IORING_OP_READ, IORING_OP_READV,
                IORING_OP_READ_FIXED, IORING_OP_WRITE, IORING_OP_WRITEV, IORING_OP_WRITE_FIXED,
                IORING_OP_FSYNC, IORING_OP_FALLOCATE,
        };
        struct bed b;
        unsigned op, i;

        if (!bed_init(&b, true))
                return;
        for (op = 0; op < IORING_OP_LAST; op++) {
                struct io_uring_sqe sqe = {
                        .opcode = op, .flags = IOSQE_FIXED_FILE, .fd = b.file.slot,
                };

                for (i = 0; i < G_N_ELEMENTS(allowed) && allowed[i] != op; i++)
                        ;
                if (i == G_N_ELEMENTS(allowed))
                        g_assert_cmpint(send_one(&b, sqe), ==, -EACCES);
        }
        bed_clear(&b);
}

static int open_through(struct bed *b)
{
        struct io_uring_sqe sqe;

        io_uring_prep_openat(&sqe, AT_FDCWD, "/etc/passwd", O_RDONLY | O_CLOEXEC, 0);
        return send_one(b, sqe);
}

static void test_files_and_flags(void)
{
        struct bed b;

        if (!bed_init(&b, true))
                return;
        g_assert_cmpint(read_through(&b, b.file.slot, IOSQE_FIXED_FILE), ==, 512);
        g_assert_cmpint(read_through(&b, b.file.slot, IOSQE_FIXED_FILE | IOSQE_ASYNC), ==, 512);
        g_assert_cmpint(read_through(&b, b.fd, 0), ==, -EACCES);
        g_assert_cmpint(read_through(&b, b.file.slot, IOSQE_FIXED_FILE | IOSQE_IO_LINK), ==,
                        -EACCES);
        g_assert_cmpint(open_through(&b), ==, -EACCES);
        bed_clear(&b);
}

static int unregister(struct bed *b, unsigned what)
{
        int ret = syscall(SYS_io_uring_register, b->u->ring.ring_fd, what, NULL, 0);

        return ret < 0 ? -errno : ret;
}

static void test_registrations(void)
{
        struct bed b;

        if (!bed_init(&b, true))
                return;
        g_assert_cmpint(unregister(&b, IORING_UNREGISTER_FILES), ==, -EACCES);
        g_assert_cmpint(unregister(&b, IORING_UNREGISTER_EVENTFD), ==, -EACCES);
        g_assert_cmpint(unregister(&b, IORING_REGISTER_PERSONALITY), ==, -EACCES);
        bed_clear(&b);
}

/* It is the restriction that refused: without it all that goes through. */
static void test_unrestricted(void)
{
        struct bed b;
        int fd;

        if (!bed_init(&b, false))
                return;
        g_assert_cmpint(read_through(&b, b.fd, 0), ==, 512);
        fd = open_through(&b);
        g_assert_cmpint(fd, >=, 0);
        close(fd);
        g_assert_cmpint(unregister(&b, IORING_UNREGISTER_EVENTFD), ==, 0);
        bed_clear(&b);
}

/* A thread that takes the image over gets the same ring. */
static void test_attach(void)
{
        struct bed b;

        if (!bed_init(&b, true))
                return;
        g_assert_cmpint(b.u->engine.ops->detach(&b.u->engine), ==, 0);
        g_assert_cmpint(b.u->engine.ops->attach(&b.u->engine), ==, 0);
        g_assert_cmpint(read_through(&b, b.file.slot, IOSQE_FIXED_FILE), ==, 512);
        g_assert_cmpint(read_through(&b, b.fd, 0), ==, -EACCES);
        g_assert_cmpint(open_through(&b), ==, -EACCES);
        bed_clear(&b);
}

/* Adds files until there is no slot.  The last one's error, and how many had a slot. */
static int add_many(struct bed *b, struct io_file *files, unsigned count, unsigned *ret_slots)
{
        int ret = 0;
        unsigned i;

        *ret_slots = 0;
        for (i = 0; i < count && ret == 0; i++) {
                ret = io_file_open(&files[i], &b->u->engine, b->fd);
                *ret_slots += ret == 0 && files[i].slot >= 0;
        }
        return ret;
}

static void test_full_table(void)
{
        struct io_file files[URING_FILES_MAX];
        unsigned slots, i;
        struct bed b;

        if (!bed_init(&b, true))
                return;
        g_assert_cmpint(add_many(&b, files, G_N_ELEMENTS(files), &slots), ==, -EMFILE);
        g_assert_cmpuint(slots, ==, URING_FILES_MAX - 2);
        io_file_close(&files[7]);
        g_assert_cmpint(io_file_open(&files[7], &b.u->engine, b.fd), ==, 0);
        for (i = 0; i < slots; i++)
                io_file_close(&files[i]);
        bed_clear(&b);

        if (!bed_init(&b, false))
                return;
        g_assert_cmpint(add_many(&b, files, G_N_ELEMENTS(files), &slots), ==, 0);
        g_assert_cmpuint(slots, ==, URING_FILES_MAX - 2);
        for (i = 0; i < G_N_ELEMENTS(files); i++)
                io_file_close(&files[i]);
        bed_clear(&b);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/uring/operations", test_operations);
        g_test_add_func("/uring/files-and-flags", test_files_and_flags);
        g_test_add_func("/uring/registrations", test_registrations);
        g_test_add_func("/uring/unrestricted", test_unrestricted);
        g_test_add_func("/uring/attach", test_attach);
        g_test_add_func("/uring/full-table", test_full_table);
        return g_test_run();
}
