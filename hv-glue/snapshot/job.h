/*
 * job.h - counting and cancelling in a struct vm_job, which others look at meanwhile.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_JOB_H
#define SNAPSHOT_JOB_H

#include "snapshot/vm-snapshot.h"

static inline void job_count(uint64_t *counter, uint64_t bytes)
{
        __atomic_fetch_add(counter, bytes, __ATOMIC_RELAXED);
}

static inline void job_set(uint64_t *counter, uint64_t bytes)
{
        __atomic_store_n(counter, bytes, __ATOMIC_RELAXED);
}

static inline bool job_is_cancelled(struct vm_job *job)
{
        return g_atomic_int_get(&job->cancelled) != 0;
}

#endif
