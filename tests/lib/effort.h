/*
 * effort.h - how much a test does in which build: of random rounds, of formats.
 *
 * Sanitizers look at what is done, not at what comes out: a part of it is enough for them.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_LIB_EFFORT_H
#define TESTS_LIB_EFFORT_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EFFORT(count) (((count) + 3) / 4)
enum { EFFORT_EVERY = 3 };             /* one of so many formats */
#else
#define EFFORT(count) (count)
enum { EFFORT_EVERY = 1 };
#endif

#endif
