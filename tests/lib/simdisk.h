/*
 * simdisk.h - simulated files, and an engine that does I/O on them.
 *
 * Everything that a real disk does when it likes - completing out of order,
 * transferring less, failing, losing power - happens here as the seed says.  The
 * same seed and the same calls give the same run.
 *
 * A simdisk outlives its engines: close the image, destroy the loop, open again.
 * simdisk-cut.h tells what a power cut could leave of it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_LIB_SIMDISK_H
#define TESTS_LIB_SIMDISK_H

#include "async/io.h"
#include "lib/simdisk-image.h"

enum { SIM_SECTOR_BYTES = 512, SIM_FILES_MAX = 8 };

/* A small generator, for tests too.  Zero is a fine seed. */
struct sim_random {
        uint64_t state;
};

uint64_t sim_random_next(struct sim_random *random);
uint64_t sim_random_below(struct sim_random *random, uint64_t limit);     /* limit > 0 */

/* Zeroed: I/Os complete in order, whole, one step after they were started. */
struct sim_options {
        uint64_t seed;
        unsigned outstanding_max;       /* I/Os the disk knows at a time; 0: 64 */
        unsigned delay_max;             /* more steps that one may take */
        bool reorder;
        unsigned short_percent;         /* of transfers that end early */
        unsigned short_bytes;           /* ... after a multiple of so many; 0: the alignment */
        unsigned retry_percent;         /* of I/Os that end with EINTR or EAGAIN */
        bool record;                    /* keep the log, for simdisk-cut.h */
        bool wait_for_notify;           /* waiting with nothing in flight waits for another
                                         * thread, rather than being a deadlock */
};

struct sim_file {
        struct sim_image image;         /* what a read sees */
        struct sim_image at_start;      /* content when the recording began; all durable */
        uint64_t length_max;            /* -ENOSPC beyond; 0: none */
        uint32_t alignment;             /* as with O_DIRECT; 0 or 1: none */
        bool is_block_device;           /* length fixed */
        bool no_punch;                  /* -EOPNOTSUPP */
        bool no_zero;                   /* -EOPNOTSUPP */
};

/*
 * Makes I/Os fail.  Each start of an I/O that matches is counted, the rests of short
 * transfers too; the nth, counting from 1, ends with error, and so do all later ones
 * if sticky.  A write that fails leaves the file alone; with torn, some of its first
 * sectors were written all the same.
 */
struct sim_fault {
        unsigned ops;                   /* 1 << enum io_op, or'ed; 0: any */
        int file;                       /* -1: any */
        uint64_t nth;
        bool sticky;
        bool torn;
        int error;                      /* negative errno */
        uint64_t seen;                  /* counted so far */
        uint64_t hits;                  /* I/Os that failed of it */
};

/* A change of a file, or an IO_FSYNC.  Times count moments, see simdisk_moments. */
struct sim_entry {
        enum io_op op;
        unsigned file;
        uint64_t offset;
        uint64_t length;                /* of an IO_WRITE: of what is written */
        uint8_t *data;                  /* of an IO_WRITE */
        uint64_t submitted;
        uint64_t completed;             /* UINT64_MAX: in flight */
        int result;                     /* 0 or -errno; settled from the beginning */
};

struct sim_moment {
        unsigned entry;
        bool completes;                 /* else it is the submission */
};

struct simdisk {
        struct sim_options options;
        struct sim_random random;
        struct sim_file files[SIM_FILES_MAX];
        unsigned file_count;
        GArray *faults;                 /* of struct sim_fault */
        GArray *entries;                /* of struct sim_entry, as submitted */
        GArray *moments;                /* of struct sim_moment; moment t happens at time t */
        uint64_t step;
        uint64_t io_count;              /* ever started */
        uint64_t read_bytes;            /* ever asked for */
        uint64_t trace_hash;            /* of every start and completion, reads included */
        uint64_t changed_buffers;       /* writes whose buffers changed while in flight */
};

struct simdisk *simdisk_new(const struct sim_options *options);        /* NULL: defaults */
void simdisk_free(struct simdisk *disk);        /* no engine may be left */

/* An empty file.  Its number is the fd to pass to io_file_open. */
int simdisk_file_new(struct simdisk *disk);

/* Replaces the content of a file by a copy, as something durable.  The log must be
 * empty or simdisk_forget called next. */
void simdisk_file_load(struct simdisk *disk, int file, const struct sim_image *image);

/* Clears the log; the contents now are durable. */
void simdisk_forget(struct simdisk *disk);

/* The fault counts from now on.  The result is its index in disk->faults. */
unsigned simdisk_fault_add(struct simdisk *disk, const struct sim_fault *fault);
struct sim_fault *simdisk_fault(struct simdisk *disk, unsigned index);
void simdisk_faults_clear(struct simdisk *disk);

/* How many moments (submissions and completions) the log has.  A power cut at point
 * t comes when moments 0 .. t - 1 have happened. */
uint64_t simdisk_moments(const struct simdisk *disk);
const struct sim_entry *simdisk_entry(const struct simdisk *disk, unsigned index);

/* The engine; it goes to loop_init.  The disk must outlive it.  Its run returns
 * -EDEADLK when it is to wait for ever with nothing in flight. */
struct engine *simdisk_engine_new(struct simdisk *disk);

/* Does to an image what the entry does. */
void sim_entry_apply(const struct sim_entry *entry, struct sim_image *image);

#endif
