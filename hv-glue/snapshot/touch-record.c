/*
 * touch-record.c - which RAM a guest wants first after a loadvm: bytes.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/touch-record.h"

#include <stdbool.h>
#include <string.h>

#include "snapshot/be.h"
#include "snapshot/ram-guard.h"
#include "snapshot/vm-state.h"

#define MAGIC "hvtouch1"

enum { SUM = 8, SUMMED = 12, UNIT_BYTES = 12, COUNT = 16, UNITS = 20 };

static uint32_t sum_of(const uint8_t *bytes)
{
        return vm_state_sum(bytes + SUMMED, TOUCH_RECORD_BYTES - SUMMED);
}

void touch_record_encode(const GArray *units, uint8_t bytes[TOUCH_RECORD_BYTES])
{
        g_assert(units->len <= TOUCH_RECORD_UNITS);
        memset(bytes, 0, TOUCH_RECORD_BYTES);
        memcpy(bytes, MAGIC, SUM);
        put32(bytes + UNIT_BYTES, RAM_UNIT_BYTES);
        put32(bytes + COUNT, units->len);
        for (guint i = 0; i < units->len; i++)
                put32(bytes + UNITS + (size_t) i * 4, g_array_index(units, uint32_t, i));
        put32(bytes + SUM, sum_of(bytes));
}

GArray *touch_record_decode(const uint8_t bytes[TOUCH_RECORD_BYTES])
{
        uint32_t count = get32(bytes + COUNT);
        GArray *units;

        if (memcmp(bytes, MAGIC, SUM) != 0 || get32(bytes + UNIT_BYTES) != RAM_UNIT_BYTES)
                return NULL;
        units = g_array_new(FALSE, FALSE, sizeof(uint32_t));
        if (count > TOUCH_RECORD_UNITS || get32(bytes + SUM) != sum_of(bytes))
                return units;
        for (uint32_t i = 0; i < count; i++) {
                uint32_t unit = get32(bytes + UNITS + (size_t) i * 4);

                g_array_append_val(units, unit);
        }
        return units;
}

static GHashTable *set_of(const GArray *units)
{
        GHashTable *set = g_hash_table_new(NULL, NULL);

        for (guint i = 0; i < units->len; i++)
                g_hash_table_add(set, GUINT_TO_POINTER(g_array_index(units, uint32_t, i)));
        return set;
}

/* Those that are in the other set, or are not. */
static void append_units(GArray *to, const GArray *from, GHashTable *other, bool are_there)
{
        for (guint i = 0; i < from->len && to->len < TOUCH_RECORD_UNITS; i++) {
                uint32_t unit = g_array_index(from, uint32_t, i);

                if (g_hash_table_contains(other, GUINT_TO_POINTER(unit)) == are_there)
                        g_array_append_val(to, unit);
        }
}

GArray *touch_record_merge(const GArray *old, const GArray *fresh)
{
        g_autoptr(GHashTable) in_old = set_of(old);
        g_autoptr(GHashTable) in_fresh = set_of(fresh);
        GArray *units = g_array_new(FALSE, FALSE, sizeof(uint32_t));

        append_units(units, fresh, in_old, true);
        append_units(units, old, in_fresh, false);
        append_units(units, fresh, in_old, false);
        return units;
}
