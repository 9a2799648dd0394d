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
/* Of a list of formats the first, and each third after it: versions 2 and 3 are put there. */
enum { EFFORT_EVERY = 3 };
#else
#define EFFORT(count) (count)
enum { EFFORT_EVERY = 1 };
#endif

#endif
