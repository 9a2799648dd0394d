/*
 * vm-state.c - the bytes of a VM state: encode, decode, judge.
 *
 * SPDX-License-Identifier: MIT
 */
#include "snapshot/vm-state.h"

#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "host/error.h"
#include "snapshot/be.h"
#include "snapshot/page-map.h"

enum { MAGIC_BYTES = 8, SUM_OFFSET = 20, RAM_GRANULE = 1 << 20 };

#define QEMU_MAGIC "QEVM"

uint32_t vm_state_sum(const void *bytes, size_t count)
{
        return (uint32_t) crc32_z(0, bytes, count);
}

/* ---- Header ------------------------------------------------------------------------- */

void vm_state_header_encode(const struct vm_state_header *h, uint8_t page[VM_STATE_PAGE_BYTES])
{
        memset(page, 0, VM_STATE_PAGE_BYTES);
        memcpy(page, VM_STATE_MAGIC, MAGIC_BYTES);
        put32(page + 8, h->format);
        put32(page + 12, h->oldest_reader);
        put32(page + 16, VM_STATE_HEADER_BYTES);
        put64(page + 24, h->state_bytes);
        put64(page + 32, h->ram_bytes);
        put64(page + 40, h->ram_offset);
        put32(page + 48, VM_STATE_PAGE_BYTES);
        put32(page + 52, h->cpu_count);
        put64(page + 56, h->map_offset);
        put64(page + 64, h->map_bytes);
        put32(page + 72, h->map_sum);
        put32(page + 76, h->section_count);
        put64(page + 80, h->table_offset);
        put32(page + 88, h->entry_bytes);
        put32(page + 92, h->table_sum);
        put64(page + 96, h->clock_nsec);
        put64(page + 104, h->stored_pages);
        put32(page + SUM_OFFSET, vm_state_sum(page, VM_STATE_HEADER_BYTES));
}

/* Is it ours, readable and whole?  Only then its fields mean anything. */
static int judge_magic(const uint8_t *page, struct hvb_error *err)
{
        uint32_t header_bytes = get32(page + 16);
        uint8_t copy[VM_STATE_PAGE_BYTES];

        if (memcmp(page, QEMU_MAGIC, strlen(QEMU_MAGIC)) == 0)
                return error_set(err, -ENOTSUP, "this VM state is QEMU's (magic \"" QEMU_MAGIC
                                 "\"): only QEMU loads it");
        if (memcmp(page, VM_STATE_MAGIC, MAGIC_BYTES) != 0)
                return error_set(err, -EINVAL, "no VM state of this hypervisor: magic 0x%016"
                                 PRIx64 " instead of \"" VM_STATE_MAGIC "\"", get64(page));
        if (header_bytes < VM_STATE_HEADER_BYTES || header_bytes > VM_STATE_PAGE_BYTES)
                return error_set(err, -EINVAL, "VM state: header_bytes is %" PRIu32
                                 ", must be %d to %d", header_bytes, VM_STATE_HEADER_BYTES,
                                 VM_STATE_PAGE_BYTES);
        memcpy(copy, page, VM_STATE_PAGE_BYTES);
        put32(copy + SUM_OFFSET, 0);
        if (vm_state_sum(copy, header_bytes) != get32(page + SUM_OFFSET))
                return error_set(err, -EINVAL, "VM state: the header is damaged (its sum is 0x%08"
                                 PRIx32 ")", get32(page + SUM_OFFSET));
        if (get32(page + 12) > VM_STATE_FORMAT)
                return error_set(err, -ENOTSUP, "VM state of format %" PRIu32 ", which needs a "
                                 "reader of format %" PRIu32 "; this one is of format %u",
                                 get32(page + 8), get32(page + 12), VM_STATE_FORMAT);
        if (get32(page + 12) == 0 || get32(page + 12) > get32(page + 8))
                return error_set(err, -EINVAL, "VM state: oldest_reader is %" PRIu32
                                 ", must be 1 to %" PRIu32 " (format)", get32(page + 12),
                                 get32(page + 8));
        return 0;
}

static void decode_fields(const uint8_t *page, struct vm_state_header *h)
{
        *h = (struct vm_state_header) {
                .format = get32(page + 8),
                .oldest_reader = get32(page + 12),
                .state_bytes = get64(page + 24),
                .ram_bytes = get64(page + 32),
                .ram_offset = get64(page + 40),
                .cpu_count = get32(page + 52),
                .map_offset = get64(page + 56),
                .map_bytes = get64(page + 64),
                .map_sum = get32(page + 72),
                .section_count = get32(page + 76),
                .table_offset = get64(page + 80),
                .entry_bytes = get32(page + 88),
                .table_sum = get32(page + 92),
                .clock_nsec = get64(page + 96),
                .stored_pages = get64(page + 104),
        };
}

/* value must be min..max and a multiple of unit. */
static int judge_number(const char *field, uint64_t value, uint64_t min, uint64_t max,
                        uint64_t unit, struct hvb_error *err)
{
        if (value >= min && value <= max && value % unit == 0)
                return 0;
        return error_set(err, -EINVAL, "VM state: %s is %" PRIu64 ", must be %" PRIu64 " to %"
                         PRIu64 " and a multiple of %" PRIu64, field, value, min, max, unit);
}

static int judge_numbers(const uint8_t *page, const struct vm_state_header *h,
                         uint64_t limit_bytes, struct hvb_error *err)
{
        const struct {
                const char *field;
                uint64_t value, min, max, unit;
        } rules[] = {
                { "page_bytes", get32(page + 48), VM_STATE_PAGE_BYTES, VM_STATE_PAGE_BYTES, 1 },
                { "ram_bytes", h->ram_bytes, RAM_GRANULE, VM_STATE_MAX_RAM_BYTES, RAM_GRANULE },
                { "ram_offset", h->ram_offset, VM_STATE_ALIGNMENT, INT64_MAX,
                  VM_STATE_ALIGNMENT },
                { "cpu_count", h->cpu_count, 1, VM_STATE_MAX_CPUS, 1 },
                { "section_count", h->section_count, 1, VM_STATE_MAX_SECTIONS, 1 },
                { "entry_bytes", h->entry_bytes, VM_STATE_ENTRY_BYTES, VM_STATE_MAX_ENTRY_BYTES,
                  8 },
                { "stored_pages", h->stored_pages, 0, h->ram_bytes / VM_STATE_PAGE_BYTES, 1 },
                { "map_offset", h->map_offset, VM_STATE_PAGE_BYTES, INT64_MAX, 8 },
                { "table_offset", h->table_offset, VM_STATE_PAGE_BYTES, INT64_MAX, 8 },
        };

        if (h->state_bytes > limit_bytes)
                return error_set(err, -EINVAL, "VM state is truncated: state_bytes is %" PRIu64
                                 ", the snapshot's vm_state_size %" PRIu64, h->state_bytes,
                                 limit_bytes);
        for (size_t i = 0; i < G_N_ELEMENTS(rules); i++) {
                int ret = judge_number(rules[i].field, rules[i].value, rules[i].min,
                                       rules[i].max, rules[i].unit, err);

                if (ret < 0)
                        return ret;
        }
        if (h->map_bytes != page_map_bytes(h->ram_bytes / VM_STATE_PAGE_BYTES))
                return error_set(err, -EINVAL, "VM state: map_bytes is %" PRIu64 ", must be %"
                                 PRIu64 " for RAM of %" PRIu64 " bytes", h->map_bytes,
                                 page_map_bytes(h->ram_bytes / VM_STATE_PAGE_BYTES),
                                 h->ram_bytes);
        return 0;
}

/* ---- What lies where ---------------------------------------------------------------- */

struct area {
        const char *name;
        uint64_t offset;
        uint64_t bytes;
};

static gint compare_areas(gconstpointer a, gconstpointer b)
{
        const struct area *x = a;
        const struct area *y = b;

        return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Sorts areas.  All must lie within state_bytes, and no two may overlap. */
static int judge_areas(struct area *areas, size_t count, uint64_t state_bytes,
                       struct hvb_error *err)
{
        qsort(areas, count, sizeof(*areas), compare_areas);
        for (size_t i = 0; i < count; i++) {
                const struct area *a = &areas[i];

                if (a->offset > state_bytes || a->bytes > state_bytes - a->offset)
                        return error_set(err, -EINVAL, "VM state: %s, %" PRIu64 " bytes at 0x%"
                                         PRIx64 ", ends behind state_bytes, %" PRIu64, a->name,
                                         a->bytes, a->offset, state_bytes);
                if (i > 0 && a->offset < a[-1].offset + a[-1].bytes)
                        return error_set(err, -EINVAL, "VM state: %s at 0x%" PRIx64 " overlaps %s"
                                         " at 0x%" PRIx64, a->name, a->offset, a[-1].name,
                                         a[-1].offset);
        }
        return 0;
}

enum { FIXED_AREAS = 4 };

static void fixed_areas(const struct vm_state_header *h, struct area areas[FIXED_AREAS])
{
        areas[0] = (struct area) { "the header", 0, VM_STATE_PAGE_BYTES };
        areas[1] = (struct area) { "RAM", h->ram_offset, h->ram_bytes };
        areas[2] = (struct area) { "the page map", h->map_offset, h->map_bytes };
        areas[3] = (struct area) { "the section table", h->table_offset,
                                   vm_state_table_bytes(h) };
}

uint64_t vm_state_touch_offset(const struct vm_state_header *h)
{
        return (h->state_bytes + VM_STATE_ALIGNMENT - 1) / VM_STATE_ALIGNMENT * VM_STATE_ALIGNMENT;
}

uint64_t vm_state_table_bytes(const struct vm_state_header *h)
{
        return (uint64_t) h->section_count * h->entry_bytes;
}

int vm_state_header_decode(const uint8_t page[VM_STATE_PAGE_BYTES], uint64_t limit_bytes,
                           struct vm_state_header *ret_header, struct hvb_error *err)
{
        struct area areas[FIXED_AREAS];
        struct vm_state_header h;
        int ret = judge_magic(page, err);

        if (ret < 0)
                return ret;
        decode_fields(page, &h);
        ret = judge_numbers(page, &h, limit_bytes, err);
        if (ret < 0)
                return ret;
        fixed_areas(&h, areas);
        ret = judge_areas(areas, FIXED_AREAS, h.state_bytes, err);
        if (ret == 0)
                *ret_header = h;
        return ret;
}

/* ---- Sections ----------------------------------------------------------------------- */

void vm_state_section_encode(const struct vm_state_section *s,
                             uint8_t entry[VM_STATE_ENTRY_BYTES])
{
        memset(entry, 0, VM_STATE_ENTRY_BYTES);
        memcpy(entry, s->name, strnlen(s->name, VM_STATE_NAME_BYTES - 1));
        put32(entry + 32, s->instance);
        put32(entry + 36, s->version);
        put32(entry + 40, s->flags);
        put32(entry + 44, s->sum);
        put64(entry + 48, s->offset);
        put64(entry + 56, s->bytes);
}

static int decode_entry(const uint8_t *entry, uint32_t index, struct vm_state_section *s,
                        struct hvb_error *err)
{
        size_t length = strnlen((const char *) entry, VM_STATE_NAME_BYTES);

        if (length == 0 || length == VM_STATE_NAME_BYTES)
                return error_set(err, -EINVAL, "VM state: the name of section %" PRIu32
                                 " has %zu bytes, must have 1 to %d", index, length,
                                 VM_STATE_NAME_BYTES - 1);
        for (size_t i = 0; i < length; i++)
                if (!g_ascii_isgraph(entry[i]))
                        return error_set(err, -EINVAL, "VM state: the name of section %" PRIu32
                                         " has a byte 0x%02x", index, entry[i]);
        *s = (struct vm_state_section) {
                .instance = get32(entry + 32),
                .version = get32(entry + 36),
                .flags = get32(entry + 40),
                .sum = get32(entry + 44),
                .offset = get64(entry + 48),
                .bytes = get64(entry + 56),
        };
        memcpy(s->name, entry, length);
        if (s->bytes > VM_STATE_MAX_SECTION_BYTES)
                return error_set(err, -EINVAL, "VM state: section '%s' has %" PRIu64
                                 " bytes, limit %d", s->name, s->bytes,
                                 VM_STATE_MAX_SECTION_BYTES);
        return 0;
}

static int judge_names(const struct vm_state_section *sections, uint32_t count,
                       struct hvb_error *err)
{
        g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

        for (uint32_t i = 0; i < count; i++) {
                const struct vm_state_section *s = &sections[i];

                if (!g_hash_table_add(seen, g_strdup_printf("%s %" PRIu32, s->name, s->instance)))
                        return error_set(err, -EINVAL, "VM state: section '%s' %" PRIu32
                                         " is there twice", s->name, s->instance);
        }
        return 0;
}

static int judge_places(const struct vm_state_header *h, const struct vm_state_section *sections,
                        struct hvb_error *err)
{
        g_autofree struct area *areas = g_new(struct area, FIXED_AREAS + h->section_count);
        size_t count = FIXED_AREAS;
        uint64_t sum = 0;

        fixed_areas(h, areas);
        for (uint32_t i = 0; i < h->section_count; i++) {
                sum += sections[i].bytes;
                if (sections[i].bytes > 0)
                        areas[count++] = (struct area) { sections[i].name, sections[i].offset,
                                                         sections[i].bytes };
        }
        if (sum > VM_STATE_MAX_SECTIONS_BYTES)
                return error_set(err, -EINVAL, "VM state: its sections have %" PRIu64
                                 " bytes, limit %d", sum, VM_STATE_MAX_SECTIONS_BYTES);
        return judge_areas(areas, count, h->state_bytes, err);
}

int vm_state_sections_decode(const struct vm_state_header *h, const uint8_t *table,
                             struct vm_state_section **ret_sections, struct hvb_error *err)
{
        g_autofree struct vm_state_section *sections = NULL;
        int ret;

        if (vm_state_sum(table, vm_state_table_bytes(h)) != h->table_sum)
                return error_set(err, -EINVAL, "VM state: the section table is damaged (its sum "
                                 "is not 0x%08" PRIx32 ")", h->table_sum);
        sections = g_try_new0(struct vm_state_section, h->section_count);
        if (sections == NULL)
                return error_set(err, -ENOMEM, "no memory for %" PRIu32 " sections of a VM state",
                                 h->section_count);
        for (uint32_t i = 0; i < h->section_count; i++) {
                ret = decode_entry(table + (size_t) i * h->entry_bytes, i, &sections[i], err);
                if (ret < 0)
                        return ret;
        }
        ret = judge_names(sections, h->section_count, err);
        if (ret == 0)
                ret = judge_places(h, sections, err);
        if (ret == 0)
                *ret_sections = g_steal_pointer(&sections);
        return ret;
}

int vm_state_section_check(const struct vm_state_section *s, const uint8_t *bytes,
                           struct hvb_error *err)
{
        if (vm_state_sum(bytes, s->bytes) == s->sum)
                return 0;
        return error_set(err, -EINVAL, "VM state: section '%s' %" PRIu32 " is damaged (its sum is"
                         " not 0x%08" PRIx32 ")", s->name, s->instance, s->sum);
}
