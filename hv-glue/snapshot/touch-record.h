/*
 * touch-record.h - which RAM a guest wants first after a loadvm, kept with the snapshot.
 *
 * A hint: the units (ram-guard.h) that somebody had to wait for while the snapshot was loaded, in
 * about that order.  The next load reads them first.
 *
 * Bytes, behind a VM state's end (vm-state.h), numbers big-endian:
 *
 *   0  8 magic "hvtouch1"
 *   8  4 sum of all that follows, TOUCH_RECORD_BYTES - 12 bytes
 *  12  4 unit_bytes: 65536
 *  16  4 count, at most TOUCH_RECORD_UNITS
 *  20    count units, 4 bytes each; zeros
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SNAPSHOT_TOUCH_RECORD_H
#define SNAPSHOT_TOUCH_RECORD_H

#include <glib.h>
#include <stdint.h>

enum {
        TOUCH_RECORD_BYTES = 64 << 10,
        TOUCH_RECORD_UNITS = (TOUCH_RECORD_BYTES - 20) / 4,
};

/* units: of uint32_t, at most TOUCH_RECORD_UNITS of them. */
void touch_record_encode(const GArray *units, uint8_t bytes[TOUCH_RECORD_BYTES]);

/* NULL: what lies there is no record of this kind.  A damaged one has no units.  Those that there
 * are may be any numbers.  g_array_unref. */
GArray *touch_record_decode(const uint8_t bytes[TOUCH_RECORD_BYTES]);

/*
 * The next record: units of old that were waited for again, for they come too late; the others of
 * old, which seem to have come in time; and what is new in fresh, as long as there is room.
 * g_array_unref.
 */
GArray *touch_record_merge(const GArray *old, const GArray *fresh);

#endif
