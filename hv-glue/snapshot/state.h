/*
 * state.h - bytes of a device's state, written and read field by field, big-endian.
 *
 * Writers never fail visibly until the end (state_writer_error).  A reader never
 * reads beyond its bytes: what is missing reads as 0 and state_reader_end says so.
 * Nothing here knows what the fields mean.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_STATE_H
#define SNAPSHOT_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct state_writer;            /* grows as needed; see state.c */

struct state_reader {
        const uint8_t *bytes;
        size_t left_bytes;
        bool short_read;
};

/* What one writer takes at most; devices have kilobytes. */
#define STATE_WRITER_MAX_BYTES (16u << 20)

/* NULL: no memory.  free: NULL is fine. */
struct state_writer *state_writer_new(void);
void state_writer_free(struct state_writer *w);
/* What was written so far, the writer's; valid until the next put. */
const uint8_t *state_writer_bytes(const struct state_writer *w, size_t *ret_count);
/* 0, or -ENOMEM or -EFBIG (STATE_WRITER_MAX_BYTES): something is missing. */
int state_writer_error(const struct state_writer *w);

void state_put_u8(struct state_writer *w, uint8_t value);
void state_put_u16(struct state_writer *w, uint16_t value);
void state_put_u32(struct state_writer *w, uint32_t value);
void state_put_u64(struct state_writer *w, uint64_t value);
void state_put_bytes(struct state_writer *w, const void *bytes, size_t count);

uint8_t state_get_u8(struct state_reader *r);
uint16_t state_get_u16(struct state_reader *r);
uint32_t state_get_u32(struct state_reader *r);
uint64_t state_get_u64(struct state_reader *r);
void state_get_bytes(struct state_reader *r, void *bytes, size_t count);

/* 0 if exactly all bytes were read; -EINVAL: fewer or more were there. */
int state_reader_end(const struct state_reader *r);

#endif
