/*
 * hv-block.h - the ABI between a hypervisor (the host) and a block driver plugin.
 *
 * A plugin exports one symbol, hvb_driver_entry.  The host loads the plugin,
 * calls it with the ABI version it was built for, and gets the table of
 * everything the driver can do.  Members are named after QEMU's BlockDriver.
 *
 * Contract, in a few sentences:
 *
 *  - The host owns threads, loops, files and request memory.  The driver starts
 *    no event loop, opens and closes no file, and allocates nothing on the path
 *    of a request whose metadata is cached.
 *  - An image has queues; a queue belongs to the one thread that opened (or last
 *    attached) the image.  Queue 0 is the image's home: control operations run
 *    there.  Unless a member says otherwise, call it from the queue's thread.
 *  - Every operation that may wait takes a request.  Starting it never completes
 *    it: complete() is called from poll(), on the queue's thread, exactly once.
 *    New operations may be started from complete(); poll() and release() may not
 *    be called from there.
 *  - After starting operations call poll() before sleeping on queue_fd().  When
 *    poll() has returned, the fd becomes readable if there is more to do.
 *  - Results are 0 (or a stated non-negative value), or a negative errno.  A
 *    control operation that fails also fills its hvb_error, once, with a text
 *    that names the field, the value and the limit.
 *  - Every struct begins with its size as its maker knew it.  Structs and the
 *    driver table only grow at the end.  Set struct_bytes, zero the rest.
 *
 * Units stand last in a name: _bytes, _nsec.  Strings are UTF-8, NUL-terminated.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef HV_BLOCK_H
#define HV_BLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised only when old and new cannot work together at all. */
#define HVB_ABI_VERSION 1u

/* The symbol that a plugin exports, of type hvb_driver_entry_fn. */
#define HVB_DRIVER_ENTRY "hvb_driver_entry"

struct hvb_image;       /* an opened image with its backing chain; opaque */
struct hvb_queue;       /* one thread's way to an image; opaque */
struct hvb_snapshot;    /* a snapshot that is being read; opaque */

/* Why an operation failed.  The host owns it; it must live until completion. */
struct hvb_error {
        uint32_t struct_bytes;
        int32_t code;                   /* negative errno, 0 when nothing failed */
        char text[1016];                /* one line, no newline at the end */
};

/*
 * One operation in flight.  The host allocates hvb_driver.request_bytes for it,
 * aligned to 64 bytes, zeroed once; this struct lies at its start and the rest
 * is the driver's.  It must not be touched between start and complete(), but for
 * reading the progress; afterwards it may be used again as it is.
 */
struct hvb_request {
        uint32_t struct_bytes;
        int32_t result;                 /* valid in complete(): 0 or negative errno */
        void (*complete)(struct hvb_request *request);  /* required */
        void *opaque;                   /* the host's */
        /* Snapshot operations that walk all tables count here; total 0 means unknown.  In
         * units as the operation sees fit; for a percentage only. */
        uint64_t progress_done;
        uint64_t progress_total;
};

/* Flags of data requests. */
enum {
        HVB_REQ_FUA             = 1 << 0,  /* durable at completion, as if flushed */
        HVB_REQ_MAY_UNMAP       = 1 << 1,  /* pwrite_zeroes may deallocate */
        HVB_REQ_NO_FALLBACK     = 1 << 2,  /* pwrite_zeroes: -ENOTSUP rather than write data */
        HVB_REQ_COMPRESS        = 1 << 3,  /* pwritev: one cluster, or the disk's end */
        HVB_REQ_VMSTATE         = 1 << 4,  /* snapshot_*: the VM state, not the disk */
};

/* ---- What the host provides ------------------------------------------------ */

enum hvb_log_level { HVB_LOG_ERROR, HVB_LOG_WARNING, HVB_LOG_INFO, HVB_LOG_DEBUG };

/* Which role a child file plays for the image that asks for it. */
enum hvb_child_role { HVB_CHILD_BACKING, HVB_CHILD_DATA };

/* A file that an image names.  Names come from the image: untrusted. */
struct hvb_child_query {
        uint32_t struct_bytes;
        uint32_t role;                  /* enum hvb_child_role */
        const char *name;               /* as stored in the image */
        const char *format;             /* as stored, "" when the image names none */
        const char *parent_name;        /* hvb_open_args.name or hvb_child.name of the asker */
        uint32_t writable;              /* nonzero: must be opened read-write */
        uint32_t depth;                 /* 1 for the top image's own child */
};

/*
 * The host's answer.  The driver may use fd until it calls close_child, which it
 * does before release() returns.  format must be "raw" or "qcow2": the driver never
 * probes.
 */
struct hvb_child {
        uint32_t struct_bytes;
        int32_t fd;
        const char *format;             /* copied by the driver */
        const char *name;               /* for messages and locks' hints; copied */
        void *opaque;                   /* the host's, handed back to close_child */
};

/* What failed, when the host is asked what to do about it. */
struct hvb_io_error {
        uint32_t struct_bytes;
        int32_t code;                   /* -EIO, -ENOSPC, ... */
        uint32_t is_write;
        uint64_t offset;                /* guest offset of the request, bytes */
        uint64_t length_bytes;
        struct hvb_request *request;    /* for identification only */
};

enum hvb_error_action {
        HVB_ACTION_REPORT,              /* complete the request with the error */
        HVB_ACTION_IGNORE,              /* complete it with 0 (data is lost or zero) */
        HVB_ACTION_STOP,                /* park it; retry() starts it again */
};

enum hvb_event_type {
        HVB_EVENT_POISONED,             /* disk state unknown: writes refused until reopened */
        HVB_EVENT_CORRUPTION,           /* inconsistent metadata met; code and text say which */
        HVB_EVENT_REPAIR_BEGIN,         /* the image was dirty; it is being repaired */
        HVB_EVENT_REPAIR_END,           /* code: 0 or the error */
};

struct hvb_event {
        uint32_t struct_bytes;
        uint32_t type;                  /* enum hvb_event_type */
        int32_t code;
        const char *text;               /* valid during the call */
};

/*
 * Callbacks, all on the queue's thread, all optional: without open_child every
 * child is refused, without io_error errors are reported.  No callback may call
 * back into the driver.  The table must outlive the image.
 */
struct hvb_host {
        uint32_t struct_bytes;
        void *opaque;
        void (*log)(void *opaque, enum hvb_log_level level, const char *text);
        /* Returns 0, or -errno with err filled. */
        int (*open_child)(void *opaque, const struct hvb_child_query *query,
                          struct hvb_child *ret_child, struct hvb_error *err);
        void (*close_child)(void *opaque, const struct hvb_child *child);
        enum hvb_error_action (*io_error)(void *opaque, const struct hvb_io_error *what);
        void (*event)(void *opaque, const struct hvb_event *event);
};

/* ---- Open and create --------------------------------------------------------- */

enum {
        HVB_OPEN_RDWR           = 1 << 0,  /* fd is writable and the image will be written */
        HVB_OPEN_NO_LOCK        = 1 << 1,  /* take no locks on the fds (block devices, sandboxes) */
        HVB_OPEN_FORCE_SHARE    = 1 << 2,  /* read-only beside a writer, not consistent */
        HVB_OPEN_NO_BACKING     = 1 << 3,  /* no children: what they hold is -ENOMEDIUM */
        HVB_OPEN_CHECK          = 1 << 4,  /* for check(): dirty or corrupt images as they are */
};

/*
 * The driver borrows fd: the host keeps it open until release() and closes it.
 * Locks (QEMU's byte-range OFD locks) are taken by the driver on the fd's open
 * file description: dup()ed and inherited fds share them, and they go when close()
 * completes or the last such fd is closed.  The kernel closes a ring's files some time
 * after it has reported the death of a process that was killed: whoever starts another at
 * once may meet the locks (-EAGAIN) for some milliseconds, and should try again.
 */
struct hvb_open_args {
        uint32_t struct_bytes;
        uint32_t flags;                 /* HVB_OPEN_* */
        int32_t fd;
        uint32_t queue_entries;         /* ring size, rounded up to a power of 2; 0: 256 */
        const char *name;               /* for messages; copied */
        const struct hvb_host *host;    /* may be NULL */
        /* NULL-terminated "key=value" strings, or NULL.  Keys: see hvb_driver.open_options. */
        const char *const *options;
};

enum hvb_preallocation {
        HVB_PREALLOC_OFF, HVB_PREALLOC_METADATA, HVB_PREALLOC_FALLOC, HVB_PREALLOC_FULL,
};

enum hvb_compression { HVB_COMPRESSION_ZLIB, HVB_COMPRESSION_ZSTD };

struct hvb_create_args {
        uint32_t struct_bytes;
        int32_t fd;                     /* borrowed, writable; emptied first */
        const char *name;
        const struct hvb_host *host;
        uint64_t size_bytes;            /* virtual size, a multiple of 512 */
        uint64_t cluster_bytes;         /* power of 2, 512..2 MiB; 0: 65536 */
        uint32_t refcount_bits;         /* 1,2,4..64; 0: 16 */
        uint32_t version;               /* 2 or 3; 0: 3 ("compat" 0.10 and 1.1) */
        uint32_t lazy_refcounts;        /* bool; version 3 only */
        uint32_t preallocation;         /* enum hvb_preallocation */
        uint32_t compression;           /* enum hvb_compression; version 3 only if not zlib */
        uint32_t queue_entries;         /* as in hvb_open_args */
        const char *backing_name;       /* or NULL; stored, not opened */
        const char *backing_format;     /* required with backing_name */
        const char *const *options;     /* as in hvb_open_args */
};

/* ---- What the driver tells ------------------------------------------------------ */

/* Fields of QEMUSnapshotInfo. */
struct hvb_snapshot_info {
        uint32_t struct_bytes;
        uint32_t date_sec;              /* seconds since the epoch, UTC */
        uint32_t date_nsec;
        char id_str[128];               /* unique; chosen by the driver on create */
        char name[256];
        uint64_t vm_state_bytes;        /* 0: disk only */
        uint64_t vm_clock_nsec;         /* guest run time */
        uint64_t icount;                /* UINT64_MAX: none recorded */
        uint64_t disk_bytes;            /* virtual size at the time; set by the driver */
};

struct hvb_image_info {
        uint32_t struct_bytes;
        uint32_t version;               /* 2 or 3 */
        uint64_t virtual_bytes;
        uint64_t cluster_bytes;
        uint64_t file_bytes;            /* length of the image file */
        uint64_t vm_state_offset;       /* guest offset where VM states begin */
        uint64_t incompatible_features; /* as on disk */
        uint64_t compatible_features;
        uint64_t autoclear_features;
        uint32_t refcount_bits;
        uint32_t compression;           /* enum hvb_compression */
        uint32_t lazy_refcounts;
        uint32_t dirty;                 /* bool: incompatible bit 0 */
        uint32_t corrupt;               /* bool: incompatible bit 1 */
        uint32_t poisoned;              /* bool: writes refused until reopened */
        uint32_t read_only;
        uint32_t snapshot_count;
        uint32_t request_alignment;     /* bytes; 1, or the device's block with O_DIRECT */
        uint32_t backing_depth;         /* images below this one that are open */
        uint64_t cache_bytes;           /* memory held by metadata caches now */
        uint64_t cache_limit_bytes;
        char backing_name[1024];        /* "" when none */
        char backing_format[64];
        char engine[32];                /* "io_uring" or "threads" */
};

enum {
        HVB_STATUS_DATA         = 1 << 0,  /* reads from a file of the chain */
        HVB_STATUS_ZERO         = 1 << 1,  /* reads as zeros */
        HVB_STATUS_OFFSET_VALID = 1 << 2,  /* host_offset is meaningful */
        HVB_STATUS_ALLOCATED    = 1 << 3,  /* content comes from this chain of files */
        HVB_STATUS_COMPRESSED   = 1 << 4,
};

/* One range whose bytes are all of one kind. */
struct hvb_block_status {
        uint32_t struct_bytes;
        uint32_t flags;                 /* HVB_STATUS_* */
        uint64_t length_bytes;          /* > 0 unless at the end of the disk */
        uint64_t host_offset;           /* in the file of the image at depth */
        uint32_t depth;                 /* 0: the image itself, 1: its backing file, ... */
};

enum {
        HVB_CHECK_FIX_LEAKS     = 1 << 0,
        HVB_CHECK_FIX_ERRORS    = 1 << 1,
};

/* Counts mean what `qemu-img check` means by them. */
struct hvb_check_result {
        uint32_t struct_bytes;
        uint64_t corruptions;
        uint64_t leaks;
        uint64_t check_errors;          /* parts that could not be checked */
        uint64_t corruptions_fixed;
        uint64_t leaks_fixed;
        uint64_t image_end_offset;      /* end of the last cluster in use, bytes */
        uint64_t total_clusters;
        uint64_t allocated_clusters;
        uint64_t fragmented_clusters;
        uint64_t compressed_clusters;
        /* Called for each finding, with one line of text; may be NULL. */
        void (*report)(void *opaque, const char *text);
        void *opaque;
};

/* For snapshot_create. */
enum {
        HVB_SNAPSHOT_REPLACE    = 1 << 0,  /* an existing name is replaced, in one switch: the
                                            * first in the list that has it */
        HVB_SNAPSHOT_DUPLICATE  = 1 << 1,  /* an existing name is used once more; afterwards
                                            * only id_str tells them apart.  Not with REPLACE */
};

/* ---- The driver --------------------------------------------------------------------- */

/*
 * Ownership: everything passed by pointer to an asynchronous member (iovecs,
 * results, strings, errors) stays valid until the request completes.
 */
struct hvb_driver {
        uint32_t struct_bytes;
        uint32_t abi_version;           /* HVB_ABI_VERSION of the plugin */
        const char *format_name;        /* "qcow2" */
        const char *version_text;       /* the plugin's own, for people */
        size_t request_bytes;           /* memory a request needs; see hvb_request */
        const char *const *open_options;  /* "key=what it does (default)", NULL-terminated */

        /* How likely the first bytes of a file are this format, 0..100.  Any thread. */
        int (*probe)(const void *head, size_t head_bytes);

        /*
         * Begin to open; the image can be polled and, once the request completed
         * with 0, used.  If it completed with an error the image can only be
         * release()d.  Returns 0, or -errno (no request, no image) when even the
         * beginning failed: no memory, bad arguments, no I/O engine.
         */
        int (*open)(const struct hvb_open_args *args, struct hvb_request *request,
                    struct hvb_image **ret_image, struct hvb_error *err);

        /* Format fd, then go on as open() read-write. */
        int (*create)(const struct hvb_create_args *args, struct hvb_request *request,
                      struct hvb_image **ret_image, struct hvb_error *err);

        /*
         * Finish what runs (requests that are parked stay so, until they are cancelled), write
         * everything back, release locks.  Is not cancelled.  A request begun after it completes
         * with -EINPROGRESS, and afterwards only poll(), cancel() and release() are allowed.
         * Fails when data could not be made safe; the image is closed all the same.
         */
        void (*close)(struct hvb_image *image, struct hvb_request *request, struct hvb_error *err);

        /* Free a closed image, or one that failed to open.  No request may be in
         * flight.  Leaves no thread, fd, lock or memory. */
        void (*release)(struct hvb_image *image);

        /* Queues.  index 0 exists from open() on; NULL beyond the last. */
        struct hvb_queue *(*queue)(struct hvb_image *image, unsigned index);
        int (*queue_fd)(struct hvb_queue *queue);       /* for poll/epoll, POLLIN */
        /*
         * Submit what was started and complete what is done.  timeout_ms 0: do not
         * wait; > 0: wait at most so long for something to happen; -1: wait.
         * Returns how many requests completed, or -errno.
         */
        int (*poll)(struct hvb_queue *queue, int timeout_ms);

        /* Data.  Offsets and lengths in bytes, any alignment unless
         * hvb_image_info.request_alignment says otherwise. */
        void (*preadv)(struct hvb_queue *queue, struct hvb_request *request, uint64_t offset,
                       const struct iovec *iov, unsigned iov_count, uint32_t flags);
        void (*pwritev)(struct hvb_queue *queue, struct hvb_request *request, uint64_t offset,
                        const struct iovec *iov, unsigned iov_count, uint32_t flags);
        void (*pwrite_zeroes)(struct hvb_queue *queue, struct hvb_request *request,
                              uint64_t offset, uint64_t length_bytes, uint32_t flags);
        void (*pdiscard)(struct hvb_queue *queue, struct hvb_request *request,
                         uint64_t offset, uint64_t length_bytes);
        /* Everything completed before this call is durable when it completes. */
        void (*flush)(struct hvb_queue *queue, struct hvb_request *request);
        /* The first range at offset that is of one kind, at most length_bytes long. */
        void (*block_status)(struct hvb_queue *queue, struct hvb_request *request,
                             uint64_t offset, uint64_t length_bytes,
                             struct hvb_block_status *ret_status);
        /* Completes when all that was started before has completed. */
        void (*drain)(struct hvb_queue *queue, struct hvb_request *request);
        /* Ask a request to end early: it completes with -ECANCELED, or as if not asked. */
        void (*cancel)(struct hvb_queue *queue, struct hvb_request *request);
        /* Start requests parked by HVB_ACTION_STOP again, in their order. */
        void (*retry)(struct hvb_image *image);

        /* Memory that requests will use often (guest RAM): enables fixed buffers.
         * 0 even when the kernel refuses (then nothing changes); -EINVAL: unknown region. */
        int (*map_mem_region)(struct hvb_image *image, void *address, size_t length_bytes);
        int (*unmap_mem_region)(struct hvb_image *image, void *address, size_t length_bytes);

        /* Control operations; one that changes the image waits for another's end. */
        void (*get_info)(struct hvb_image *image, struct hvb_image_info *ret_info);
        void (*truncate)(struct hvb_image *image, struct hvb_request *request, uint64_t new_bytes,
                         enum hvb_preallocation preallocation, struct hvb_error *err);
        void (*check)(struct hvb_image *image, struct hvb_request *request, uint32_t flags,
                      struct hvb_check_result *ret_result, struct hvb_error *err);

        /*
         * Snapshots.  The guest goes on meanwhile: data requests are held off for the moment of
         * the switch only (open option walk-share).  What moves counts does so one after the
         * other.  A goto completes with its switch, and the guest may go on; what the disk was
         * is counted down afterwards, as long as the queue is polled: control operations and
         * close() wait for that, detach() is -EBUSY.
         *
         * A snapshot is named by id, by name, or by both (then both must
         * match); pass NULL for the one not meant.  -ENOENT: no such snapshot.
         */
        void (*snapshot_create)(struct hvb_image *image, struct hvb_request *request,
                                struct hvb_snapshot_info *info, uint32_t flags,
                                struct hvb_error *err);
        void (*snapshot_goto)(struct hvb_image *image, struct hvb_request *request,
                              const char *id, const char *name, struct hvb_error *err);
        void (*snapshot_delete)(struct hvb_image *image, struct hvb_request *request,
                                const char *id, const char *name, struct hvb_error *err);
        /* Copies entries [first, first + capacity) that exist; returns the number of
         * snapshots in the image.  Set struct_bytes of each entry. */
        unsigned (*snapshot_list)(struct hvb_image *image, unsigned first,
                                  struct hvb_snapshot_info *infos, unsigned capacity);
        /* Show a snapshot instead of the active disk; read-only images only. */
        void (*snapshot_load_tmp)(struct hvb_image *image, struct hvb_request *request,
                                  const char *id, const char *name, struct hvb_error *err);
        /*
         * VM state, offsets from its own start.  save writes the state that the next
         * snapshot_create or snapshot_publish takes (-EBUSY while that runs); load reads that of
         * the snapshot last gone to or loaded (snapshot_load_tmp, snapshot_load_vmstate), or what
         * was just saved.  Once that snapshot is deleted load gives -ESTALE, until another is gone
         * to, loaded or created.
         * Reading past the end gives zeros.  Saving no bytes at offset 0 gives up what was
         * saved so far (-EBUSY while a snapshot is prepared).
         * Keep many requests in flight, of whole clusters; holes are read without I/O.
         */
        void (*save_vmstate)(struct hvb_image *image, struct hvb_request *request, uint64_t offset,
                             const struct iovec *iov, unsigned iov_count);
        void (*load_vmstate)(struct hvb_image *image, struct hvb_request *request, uint64_t offset,
                             const struct iovec *iov, unsigned iov_count);

        /*
         * Handoff.  detach: drained images only (-EBUSY); afterwards another thread may
         * attach and is the queue's thread from then on.  inactivate: finish what runs, as close()
         * does, flush, mark clean, release locks; from its beginning on, unless it fails, refuse
         * requests (-EINPROGRESS) until activate, which takes the locks again and reads all
         * metadata anew.
         */
        int (*detach)(struct hvb_image *image);
        int (*attach)(struct hvb_image *image, struct hvb_error *err);
        void (*inactivate)(struct hvb_image *image, struct hvb_request *request,
                           struct hvb_error *err);
        void (*activate)(struct hvb_image *image, struct hvb_request *request,
                         struct hvb_error *err);

        /* Each operation that waits, as "name  file:line < file:line ..." (innermost first). */
        void (*dump_operations)(struct hvb_image *image,
                                void (*line)(void *opaque, const char *text), void *opaque);

        /* Younger than version 1; ask with HVB_HAS. */

        /*
         * load_vmstate reads the VM state of this snapshot from now on; the disk stays as
         * it is, so that a state can be judged before snapshot_goto.  Read-write and
         * read-only images.  A snapshot without VM state reads as zeros.  On failure
         * (-ENOENT; -EINVAL, -EFBIG: the snapshot makes no sense) nothing changes.  A
         * load_vmstate in flight may read of either state: wait for those first.
         */
        void (*snapshot_load_vmstate)(struct hvb_image *image, struct hvb_request *request,
                                      const char *id, const char *name, struct hvb_error *err);

        /*
         * Reading a snapshot while the image lives: for a backup, or for a VM state that is
         * loaded lazily.  *ret_snapshot is filled at success, and so is *ret_info (NULL: not
         * wanted; set its struct_bytes).  Any number may be open, of one snapshot or of many.
         *
         * Deleting or replacing the snapshot does not wait: it leaves the list at once, what is
         * open goes on reading it, and its space is freed by the last close.  A version 3 image
         * is marked dirty until then, so that a crash leaks nothing for good (while a snapshot is
         * prepared the space is freed at the end of that).  The image's
         * close() frees what is still open; after inactivate() reading gives -EINPROGRESS, and
         * -ESTALE once the image is active again.
         */
        void (*snapshot_open)(struct hvb_image *image, struct hvb_request *request,
                              const char *id, const char *name,
                              struct hvb_snapshot_info *ret_info,
                              struct hvb_snapshot **ret_snapshot, struct hvb_error *err);
        /*
         * No request of this snapshot may be in flight; it is not to be used any more, whatever
         * the result.  An error: the space of a deleted snapshot was not freed, and is by
         * close(), by another delete, or by a repair.
         */
        void (*snapshot_close)(struct hvb_snapshot *snapshot, struct hvb_request *request,
                               struct hvb_error *err);
        /*
         * As preadv and block_status, of the snapshot's disk (its size then: disk_bytes), or with
         * HVB_REQ_VMSTATE as load_vmstate: zeros beyond the end, where the status has length 0.
         * Errors are reported; hvb_host.io_error is not asked.
         */
        void (*snapshot_preadv)(struct hvb_queue *queue, struct hvb_request *request,
                                struct hvb_snapshot *snapshot, uint64_t offset,
                                const struct iovec *iov, unsigned iov_count, uint32_t flags);
        void (*snapshot_block_status)(struct hvb_queue *queue, struct hvb_request *request,
                                      struct hvb_snapshot *snapshot, uint64_t offset,
                                      uint64_t length_bytes, uint32_t flags,
                                      struct hvb_block_status *ret_status);

        /*
         * snapshot_create in three steps, for a host that wants several disks to be switched at
         * one moment, or that goes on saving VM state behind it.  One at a time: -EBUSY.  Between
         * prepare and the end, which is publish or abort, the guest goes on, snapshots are read,
         * and VM state is saved; but whatever else moves counts waits: snapshot_create, goto and
         * delete, truncate, check.  detach and attach may come between; close and inactivate
         * abort.
         *
         * prepare does what grows with the disk.  info: the name is judged as by snapshot_create,
         * with these flags, and not settled; vm_state_bytes if known.  On failure, that is also
         * after cancel(), all is as before, and the saved VM state given up as by snapshot_create.
         */
        void (*snapshot_prepare)(struct hvb_image *image, struct hvb_request *request,
                                 const struct hvb_snapshot_info *info, uint32_t flags,
                                 struct hvb_error *err);
        /*
         * The snapshot is the disk at one moment before this completes: what was completed before
         * the call is in it, what is started after completion is not.  No I/O of its own, it waits
         * for writes in flight.  On failure it is prepared as before.
         */
        void (*snapshot_switch)(struct hvb_image *image, struct hvb_request *request,
                                struct hvb_error *err);
        /*
         * The snapshot gets into the list, durably: with name, date, clock and icount of info, and
         * the VM state saved until now.  id_str and disk_bytes are filled in.  A failure is an
         * abort: nothing is prepared any more.  -EINVAL without effect: none was switched.
         */
        void (*snapshot_publish)(struct hvb_image *image, struct hvb_request *request,
                                 struct hvb_snapshot_info *info, struct hvb_error *err);
        /*
         * Takes back prepare, switched or not: all is as before, the saved VM state is given up
         * (after goto_prepare it stays).  A prepare still in flight is cancelled, and completes
         * before.  Nothing is prepared afterwards.  -EINVAL: there was nothing to take back.
         * -EIO: the image is poisoned.
         */
        void (*snapshot_abort)(struct hvb_image *image, struct hvb_request *request,
                               struct hvb_error *err);

        /*
         * What of snapshot_goto grows with the disk, while the guest goes on with the disk as it
         * is.  As after snapshot_prepare, of which it is an alternative, others wait until the
         * end: that is snapshot_goto of the same snapshot, which then has only the switch left
         * (a failure is an abort), or snapshot_abort.
         */
        void (*snapshot_goto_prepare)(struct hvb_image *image, struct hvb_request *request,
                                      const char *id, const char *name, struct hvb_error *err);

        /*
         * As save_vmstate, of what the VM state of an open snapshot has at source_offset, without
         * copying it: whole clusters are shared, and holes become holes.  Offsets and length are
         * multiples of cluster_bytes.  -EINVAL: they are not, or refcount_bits cannot count another
         * use.  -ENOTSUP: a cluster is compressed, copy it.  Nothing changed then.
         */
        void (*share_vmstate)(struct hvb_image *image, struct hvb_request *request,
                              struct hvb_snapshot *source, uint64_t source_offset,
                              uint64_t offset, uint64_t length_bytes);

        /*
         * Notes about an open snapshot, written in place: over bytes of its VM-state area that
         * were saved (save_vmstate) behind what became its vm_state_bytes, where nobody looks who
         * goes by that size.  Read by snapshot_preadv with HVB_REQ_VMSTATE.  Durable after a
         * flush; a crash before leaves old and new sectors, so give them a checksum.  Not while
         * share_vmstate of the same bytes is in flight.
         *
         * -EINVAL: not behind vm_state_bytes, or request_alignment.  -ENOTSUP: nothing was saved
         * there, or the clusters are not this snapshot's alone (QEMU has gone to it, or they were
         * shared); nothing can be noted then.  -EROFS, -ESTALE, -EINPROGRESS, -EIO as elsewhere.
         * After an error some of it may have been written.
         */
        void (*snapshot_note)(struct hvb_queue *queue, struct hvb_request *request,
                              struct hvb_snapshot *snapshot, uint64_t offset,
                              const struct iovec *iov, unsigned iov_count);
};

/*
 * Returns the driver, constant for the life of the process, or NULL when it
 * cannot serve a host built for abi_version.  Any thread.
 */
typedef const struct hvb_driver *(*hvb_driver_entry_fn)(uint32_t abi_version);

/* Does the table reach as far as member?  For members younger than version 1. */
#define HVB_HAS(driver, member) \
        ((driver)->struct_bytes >= \
                 offsetof(struct hvb_driver, member) + sizeof((driver)->member) && \
         (driver)->member != NULL)

#ifdef __cplusplus
}
#endif

#endif
