/*
 * heap.h - how much memory has been allocated, by the sanitizer's count.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef FUZZ_HEAP_H
#define FUZZ_HEAP_H

#include <stdint.h>

/* Once, before anything is counted. */
void heap_watch(void);

/* The most that was allocated at a time since then, beyond what was at that moment.  Nothing is
 * freed twice in that count: memory from before that goes makes room. */
void heap_peak_begin(void);
uint64_t heap_peak(void);

#endif
