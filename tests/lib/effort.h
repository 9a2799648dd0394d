/*
 * effort.h - how much a random test does in which build.
 *
 * Sanitizers look at what is done, not at what comes out: a part of it is enough for them.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_LIB_EFFORT_H
#define TESTS_LIB_EFFORT_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define EFFORT(count) (((count) + 3) / 4)
#else
#define EFFORT(count) (count)
#endif

#endif
