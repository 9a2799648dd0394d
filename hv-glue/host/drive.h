/*
 * drive.h - an opened image, for whoever uses it from one thread.
 *
 * A drive is the host's half of an opened image: the file descriptors, the
 * policy that says which other files it may name, the memory of requests.  It
 * belongs to the thread that opened it (or last attached it).
 *
 * Two ways to use it:
 *  - Synchronously: drive_preadv() and its sisters start one request and poll
 *    until it is done.  Requests of others complete meanwhile.
 *  - Asynchronously: a drive_op is one request that may be in flight.  Start it,
 *    poll (drive_poll, drive_poll_many, or drive_queue_fd in a loop of your own),
 *    get its done() called from there.
 * No synchronous function and no poll may be called from a done().
 *
 * The format "raw" is served as well, by a driver built into the host (raw.h).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HOST_DRIVE_H
#define HOST_DRIVE_H

#include <stdbool.h>
#include <sys/types.h>

#include "host/error.h"
#include "host/policy.h"
#include "hv-block.h"

struct drive;

/* What the user of a drive hears of.  All optional; on the drive's thread. */
struct drive_watch {
        void *opaque;
        void (*log)(void *opaque, enum hvb_log_level level, const char *text);
        enum hvb_error_action (*io_error)(void *opaque, const struct hvb_io_error *what);
        void (*event)(void *opaque, const struct hvb_event *event);
};

/* QEMU's cache modes, taken apart. */
struct drive_cache {
        bool direct;                    /* O_DIRECT: none, directsync */
        bool writethrough;              /* each write durable: writethrough, directsync */
        bool no_flush;                  /* flushes do nothing: unsafe */
};

struct drive_options {
        const char *format;             /* "qcow2", "raw", or NULL: probe (tools only) */
        uint32_t flags;                 /* HVB_OPEN_*; HVB_OPEN_RDWR opens the file so */
        unsigned queue_entries;         /* 0: the driver's default */
        struct drive_cache cache;
        unsigned lock_timeout_ms;       /* how long to ask again while another process has the
                                         * image's lock; 0: not at all */
        const char *const *options;     /* the driver's "key=value", NULL-terminated, or NULL */
        const struct policy *policy;    /* NULL: the image may name no file.  Outlives the drive */
        const struct drive_watch *watch;        /* or NULL.  Outlives the drive */
};

/* "none", "writeback", "writethrough", "directsync", "unsafe"; false: no such mode. */
bool drive_cache_parse(const char *mode, struct drive_cache *ret_cache);

/* Returns 0, or -errno with err filled and no drive. */
int drive_open(const char *path, const struct drive_options *options, struct drive **ret_drive,
               struct hvb_error *err);

/*
 * Creates the file if need be, formats it, and leaves it open read-write.  args: fd,
 * name and host are filled in here.  format, cache, policy, watch and options come
 * from options.  A file that was made here and cannot be formatted is removed.
 */
int drive_create(const char *path, const struct hvb_create_args *args,
                 const struct drive_options *options, struct drive **ret_drive,
                 struct hvb_error *err);

/* Waits for what runs, closes, frees.  The drive is gone in any case; an error
 * says that data could not be made safe.  NULL is fine. */
int drive_close(struct drive *drive, struct hvb_error *err);

/* The parts, for what has no wrapper here. */
const struct hvb_driver *drive_driver(const struct drive *drive);
struct hvb_image *drive_image(const struct drive *drive);
struct hvb_queue *drive_queue(const struct drive *drive);
int drive_queue_fd(const struct drive *drive);
int drive_fd(const struct drive *drive);                /* of the image file; borrowed */
const char *drive_path(const struct drive *drive);
const char *drive_format(const struct drive *drive);    /* "raw", "qcow2" */
bool drive_was_probed(const struct drive *drive);       /* format was not given */
uint64_t drive_bytes(const struct drive *drive);        /* virtual size now */
/* The file of the image at depth (0: the image itself, 1: its backing file, ...): fd
 *, path and format, borrowed; -1 and NULL when there is none open. */
int drive_chain_fd(const struct drive *drive, unsigned depth);
const char *drive_chain_path(const struct drive *drive, unsigned depth);
const char *drive_chain_format(const struct drive *drive, unsigned depth);
void drive_get_info(const struct drive *drive, struct hvb_image_info *ret_info);

/* ---- Asynchronous ------------------------------------------------------------- */

/*
 * One request.  Idle when made and when done() begins; starting a busy one is a
 * bug.  The fields below are the user's to set while it is idle.
 */
struct drive_op {
        struct drive *drive;
        void (*done)(struct drive_op *op);      /* from poll; may start op again; or NULL */
        void *opaque;
        int result;                     /* valid in done and until the next start */
        bool busy;
        struct hvb_request *request;    /* progress_done, progress_total may be read */
};

struct drive_op *drive_op_new(struct drive *drive);
void drive_op_free(struct drive_op *op);        /* idle ones; NULL is fine */

/* Start.  Buffers, iovecs and results live until done. */
void drive_op_preadv(struct drive_op *op, uint64_t offset, const struct iovec *iov,
                     unsigned iov_count, uint32_t flags);
void drive_op_pwritev(struct drive_op *op, uint64_t offset, const struct iovec *iov,
                      unsigned iov_count, uint32_t flags);
void drive_op_pwrite_zeroes(struct drive_op *op, uint64_t offset, uint64_t length_bytes,
                            uint32_t flags);
void drive_op_pdiscard(struct drive_op *op, uint64_t offset, uint64_t length_bytes);
void drive_op_flush(struct drive_op *op);
void drive_op_block_status(struct drive_op *op, uint64_t offset, uint64_t length_bytes,
                           struct hvb_block_status *ret_status);
void drive_op_snapshot_preadv(struct drive_op *op, struct hvb_snapshot *snapshot, uint64_t offset,
                              const struct iovec *iov, unsigned iov_count, uint32_t flags);
void drive_op_snapshot_block_status(struct drive_op *op, struct hvb_snapshot *snapshot,
                                    uint64_t offset, uint64_t length_bytes, uint32_t flags,
                                    struct hvb_block_status *ret_status);
/* For members without a start of their own: marks op busy and gives the request
 * to hand to the driver. */
struct hvb_request *drive_op_begin(struct drive_op *op);

/* Polls until op is idle; returns its result. */
int drive_op_wait(struct drive_op *op);

/* Submits and completes; timeout_ms as for hvb_driver.poll.  Returns how many
 * completed, or -errno. */
int drive_poll(struct drive *drive, int timeout_ms);
/* The same over several drives: waits until one of them has something. */
int drive_poll_many(struct drive *const *drives, unsigned count, int timeout_ms);

/* ---- Synchronous: 0 or -errno -------------------------------------------------- */

int drive_preadv(struct drive *drive, uint64_t offset, const struct iovec *iov,
                 unsigned iov_count);
int drive_pwritev(struct drive *drive, uint64_t offset, const struct iovec *iov,
                  unsigned iov_count, uint32_t flags);
int drive_pread(struct drive *drive, uint64_t offset, void *buffer, size_t length_bytes);
int drive_pwrite(struct drive *drive, uint64_t offset, const void *buffer, size_t length_bytes,
                 uint32_t flags);
int drive_pwrite_zeroes(struct drive *drive, uint64_t offset, uint64_t length_bytes,
                        uint32_t flags);
int drive_pdiscard(struct drive *drive, uint64_t offset, uint64_t length_bytes);
int drive_flush(struct drive *drive);
int drive_drain(struct drive *drive);
int drive_block_status(struct drive *drive, uint64_t offset, uint64_t length_bytes,
                       struct hvb_block_status *ret_status);
int drive_truncate(struct drive *drive, uint64_t new_bytes, enum hvb_preallocation preallocation,
                   struct hvb_error *err);
/* report and opaque of ret_result are the caller's, to be set before. */
int drive_check(struct drive *drive, uint32_t flags, struct hvb_check_result *ret_result,
                struct hvb_error *err);

/*
 * Snapshots; id and name as in hvb_driver.  create: info->name and the clocks are the
 * caller's, id_str and disk_bytes come back.
 */
int drive_snapshot_create(struct drive *drive, struct hvb_snapshot_info *info, uint32_t flags,
                          struct hvb_error *err);
int drive_snapshot_goto(struct drive *drive, const char *id, const char *name,
                        struct hvb_error *err);
int drive_snapshot_delete(struct drive *drive, const char *id, const char *name,
                          struct hvb_error *err);
/*
 * snapshot_create in its phases: see hvb_driver.snapshot_prepare.  VM state is saved by
 * drive_save_vmstate until publish.  -ENOTSUP: the driver cannot.
 */
int drive_snapshot_prepare(struct drive *drive, const struct hvb_snapshot_info *info,
                           uint32_t flags, struct hvb_error *err);
int drive_snapshot_switch(struct drive *drive, struct hvb_error *err);
int drive_snapshot_publish(struct drive *drive, struct hvb_snapshot_info *info,
                           struct hvb_error *err);
int drive_snapshot_abort(struct drive *drive, struct hvb_error *err);
/* What of drive_snapshot_goto grows with the disk; drive_snapshot_abort takes it back. */
int drive_snapshot_goto_prepare(struct drive *drive, const char *id, const char *name,
                                struct hvb_error *err);
int drive_snapshot_load_tmp(struct drive *drive, const char *id, const char *name,
                            struct hvb_error *err);
/* load_vmstate reads that snapshot's state from now on, the disk stays.  -ENOTSUP: the driver
 * cannot. */
int drive_snapshot_load_vmstate(struct drive *drive, const char *id, const char *name,
                                struct hvb_error *err);

/*
 * Reading one while the drive goes on: see hvb_driver.snapshot_open.  ret_info may be NULL.
 * -ENOTSUP: the driver cannot.  close takes NULL, too; closing the drive closes what is left.
 */
int drive_snapshot_open(struct drive *drive, const char *id, const char *name,
                        struct hvb_snapshot_info *ret_info, struct hvb_snapshot **ret_snapshot,
                        struct hvb_error *err);
int drive_snapshot_close(struct drive *drive, struct hvb_snapshot *snapshot,
                         struct hvb_error *err);
int drive_snapshot_preadv(struct drive *drive, struct hvb_snapshot *snapshot, uint64_t offset,
                          const struct iovec *iov, unsigned iov_count, uint32_t flags);
int drive_snapshot_block_status(struct drive *drive, struct hvb_snapshot *snapshot,
                                uint64_t offset, uint64_t length_bytes, uint32_t flags,
                                struct hvb_block_status *ret_status);

/* All of them in *ret_infos (g_free).  Returns their number, or -ENOMEM. */
int drive_snapshot_list(struct drive *drive, struct hvb_snapshot_info **ret_infos);
int drive_save_vmstate(struct drive *drive, uint64_t offset, const struct iovec *iov,
                       unsigned iov_count);
int drive_load_vmstate(struct drive *drive, uint64_t offset, const struct iovec *iov,
                       unsigned iov_count);
/* Saves what an open snapshot has, by reference: see hvb_driver.share_vmstate.  -ENOTSUP, too, if
 * the driver cannot: copy then. */
int drive_share_vmstate(struct drive *drive, struct hvb_snapshot *source, uint64_t source_offset,
                        uint64_t offset, uint64_t length_bytes);

/* Handoff to another process and back. */
int drive_inactivate(struct drive *drive, struct hvb_error *err);
int drive_activate(struct drive *drive, struct hvb_error *err);

#endif
