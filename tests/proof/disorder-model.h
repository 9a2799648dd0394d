/*
 * disorder-model.h - what units of a disk may hold while requests overlap.
 *
 * A unit is 128 bytes of the disk that only change together.  It knows the changes
 * (writes, zeroings, whatever sets it) that may have been the last one: each with a
 * value, when it was started, and the latest moment at which it has happened.  A change
 * is overwritten at the moment when a later one, started after it had happened, has
 * happened itself.  Moments are numbers that grow by one at each start and completion.
 *
 * A read tells more than it returns: what it did not see, and had happened before it, has been
 * overwritten; and if only one change explains what it saw, that one has happened.  Later
 * reads are judged by that, so a disk that goes back to an old value is noticed.
 *
 * Value 0 is zeros; any other value has a pattern in which unit and value can be read.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef PROOF_DISORDER_MODEL_H
#define PROOF_DISORDER_MODEL_H

#include <stdbool.h>
#include <stdint.h>

enum { UNIT_BYTES = 128 };

#define MOMENT_NEVER UINT64_MAX
#define VALUE_TORN UINT32_MAX           /* no value's pattern */

struct change {
        uint32_t value;
        uint32_t id;                    /* of the request that does it */
        bool maybe;                     /* it may never happen */
        uint64_t started;
        uint64_t happened;              /* at the latest; MOMENT_NEVER: in flight */
        uint64_t overwritten;           /* at the latest */
};

struct unit {
        struct change *changes;
        unsigned count;
        unsigned capacity;
};

struct area {
        struct unit *units;
        uint64_t unit_count;
};

/* When something was as it was seen: after begin, before end. */
struct moments {
        uint64_t begin;
        uint64_t end;
};

/* All units hold zeros. */
struct area *area_new(uint64_t unit_count);
void area_free(struct area *area);

/* A change of one unit is in flight from now on.  Changes overwritten by oldest, when the oldest
 * request in flight began, are forgotten. */
void area_begin(struct area *area, uint64_t unit, const struct change *change, uint64_t oldest);

/* The change that id began: it has happened, or may have, or has not.  False: it has not, but
 * was seen. */
enum change_end { CHANGE_DONE, CHANGE_MAYBE, CHANGE_NOT };
bool area_end(struct area *area, uint64_t unit, uint32_t id, enum change_end how, uint64_t now);

/*
 * Between the moments in *when the unit was seen to hold value.  False: it cannot have.
 * *when is narrowed to the moments at which it can.
 */
bool area_see(struct area *area, uint64_t unit, uint32_t value, struct moments *when);

/* "2 or 7 (maybe) ..." for people; g_free it. */
char *area_describe(const struct area *area, uint64_t unit, uint64_t begin);

/* The pattern, and which it is. */
void unit_fill(uint8_t *bytes, uint64_t unit, uint32_t value);
uint32_t unit_value(const uint8_t *bytes, uint64_t unit);

#endif
