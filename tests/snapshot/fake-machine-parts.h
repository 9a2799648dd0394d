/*
 * fake-machine-parts.h - what the files of the fake machine share: what it is made of, and what
 * step n does.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_FAKE_MACHINE_PARTS_H
#define TESTS_FAKE_MACHINE_PARTS_H

#include <glib.h>
#include <pthread.h>

#include "snapshot/fake-machine.h"

enum { WRITES_IN_FLIGHT = 8, ZERO_EVERY = 5, LOCK_PATIENCE_MS = 20000 };

#define DISK_BYTES (UINT64_C(4) << 20)
#define BLOCK_COUNT (DISK_BYTES / FAKE_BLOCK_BYTES)

struct fake_vcpu {
        struct device device;
        struct machine *machine;
        uint64_t step;                  /* vcpu 0: n; others: a constant of theirs */
        int fail_apply;
};

/* A device with requests in flight: one for all disks. */
struct fake_blk {
        struct device device;
        struct machine *machine;
};

struct write {
        struct machine *machine;
        struct drive_op *op;
        unsigned disk;
        uint64_t block;
        uint64_t bytes[FAKE_BLOCK_BYTES / 8];
        struct iovec iov;
        bool busy;                      /* under the lock */
};

struct machine {
        struct guest_memory memory;
        struct machine_disk disks[FAKE_MAX_DISKS];
        char ids[FAKE_MAX_DISKS][16];
        unsigned disk_count;
        struct fake_vcpu vcpus[FAKE_VCPUS];
        struct fake_blk blk;
        struct device *devices[FAKE_VCPUS + 1];
        struct write writes[WRITES_IN_FLIGHT];
        pthread_t guest;
        char *failure;
        char *told;
        uint64_t clock_nsec;
        uint64_t page_count;            /* that the guest writes to */
        void (*on_swap)(struct machine *m);
        gint64 stepped_at;              /* the guest's; microseconds */
        gint64 longest_usec;            /* under the lock */

        pthread_mutex_t lock;           /* of all below */
        pthread_cond_t changed;
        enum run_state state;
        enum run_state before;
        bool paused;
        bool lost;                      /* RAM, while paused */
        bool running;
        bool stepping;
        bool quitting;
        uint64_t stop_at;               /* the guest stops by itself there; 0: nowhere */
        gint64 paused_at;
};

/* ---- What step n does --------------------------------------------------------------- */

static inline uint64_t mix(uint64_t n)
{
        n = (n ^ n >> 31) * UINT64_C(0x9e3779b97f4a7c15);
        return n ^ n >> 29;
}

static inline uint64_t page_of(const struct machine *m, uint64_t n)
{
        return mix(n) % m->page_count;
}

static inline uint64_t page_fill(uint64_t n)
{
        return n % ZERO_EVERY == 0 ? 0 : n;
}

static inline unsigned disk_of(const struct machine *m, uint64_t n)
{
        return (unsigned) (n % m->disk_count);
}

static inline uint64_t block_of(uint64_t n)
{
        return mix(n * 3 + 1) % BLOCK_COUNT;
}

static inline void fill(uint64_t *words, size_t bytes, uint64_t value)
{
        for (size_t i = 0; i < bytes / 8; i++)
                words[i] = value;
}

static inline bool is_filled(const uint64_t *words, size_t bytes, uint64_t value)
{
        for (size_t i = 0; i < bytes / 8; i++)
                if (words[i] != value)
                        return false;
        return true;
}

#endif
