/*
 * disorder-model.c - see disorder-model.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "disorder-model.h"

#include <glib.h>
#include <string.h>

enum { UNIT_WORDS = UNIT_BYTES / 8 };

struct area *area_new(uint64_t unit_count)
{
        static const struct change zeros = { .overwritten = MOMENT_NEVER };
        struct area *area = g_new0(struct area, 1);
        uint64_t i;

        area->units = g_new0(struct unit, unit_count);
        area->unit_count = unit_count;
        for (i = 0; i < unit_count; i++)
                area_begin(area, i, &zeros, 0);
        return area;
}

void area_free(struct area *area)
{
        uint64_t i;

        if (!area)
                return;
        for (i = 0; i < area->unit_count; i++)
                g_free(area->units[i].changes);
        g_free(area->units);
        g_free(area);
}

static void forget_old(struct unit *u, uint64_t oldest)
{
        unsigned kept = 0;
        unsigned i;

        for (i = 0; i < u->count; i++)
                if (u->changes[i].overwritten > oldest)
                        u->changes[kept++] = u->changes[i];
        u->count = kept;
}

void area_begin(struct area *area, uint64_t unit, const struct change *change, uint64_t oldest)
{
        struct unit *u = &area->units[unit];

        g_assert(unit < area->unit_count);
        forget_old(u, oldest);
        if (u->count == u->capacity) {
                u->capacity = MAX(4, 2 * u->capacity);
                u->changes = g_renew(struct change, u->changes, u->capacity);
        }
        u->changes[u->count++] = *change;
}

/* What had happened when c began is overwritten now that c has happened. */
static void has_happened(struct unit *u, struct change *c, uint64_t now)
{
        unsigned i;

        c->happened = MIN(c->happened, now);
        c->maybe = false;
        for (i = 0; i < u->count; i++)
                if (u->changes[i].happened < c->started)
                        u->changes[i].overwritten = MIN(u->changes[i].overwritten, c->happened);
}

bool area_end(struct area *area, uint64_t unit, uint32_t id, enum change_end how, uint64_t now)
{
        struct unit *u = &area->units[unit];
        struct change *c;
        bool was_seen;

        for (c = u->changes; c < u->changes + u->count && c->id != id; c++)
                ;
        if (c == u->changes + u->count)
                return how != CHANGE_NOT;       /* seen, and overwritten since */
        was_seen = c->happened != MOMENT_NEVER;
        if (how == CHANGE_NOT) {
                *c = u->changes[--u->count];
                return !was_seen;
        }
        c->maybe = !was_seen && (c->maybe || how == CHANGE_MAYBE);
        c->happened = MIN(c->happened, now);
        if (!c->maybe)
                has_happened(u, c, now);
        return true;
}

static void learn(struct unit *u, uint32_t value, const struct moments *seen,
                  struct change *only)
{
        unsigned i;

        for (i = 0; i < u->count; i++) {
                struct change *c = &u->changes[i];

                if (c->value != value && c->happened < seen->begin)
                        c->overwritten = MIN(c->overwritten, seen->end);
        }
        if (only)
                has_happened(u, only, seen->end);
}

bool area_see(struct area *area, uint64_t unit, uint32_t value, struct moments *when)
{
        struct unit *u = &area->units[unit];
        struct moments seen = *when;
        struct moments can = { MOMENT_NEVER, 0 };
        struct change *only = NULL;
        unsigned matches = 0;
        unsigned i;

        g_assert(unit < area->unit_count);
        for (i = 0; i < u->count; i++) {
                struct change *c = &u->changes[i];

                if (c->value != value || c->overwritten <= seen.begin)
                        continue;
                matches++;
                only = c;
                can.begin = MIN(can.begin, c->started);
                can.end = MAX(can.end, c->overwritten);
        }
        if (matches == 0)
                return false;
        learn(u, value, &seen, matches == 1 ? only : NULL);
        when->begin = MAX(when->begin, can.begin);
        when->end = MIN(when->end, can.end);
        return true;
}

char *area_describe(const struct area *area, uint64_t unit, uint64_t begin)
{
        const struct unit *u = &area->units[unit];
        GString *text = g_string_new(NULL);
        unsigned i;

        for (i = 0; i < u->count; i++)
                if (u->changes[i].overwritten > begin)
                        g_string_append_printf(text, "%s%u%s", text->len ? " or " : "",
                                               u->changes[i].value,
                                               u->changes[i].maybe ? " (maybe)" : "");
        return g_string_free(text, FALSE);
}

/* Odd values do not compress. */
static uint64_t word_of(uint64_t first, unsigned i)
{
        uint64_t x = first + i * UINT64_C(0x9e3779b97f4a7c15);

        if (i == 0 || (first >> 32) % 2 == 0)
                return first;
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        return x ^ (x >> 27);
}

void unit_fill(uint8_t *bytes, uint64_t unit, uint32_t value)
{
        uint64_t first = value == 0 ? 0 : (uint64_t)value << 32 | unit;
        unsigned i;

        for (i = 0; i < UNIT_WORDS; i++) {
                uint64_t word = word_of(first, i);

                memcpy(bytes + i * 8, &word, 8);
        }
}

uint32_t unit_value(const uint8_t *bytes, uint64_t unit)
{
        uint8_t expected[UNIT_BYTES];
        uint64_t first;

        memcpy(&first, bytes, 8);
        unit_fill(expected, unit, (uint32_t)(first >> 32));
        return memcmp(bytes, expected, UNIT_BYTES) == 0 ? (uint32_t)(first >> 32) : VALUE_TORN;
}
